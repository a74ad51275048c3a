"""Tools for made-up patients: deterministic, and physically sensible in HU, millimetres and MR signal.

Every random number comes from a stream of its own, `stream(seed, "covid19", 7)`, so that neither the order of the cases
nor the number of workers changes a byte. What belongs to the patient (anatomy) and what belongs to the scan (noise,
pose, scanner) are drawn from different streams: a patient can be memorised, a scan cannot.

A volume is built with its axes running to the patient's right, front and head (RAS+), in millimetres around its centre.
"""

import hashlib
import json
import time
import zipfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.floating]
Numbers = Sequence[float] | NDArray  # one an axis
Case = TypeVar("Case")
Result = TypeVar("Result")
Axes = Sequence[Volume]  # one coordinate array an axis, broadcastable against the others

ALONE = 1.0  # seconds that one process works before others help: to fork is dear
AIR, FAT, SOFT_TISSUE, BLOOD, BONE = -1000.0, -100.0, 45.0, 50.0, 450.0  # HU


def stream(seed: int, *key: object) -> np.random.Generator:
    """The random numbers of one case: the same for the same key, unrelated to those of any other."""
    digest = hashlib.blake2b(repr((seed, *key)).encode(), digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def each(make: Callable[[Case], Result], cases: Iterable[Case], workers: int) -> list[Result]:
    """`make` of every case, in order. `make` is a module's own function (or a partial of one).

    Processes are forked for what is left after `ALONE` seconds: most small phantoms are made by then.
    """
    left, made, began = deque(cases), [], time.monotonic()
    while left and (workers <= 1 or time.monotonic() - began < ALONE):
        made.append(make(left.popleft()))
    if not left:
        return made
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return made + list(pool.map(make, left, chunksize=max(1, len(left) // (8 * workers))))


# ------------------------------------------------------------------------------------------------ geometry
def millimetres(shape: Numbers, spacing: Numbers, centre: Numbers = (0, 0, 0)) -> list[Volume]:
    """Coordinates of every voxel in mm, one broadcastable array an axis; `centre` is the middle of the grid."""
    lines = [(np.arange(n) - (n - 1) / 2) * step + at for n, step, at in zip(shape, spacing, centre, strict=False)]
    return [line.astype(np.float32) for line in np.ix_(*lines)]


def turned(axes: Axes, angles: Numbers) -> list[Volume]:
    """The coordinates after a turn by three angles in radians about x, y and z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix = (about_z @ about_y @ about_x).astype(np.float32)
    return [row[0] * axes[0] + row[1] * axes[1] + row[2] * axes[2] for row in matrix]


def ellipsoid(axes: Axes, centre: Numbers, radii: Numbers, angles: Numbers | None = None) -> Volume:
    """Distance from the centre in units of the radii: below 1 is inside. Two axes give an endless cylinder."""
    moved = [axis - np.float32(at) for axis, at in zip(axes, centre, strict=False)]
    if angles is not None:
        moved = turned(moved, angles)
    return np.sqrt(sum((axis / np.float32(radius)) ** 2 for axis, radius in zip(moved, radii, strict=False)))


def inside(distance: Volume, edge: float) -> Volume:
    """Share of a voxel within distance 1, for a border `edge` wide (partial volume)."""
    return np.clip((1 - distance) / edge + 0.5, 0, 1)


# ------------------------------------------------------------------------------------------------ texture and noise
def blurred(volume: NDArray, sigma: float | Numbers) -> Volume:
    """Gaussian blur, sigma in voxels."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(volume.astype(np.float32, copy=False), sigma)


def texture(random: np.random.Generator, shape: Numbers, sigma: float | Numbers, deviation: float) -> Volume:
    """A smooth random field of mean 0. Args: sigma: of the blur, voxels. deviation: standard deviation of the field.

    Drawn on a grid as coarse as the blur allows, then interpolated.
    """
    from scipy.ndimage import gaussian_filter

    shape = [int(n) for n in shape]
    sigmas = np.broadcast_to(np.asarray(sigma, float), len(shape))
    step = np.maximum(1, (sigmas / 1.5).astype(int))
    coarse = [max(4, -(-n // s) + 2) for n, s in zip(shape, step, strict=True)]
    field = gaussian_filter(random.standard_normal(coarse, dtype=np.float32), sigmas / step, mode="wrap")
    for axis, n in enumerate(shape):
        place = np.linspace(0, coarse[axis] - 1, n, dtype=np.float32) if step[axis] > 1 else np.arange(n)
        before = np.minimum(place.astype(int), coarse[axis] - 2)
        share = (place - before).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        field = field.take(before, axis) * (1 - share) + field.take(before + 1, axis) * share
    return (field - field.mean()) * np.float32(deviation / (field.std() + 1e-8))


def ct_noise(random: np.random.Generator, shape: Numbers, deviation: float, sigma: float | Numbers = 0.6):
    """Correlated CT noise in HU: white noise seen through a reconstruction kernel of width `sigma` voxels."""
    noise = blurred(random.standard_normal([int(n) for n in shape], dtype=np.float32), sigma)
    return noise * np.float32(deviation / noise.std())


def rician(random: np.random.Generator, signal: Volume, deviation: float) -> Volume:
    """MR magnitude: the signal with Gaussian noise in both channels."""
    real, imaginary = random.standard_normal((2, *signal.shape), dtype=np.float32) * np.float32(deviation)
    return np.hypot(signal + real, imaginary)


def coil_field(random: np.random.Generator, shape: Numbers, strength: float) -> Volume:
    """The slow brightness change of an MR coil, a factor around 1."""
    return np.exp(texture(random, shape, [n / 2.5 for n in shape], strength))


# ------------------------------------------------------------------------------------------------ files
def save_nifti(path: Path, volume: NDArray, spacing: Numbers, codes: str, origin: Numbers, dtype: type) -> None:
    """Write a RAS+ volume as a NIfTI file whose axes run as `codes` says ("LPS", or "PIR": in another order).

    Args: spacing: mm, of the volume. origin: where the volume's centre lies in the scanner, mm.
    """
    import nibabel

    order = [next(axis for axis, pair in enumerate(("RL", "AP", "SI")) if code in pair) for code in codes]
    affine = np.eye(4)
    affine[:3, :3] = 0
    for place, (axis, code) in enumerate(zip(order, codes, strict=True)):
        sign = -1 if code in "LPI" else 1
        if sign < 0:
            volume = np.flip(volume, axis)
        affine[axis, place] = sign * spacing[axis]
        affine[axis, 3] = origin[axis] - sign * spacing[axis] * (volume.shape[axis] - 1) / 2
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(order)).astype(dtype), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    nibabel.save(image, path)


def save_tensor(path: Path, array: NDArray) -> None:
    """Write the `.pt` file that `torch.save` writes for a tensor of float16 or float32, without torch."""
    array = np.ascontiguousarray(array)
    storage = {"float32": "FloatStorage", "float16": "HalfStorage"}[array.dtype.name]
    strides = [step // array.itemsize for step in array.strides]
    pickled = b"".join(
        [
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage") + f"ctorch\n{storage}\n".encode() + _text("0") + _text("cpu") + _number(array.size),
            b"tQK\x00",  # the tuple above is the storage's name; the tensor begins at its element 0
            b"(" + b"".join(map(_number, array.shape)) + b"t",
            b"(" + b"".join(map(_number, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)RtR.",
        ]
    )
    parts = {"data.pkl": pickled, "byteorder": b"little", "data/0": array.tobytes(), "version": b"3\n"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{name}"), content)


def save_pickle(path: Path, array: NDArray) -> None:
    """Write the `.pck` file that Python 2 pickled (protocol 2) of an array of uint16, without pickle."""
    array = np.ascontiguousarray(array, "<u2")
    raw = array.tobytes()
    pickled = b"".join(
        [
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01(" + b"".join(map(_number, array.shape)) + b"t",
            b"cnumpy\ndtype\nU\x02u2K\x00K\x01\x87R(K\x03U\x01<NNN" + _number(-1) + _number(-1) + b"K\x00tb",
            b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb.",
        ]
    )
    path.write_bytes(pickled)


def _text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def _number(value: int) -> bytes:
    return b"J" + int(value).to_bytes(4, "little", signed=True)


def save_json(path: Path, value: object) -> None:
    """Write JSON that a person can read."""
    path.write_text(json.dumps(value, indent=1) + "\n")
