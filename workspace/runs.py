"""One run, one folder: `runs/<id>/`, which survives `kill -9` at any instant.

Data first, commit marker last: a file is written beside its place, flushed and renamed; a folder is filled under
`attempts/` and renamed. What has its final name is therefore whole, and `resume` goes on from there. What is taken back
loses its name first. One process at a time holds the run (`Run.lock`); the lock is the kernel's and goes with its
holder.

Files and names are flushed to the disk. Lines of `events.jsonl` are not: they outlive every death of the process, but
the last ones may go with the power, and with them a complaint that was on its way back, or progress that was told.

    run = Run.create(request)
    with run.lock():
        run.commit("plan", plan)
        folder = run.attempt("final")                # the only folder a script may write to
        ...
        run.adopt(folder / "predictions", "predictions")
        run.adopt(folder, "model")
"""

import errno
import json
import os
import re
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from m3dspy.errors import DataError, M3Error, RunFailed, UsageError
from m3dspy.signatures.values import Request
from m3dspy.workspace import untrusted
from m3dspy.workspace.private import hidden

T = TypeVar("T")
HOME = Path("runs")
UNPACKED = "unpacked"  # of a run whose dataset was a container
HEALED_AT_ONCE = 1 << 16
GONE = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.EROFS)  # a disk or server that went


