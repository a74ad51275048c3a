"""How good a role's work on an exercise is: scores from real execution, and the words of an expert who looked at it.

Each judge goes up a ladder, the cheap rungs first: the answer can be read, it stands the role's own checks, it agrees
with what is known of the exercise, the script it leads to runs. A score is the share of the ladder that was climbed,
in [0, 1], a tenth less for every repair. `success` is the whole ladder, repaired or not. Nothing is trained.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, NamedTuple

import dspy

from m3dspy.errors import RunFailed
from m3dspy.m3bench.exercise import Exercise
from m3dspy.optimizers.likeness import Facet, of_design, of_index, of_plan
from m3dspy.optimizers.practice import WHOLE, lesson, unswallowed
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.role import complaint_of
from m3dspy.signatures.values import ROLES

REPAIRED = 0.9  # the score is multiplied by it for each repair
READ, STOOD = 0.1, 0.3  # the first rungs: the answer can be read; it stood the role's own checks
MOST_LINES = 12  # of a script that a mended fault may change


class Verdict(NamedTuple):
    """What an answer is worth; `feedback` says what was wrong with it, and what an expert would have done.

    `blame`: of all four in a row, the first role whose work was not right; "" where all was, or one works alone.
    """

    score: float
    success: bool
    feedback: str
    blame: str = ""


class Metric:
    """The metric of one role, in the form that DSPy's optimizers call it, GEPA's five arguments included.

    With a trace (an optimizer collects demonstrations) it says whether the work is fit to be shown: right at once. For
    a named predictor (GEPA reflects) it adds feedback; the score is the same.
    """

    def __init__(self, role: str, workshop: Workshop, track: Track):
        self.role, self.workshop, self.track = role, workshop, track

    def __call__(
        self,
        gold: dspy.Example,
        pred: dspy.Prediction,
        trace: Any = None,
        pred_name: Any = None,
        pred_trace: Any = None,
    ) -> Any:
        verdict = self.verdict(gold, pred)
        if pred_name is not None:
            return dspy.Prediction(score=verdict.score, feedback=verdict.feedback)
        return verdict.success and not pred.complaints if trace is not None else verdict.score

    def verdict(self, case: dspy.Example, done: dspy.Prediction) -> Verdict:
        """The whole verdict; the track hears of it."""
        with unswallowed():
            verdict = judge(self.role, self.workshop.exercise(case.exercise), done, self.workshop)
        self.track.score(done.program, case.exercise, verdict.score)
        return verdict


def examine(program: dspy.Module, cases: Sequence[dspy.Example], metric: Metric, threads: int) -> list[Verdict]:
    """The verdict on each case, in order; so many cases at a time.

    Raises: whatever a case raises, at once.
    """

    def one(case: dspy.Example) -> Verdict:
        return metric.verdict(case, program(**case.inputs()))

    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(copy_context().run, one, case) for case in cases]
        try:
            return [case.result() for case in waiting]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def judge(role: str, exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    """The verdict on what a role, or all of them ("whole"), made of an exercise.

    Args: done: the prediction of a `Practice`, or of a `Rehearsal`.
    """
    verdict = _JUDGES[role](exercise, done, workshop)
    heard = [f"An answer was refused: {words}" for words in done.complaints]
    feedback = "\n".join([*heard, verdict.feedback])
    return verdict._replace(score=verdict.score * REPAIRED ** len(done.complaints), feedback=feedback)


def _plan(exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    if exercise.refused:
        if done.refusal:
            return Verdict(1.0, True, "Rightly refused.")
        made = done.problem or "it was bent into a plan"
        return Verdict(
            READ if done.readable else 0.0,
            False,
            f"This folder cannot serve the request, so it must be refused; but {made}.",
        )
    plan, index, _ = exercise.answers
    if done.refusal:
        return Verdict(READ, False, f"Refused, though it can be served ({plan.goal}). The refusal said: {done.refusal}")
    return _ladder(done, lambda made: of_plan(made, plan, index), done.work)


def _index(exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    return _ladder(done, lambda made: of_index(made, exercise, exercise.plan), done.work)


def _design(exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    def facets(design: Any) -> list[Facet]:
        found = of_design(design, exercise)
        if all(facet.share == 1 for facet in found):  # the dear rung last
            try:
                workshop.smoke(exercise, design)
            except RunFailed as failure:
                return [*found, Facet("smoke run", 0.0, f"The emitted script fails: {complaint_of(failure)}")]
        return found

    return _ladder(done, facets, done.work)


def _script(exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    _, sound, given, fault = lesson(exercise.name, workshop)

    def facets(script: str) -> list[Facet]:
        changed = sum(line not in set(given.splitlines()) for line in script.splitlines())
        if fault == "none":
            return [Facet("mending", float(script == given), "The script ran well; it should have gone as it was.")]
        lost = sum(line not in set(script.splitlines()) for line in sound.splitlines())
        small = changed <= MOST_LINES and lost <= MOST_LINES
        return [
            Facet("mending", float(small), f"{changed} lines are new, {lost} are lost: mend the fault ({fault}) only.")
        ]

    verdict = _ladder(done, facets, done.work)
    if verdict.success or fault == "none":
        return verdict
    told = f"The fault was of the kind: {fault}. The sound line was one of these:\n" + "\n".join(
        line for line in sound.splitlines() if line not in set(given.splitlines())
    )
    return verdict._replace(feedback=f"{verdict.feedback}\n{told}")


def _whole(exercise: Exercise, done: dspy.Prediction, workshop: Workshop) -> Verdict:
    if exercise.refused:
        blame = "" if done.refusal else ROLES[0]
        return Verdict(float(not blame), not blame, "A request that must be refused.", blame)
    plan, (known, index, _) = done.plan, exercise.answers
    facets = [
        _share("plan", plan, lambda made: of_plan(made, known, index)),
        _share("index", done.index, lambda made: of_index(made, exercise, plan)),
        _share("design", done.design, lambda made: of_design(made, exercise)),
        Facet("script", float(done.script), "No script came through its smoke run."),
    ]
    score = sum(facet.share for facet in facets) / len(facets)
    wrong = {role: facet for role, facet in zip(ROLES, facets, strict=True) if facet.share < 1}
    said = [f"{facet.name}: {facet.note}" for facet in wrong.values()]
    feedback = "\n".join([*said, done.problem or done.refusal]).strip()
    return Verdict(score, not wrong, feedback, next(iter(wrong), ""))


def _share(name: str, value: Any, facets: Callable[[Any], list[Facet]]) -> Facet:
    """A stage of the whole as one facet."""
    if value is None:
        return Facet(name, 0.0, "was not reached")
    found = facets(value)
    return Facet(name, sum(facet.share for facet in found) / len(found), _notes(found))


def _ladder(done: dspy.Prediction, facets: Callable[[Any], list[Facet]], work: Any) -> Verdict:
    if work is None:
        return Verdict(READ if done.readable else 0.0, False, f"Nothing came of it: {done.problem}")
    found = facets(work)
    agreed = sum(facet.share for facet in found) / len(found)
    success = all(facet.share == 1 for facet in found)
    return Verdict(READ + STOOD + (1 - READ - STOOD) * agreed, success, _notes(found) or "Right.")


def _notes(facets: list[Facet]) -> str:
    return "\n".join(facet.note for facet in facets if facet.share < 1)


_JUDGES: dict[str, Callable[[Exercise, dspy.Prediction, Workshop], Verdict]] = {
    **dict(zip(ROLES, (_plan, _index, _design, _script), strict=True)),
    WHOLE: _whole,
}
