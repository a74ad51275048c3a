"""What a script left behind, or printed: opened, measured and taken apart without believing any of it.

A file is opened by the folder's descriptor, no link followed at any level, and only if it is a regular file with one
name and of sane size; JSON is measured before it is parsed; a tree is walked without recursion. Every refusal is a
DataError of one line that names the file. `clean` makes text fit to be shown or put into a prompt.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from secrets import token_hex
from typing import Any, NoReturn

from m3dspy.errors import DataError, clean

__all__ = ["checked", "clean", "files", "finite", "read", "refuse_odd", "remove", "reports", "strict_json"]

MOST_ENTRIES, MOST_DEPTH = 200_000, 16  # of a folder that a script filled
MOST_NESTED, MOST_VALUES, LONGEST_STRING, LONGEST_KEY = 12, 200_000, 20_000, 200  # of its JSON
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.S)
_WALK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read(folder: Path, name: str, most: int) -> bytes:
    """The bytes of the file `name` below `folder`.

    Args:   folder: trusted, up to its own name.  name: relative, with `/`.  most: bytes.
    Raises: DataError: it is missing, is or lies behind a link, is a FIFO or a device, has a second name (hard link), or
            is larger than that.
    """
    with os.fdopen(_opened(folder, name, most), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{clean(name)} grew to more than {most:,} bytes while it was read.")
    return data


def checked(folder: Path, name: str, most: int) -> Path:
    """The path of a file that `read` would read, for a reader that takes its own bytes; nobody may write there by now.

    Raises: DataError: as `read`.
    """
    os.close(_opened(folder, name, most))
    return folder / name


def _opened(folder: Path, name: str, most: int) -> int:
    parts, shown = name.split("/"), clean(name)
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise DataError(f"{shown!r} is no name of a file below the folder that the script filled.")
    with ExitStack() as walked:
        try:
            at = os.open(folder, _WALK)
            walked.callback(os.close, at)
            for part in parts[:-1]:
                at = os.open(part, _WALK, dir_fd=at)
                walked.callback(os.close, at)
            file = os.open(parts[-1], _OPEN, dir_fd=at)
        except FileNotFoundError:
            raise DataError(f"{shown} is missing.") from None
        except OSError as error:
            raise DataError(f"{shown} is no plain file in plain folders: {os.strerror(error.errno or 0)}.") from None
    status = os.fstat(file)
    if wrong := _odd(status) or (f"has {status.st_size:,} bytes, more than {most:,}" if status.st_size > most else ""):
        os.close(file)
        raise DataError(f"{shown} {wrong}.")
    return file


def _odd(status: os.stat_result) -> str:
    """What keeps this from being a plain file."""
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if not stat.S_ISREG(status.st_mode):
        return "is no regular file"
    return f"is one of {status.st_nlink} hard links" if status.st_nlink != 1 else ""


# ------------------------------------------------------------------------------------------------ JSON
def strict_json(data: bytes, name: str) -> Any:
    """What JSON says, with numbers below 2**63, no key twice, and bounded depth, values and strings.

    Raises: DataError: naming what is wrong; `name` stands for the file.
    """

    def refuse(why: str) -> NoReturn:
        raise DataError(f"{name} is refused: {why}.")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(once := dict(found)) != len(found):
            refuse("a key comes twice")
        return once

    try:
        text = data.decode()
    except UnicodeDecodeError:
        refuse("it is not UTF-8")
    depth = 0
    for bracket in re.finditer(r"[\[\]{}]", _STRING.sub("", text)):  # the parser recurses
        depth += 1 if bracket[0] in "[{" else -1
        if depth > MOST_NESTED:
            refuse(f"it is nested more than {MOST_NESTED} deep")
    try:
        said = json.loads(text, parse_constant=lambda word: refuse(f"{word} is no number"), object_pairs_hook=pairs)
    except ValueError as error:
        refuse(f"it is no JSON ({clean(str(error))[:120]})")
    values, count = [said], 0
    while values:
        value = values.pop()
        count += 1
        if count > MOST_VALUES:
            refuse(f"it holds more than {MOST_VALUES:,} values")
        if isinstance(value, dict):
            if any(len(key) > LONGEST_KEY for key in value):
                refuse(f"a key is longer than {LONGEST_KEY} characters")
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str) and len(value) > LONGEST_STRING:
            refuse(f"a text has {len(value):,} characters, more than {LONGEST_STRING:,}")
        elif isinstance(value, int | float) and not abs(value) < 2**63:  # 1e999 is read as infinite
            refuse("a number is out of range")
    return said


def reports(data: bytes, name: str) -> dict[str, dict[str, str]]:
    """Case id -> findings and impression, both texts, of a `reports.json`; entries of any other form are left out.

    Raises: DataError: it is no JSON object, or beyond the bounds of `strict_json`.
    """
    said = strict_json(data, name)
    if not isinstance(said, dict):
        raise DataError(f'{name} is refused: it must be {{"case id": {{"findings": "...", "impression": "..."}}}}.')
    return {case: report for case, report in said.items() if _is_report(report)}


def _is_report(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"findings", "impression"}
        and all(isinstance(text, str) for text in value.values())
    )


def finite(value: object) -> bool:
    """Whether this is a number, and neither infinite nor NaN; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ------------------------------------------------------------------------------------------------ trees
def files(folder: Path) -> Iterator[str]:
    """The files below a folder, as paths relative to it.

    Raises: DataError: at the first link, hard link, device or sealed folder, or where it is too deep or too full.
    """
    try:
        yield from _walked(folder)
    except OSError as error:  # also a path that is longer than the system takes
        raise DataError(f"The script left {folder}, which cannot be walked: {os.strerror(error.errno or 0)}.") from None


def _walked(folder: Path) -> Iterator[str]:
    count, waiting = 0, [(folder, "", 1)]
    while waiting:
        at, above, depth = waiting.pop()
        with os.scandir(at) as entries:
            for entry in entries:
                count += 1
                name, status = f"{above}{entry.name}", entry.stat(follow_symlinks=False)
                if count > MOST_ENTRIES:
                    raise DataError(f"The script left more than {MOST_ENTRIES:,} files in {folder}.")
                if stat.S_ISDIR(status.st_mode):
                    if depth == MOST_DEPTH:
                        raise DataError(f"The script left folders more than {MOST_DEPTH} deep in {folder}.")
                    waiting.append((Path(entry.path), f"{name}/", depth + 1))
                elif wrong := _odd(status):
                    raise DataError(f"The script left {folder}/{clean(name)}, which {wrong}. Only plain files count.")
                else:
                    yield name


def refuse_odd(folder: Path) -> None:
    """Accept a folder that a script filled only if it is one, and holds plain files and folders, within bounds.

    Raises: DataError: naming the first other thing.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise DataError(f"The script left no folder {folder}.")
    for _ in files(folder):
        pass


def remove(folder: Path) -> None:
    """Remove what a script left here: a link, a file, or a tree, however deep.

    What lies two levels down is first lifted to the top.
    """
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
    while folder.is_dir() and not folder.is_symlink():
        folders = _emptied(folder)
        if not folders:
            folder.rmdir()
        for child in folders:
            for inner in _emptied(child):
                inner.rename(folder / f"{token_hex(8)}.lifted")  # a crash may have left lifted ones
            child.rmdir()


def _emptied(folder: Path) -> list[Path]:
    """Remove all of a folder but its folders, which are returned."""
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for path, is_folder in found:
        if not is_folder:
            path.unlink()
    return [path for path, is_folder in found if is_folder]
