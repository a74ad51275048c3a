"""Optuna over the search space of an emitted script, one trial after another.

Killed at any moment and started again it finds what it would have found undisturbed: the k-th trial is suggested by a
sampler seeded with k from the trials before it, and an interrupted one is asked again and resumed from its checkpoint.
"""

import shutil
import time
from contextlib import closing
from math import ceil
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import FrozenTrial, TrialState

from m3dspy.errors import DataError, M3Error, RunFailed
from m3dspy.optimizers.storage import journal_storage
from m3dspy.signatures.values import Design, Request, Trial, Tuned
from m3dspy.workspace import training
from m3dspy.workspace.runs import Run, disk

STARTUP = 4  # trials before TPE and the pruner have a say; the first of them is the design as it stands
STATES: dict[TrialState, Literal["complete", "pruned", "failed"]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def tune(run: Run, trials: int, minutes: float | None = None, *, trusted: bool, unsafe: bool) -> Tuned:
    """Bring the run's study to `trials` trials, and commit what it found.

    The first trial has the script's defaults. Each trains for a third of the design's epochs, two at least. One that is
    pruned ends at once; one that fails is kept with its reason, and the next begins.

    Args: minutes: wall time of all trials together, after which none is begun; the first always is.
    Raises: M3Error: every trial failed.  DataError: the script's search space cannot be used.
    """
    tuned = Tuned()
    space, defaults = _space(run, trusted, unsafe) if trials else ({}, {})
    if space:
        seed, limit = run.load("request", Request).seed, minutes * 60 if minutes else float("inf")
        with disk(run.folder):
            study = _study(run)
            while len(done := _done(study)) < trials and (not done or sum(map(_seconds, done)) < limit):
                trial = _ask(study, space, defaults, seed, len(done))
                _carry_out(run, study, trial, len(done), trusted, unsafe)
        tuned = _told(run, done)
    run.commit("tuned", tuned)
    return tuned


def _study(run: Run) -> optuna.Study:
    """The run's study. What still runs in it was interrupted: it failed, without the reason that a failure has."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="tune",
        storage=journal_storage(run.folder / "study" / "journal.log"),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=_epochs(run) // 3),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _done(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that came to an end of their own, oldest first."""
    trials = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if trial.state != TrialState.FAIL or "reason" in trial.user_attrs]


def _ask(
    study: optuna.Study, space: dict[str, BaseDistribution], defaults: dict[str, Any], seed: int, k: int
) -> optuna.Trial:
    """The k-th trial, a function of the seed and of the trials before it; TPE pays no heed to failed ones."""
    if k == 0 and not study.get_trials(states=(TrialState.WAITING,)):
        study.enqueue_trial(defaults)
    study.sampler = optuna.samplers.TPESampler(seed=seed * 1000 + k, n_startup_trials=STARTUP)
    return study.ask(fixed_distributions=space)


def _carry_out(run: Run, study: optuna.Study, trial: optuna.Trial, k: int, trusted: bool, unsafe: bool) -> None:
    """Train the k-th trial, and tell the study how it ended."""
    name, scores, state = f"trial-{k:03d}", [], TrialState.COMPLETE
    begun = study.get_trials(states=(TrialState.FAIL,))  # not only the last: a crash may have cut it off while asked
    resume = any("reason" not in failed.user_attrs and failed.params == trial.params for failed in begun)
    settings = {"epochs": _epochs(run), **trial.params}
    began = time.monotonic()  # the wall clock of Optuna's own times may be set back or forth meanwhile
    trained = training.epochs(run, name, settings, resume=resume, trusted=trusted, unsafe=unsafe, test=False)
    try:
        with closing(trained) as epochs:
            for epoch in epochs:
                scores.append(epoch["score"])
                trial.report(epoch["score"], epoch["epoch"])
                if trial.should_prune():
                    state = TrialState.PRUNED
                    break
        if not scores:
            raise RunFailed(f"{training.SCRIPT} printed no epoch.", run.log(name))
    except RunFailed as failure:
        state = TrialState.FAIL
        trial.set_user_attr("reason", str(failure))
    trial.set_user_attr("seconds", round(time.monotonic() - began, 3))
    study.tell(trial, max(scores) if state == TrialState.COMPLETE else None, state=state)
    run.event("trial", number=k, state=STATES[state], score=max(scores, default=None))
    shutil.rmtree(run.folder / "attempts" / name)


def _told(run: Run, done: list[FrozenTrial]) -> Tuned:
    """The trials as values, numbered as they were begun, and the settings of the best."""
    trials = [
        Trial(
            number=k,
            state=STATES[trial.state],
            score=max(trial.intermediate_values.values(), default=None),
            settings=trial.params,
            curve=tuple(score for _, score in sorted(trial.intermediate_values.items())),
            seconds=_seconds(trial),
        )
        for k, trial in enumerate(done)
    ]
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        shutil.rmtree(run.folder / "study")  # so that a resumed run tries them again
        raise M3Error(f"All {len(done)} trials failed. The last: {done[-1].user_attrs['reason']}")
    best = max(complete, key=lambda trial: trial.score or 0.0)
    return Tuned(trials=tuple(trials), settings=best.settings)


def _space(run: Run, trusted: bool, unsafe: bool) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """The script's search space, and its defaults there.

    Raises: DataError: something that is no distribution, a choice that is no plain value, or a default outside.
    """
    texts, defaults = training.space(run, trusted=trusted, unsafe=unsafe)
    space = {}
    for name, text in texts.items():
        try:
            space[name] = json_to_distribution(text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"The script's SPACE[{name!r}] is no Optuna distribution: {error}.") from None
        for choice in getattr(space[name], "choices", ()):
            if not isinstance(choice, str | int | float):
                raise DataError(
                    f"The script's SPACE[{name!r}] offers {choice!r}; a choice must be a text, a number, true or false."
                )
        if not _allows(space[name], defaults[name]):
            raise DataError(
                f"The script's default {name}={defaults[name]!r} lies outside its own SPACE: {space[name]}."
            )
    return space, defaults


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, IntDistribution | FloatDistribution):
        return False
    kind = int if isinstance(distribution, IntDistribution) else int | float
    return isinstance(value, kind) and distribution.low <= value <= distribution.high


def _epochs(run: Run) -> int:
    return max(2, ceil(run.load("design", Design).epochs / 3))


def _seconds(trial: FrozenTrial) -> float:
    return trial.user_attrs.get("seconds", 0.0)
