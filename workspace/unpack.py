"""A dataset as plain files: containers are unpacked, once, into a folder of ours; anything else is used as it lies.

    root, unpacked = unpack.of_run(run)          # a run's dataset; unpacked once, into run.folder/unpacked
    with unpack.aside(folder) as (root, unpacked): ...
    with unpack.aside(folder, annotated=False) as (root, unpacked): ...    # new images, to predict on

A format's own code (`workspace.unpacking`) parses untrusted files, so it runs in the sandbox. Files that stay as they
are, such as the images beside foreign annotations, are linked here, after their names were checked.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, ValidationError

from m3dspy.errors import DataError, RunFailed
from m3dspy.signatures.values import Request, Unpacked, Value
from m3dspy.workspace import execute, public, untrusted
from m3dspy.workspace.looking import contained
from m3dspy.workspace.runs import UNPACKED, Run, dataset, disk, write_atomic
from m3dspy.workspace.sandbox import Limits
from m3dspy.workspace.unpacking import FORMATS

SECONDS = 4 * 3600.0
MOST_BYTES = 64 << 20
SHARE = 2  # of the free space a container may take one part
_CODE = Path(__file__).parent / "unpacking" / "inside"


class _Left(Value):
    """What the unpacker left; `format` "": no format was its own."""

    error: str = ""
    format: str = ""
    how: tuple[str, ...] = ()
    boxes: bool = False
    kept: dict[str, str] = Field(default_factory=dict)


def of_run(run: Run) -> tuple[Path, Unpacked | None]:
    """A run's dataset as plain files, and how it was made so; what is unpacked already is not unpacked again.

    Raises: DataError: it is a container that cannot be unpacked.
    """
    folder, request = run.folder / UNPACKED, run.load("request", Request)
    if not folder.is_dir():
        unborn = run.attempt(UNPACKED)
        with disk(run.folder):
            data = Path(request.data)
            if _unpack(data, _formats(data), unborn, run.log(UNPACKED)):
                unborn.rename(folder)
    return dataset(run.folder, request), _how(folder)


def _how(folder: Path) -> Unpacked | None:
    """How a folder was unpacked; None: it was not."""
    told = folder / "how.json"
    return Unpacked.model_validate_json(told.read_bytes()) if told.is_file() else None


@contextmanager
def aside(folder: Path, *, annotated: bool = True) -> Iterator[tuple[Path, Unpacked | None]]:
    """A dataset as plain files while the block runs, and how it was made so (None: it is used as it lies).

    Args:   annotated: whether annotations beside images count; those of new images do not, for all are predicted on.
    Raises: DataError: it is a container that cannot be unpacked.
    """
    if not folder.is_dir() or not (formats := _formats(folder, annotated)):
        yield folder, None
        return
    with TemporaryDirectory(prefix="m3dspy-") as scratch:
        out = Path(scratch, "out")
        out.mkdir()
        unpacked = _unpack(folder, formats, out, Path(scratch, "log"))
        yield (out / "data", _how(out)) if unpacked else (folder, None)


def _formats(root: Path, annotated: bool = True) -> list[str]:
    """The formats that names in a folder speak for; without the annotated ones, those that hold images themselves."""
    formats = [name for name in FORMATS if annotated or FORMATS[name].HOLDS_IMAGES]
    return [name for name in formats if FORMATS[name].found(root)]


def _unpack(root: Path, formats: list[str], out: Path, log: Path) -> bool:
    """Fill `out/data` from a container of one of these formats; False: it is none."""
    if not formats:
        return False
    free = os.statvfs(out).f_bavail * os.statvfs(out).f_frsize
    lines = execute.stream(
        _CODE,
        "enter.py",
        ["--data", "{data}", "--out", "{out}", "--formats", *formats],
        out=out,
        mounts={"data": root},
        log=log,
        seconds=SECONDS,
        trusted=True,
        unsafe=False,
        limits=Limits(disk=free // SHARE),
    )
    try:
        for _ in lines:
            pass
    except RunFailed as failure:
        raise DataError(contained.ended_by(failure, out / "journal", root, "enter.py")) from failure
    try:
        left = _Left.model_validate_json(untrusted.read(out, "result.json", MOST_BYTES))
    except ValidationError as error:
        raise DataError(f"What was unpacked of {root} cannot be read: {error.errors()[0]['msg']}.") from None
    if left.error:
        raise DataError(left.error)
    if not left.format:
        return False
    untrusted.refuse_odd(out / "data")
    kept = _checked(root, left.kept)
    if lacking := public.fill(out / "data", kept):
        raise DataError(f"{root} cannot be unpacked: {lacking}. Put the runs on the disk of the data, or free space.")
    how = Unpacked(format=left.format, how=left.how, boxes=left.boxes)
    write_atomic(out / "how.json", json.dumps(how.model_dump()).encode())
    return True


def _checked(root: Path, kept: Mapping[str, str]) -> dict[str, Path]:
    """Place -> file of the dataset.

    Raises: DataError: one or the other leads elsewhere.
    """
    top, files = root.resolve(), {}
    for place, source in kept.items():
        file = (root / source).resolve()
        odd = any(part in ("", ".", "..") for path in (place, source) for part in path.split("/"))
        if odd or not file.is_relative_to(top) or not file.is_file():
            raise DataError(f"{untrusted.clean(source)} is named by the container, and is no file of the dataset.")
        files[place] = file
    return files
