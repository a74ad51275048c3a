"""MedMNIST: one .npz with {train,val,test}_{images,labels}; images are read one by one, never a whole array at once.

Pictures become PNG, volumes .npy: the file gives no voxel size. Classes have names where the file is called as one of
MedMNIST's own (`pneumoniamnist.npz`), else numbers.
"""

import zipfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace import sources
from m3dspy.workspace.unpacking._plain import MOST_BYTES, Bounded, Plain, text_of

HOLDS_IMAGES = True
_PARTS: dict[str, Split] = {"train": "training", "val": "validation", "test": "test"}


def found(root: Path) -> bool:
    return _file(root) is not None


def unpack(root: Path, plain: Plain) -> bool:
    path = _file(root)
    if path is None:
        return False
    with sources.at_work(path), _opened(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        parts = [part for part in _PARTS if f"{part}_images" in held]
        if not parts:
            return False
        names = _names(path)
        bounded, number = Bounded(path.stat().st_size), 0
        for part in parts:
            labels = list(_array(archive, f"{part}_labels", bounded)) if f"{part}_labels" in held else None
            count = 0
            for count, image in enumerate(_array(archive, f"{part}_images", bounded), start=1):
                file = plain.array(f"image-{number:06d}", image)
                number += 1
                if labels is not None and count <= len(labels):
                    plain.row(file, {"label": _class(labels[count - 1], names, path)}, _PARTS[part])
            if labels is not None and count != len(labels):
                raise DataError(f"{path.name} has {count} images and {len(labels)} labels of {part}.")
    plain.how.append("The split is the file's own; it names no patients.")
    if not names:
        plain.how.append(
            "The file does not name its classes: they are numbered; with the package medmnist its own have names."
        )
    return True


def _file(root: Path) -> Path | None:
    """The only .npz of a folder that holds nothing else to be read."""
    files = [path for path in root.iterdir() if not path.name.startswith(".")]
    arrays = [path for path in files if path.suffix.lower() == ".npz" and path.is_file() and not path.is_symlink()]
    return arrays[0] if len(arrays) == 1 and len(files) <= 3 else None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path.name} is damaged or cut short: {error}. Fetch it anew.") from None


def _array(archive: zipfile.ZipFile, name: str, bounded: Bounded) -> Iterator[np.ndarray]:
    """The entries of an array along its first axis, as they come out of the archive.

    Raises: DataError: it is no array of plain numbers, claims too much, or is cut short.
    """
    try:
        with archive.open(f"{name}.npy") as member:
            shape, dtype = _header(member, name)
            step = prod(shape[1:]) * dtype.itemsize
            if step > MOST_BYTES:
                raise DataError(f"{name} claims {step:,} bytes an image.")
            for _ in range(shape[0]):
                data = member.read(step)
                if len(data) < step:
                    raise DataError(f"{name} is cut short. Fetch the file anew.")
                bounded.take(step, name)
                yield np.frombuffer(data, dtype).reshape(shape[1:])
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{name} is damaged: {error}. Fetch the file anew.") from None


def _header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = reader(member)
    if dtype.kind not in "biuf" or fortran or not 1 <= len(shape) <= 5:
        what = "Python objects, which are never read" if dtype.hasobject else f"{dtype} of shape {shape}"
        raise DataError(f"{name} holds {what}; MedMNIST's are plain numbers, one image after the other.")
    return shape, dtype


def _class(label: np.ndarray, names: dict[str, str], path: Path) -> str:
    if label.size != 1:
        raise DataError(f"{path.name} gives {label.size} labels an image; one class an image is read.")
    value = float(label.reshape(-1)[0])
    if not value.is_integer():
        raise DataError(f"{path.name} gives the label {value:g}; a class is a whole number.")
    number = str(int(value))
    return names.get(number) or text_of(number)


def _names(path: Path) -> dict[str, str]:
    """Number -> class, of MedMNIST's own files, each of which is called so: `pneumoniamnist_224.npz`."""
    stem = path.stem.lower().partition("_")[0]
    if not stem.endswith(("mnist", "mnist3d")):
        return {}
    from medmnist import INFO

    return dict(INFO[stem]["label"]) if stem in INFO else {}
