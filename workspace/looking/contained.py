"""`look` and `check_index` with the parsers in the sandbox: a crash, a bomb or a hang is one line naming the file."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from m3dspy.errors import DataError, M3Error, RunFailed, UsageError
from m3dspy.signatures.values import Caps, Fingerprint, Value
from m3dspy.workspace import execute, untrusted
from m3dspy.workspace.indexes.cases import existing
from m3dspy.workspace.patterns import clean

T = TypeVar("T")
SECONDS = 1800.0
MOST_BYTES = 64 << 20
_CODE = Path(__file__).parent / "inside"
_KINDS = {kind.__name__: kind for kind in (DataError, UsageError)}


class Looked(Value):
    """A fingerprint with tokens for what could tell who a patient is, and `private`: value -> token."""

    fingerprint: Fingerprint
    private: dict[str, str]


class Checked(Value):
    """`problems`: what is wrong with an index, its unreadable cases aside; `unreadable`: why -> ids of those cases."""

    problems: tuple[str, ...]
    unreadable: dict[str, tuple[str, ...]]


def look(root: Path, *, notice: Callable[[str], None] = lambda line: None) -> Looked:
    """As `workspace.look.look`, in the sandbox.

    Raises: UsageError, DataError: as there; or a file ended its reader.
    """
    return _parsed(existing(root), {}, (), notice, Looked)


def check(index: Path, root: Path, caps: Caps) -> Checked:
    """As `check_index`, in the sandbox, of the cases of an index.json that can be read.

    Raises: DataError: a file claims too much, or ended its reader.
    """
    arguments = ("--index", "{index}", "--caps", caps.model_dump_json())
    return _parsed(root, {"index": index}, arguments, lambda line: None, Checked)


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
            raise DataError(_ended_by(failure, out / "journal", root)) from failure
        result = json.loads(untrusted.read(out, "result.json", MOST_BYTES))
        if "error" in result:
            raise _KINDS.get(result["kind"], M3Error)(_here(result["error"], root))
        try:
            return TypeAdapter(kind).validate_python(result)
        except ValidationError as error:
            raise DataError(f"What was found in {root} cannot be read: {error.errors()[0]['msg']}.") from None


def _ended_by(failure: RunFailed, journal: Path, root: Path) -> str:
    try:
        written = untrusted.read(journal.parent, journal.name, 1 << 20).decode(errors="replace")
        files = [line for line in written.splitlines() if line.strip()]
    except DataError:
        files = []
    named = ", ".join(clean(_here(file, root).removeprefix(f"{root}/")) for file in files) or "no file yet"
    what = failure.happened.replace("parse.py", "The reader").rstrip(".?")
    return f"{root} cannot be used: {what}. At work: {named}. Remove or replace this file."


def _here(text: str, root: Path) -> str:
    """Paths inside the sandbox as the person knows them."""
    return text.replace("/m3/data", str(root))
