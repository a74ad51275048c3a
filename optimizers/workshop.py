"""Where exercises are laid out and scripts are tried: in the sandbox, and each script once.

    workshop = Workshop(Path("runs/practice"))
    exercise = workshop.exercise("forge-class-folders-000003")
    with workshop.run(exercise, plan=exercise.plan) as run:
        index = workshop.hands(exercise).prepare(run, code, exercise.plan, workshop.root(exercise), ...)

What a script came to is kept in `tried/`, one file a script, so that neither a second candidate that writes the same
script nor a second compile runs it again. Folders are named by the hash of the sources: with other code, all is new.
"""

import contextlib
import hashlib
import io
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock

import m3dspy
from m3dspy.errors import DataError, RunFailed
from m3dspy.m3bench import exercise as exercises
from m3dspy.m3bench.exercise import Exercise
from m3dspy.programs.builder import Hands
from m3dspy.signatures.values import Design, Index, Machine, Plan, Request
from m3dspy.workspace import training
from m3dspy.workspace.emit import emit
from m3dspy.workspace.preparing import prepare
from m3dspy.workspace.runs import Run, write_atomic

MACHINE = Machine()  # exercises are the same everywhere: no GPU
_PARTS = ("signatures", "workspace", "m3bench")  # what exercises and the outcome of a script depend on


class Workshop:
    """A folder of exercises and of scripts that were tried.

    Args: home: where they lie; may be shared by many compiles, also at the same time.  unsafe: as in `execute.stream`.
          executor: carries out the scripts, where `home` is seen, too; None: this process.

    `tried`, `known`: scripts that were run, and how often one was wanted again.  `seconds`: time inside the sandbox.
    """

    def __init__(self, home: Path, *, unsafe: bool = False, executor: Executor | None = None):
        self.home = home.resolve() / sources()[:12]
        self.unsafe = unsafe
        self.executor = executor
        self.tried = self.known = 0
        self.seconds = 0.0
        self._lock = threading.Lock()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._exercises: dict[str, Exercise] = {}

    def __deepcopy__(self, memo: dict) -> "Workshop":
        return self  # DSPy copies a program with all that it holds

    def exercise(self, name: str) -> Exercise:
        """The exercise of this name; its folder is made if it is not there.

        Raises: UsageError: no exercise is called so.
        """
        if name not in self._exercises:
            with contextlib.redirect_stdout(io.StringIO()):  # what indexing leaves out concerns nobody here
                self._exercises[name] = exercises.make(name, self.home / "exercises")
        return self._exercises[name]

    def root(self, exercise: Exercise) -> Path:
        """The dataset folder of an exercise."""
        return exercises.root(exercise.name, self.home / "exercises")

    def hands(self, exercise: Exercise) -> Hands:
        """What roles act with when they work on this exercise."""

        def prepared(run: Run, code: str, plan: Plan, root: Path, *, trusted: bool, unsafe: bool) -> Index:
            key = _hash("prepare", exercise.name, code, plan.model_dump_json())
            how = (run.folder, code, plan, root, trusted, unsafe)
            return Index.model_validate_json(self._once(key, _prepared, *how))

        def smoked(run: Run, *, trusted: bool, unsafe: bool) -> str:
            parts = [run.folder / name for name in ("code/train.py", "code/network.py", "design.json", "index.json")]
            key = _hash("smoke", exercise.name, *(part.read_text() for part in parts))
            return self._once(key, _smoked, run.folder, trusted, unsafe)

        return Hands(cards=lambda: list(exercise.cards), prepare=prepared, smoke=smoked, machine=lambda: MACHINE)

    @contextmanager
    def run(self, exercise: Exercise, **stages: Plan | Index | Design | None) -> Iterator[Run]:
        """A run on an exercise that has come as far as these stages; it is gone when the block is left."""
        request = Request(text=exercise.request, data=str(self.root(exercise)), unsafe=self.unsafe)
        shared = self.home if self.executor else None
        with TemporaryDirectory(prefix="m3dspy-practice-", dir=shared) as scratch:
            run = Run.create(request, Path(scratch))
            for name, value in ({"fingerprint": exercise.fingerprint} | stages).items():
                run.commit(name, value)
            yield run

    def smoke(self, exercise: Exercise, design: Design) -> str:
        """Emit a design for an exercise and let the script take one step; the last lines it printed.

        Raises: RunFailed.
        """
        with self.run(exercise, plan=exercise.plan, index=exercise.capped, design=design) as run:
            emit(design, run.load("index", Index), run.folder / "code")
            return self.hands(exercise).smoke(run, trusted=True, unsafe=self.unsafe)

    def _once(self, key: str, script: Callable[..., str], *given: Any) -> str:
        """What a script came to: its text, or its DataError or RunFailed, raised anew every time."""
        file = self.home / "tried" / f"{key}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            turn = self._turns[key]
        with turn, FileLock(file.with_suffix(".lock")):
            wanted_again = file.is_file()
            if not wanted_again:
                began = time.monotonic()
                outcome = self._carried_out(script, *given)
                write_atomic(file.with_suffix(".log"), "\n".join(outcome.get("tail", [])).encode())
                write_atomic(file, json.dumps(outcome).encode())
                with self._lock:
                    self.seconds += time.monotonic() - began
            with self._lock:
                self.known += wanted_again
                self.tried += not wanted_again
        kept: dict[str, Any] = json.loads(file.read_text())
        if "wrong" in kept:
            raise DataError(kept["wrong"])
        if "failed" in kept:
            raise RunFailed(kept["failed"], file.with_suffix(".log"))
        return kept["text"]

    def _carried_out(self, script: Callable[..., str], *given: Any) -> dict[str, Any]:
        """As `_outcome`, by the executor if there is one. What is lost with its worker is begun once more.

        Raises: BrokenExecutor: lost again, or nothing can be carried out any more.
        """
        if self.executor is None:
            return _outcome(script, *given)
        try:
            return self.executor.submit(_outcome, script, *given).result()
        except BrokenExecutor:
            return self.executor.submit(_outcome, script, *given).result()


def _prepared(folder: Path, code: str, plan: Plan, root: Path, trusted: bool, unsafe: bool) -> str:
    return prepare(Run(folder), code, plan, root, trusted=trusted, unsafe=unsafe).model_dump_json()


def _smoked(folder: Path, trusted: bool, unsafe: bool) -> str:
    return training.smoke(Run(folder), trusted=trusted, unsafe=unsafe)


def _outcome(script: Callable[..., str], *given: Any) -> dict[str, Any]:
    try:
        return {"text": script(*given)}
    except DataError as error:
        return {"wrong": str(error)}
    except RunFailed as error:
        if error.cut:  # nothing that the script itself is to blame for
            raise
        return {"failed": error.happened, "tail": error.tail}


def _hash(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


@cache
def sources() -> str:
    """The hash of the sources that exercises and scripts depend on."""
    folders = [Path(str(__import__(f"m3dspy.{part}", fromlist=[part]).__file__)).parent for part in _PARTS]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md"))
    return _hash(m3dspy.__version__, *(path.read_text() for path in files))
