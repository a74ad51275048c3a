"""nnU-Net's plan of a training from the fingerprint: target spacing, patch and batch for the memory of a GPU.

Isensee et al. 2021, doi:10.1038/s41592-020-01008-z, as version 2 computes it (`ExperimentPlanner`): the patch has the
shape of the median image, covers as much of it as memory allows, and is given to a plain U-Net of two convolutions a
level whose feature maps are counted.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from m3dspy.signatures.values import Spread

TEMPLATE = "nnunet"  # nnU-Net itself
NETWORK = "dynunet"  # the one that the feature maps are counted of
ANISOTROPIC = 3  # times coarser than the other axes
SMALLEST_MAP = 4  # voxels an axis, at the bottom of the network
WIDTH = 32  # channels of the first level
MOST_CHANNELS = {2: 512, 3: 320}
START = {2: 2048**2, 3: 256**3}  # voxels of the patch before it is made to fit
REFERENCE_GIGABYTES = 8
REFERENCE_MAPS = {2: 85_000_000, 3: 560_000_000}  # voxels of the feature maps that fill them
REFERENCE_BATCH = {2: 12, 3: 2}
LEAST_BATCH = 2
MOST_OF_DATA = 0.05  # of all voxels in one batch
LEAST_DEPTH = 8  # slices that a network in 3D needs
LEAST_COVERED = 0.25  # of the image by a patch; else it is tried at low resolution, too
LEAST_COARSER = 2 ** (1 / 3)  # half of the voxels: less is no other resolution


class Levels(NamedTuple):
    """Strides of each level of a U-Net, the first without; convolution kernels; what the patch must divide by."""

    strides: list[tuple[int, ...]]
    kernels: list[tuple[int, ...]]
    divisor: tuple[int, ...]


def target_spacing(spacing: Spread, shape: Spread) -> tuple[float, ...]:
    """The median; of an axis with thick and few slices, the finest tenth of the images, for fewer artefacts.

    Args: spacing: mm an axis.  shape: voxels an axis.
    """
    target, voxels = list(spacing.median), shape.median
    coarse = target.index(max(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    thick = target[coarse] > ANISOTROPIC * max(target[axis] for axis in others)
    few = voxels[coarse] * ANISOTROPIC < min(voxels[axis] for axis in others)
    if thick and few and spacing.tenth:
        target[coarse] = max(spacing.tenth[coarse], *(target[axis] for axis in others))
    return tuple(target)


def levels(spacing: Sequence[float], patch: Sequence[int]) -> Levels:
    """Halve the finest axes, and those less than twice as coarse, as long as 8 voxels or more are left of them.

    >>> levels((1.0, 1.0, 5.0), (64, 64, 16)).strides
    [(1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)]
    >>> levels((1.0, 1.0, 5.0), (64, 64, 16)).kernels[:2]
    [(3, 3, 1), (3, 3, 1)]
    """
    mm, voxels, dims = list(spacing), list(patch), len(patch)
    strides, kernels, kernel = [(1,) * dims], [], [1] * dims
    while True:
        able = [axis for axis in range(dims) if voxels[axis] >= 2 * SMALLEST_MAP]
        able = [axis for axis in able if mm[axis] < 2 * min(mm[other] for other in able)]
        if not able or (len(able) == 1 and voxels[able[0]] < 3 * SMALLEST_MAP):
            break
        kernel = [3 if old == 3 or each < 2 * min(mm) else 1 for old, each in zip(kernel, mm, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in able else 1 for axis in range(dims)))
        for axis in able:
            mm[axis] *= 2
            voxels[axis] = math.ceil(voxels[axis] / 2)
    divisor = tuple(math.prod(stride[axis] for stride in strides) for axis in range(dims))
    return Levels(strides, [*kernels, (3,) * dims], divisor)


def patch_and_batch(
    spacing: Sequence[float], shape: Sequence[float], cases: int, labels: int, gigabytes: float
) -> tuple[tuple[int, ...], int]:
    """The largest patch of which two fit in memory, and how many of it do.

    Args: spacing: mm an axis, of all images.  shape: voxels an axis, of the median image at that spacing.  labels:
          without the background.  gigabytes: to fill.
    """
    dims = len(shape)
    inverse = [1 / mm for mm in spacing]
    start = (START[dims] / math.prod(inverse)) ** (1 / dims)
    patch = _padded([min(round(each * start), round(n)) for each, n in zip(inverse, shape, strict=True)], spacing)
    room = REFERENCE_MAPS[dims] * gigabytes / REFERENCE_GIGABYTES
    while (maps := feature_maps(patch, spacing, labels)) / REFERENCE_BATCH[dims] * LEAST_BATCH > room:
        longest = max(range(dims), key=lambda axis: (patch[axis] / shape[axis], axis))
        shorter = [n - by * (axis == longest) for axis, (n, by) in enumerate(_with_divisor(patch, spacing))]
        step = levels(spacing, shorter).divisor[longest]  # what is shorter may be halved less often
        patch = _padded([n - step * (axis == longest) for axis, n in enumerate(patch)], spacing)
    batch = round(room / maps * REFERENCE_BATCH[dims])
    most = round(MOST_OF_DATA * cases * math.prod(shape) / math.prod(patch))
    return tuple(patch), max(LEAST_BATCH, min(batch, most))


def slices_and_batch(
    spacing: Sequence[float], shape: Sequence[float], cases: int, labels: int, gigabytes: float
) -> tuple[tuple[int, ...], int]:
    """As `patch_and_batch`, of a 2D network that is given LEAST_DEPTH slices at a time: of volumes with fewer."""
    across = shape.index(min(shape))
    mm, voxels = ([each[axis] for axis in range(3) if axis != across] for each in (spacing, shape))
    patch, batch = patch_and_batch(mm, voxels, cases * max(1, round(shape[across])), labels, gigabytes)
    return (*patch[:across], LEAST_DEPTH, *patch[across:]), max(LEAST_BATCH, round(batch / LEAST_DEPTH))


def low_resolution(patch: Sequence[int], shape: Sequence[float]) -> float | None:
    """How many times coarser voxels must be for a patch to cover a quarter of the image; None: it nearly does."""
    coarser = (LEAST_COVERED * math.prod(shape) / math.prod(patch)) ** (1 / len(patch))
    return round(coarser, 2) if coarser >= LEAST_COARSER else None


def feature_maps(patch: Sequence[int], spacing: Sequence[float], labels: int) -> int:
    """Voxels of all feature maps of the network for one patch, forward, deep supervision included."""
    dims, strides = len(patch), levels(spacing, patch).strides
    size, encoder = list(patch), []
    for level, stride in enumerate(strides):
        size = [n // by for n, by in zip(size, stride, strict=True)]
        encoder.append((min(WIDTH * 2**level, MOST_CHANNELS[dims]), math.prod(size)))
    down = sum(2 * channels * voxels for channels, voxels in encoder)
    up = sum((2 * channels + channels + labels + 1) * voxels for channels, voxels in encoder[:-1])
    return down + up


def _with_divisor(patch: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, int]]:
    return list(zip(patch, levels(spacing, patch).divisor, strict=True))


def _padded(patch: Sequence[int], spacing: Sequence[float]) -> list[int]:
    return [math.ceil(n / by) * by for n, by in _with_divisor(patch, spacing)]
