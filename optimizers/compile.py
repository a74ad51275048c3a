"""Prompts, compiled: a program and exercises in, an artifact out whose prompts did better on exercises never seen.

The four roles are compiled one after another, each on exercises of its own with an expert's work before it. What is
kept of a role is the program that did best on the validation exercises, the prompts as written among them. Success is
counted before and after on held-out exercises, for each role and for all four in a row, and chooses nothing.

Every answer of a language model is kept in `work/lm.jsonl`, every script that ran in the practice folder, and all
draws are seeded: started again with the same order, a compile that was killed repeats no call and ends alike.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dspy
from pydantic import Field

from m3dspy.errors import Stopped, UsageError, unknown
from m3dspy.m3bench import partition
from m3dspy.m3bench.stats import mcnemar, success
from m3dspy.optimizers.metrics import Metric, Verdict, examine
from m3dspy.optimizers.practice import WHOLE, Practice, examples
from m3dspy.optimizers.prompts._search import Search
from m3dspy.optimizers.session import Limits, Listen, alone, at_work, check_metric, quiet, step
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop, sources
from m3dspy.programs import artifact
from m3dspy.programs.artifact import Manifest, Scores, Usage
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.adapter import Chat
from m3dspy.programs.lms.ledger import Ledger, speaking
from m3dspy.programs.lms.model import M3dLM, at_server, distinct, full_name, preflight
from m3dspy.registry import Registry
from m3dspy.signatures.values import ROLES, Value
from m3dspy.workspace.runs import write_atomic

OPTIMIZERS = Registry("optimizer", "m3dspy.optimizers.prompts")
PARTS: tuple[partition.Part, ...] = ("train", "validation", "held-out")
_MANY = 2000  # exercises among which those of the wanted tasks are looked for


class Order(Value):
    """What is to be compiled, by whom, and how."""

    teacher: str
    student: str
    optimizer: str = "gepa"
    tasks: tuple[str, ...] = Field(default=(), description="layouts and datasets to learn from; (): all")
    exercises: int = Field(default=24, ge=4, description="in each part: training, validation, held out")
    rollouts: int = Field(default=120, ge=1, description="runs of a role that its search may make, about")
    seed: int = Field(default=0, ge=0)
    api_base: str | None = None
    unsafe: bool = False

    @property
    def id(self) -> str:
        """The folder's name: the same for the same order under the same code, wherever the servers are."""
        text = self.model_dump_json(exclude={"api_base", "unsafe"}) + artifact.code_hash() + sources()
        student = at_server(self.student)[0].rpartition("/")[2]
        return f"{self.optimizer}-{student}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass
class Compiled:
    """What has been reached: the program, and verdicts before and after, by role and for the whole."""

    program: Builder = field(default_factory=Builder)
    validation: dict[str, tuple[list[Verdict], list[Verdict]]] = field(default_factory=dict)
    before: dict[str, list[Verdict]] = field(default_factory=dict)
    after: dict[str, list[Verdict]] = field(default_factory=dict)
    ended: str = ""

    @property
    def improved(self) -> bool:
        """More held-out exercises succeed than before, over the four roles."""
        if not all(role in self.after for role in ROLES):
            return False
        gained = [_count(self.after[role]) - _count(self.before[role]) for role in ROLES]
        return sum(gained) > 0


@dataclass(frozen=True)
class _Bench:
    """What every step needs."""

    order: Order
    names: dict[str, list[str]]
    workshop: Workshop
    teacher: M3dLM
    threads: int
    listen: Listen


def checked(order: Order) -> Order:
    """The order, if it can be carried out.

    Raises: UsageError: an unknown optimizer or task, or a student that has nothing to learn.
    """
    _ = OPTIMIZERS[order.optimizer]
    if order.student == "rules":
        raise UsageError("rules reads no prompts, so they cannot be compiled for it. Name a language model: --student.")
    if full_name(at_server(order.student)[0]) == full_name(at_server(order.teacher)[0]):
        raise UsageError(
            f"The student is the teacher ({order.teacher}) and has nothing to learn from it. "
            "Name a cheaper language model with --student."
        )
    known = [*partition.layouts_of("train"), *partition.DATASETS]
    if strange := [task for task in order.tasks if task not in known]:
        raise unknown("training task", strange[0], known)
    return order


