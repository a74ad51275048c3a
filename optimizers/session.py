"""What compile and compare share: limits, a folder of their own, quiet, a trusted metric, a program at work."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dspy
from filelock import FileLock, Timeout

from m3dspy.errors import M3Error
from m3dspy.optimizers.metrics import Metric, examine
from m3dspy.optimizers.practice import WHOLE, Practice, Rehearsal, examples
from m3dspy.optimizers.track import Track
from m3dspy.optimizers.workshop import Workshop
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import Value

TRIES = 3  # exercises of which the built-in rules must do one, for the metric to be trusted
Listen = Callable[[dict[str, Any]], None]


class Limits(Value):
    """What may be spent: calls and dollars over all starts of the same work, minutes of each."""

    max_calls: int | None = None
    budget: float | None = None
    minutes: float | None = None


def at_work(builder: Builder, role: str, workshop: Workshop) -> dspy.Module:
    """One role of a program by itself, or all four in a row ("whole")."""
    return Rehearsal(builder, workshop) if role == WHOLE else Practice(getattr(builder, role), workshop)


def check_metric(names: Sequence[str], workshop: Workshop) -> None:
    """The built-in rules must be able to do one of the first exercises here, sandbox and all.

    Raises: NoSandbox.  M3Error: they fail at all of the first.
    """
    metric = Metric(WHOLE, workshop, Track(()))
    failed = ""
    with dspy.context(lm=M3dLM("rules", Ledger())):
        for name in names[:TRIES]:
            case = examples([name], WHOLE, workshop)
            [verdict] = examine(at_work(Builder(), WHOLE, workshop), case, metric, threads=1)
            if verdict.success:
                return
            failed = f"{name}. {verdict.feedback}"
    raise M3Error(f"The metric cannot be trusted here: even the built-in rules fail at {failed}")


@contextmanager
def step(listen: Listen, name: str) -> Iterator[None]:
    """Tell when a step begins and ends."""
    listen({"kind": "stage", "name": name, "status": "start"})
    began = time.monotonic()
    yield
    listen({"kind": "stage", "name": name, "status": "done", "seconds": time.monotonic() - began})


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Nobody else works in the folder above the lock's.

    Raises: M3Error: somebody does.
    """
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise M3Error(f"Another process is at work in {lock.parent.parent}. Wait for it, or end it.") from None


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """What optimizers print and log goes into a file."""
    loggers = [logging.getLogger(name) for name in ("dspy", "gepa", "optuna")]
    kept = [(logger.handlers, logger.propagate) for logger in loggers]
    with log.open("a", encoding="utf-8") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        for logger in loggers:
            logger.handlers, logger.propagate = [logging.StreamHandler(file)], False
        try:
            yield
        finally:
            for logger, (handlers, propagate) in zip(loggers, kept, strict=True):
                logger.handlers, logger.propagate = handlers, propagate