class Run:
    """A run folder: committed stages, attempts, events and the lock.

    Args: folder: `runs/<id>`.  listen: called with every event, for progress on the screen.
    """

    def __init__(self, folder: Path, listen: Callable[[dict[str, Any]], None] | None = None):
        self.folder = folder.resolve()
        self.listen = listen

    @classmethod
    def create(cls, request: Request, home: Path = HOME) -> "Run":
        """A new run named by date, request and four random digits; its folder appears together with `request.json`."""
        words = re.findall(r"[a-z0-9]+", request.text.lower())
        title = f"{datetime.now():%Y%m%d-%H%M%S}-{'-'.join(words)[:32].strip('-') or 'run'}"
        with disk(home):
            home.mkdir(parents=True, exist_ok=True)
            while (home / (name := f"{title}-{token_hex(2)}")).exists():  # drawn before; or the clock was set back
                pass
            unborn = home / f".{name}-{os.getpid()}"
            unborn.mkdir()
            Run(unborn).commit("request", request)
            unborn.rename(home / name)
            _flush(home)
        return cls(home / name)

    @classmethod
    def open(cls, run: str | Path, home: Path = HOME) -> "Run":
        """The run with this folder or id.

        Raises: UsageError: there is no such run; the message names the nearest.
        """
        for folder in (Path(run), home / run):
            if (folder / "request.json").is_file():
                return cls(folder)
        names = sorted((path.parent.name for path in home.glob("[!.]*/request.json")), reverse=True)
        if not names:
            raise UsageError(f"No run is called '{run}': {home.resolve()} holds no runs. Start one with `m3dspy run`.")
        near = (get_close_matches(Path(run).name, names, n=1, cutoff=0.3) or names)[0]
        raise UsageError(f"No run is called '{run}' in {home.resolve()}. Did you mean '{near}'?")

    @property
    def id(self) -> str:
        return self.folder.name

    # ------------------------------------------------------------------------------------------------ stages
    def has(self, name: str) -> bool:
        """Is the stage committed: does `<name>.json` or the folder `<name>` stand in its place?"""
        return (self.folder / f"{name}.json").is_file() or (self.folder / name).is_dir()

    def commit(self, name: str, value: object) -> None:
        """Write a stage's value (anything pydantic can write as JSON) to `<name>.json`, whole or not at all."""
        text = TypeAdapter(type(value)).dump_json(value, indent=1)
        write_atomic(self.folder / f"{name}.json", text + b"\n")

    def load(self, name: str, kind: type[T]) -> T:
        """The committed value of a stage.

        Raises: M3Error: the stage was not reached, or the file does not hold a `kind`.
        """
        path = self.folder / f"{name}.json"
        try:
            return TypeAdapter(kind).validate_json(path.read_bytes())
        except FileNotFoundError:
            raise M3Error(f"Run {self.id} has no {name} yet. Go on with: m3dspy resume {self.id}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise DataError(f"{path} was changed or is damaged: {where}: {first['msg']}.") from None

    def drop(self, *names: str) -> None:
        """Take back committed stages; name the latest first, so that no stage ever stands without its ground."""
        for name in names:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            if (self.folder / name).is_dir():  # its name goes at once, what it held may take a while
                gone = self.folder / f"{name}.{os.getpid()}.tmp"
                (self.folder / name).rename(gone)
                shutil.rmtree(gone)
        _flush(self.folder)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Book a stage's start, and its end and seconds if it ends well."""
        self.event("stage", name=name, status="start")
        start = time.monotonic()
        yield
        self.event("stage", name=name, status="done", seconds=round(time.monotonic() - start, 3))

    # ------------------------------------------------------------------------------------------------ attempts
    def attempt(self, name: str, *, resume: bool = False) -> Path:
        """The folder `attempts/<name>`, which a script may write to: emptied, unless its work is to be resumed."""
        folder = self.folder / "attempts" / name
        with disk(folder):
            if not resume:
                untrusted.remove(folder)
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, name: str) -> Path:
        """Where the output of an attempt's script is kept, out of the script's reach."""
        return self.folder / "logs" / f"{name}.log"

    def adopt(self, source: Path, name: str) -> Path:
        """Commit a folder that a script filled, by one rename: `attempts/final` becomes `model`.

        Raises: DataError: it holds a link or a device, is too deep, or there is no such folder.
        """
        untrusted.refuse_odd(source)
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        _flush(target.parent)
        return target

    # ------------------------------------------------------------------------------------------------ events
    def event(self, kind: str, **data: object) -> None:
        """Append one line to `events.jsonl`; only the holder of the lock writes."""
        record = {"time": round(time.time(), 3), "kind": kind, **hidden(data)}
        with disk(self.folder):
            file = os.open(self.folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
                while line:  # a disk that is getting full takes a part, and says so at the next
                    line = line[os.write(file, line) :]
            finally:
                os.close(file)
        if self.listen:
            self.listen(record)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event so far, oldest first; a line that a crash tore is left out."""
        path = self.folder / "events.jsonl"
        if not path.is_file():
            return
        with path.open("rb") as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    continue
                if isinstance(record, dict):
                    yield record

    # ------------------------------------------------------------------------------------------------ lock
    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run; what a killed holder left half-written is cleaned up first.

        Raises: M3Error: another process holds it; the message says which, where and since when.
        """
        path = self.folder / "run.lock"
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise M3Error(f"Run {self.id} is at work elsewhere ({_holder(path)}). Wait for it, or end it.") from None
        try:
            with disk(self.folder):
                now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
                _overwrite(path, f"process {os.getpid()} on {socket.gethostname()}, since {now}\n".encode())
                for leftover in (*self.folder.glob("*.tmp"), *self.folder.glob("*/*.tmp")):
                    if leftover.is_dir() and not leftover.is_symlink():
                        shutil.rmtree(leftover)
                    else:
                        leftover.unlink()
                heal(self.folder / "events.jsonl")
            yield
        finally:
            lock.release()


def dataset(folder: Path, request: Request) -> Path:
    """The folder that the index of a run is relative to: what its container was unpacked to, else the dataset itself.

    Args: folder: of the run.
    """
    plain = folder / UNPACKED / "data"
    return plain if plain.is_dir() else Path(request.data)


def _holder(lock: Path) -> str:
    """Who holds a run, as its lock says: `process 7 on gpu3, since 2026-01-31 09:00:00+01:00`."""
    return lock.read_text(errors="replace").partition("\n")[0] or "a process that has just begun"


def _overwrite(path: Path, text: bytes) -> None:
    """New text in a file that others may be reading: at no time is it empty."""
    with path.open("r+b") as file:
        file.write(text)
        file.truncate()


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path` so that after a crash there is the old file or the new one, never a part."""
    new = path.with_name(f"{path.name}.{token_hex(4)}.tmp")  # of this thread of this machine alone
    with disk(path):
        try:
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
        _flush(path.parent)


def heal(journal: Path) -> None:
    """Cut off a last line that a crash tore, so that the next line does not run into it."""
    if not journal.is_file():
        return
    with journal.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:  # from the end, a piece at a time: the journal may be long
            start = max(0, end - HEALED_AT_ONCE)
            file.seek(start)
            if (newline := file.read(end - start).rfind(b"\n")) >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Turn a full or vanished disk into one line; a script that ran into a full one has not failed of its own."""
    try:
        yield
    except RunFailed as failure:
        if any(os.strerror(code) in str(failure) for code in (errno.ENOSPC, errno.EDQUOT)):
            raise M3Error(f"The disk that holds {path} is full. Free some space, then resume the run.") from failure
        raise
    except (OSError, sqlite3.OperationalError) as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) if isinstance(error, OSError) else "is full" in str(error)
        if full:
            raise M3Error(f"The disk that holds {path} is full. Free some space, then resume the run.") from None
        if isinstance(error, OSError) and error.errno in GONE:
            place = error.filename or path
            raise M3Error(f"{place} cannot be reached: {error.strerror}. Mend that, then resume the run.") from None
        raise


def _flush(folder: Path) -> None:
    """Make a rename in this folder last."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