def names_of(order: Order) -> dict[str, list[str]]:
    """Part -> names of its exercises. `tasks` narrows what is learned from, never what is held out."""
    found = {"held-out": partition.names("held-out", order.exercises, order.seed)}
    for part in ("train", "validation"):
        every = partition.names(part, _MANY if order.tasks else order.exercises, order.seed)
        wanted = [name for name in every if not order.tasks or partition.layout_of(name) in order.tasks]
        found[part] = wanted[: order.exercises]
    return found


def compile_program(
    order: Order,
    limits: Limits,
    home: Path,
    practice: Path,
    threads: int,
    listen: Listen = lambda event: None,
    executor: Executor | None = None,
) -> tuple[Path, Manifest]:
    """Carry out an order, or go on with it.

    Args:    home: the artifact's folder is made in it.  practice: for exercises and scripts; may be shared.
             threads: exercises at a time; the program does not depend on it.  listen: told of every step.
             executor: carries out the scripts; None: this process.
    Returns: the artifact's folder and manifest.
    Raises:  UsageError, LMFailed, NoSandbox: nothing was begun.  M3Error: another process is at it.
    """
    folder = home / checked(order).id
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    with alone(work / "lock"), quiet(work / "optimizer.log"):
        ledger = Ledger(work / "lm.jsonl", limits.budget, limits.max_calls, limits.minutes)
        lms = distinct((order.student, order.teacher), ledger, order.api_base)
        for lm in lms.values():
            preflight(lm)
            lm.vital = True
        workshop = Workshop(practice, unsafe=order.unsafe, executor=executor)
        bench = _Bench(order, names_of(order), workshop, lms[order.teacher], threads, listen)
        done = Compiled()
        with dspy.context(adapter=Chat()):
            with step(listen, "check the metric with the built-in rules"):
                check_metric(bench.names["train"], workshop)
            with dspy.context(lm=lms[order.student]):
                try:
                    _compile(bench, done)
                except Stopped as stop:
                    done.ended = str(stop)
        manifest = artifact.write(folder, done.program, _manifest(bench, limits, ledger, done), before=Builder())
        write_atomic(work / "results.json", json.dumps(_results(bench, ledger, done), indent=1).encode())
    return folder, manifest


def _compile(bench: _Bench, done: Compiled) -> None:
    """All of an order; what was reached is in `done`, however it ends."""
    for role in (*ROLES, WHOLE):
        verdicts = done.before[role] = _held_out(bench, Builder(), role, "before")
        if not any(verdict.score for verdict in verdicts):
            why = verdicts[-1].feedback.splitlines()[-1][:300]
            raise Stopped(f"{bench.order.student} gave no usable answer as {role}, {len(verdicts)} times. {why}")
    for role in ROLES:
        with step(bench.listen, f"compile {role}"):
            done.validation[role] = _compile_role(bench, done, role)
    for role in (*ROLES, WHOLE):
        done.after[role] = _held_out(bench, done.program, role, "after")


def _compile_role(bench: _Bench, done: Compiled, role: str) -> tuple[list[Verdict], list[Verdict]]:
    """Search for better prompts of one role. The best that were tried go into the program, however the search ends."""
    train, val = (examples(bench.names[part], role, bench.workshop) for part in ("train", "validation"))
    track = Track(example.exercise for example in val)
    metric = Metric(role, bench.workshop, track)
    student = Practice(getattr(Builder(), role), bench.workshop, track)
    target = getattr(done.program, role)
    before = examine(student, val, metric, bench.threads)
    given = Search(train, val, metric, bench.teacher, bench.order.rollouts, bench.order.seed, bench.threads)
    try:
        with speaking("optimizer"):
            found = OPTIMIZERS[bench.order.optimizer].search(student, given)
        examine(found, val, metric, bench.threads)
    finally:
        target.load_state(track.best())
    return before, examine(Practice(target, bench.workshop, track), val, metric, bench.threads)


