"""Roles at work on exercises: one role with all that comes before it as an expert would have left it, or all four.

What a role does here is what it does in a run: the same calls, checks and scripts in the sandbox. Only the repairs are
fewer, so that a prompt earns its score by the first answer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import dspy
from dspy.utils.exceptions import DSPyError

from m3dspy.errors import DataError, Defect, LMFailed, M3Error, Refused, RunFailed, Stopped
from m3dspy.m3bench.exercise import Exercise
from m3dspy.m3bench.forge import damage
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import MACHINE, Workshop
from m3dspy.programs.builder import STAGES, Builder
from m3dspy.programs.lms.experts.module_architect import design_training
from m3dspy.programs.role import OnRepair, Role, SentBack
from m3dspy.signatures.values import Design, Index, Plan
from m3dspy.workspace.emit import catalogue, emit
from m3dspy.workspace.indexing import summary
from m3dspy.workspace.runs import write_atomic

WHOLE = "whole"
REPAIRS = 1  # of a role in practice; in a run they are three


class Lesson(NamedTuple):
    """A design, the train.py it leads to, the same with a fault, and the kind of the fault ("none": as it was)."""

    design: Design
    sound: str
    given: str
    fault: str


class Practice(dspy.Module):
    """One role on one exercise; never raises what a language model is to blame for."""

    def __init__(self, role: Role, workshop: Workshop, track: Track | None = None):
        super().__init__()
        self.role = role.deepcopy()
        self.role.max_repairs = REPAIRS
        self.workshop = workshop
        self.track = track

    def forward(self, exercise: str, request: str) -> dspy.Prediction:
        """`work`: what the role made, None if nothing came of it; `refusal`, `problem`: why; `complaints`: of repairs.

        Args: exercise: its name.  request: what was asked there.
        """
        at = self.workshop.exercise(exercise)
        complaints: list[str] = []
        ended = {"refusal": "", "problem": "", "readable": True, "work": None}
        with _ending(ended):
            act = _ACTS[self.role.name]
            ended["work"] = act(self.role, at, request, self.workshop, lambda role, words: complaints.append(words))
        program = self.track.enter(self.role) if self.track else ""
        return dspy.Prediction(**ended, complaints=complaints, program=program)


class Rehearsal(dspy.Module):
    """All four roles on one exercise, from the request to a script whose smoke run ended well."""

    def __init__(self, builder: Builder, workshop: Workshop):
        super().__init__()
        self.builder = builder
        self.workshop = workshop

    def forward(self, exercise: str, request: str) -> dspy.Prediction:
        """`plan`, `index`, `design`: as far as they came; `script`: whether it ran; and as in `Practice`."""
        at = self.workshop.exercise(exercise)
        ended = {"refusal": "", "problem": "", "readable": True}
        with self.workshop.run(at) as run:
            with _ending(ended):
                self.builder(run, self.workshop.hands(at))
            kinds = {"plan": Plan, "index": Index, "design": Design}
            made = {name: run.load(name, kind) if run.has(name) else None for name, kind in kinds.items()}
            complaints = [event["complaint"] for event in run.events() if event["kind"] in ("repair", "back")]
            return dspy.Prediction(**ended, **made, program="", script=run.has(STAGES[-1]), complaints=complaints)


def examples(names: list[str], role: str, workshop: Workshop) -> list[dspy.Example]:
    """What a role can practise on: of a request that must be refused, only the Task Manager gets to know."""
    found = [workshop.exercise(name) for name in names]
    if role not in (WHOLE, "task_manager"):
        found = [exercise for exercise in found if not exercise.refused]
    return [
        dspy.Example(exercise=exercise.name, request=exercise.request).with_inputs("exercise", "request")
        for exercise in found
    ]


@cache
def lesson(name: str, workshop: Workshop) -> Lesson:
    """What the Model Trainer practises on in an exercise."""
    exercise = workshop.exercise(name)
    plan, _, index = exercise.answers
    inputs = {"request": exercise.request, "plan": plan, "index": summary(index), "fingerprint": exercise.fingerprint}
    design = design_training(**inputs, machine=MACHINE, catalogue=catalogue(plan.task), complaint="")["design"]
    with workshop.run(exercise) as run:
        sound = (emit(design, index, run.folder / "code") / "train.py").read_text()
    return Lesson(design, sound, *damage(sound, exercise.seed))


@contextmanager
def unswallowed() -> Iterator[None]:
    """What no language model is to blame for passes through the `except Exception` of optimizers: a user's mistake as
    Stopped, an error of ours as Defect."""
    try:
        yield
    except M3Error as error:
        raise Stopped(str(error)) from error
    except Exception as error:
        raise Defect(f"{type(error).__name__}: {error}") from error


@contextmanager
def _ending(ended: dict[str, Any]) -> Iterator[None]:
    """Note how the work ended, where that was the doing of a language model."""
    with unswallowed():
        try:
            yield
        except Refused as refusal:
            ended["refusal"] = str(refusal)
        except (DataError, RunFailed, SentBack) as error:
            ended["problem"] = str(error)
        except (LMFailed, DSPyError) as error:
            ended |= {"problem": str(error), "readable": False}


def _plan(role: Role, exercise: Exercise, request: str, workshop: Workshop, on_repair: OnRepair) -> Plan:
    cards, fingerprint = list(exercise.cards), exercise.fingerprint
    return role(request=request, fingerprint=fingerprint, cards=cards, on_repair=on_repair).plan


def _index(role: Role, exercise: Exercise, request: str, workshop: Workshop, on_repair: OnRepair) -> Index:
    plan, root, hands = exercise.answers.plan, workshop.root(exercise), workshop.hands(exercise)
    with workshop.run(exercise, plan=plan) as run:
        return role(
            plan=plan,
            card=exercise.card,
            fingerprint=exercise.fingerprint,
            root=root,
            prepare=lambda code: hands.prepare(run, code, plan, root, trusted=False, unsafe=workshop.unsafe),
            on_repair=on_repair,
        ).index


def _design(role: Role, exercise: Exercise, request: str, workshop: Workshop, on_repair: OnRepair) -> Design:
    plan, _, index = exercise.answers
    return role(
        request=request,
        plan=plan,
        index=index,
        fingerprint=exercise.fingerprint,
        machine=MACHINE,
        catalogue=catalogue(plan.task),
        on_repair=on_repair,
    ).design


def _script(role: Role, exercise: Exercise, request: str, workshop: Workshop, on_repair: OnRepair) -> str:
    plan, _, index = exercise.answers
    design, _, given, _ = lesson(exercise.name, workshop)
    with workshop.run(exercise, plan=plan, index=index, design=design) as run:
        emit(design, index, run.folder / "code")

        def smoke(text: str) -> str:
            write_atomic(run.folder / "code" / "train.py", text.encode())
            return workshop.hands(exercise).smoke(run, trusted=False, unsafe=workshop.unsafe)

        return role(design=design, script=given, smoke=smoke, on_repair=on_repair).script


_ACTS: dict[str, Callable[..., Any]] = {
    "task_manager": _plan,
    "data_engineer": _index,
    "module_architect": _design,
    "model_trainer": _script,
}
