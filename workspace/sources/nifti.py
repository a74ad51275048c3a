"""NIfTI and what else nibabel reads as an image in space: MGH, Analyze pairs, AFNI, Philips PAR/REC."""

import gzip
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ._common import MAX_BYTES, Header, axis_codes, check_size, native, spacing_of

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh", ".img", ".head", ".par")
_MAX_HEADER = 64 << 20  # bytes before the voxels; extensions may carry a DICOM header, hardly more
_GAIN = 1100  # most that deflate can gain
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


class _Limited(gzip.GzipFile):
    """A compressed file that ends in an error where a bomb would go on."""

    limit = _MAX_HEADER

    def read(self, size: int | None = -1) -> bytes:
        left = self.limit - self.tell()
        data = super().read(left + 1 if size is None or size < 0 else min(size, left + 1))
        if len(data) > left:
            raise ValueError(f"unpacks to more than {self.limit >> 20} MiB before its image ends")
        return data


def header(path: Path) -> Header:
    """Axes (x, y, z); further axes are channels."""
    image = _open(path)
    shape, affine = _shape(image), _affine(image)
    return Header(
        shape=shape[:3],
        channels=shape[3] if len(shape) == 4 else 1,
        spacing=spacing_of(affine)[: len(shape)],
        orientation=axis_codes(affine),
        dtype=_dtype(image).name,
    )


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, z) or (x, y, z, channels); float32 where the file scales its numbers, else as stored."""
    image = _open(path)
    shape, dtype = _shape(image), _dtype(image)
    if isinstance(stream := image.file_map["image"].fileobj, _Limited):
        stream.limit = MAX_BYTES + _MAX_HEADER
    array = np.asarray(image.dataobj)
    if array.dtype.names:  # colours
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
    return native(array.reshape(shape, order="F")).astype(dtype, copy=False), _affine(image)


def _open(path: Path) -> Any:
    """The nibabel image, its voxels still on disk."""
    import nibabel
    from nibabel.spatialimages import SpatialImage

    if path.name.lower().endswith((".nii.gz", ".mgz")):
        stream = _Limited(path)
        kind = nibabel.MGHImage
        if path.name.lower().endswith(".nii.gz"):
            size = stream.read(4)  # sizeof_hdr: 348 in NIfTI-1, 540 in NIfTI-2, in either byte order
            stream.seek(0)
            kind = nibabel.Nifti2Image if 540 in map(int.from_bytes, (size, size[::-1])) else nibabel.Nifti1Image
        image = kind.from_stream(stream)
    else:
        image = nibabel.load(path)
    if not isinstance(image, SpatialImage) or len(image.shape) < 2:
        raise ValueError("is not an image in space")
    if getattr(image.dataobj, "offset", 0) > _MAX_HEADER:
        raise ValueError(f"has a header of more than {_MAX_HEADER >> 20} MiB")
    check_size(_shape(image), _dtype(image))
    claimed = prod(_shape(image)) * np.dtype(image.get_data_dtype()).itemsize
    if isinstance(image.file_map["image"].fileobj, _Limited) and claimed > _GAIN * path.stat().st_size:
        raise ValueError(f"is cut short, or its header claims too much: {claimed} bytes of voxels")
    return image


def _colours(image: Any) -> int:
    return len(image.get_data_dtype().names or ())


def _shape(image: Any) -> tuple[int, ...]:
    """Without the empty time axis of vector images; colours are one more axis."""
    shape = tuple(int(n) for n in image.shape)
    space, more = shape[:3], [n for n in (*shape[3:], _colours(image) or 1) if n != 1]
    if len(more) > 1:
        raise ValueError(f"has {len(shape)} axes, {' x '.join(map(str, shape))}; x, y, z and channels are read")
    return (*space, *more)


def _dtype(image: Any) -> np.dtype:
    stored = image.get_data_dtype()
    if stored.names:
        return stored[0]
    scaled = getattr(image.dataobj, "slope", None) != 1 or getattr(image.dataobj, "inter", None) != 0
    return np.dtype(np.float32) if scaled and stored.kind in "iuf" else stored.newbyteorder("=")


def _affine(image: Any) -> np.ndarray:
    units = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    scale = _MILLIMETRES.get(units, 1.0)
    return np.diag([scale, scale, scale, 1.0]) @ image.affine
