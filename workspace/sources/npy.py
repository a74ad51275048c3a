"""NumPy files: .npy, and .npz with its only array or else the one with the most voxels."""

import zipfile
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from ._common import Header, check_size, native, without_leading_ones

SUFFIXES = (".npy", ".npz")


def header(path: Path) -> Header:
    """From the first bytes of the file."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            shape, dtype = _begin(archive, _largest(archive))
    else:
        with path.open("rb") as file:
            shape, dtype = _claim(file)
    check_size(shape, dtype)
    return Header(shape=without_leading_ones(shape), dtype=dtype.name)


def read(path: Path) -> tuple[np.ndarray, None]:
    """The array as stored, without leading axes of length 1. Arrays of Python objects are refused."""
    found = header(path)
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(_largest(archive)) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    else:
        array = np.load(path, allow_pickle=False)
    return native(array).reshape(found.shape), None


def _largest(archive: zipfile.ZipFile) -> str:
    """The member with the most voxels, by what the members' headers claim."""
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    sizes = {name: prod(shape) for name in names for shape, dtype in [_begin(archive, name)] if dtype.kind in "biuf"}
    if not sizes:
        raise ValueError("holds no array of numbers")
    return max(sizes, key=lambda name: sizes[name])


def _begin(archive: zipfile.ZipFile, member: str) -> tuple[tuple[int, ...], np.dtype]:
    with archive.open(member) as file:
        return _claim(file)


def _claim(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype from the header of an .npy stream."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"is .npy version {version[0]}.{version[1]}, which arrays of plain numbers do not use")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    return shape, dtype
