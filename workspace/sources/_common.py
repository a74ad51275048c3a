"""What the readers share: the header they give, and how they say that a file is broken."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from threading import get_ident

import numpy as np

MAX_BYTES = 4 << 30  # voxels of one image; a larger claim is a broken or hostile header


@dataclass(frozen=True)
class Header:
    """What an image is, known before its voxels are read.

    `shape` holds the axes of the array that `read` gives, except the channel axis, which comes last and is counted
    in `channels`. `spacing` is in mm, one entry an axis; `orientation` says where the axes point, such as "RAS".
    """

    shape: tuple[int, ...]
    channels: int = 1
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    dtype: str = ""


class Claim(ValueError):
    """A header claims more than any image holds; inside `reading` it becomes Oversized."""


class Unreadable(ValueError):
    """A file that cannot be read, as one line: `<file name>: <what is wrong>`."""

    def __init__(self, path: Path, wrong: str):
        line = " ".join(wrong.replace(f"{path.parent}/", "").split())[:300]
        super().__init__("".join(c if c.isprintable() else "?" for c in f"{path.name}: {line}"))


class Oversized(Unreadable):
    """A file whose header claims more than any image holds: broken, or made to fill the memory."""


_NAME = 4096  # bytes a thread has in the journal
_slots: dict[int, int] = {}
_journal: list[int] = []


def keep_journal(path: Path) -> None:
    """From now on the names of the files at work stand in `path`, for whoever finds this process killed by one."""
    _journal[:] = [os.open(path, os.O_WRONLY | os.O_CREAT)]


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Book a file in the journal while the block runs, if there is one."""
    if not _journal:
        yield
        return
    place = _NAME * _slots.setdefault(get_ident(), len(_slots))
    os.pwrite(_journal[0], os.fsencode(path)[: _NAME - 1].ljust(_NAME - 1) + b"\n", place)
    try:
        yield
    finally:
        os.pwrite(_journal[0], b" " * (_NAME - 1) + b"\n", place)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a parser raises inside, given what it was fed, leaves as one line that names the file."""
    with at_work(path), _told(path):
        yield


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        if not path.is_file():
            raise ValueError("is not a file" if path.exists() else "does not exist")
        if path.stat().st_size == 0:
            raise ValueError("is empty")
        yield
    except Unreadable:
        raise
    except Claim as error:
        raise Oversized(path, str(error)) from error
    except ValueError as error:
        raise Unreadable(path, str(error)) from error
    except MemoryError as error:
        raise Unreadable(path, "needs more memory than this machine has") from error
    except ImportError as error:
        raise Unreadable(path, f"needs the package {error.name}, which is not installed") from error
    except Exception as error:
        said = ": ".join(filter(None, [type(error).__name__, str(error)]))
        raise Unreadable(path, f"is damaged ({said})") from error


def check_size(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise a ValueError unless an array of plain numbers of this shape can be read at all."""
    if dtype.kind not in "biuf":
        raise ValueError(f"holds {dtype} instead of plain numbers")
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"its shape is {_times(shape)}; an image needs two or more axes, each of 1 or more")
    if prod(shape) * dtype.itemsize > MAX_BYTES:
        raise Claim(f"its header claims {_times(shape)} voxels of {dtype}, which is more than 4 GiB")


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape) or "empty"


def without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a stored tensor without its batch and channel axes of length 1; two axes always stay.

    >>> without_leading_ones((1, 1, 64, 64))
    (64, 64)
    """
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    return shape


def native(array: np.ndarray) -> np.ndarray:
    """The same numbers in this machine's byte order, which torch insists on."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def axis_codes(affine: np.ndarray) -> str:
    """Where the array axes point, as letters: "RAS" for right, anterior, superior."""
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(affine))


def spacing_of(affine: np.ndarray) -> tuple[float, ...]:
    """Voxel size along each of the three axes, in the affine's unit, to a ten-thousandth."""
    return tuple(round(float(size), 4) for size in np.linalg.norm(affine[:3, :3], axis=0))
