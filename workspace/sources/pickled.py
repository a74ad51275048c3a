"""Pickled numpy arrays, as in KneeMRI's .pck files: the only array or else the one with the most voxels.

Read by stand-ins that record what the file describes (`_unpickle`); nothing in the file is run.
"""

from pathlib import Path

import numpy as np

from ._common import MAX_BYTES, Header, check_size, without_leading_ones
from ._unpickle import Stored, largest, loads

SUFFIXES = (".pck", ".pkl", ".pickle")


def header(path: Path) -> Header:
    """Takes a pass over the whole file: a pickle has no header."""
    stored = _stored(path)
    return Header(shape=without_leading_ones(stored.shape), dtype=stored.dtype.name)


def read(path: Path) -> tuple[np.ndarray, None]:
    """The array as stored, without leading axes of length 1."""
    stored = _stored(path)
    return stored.array(stored.data).reshape(without_leading_ones(stored.shape)), None  # pyright: ignore[reportArgumentType]


def _stored(path: Path) -> Stored:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError("is larger than 4 GiB")
    stored = largest(loads(path.read_bytes()))
    check_size(stored.shape, stored.dtype)
    return stored
