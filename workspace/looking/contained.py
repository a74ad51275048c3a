"""`look` and `check_index` with the parsers in the sandbox: a crash, a bomb or a hang is one line naming the file."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from m3dspy.errors import DataError, M3Error, RunFailed, UsageError
from m3dspy.signatures.values import Caps, Fingerprint, Value
from m3dspy.workspace import execute, sandbox, untrusted
from m3dspy.workspace.indexes.cases import existing
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.private import Private, Values

T = TypeVar("T")
SECONDS = 1800.0
MOST_BYTES = 64 << 20
_CODE = Path(__file__).parent / "inside"
_KINDS = {kind.__name__: kind for kind in (DataError, UsageError)}


class Answered(Value):
    """What the reader left. `error`, of a `kind`: why there is nothing else."""

    error: str = ""
    kind: str = ""


class Looked(Answered):
    """A fingerprint with tokens for what could tell who a patient is, and `private`: value -> token."""

    fingerprint: Fingerprint | None = None
    private: Values


class Checked(Answered):
    """`problems`: what is wrong with an index, its unreadable cases aside; `unreadable`: why -> ids of those cases."""

    problems: tuple[str, ...] = ()
    unreadable: dict[str, tuple[str, ...]] = Field(default_factory=dict)


def look(root: Path, *, notice: Callable[[str], None] = lambda line: None, private: Private) -> Fingerprint:
    """As `workspace.look.look`, in the sandbox; `private` is filled where the folder cannot be used, too.

    Raises: UsageError, DataError: as there; or a file ended its reader.
    """
    looked = _parsed(existing(root), {}, (), notice, Looked)
    private.learn(looked.private)
    _raise(looked, root)
    if not looked.fingerprint:
        raise DataError(f"What was found in {root} cannot be read: it is nothing.")
    return looked.fingerprint


def check(index: Path, root: Path, caps: Caps) -> Checked:
    """As `check_index`, in the sandbox, of the cases of an index.json that can be read.

    Raises: DataError: a file claims too much, or ended its reader.
    """
    arguments = ("--index", "{index}", "--caps", caps.model_dump_json())
    checked = _parsed(root, {"index": index}, arguments, lambda line: None, Checked)
    _raise(checked, root)
    return checked


def _parsed(
    root: Path, mounts: dict[str, Path], arguments: Sequence[str], notice: Callable[[str], None], kind: type[T]
) -> T:
    with TemporaryDirectory(prefix="m3dspy-") as scratch:
        out, log = Path(scratch, "out"), Path(scratch, "log")
        out.mkdir()
        mounts = {"data": root, **mounts}
        lines = execute.stream(
            _CODE,
            "parse.py",
            ["--data", "{data}", "--out", "{out}", *arguments],
            out=out,
            mounts=mounts,
            log=log,
            seconds=SECONDS,
            trusted=True,
            unsafe=False,
        )
        try:
            for line in lines:
                with suppress(json.JSONDecodeError):
                    notice(_here(str(json.loads(line)), root))
        except RunFailed as failure:
            raise DataError(ended_by(failure, out / "journal", root, "parse.py")) from failure
        try:
            return TypeAdapter(kind).validate_json(untrusted.read(out, "result.json", MOST_BYTES))
        except ValidationError as error:
            raise DataError(f"What was found in {root} cannot be read: {error.errors()[0]['msg']}.") from None


def _raise(answered: Answered, root: Path) -> None:
    if answered.error:
        raise _KINDS.get(answered.kind, M3Error)(_here(answered.error, root))


def ended_by(failure: RunFailed, journal: Path, root: Path, script: str) -> str:
    """What ended the reader of a dataset, and the files that it was at."""
    try:
        written = untrusted.read(journal.parent, journal.name, 1 << 20).decode(errors="replace")
        files = [line for line in written.splitlines() if line.strip()]
    except DataError:
        files = []
    named = ", ".join(clean(_here(file, root).removeprefix(f"{root}/")) for file in files) or "no file yet"
    what = failure.happened.replace(script, "The reader").rstrip(".?")
    return f"{root} cannot be used: {what}. At work: {named}. Remove or replace this file."


def _here(text: str, root: Path) -> str:
    """Paths as the reader has them, as the person knows them."""
    return text.replace(str(sandbox.place_of(execute.probe(), root.resolve(), "data")), str(root))
