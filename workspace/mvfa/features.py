"""What the frozen trunk makes of an image, computed once and kept: in memory, then in files."""

import hashlib
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

_SEAL = 16  # bytes of hash behind the array in a file
_BATCH = 16  # images computed at a time


class FeatureCache:
    """Arrays of images, by what the image holds.

    Args: key: all else that the arrays depend on: backbone (`fingerprint`), layers, residual, normalisation.
          folders: with files of earlier runs, only read.  write: folder for new files.
          gigabytes: kept in memory; what is more stays in files, which are then mapped.
    """

    def __init__(self, key: str, folders: Sequence[Path] = (), write: Path | None = None, gigabytes: float = 4.0):
        self.key, self.folders, self.write = key, (*folders, *([write] if write else [])), write
        self.left = gigabytes * 1e9
        self.known: dict[str, np.ndarray] = {}
        self._own: tempfile.TemporaryDirectory | None = None

    def of(self, images: Tensor, compute: Callable[[Tensor], Tensor]) -> list[np.ndarray]:
        """One array for every image of (B, 3, H, W); `compute` is called for those not known, a few at a time.

        What it returns has the images along the first axis.
        """
        names = [self._name(image) for image in images]
        for name in dict.fromkeys(names):
            for folder in self.folders:
                if name not in self.known and (found := read_array([folder], name)) is not None:
                    self._keep(name, found, folder)
        missing = [number for name, number in {n: i for i, n in enumerate(names)}.items() if name not in self.known]
        for start in range(0, len(missing), _BATCH):
            some = missing[start : start + _BATCH]
            for number, array in zip(some, compute(images[some]).detach().cpu(), strict=True):
                self._new(names[number], np.array(array.numpy()))
        return [self.known[name] for name in names]

    def _name(self, image: Tensor) -> str:
        array = np.ascontiguousarray(image.detach().cpu().numpy())
        found = hashlib.blake2b(f"{self.key} {array.dtype} {array.shape}".encode(), digest_size=16)
        found.update(array.tobytes())
        return found.hexdigest()

    def _new(self, name: str, array: np.ndarray) -> None:
        folder = self.write
        if folder is None and array.nbytes > self.left:
            self._own = self._own or tempfile.TemporaryDirectory()
            folder = Path(self._own.name)
        if folder is not None:
            write_array(folder, name, array)
        self._keep(name, array, folder)

    def _keep(self, name: str, array: np.ndarray, folder: Path | None) -> None:
        if folder is not None and array.nbytes > self.left:
            self.known[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
        else:
            self.left -= array.nbytes
            self.known[name] = array


def read_array(folders: Sequence[Path], name: str) -> np.ndarray | None:
    """The array in the first folder that has it undamaged."""
    for folder in folders:
        try:
            data = (folder / f"{name}.npy").read_bytes()
            if hashlib.blake2b(data[:-_SEAL], digest_size=_SEAL).digest() == data[-_SEAL:]:
                return np.load(io.BytesIO(data))
        except (OSError, ValueError, EOFError):
            continue
    return None


def write_array(folder: Path, name: str, array: np.ndarray) -> Path:
    """Write `name.npy` and a hash behind it, at once or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    data = buffer.getvalue()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
        file.write(data + hashlib.blake2b(data, digest_size=_SEAL).digest())
    Path(file.name).chmod(0o644)
    return Path(file.name).replace(folder / f"{name}.npy")
