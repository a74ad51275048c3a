"""Warm workers: `train.py --worker` in the sandbox takes trial after trial, so that imports are paid for once.

    with closing(Worker(run, trusted=True, unsafe=False)) as worker:
        with closing(worker.epochs("trial-003", {"lr": 3e-4}, resume=False)) as epochs:
            for epoch in epochs: ...                  # leaving the block ends the trial within a step

A worker that crashes, falls silent or does not stop costs the trial it is at; for the next another is started. Each
has a folder of its own, `attempts/worker-<n>`, the only one it may write to. A trial's folder is `attempts/<trial>`
and lies in the worker's while it is at it. Kernel locks beside them keep two from the same folder, on a shared file
system two machines too.
"""

import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from m3dspy.errors import RunFailed
from m3dspy.signatures.values import Index, Request
from m3dspy.workspace import public, training, untrusted
from m3dspy.workspace.private import hidden
from m3dspy.workspace.runs import Run, disk

GRACE = 5.0  # seconds that a trial has to stop
SILENCE = 7200.0  # seconds without a line; an epoch that takes longer is not for tuning
STALE = 300.0  # seconds without a trial after which a worker is replaced; it ends by itself after twice as many
LONGEST = 500  # characters of an error in the script's words
WAIT = 300.0  # seconds that a trial is waited for which somebody else is still at


class Cancelled(Exception):
    """Nobody waits for the trial any more."""


class Worker:
    """One script that stays alive, started when it is first needed.

    Args: run: with its script, index and design.  threads: for OpenMP and BLAS; None: as this process.
    `cancelled`: set by another thread, it ends script and trial within a second.
    """

    def __init__(self, run: Run, *, trusted: bool, unsafe: bool, threads: int | None = None):
        self.run, self.trusted, self.unsafe, self.threads = run, trusted, unsafe, threads
        self.cancelled = False
        self.number, self._lock = _place(run)
        self.name = f"worker-{self.number}"
        self._lines: Generator[str, None, None] | None = None
        self._send: Callable[[str], None] = lambda line: None
        self._busy, self._last = False, 0.0

    def epochs(
        self, name: str, settings: Mapping[str, object], *, resume: bool
    ) -> Generator[dict[str, Any], None, None]:
        """Train in `attempts/<name>`, as `training.epochs`, but book no event and answer no test case.

        Raises: RunFailed: the trial failed, or somebody else is at it.  Cancelled.
        """
        settings = {"seed": self.run.load("request", Request).seed, **settings}
        order = {"trial": name, "settings": settings, "resume": resume, "test": False}
        failed = None
        with _held(self.run, name), self._folder(name, resume):
            mark, self._busy = _size(self.run.log(self.name)), True
            try:
                self._warm()
                self._send(json.dumps(order))
                for line in self._heard(name):
                    if epoch := training.as_epoch(line):
                        yield epoch
            except GeneratorExit:
                self._send(json.dumps({"stop": name}))
                with suppress(RunFailed):
                    for _ in self._heard(name, time.monotonic() + GRACE):
                        pass
                raise
            except RunFailed as failure:
                failed = failure
            finally:
                if self._busy:
                    self._end()
                self._log(name, mark, failed)
        if failed:
            with disk(self.run.folder):
                told = public.with_names(failed.happened, self.run.load("index", Index))
                raise RunFailed(told, self.run.log(name), cut=failed.cut)

    def close(self) -> None:
        """End the script; the worker's folder goes, unless a trial is left in it."""
        self._end()
        with suppress(OSError):
            (self.run.folder / "attempts" / self.name).rmdir()
        self._lock.release()

    def _warm(self) -> None:
        """Start the script if it is not there."""
        if time.monotonic() - self._last > STALE:
            self._end()
        if self._lines is None:
            how = {"trusted": self.trusted, "unsafe": self.unsafe, "threads": self.threads, "gpus": _gpus(self.number)}
            self._lines = training.worker(self.run, self.name, listen=self._listen, **how)
            next(self._lines, "")  # starts it; an empty line comes, or the first of its log

    def _listen(self, send: Callable[[str], None]) -> None:
        self._send = send

    def _heard(self, name: str, until: float = inf) -> Iterator[str]:
        """The trial's lines until it is over.

        Raises: RunFailed: it failed, the script ended, or said nothing for too long.  Cancelled.
        """
        heard = time.monotonic()
        for line in self._lines or ():
            now = time.monotonic()
            if self.cancelled:
                raise Cancelled
            if now > until or now - heard > SILENCE:
                raise RunFailed(f"{training.SCRIPT} did not stop, or said nothing for too long.", self.run.log(name))
            if not line:
                continue
            heard = now
            said = _said(line)
            if said.get("trial") == name:
                if "error" in said or "done" in said:
                    self._busy, self._last = False, now
                    if "error" in said:
                        words = "".join(c if c.isprintable() else " " for c in str(said["error"])[:LONGEST])
                        raise _Told(hidden(words), self.run.log(name))
                    return
                yield line
        raise RunFailed(f"{training.SCRIPT} ended in the middle of a trial.", self.run.log(name))

    def _end(self) -> None:
        if self._lines is not None:
            self._lines.close()
        self._lines, self._busy = None, False

    @contextmanager
    def _folder(self, name: str, resume: bool) -> Iterator[None]:
        """Bring the trial's folder, wherever it was left, and take it back."""
        attempts = self.run.folder / "attempts"
        home, here = attempts / name, attempts / self.name / name
        with disk(attempts):
            here.parent.mkdir(parents=True, exist_ok=True)
            left = [home, here, *attempts.glob(f"worker-*/{name}")]  # here or there if a worker was killed with it
            kept = next((path for path in left if resume and path.is_dir() and not path.is_symlink()), None)
            for path in left:
                if path != kept:
                    untrusted.remove(path)
            if kept is None:
                here.mkdir()
            else:
                kept.rename(here)
        try:
            yield
        finally:
            with suppress(FileNotFoundError):  # the script may do with it what it likes
                here.rename(home)
            training.keep_features(self.run, home)

    def _log(self, name: str, mark: int, failed: RunFailed | None) -> None:
        """Give the trial its part of the worker's log."""
        path = self.run.log(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk(path), path.open("ab") as log:
            if (said := self.run.log(self.name)).is_file():
                with said.open("rb") as part:
                    part.seek(mark)
                    shutil.copyfileobj(part, log)
            if isinstance(failed, _Told):
                log.write(f"error: {failed.happened}\n".encode())


class _Told(RunFailed):
    """A failure that the script put into words, and outlived."""


def _place(run: Run) -> tuple[int, FileLock]:
    """The first number that no worker of the run has, here or elsewhere, and the lock that keeps it."""
    folder = run.folder / "attempts"
    folder.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        lock = FileLock(folder / f"worker-{number}.lock", timeout=0, thread_local=False)
        with suppress(Timeout):
            lock.acquire()
            return number, lock
    raise AssertionError


@contextmanager
def _held(run: Run, name: str) -> Iterator[None]:
    """Be the only one at a trial: a worker that was taken for lost may still be at work."""
    lock = FileLock(run.folder / "attempts" / f"{name}.lock", timeout=WAIT, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise RunFailed(f"{name} is still at work elsewhere after {WAIT:g} s.", run.log(name)) from None
    try:
        yield
    finally:
        lock.release()


def _gpus(number: int) -> Literal["all"] | tuple[int]:
    """One of several GPUs for each worker in turn; where there is one, or the user chose some, all that there are."""
    found = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return (number % found,) if found > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ else "all"


def _said(line: str) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