def _held_out(bench: _Bench, builder: Builder, role: str, when: str) -> list[Verdict]:
    cases = examples(bench.names["held-out"], role, bench.workshop)
    with step(bench.listen, f"{when}: {role}, {len(cases)} held out"):
        program = at_work(builder, role, bench.workshop)
        return examine(program, cases, Metric(role, bench.workshop, Track(())), bench.threads)


# ------------------------------------------------------------------------------------------------ what is told
def _manifest(bench: _Bench, limits: Limits, ledger: Ledger, done: Compiled) -> Manifest:
    order = bench.order
    arguments = {**order.model_dump(include={"exercises", "rollouts"}), **limits.model_dump()}
    return Manifest(
        name=order.id,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        optimizer=order.optimizer,
        arguments={**arguments, "tasks": " ".join(order.tasks)},
        seed=order.seed,
        student=order.student,
        teacher=order.teacher,
        tasks={part: tuple(names) for part, names in bench.names.items()},
        tasks_hash=_tasks_hash(bench),
        validation=Scores(
            before={role: _success(before) for role, (before, _) in done.validation.items()},
            after={role: _success(after) for role, (_, after) in done.validation.items()},
        ),
        held_out=Scores(
            before={role: _success(verdicts) for role, verdicts in done.before.items()},
            after={role: _success(verdicts) for role, verdicts in done.after.items()},
            p={role: _p(done.before[role], verdicts) for role, verdicts in done.after.items()},
        ),
        usage=usage(ledger),
        improved=done.improved,
        ended=done.ended,
    )


def _tasks_hash(bench: _Bench) -> str:
    """Of all exercises: requests, what a look at the folders found, and the answers."""
    exercises = [bench.workshop.exercise(name) for names in bench.names.values() for name in names]
    return hashlib.sha256("".join(exercise.model_dump_json() for exercise in exercises).encode()).hexdigest()


def usage(ledger: Ledger) -> tuple[Usage, ...]:
    """What was spent, by language model and role."""
    spent: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in ledger.lines:
        spent.setdefault((line["model"], line["role"]), []).append(line)
    return tuple(
        Usage(
            lm=lm,
            role=role,
            calls=len(lines),
            input_tokens=sum(line["input_tokens"] for line in lines),
            output_tokens=sum(line["output_tokens"] for line in lines),
            dollars=None if None in (costs := [line["cost"] for line in lines]) else round(sum(costs), 6),
            seconds=round(sum(line["seconds"] for line in lines), 3),
        )
        for (lm, role), lines in sorted(spent.items())
    )


def _results(bench: _Bench, ledger: Ledger, done: Compiled) -> dict[str, Any]:
    """Every held-out exercise by itself, and where the time went."""
    return {
        "held_out": {
            role: {
                example.exercise: [
                    _told(verdicts[k]) for verdicts in (done.before[role], done.after.get(role, [])) if verdicts
                ]
                for k, example in enumerate(examples(bench.names["held-out"], role, bench.workshop))
            }
            for role in done.before
        },
        "scripts": {
            "run": bench.workshop.tried,
            "known": bench.workshop.known,
            "seconds": round(bench.workshop.seconds, 1),
        },
        "answers": {"paid": ledger.calls, "recalled": ledger.recalled},
    }


def _told(verdict: Verdict) -> dict[str, Any]:
    return {"score": round(verdict.score, 4), "success": verdict.success, "feedback": verdict.feedback}


def _count(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.success for verdict in verdicts)


def _success(verdicts: Sequence[Verdict]) -> Any:
    return success(_count(verdicts), len(verdicts))


def _p(before: Sequence[Verdict], after: Sequence[Verdict]) -> float:
    return mcnemar([verdict.success for verdict in before], [verdict.success for verdict in after])
