"""Readers of images on disk, one file a format; a new format is one new file and no list to edit.

    sources.source_of(path)   "nifti", "dicom", ...: by suffix, or by magic bytes where there is none
    sources.header(path)      shape, spacing, orientation and dtype, without the voxels where the format allows it
    sources.read(path)        (array, affine)

`path` is one file, or a list of files that are the slices of one volume. What comes back, in `read`:

    nifti                          (x, y, z) or (x, y, z, channels), affine
    dicom series, multi-frame      (x, y, z), affine; in Hounsfield units where the file says how
    dicom, one picture; raster     (rows, columns) or (rows, columns, 3), no affine
    raster stack                   (rows, columns, slices), no affine
    npy, torch_tensor, pickled     as stored, without leading axes of length 1, no affine

An affine is 4 x 4, from voxel to mm in a world that grows to the right, anterior and superior (RAS+), as nibabel's.
Every error is a ValueError of one line, `<file name>: <what is wrong>`. Nothing that is read is ever executed, and
a header that claims more than 4 GiB of voxels is refused before memory is taken.

A format's file defines `SUFFIXES`, `header(path)` and `read(path)`; where they apply, `MAGIC = (offset, bytes)` for
files without suffix and `SLICES = True` if it takes lists. What it raises is given the file's name here. This folder
works on its own: it is copied next to every training script.
"""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import numpy as np

from ._common import Header, Oversized, Unreadable, at_work, keep_journal, reading

__all__ = [
    "IMAGE_SUFFIXES",
    "Header",
    "Oversized",
    "Unreadable",
    "at_work",
    "header",
    "keep_journal",
    "read",
    "reading",
    "source_of",
]

Paths = str | Path | Sequence[str | Path]

_FORMATS: dict[str, ModuleType] = {
    found.name: import_module(f".{found.name}", __name__)
    for found in iter_modules(__path__)
    if not found.name.startswith("_")
}
_BY_SUFFIX = {suffix: name for name, module in _FORMATS.items() for suffix in module.SUFFIXES}
IMAGE_SUFFIXES: tuple[str, ...] = tuple(sorted(_BY_SUFFIX, key=len, reverse=True))  # .nii.gz before .gz


def source_of(path: str | Path) -> str:
    """The name of the reader for this file.

    Raises: ValueError: no reader knows its suffix or its first bytes.
    """
    path = Path(path)
    name = path.name.lower()
    for suffix in IMAGE_SUFFIXES:
        if name.endswith(suffix):
            return _BY_SUFFIX[suffix]
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(256)
        for source, module in _FORMATS.items():
            offset, magic = getattr(module, "MAGIC", (0, b""))
            if magic and start[offset:].startswith(magic):
                return source
    raise Unreadable(path, f"is no image format that is known; known: {', '.join(sorted(_BY_SUFFIX))}")


def header(path: Paths) -> Header:
    """Shape, spacing, orientation and dtype of an image, or of the volume that a list of slices makes.

    Raises: ValueError: a file cannot be read, or the slices do not fit together.
    """
    module, files = _reader(path)
    with reading(files if isinstance(files, Path) else files[0]):
        return module.header(files)


def read(path: Paths) -> tuple[np.ndarray, np.ndarray | None]:
    """An image as an array in native byte order, and its affine (voxel to mm, RAS+) where the format has one.

    Raises: ValueError: a file cannot be read, or the slices do not fit together.
    """
    module, files = _reader(path)
    with reading(files if isinstance(files, Path) else files[0]):
        return module.read(files)


def _reader(path: Paths) -> tuple[ModuleType, Path | list[Path]]:
    if isinstance(path, str | Path):
        return _FORMATS[source_of(path)], Path(path)
    files = [Path(file) for file in path]
    if not files:
        raise ValueError("a volume needs one slice or more; the list is empty")
    source = source_of(files[0])
    for file in files:
        if source_of(file) != source:
            raise Unreadable(file, f"is {source_of(file)}, but the other slices of this volume are {source}")
    if not getattr(_FORMATS[source], "SLICES", False):
        raise Unreadable(files[0], f"is a whole {source} image; only DICOM and raster files are slices of a volume")
    return _FORMATS[source], files
