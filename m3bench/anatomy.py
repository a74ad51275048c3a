"""A made-up abdomen in HU, as two datasets need it: as a coarse volume, and as a few thin slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench.phantom import AIR, BONE, FAT, SOFT_TISSUE, Numbers, Volume, ellipsoid, millimetres, texture


@dataclass(frozen=True)
class Organ:
    """An ellipsoid: centre and radii in mm (RAS+), mean HU in the portal venous phase, its spread between patients."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    hu: float
    spread: float

    @property
    def vessel(self) -> bool:
        return self.radii[2] > 100

    @property
    def enhances(self) -> bool:
        return self.hu > 60


ORGANS = {  # in the order in which they are painted: later ones lie in front
    "liver": Organ((62, 8, 28), (62, 52, 46), 108, 10),
    "stomach": Organ((-48, 32, 26), (34, 28, 36), 35, 15),
    "spleen": Organ((-92, -34, 30), (22, 32, 36), 118, 10),
    "right kidney": Organ((56, -44, -40), (24, 22, 42), 165, 16),
    "left kidney": Organ((-58, -44, -30), (24, 22, 42), 165, 16),
    "pancreas": Organ((-12, 8, -6), (46, 11, 13), 92, 10),
    "gallbladder": Organ((48, 36, -18), (13, 17, 19), 12, 6),
    "portal vein and splenic vein": Organ((6, -8, 10), (44, 7, 7), 140, 14),
    "inferior vena cava": Organ((20, -36, 0), (12, 10, 400), 128, 14),
    "aorta": Organ((-9, -40, 0), (11, 11, 400), 150, 15),
    "esophagus": Organ((-8, -18, 72), (9, 8, 34), 48, 8),
    "right adrenal gland": Organ((36, -36, 14), (9, 6, 14), 72, 8),
    "left adrenal gland": Organ((-32, -36, 16), (9, 6, 14), 72, 8),
}
WALL = 0.84  # of the body's radius: organs lie inside


@dataclass(frozen=True)
class Abdomen:
    """The image in HU before blur and noise, which organ every voxel belongs to (1 + its place in ORGANS), and where
    in mm the organs lie in this patient."""

    image: Volume
    organs: NDArray[np.uint8]
    axes: list[Volume]
    placed: dict[str, Organ]


def abdomen(
    random: np.random.Generator,
    shape: Sequence[int],
    spacing: Numbers,
    *,
    level: float | str = 0.0,
    absent: Sequence[str] = (),
) -> Abdomen:
    """An abdomen of its own, RAS+.

    Args: shape, spacing: of the grid, voxels and mm.  level: height of the grid's middle, mm, or the organ that it
        shall cut.  absent: organs this patient does not have.
    """
    k = 1 + 0.06 * random.standard_normal()  # the patient's size
    shift, girth, fat = random.normal(0, 6, 3), random.normal(1, 0.04, 2), random.uniform(0.80, 0.90)
    phase = random.uniform(0.75, 1.1)  # contrast phase: a gain that all enhancing organs share
    placed = {name: _individual(random, organ, k, phase) for name, organ in ORGANS.items()}
    angles = {name: None if organ.vessel else random.normal(0, 0.12, 3) for name, organ in ORGANS.items()}
    if isinstance(level, str):
        shift[2], level = 0, placed[level].centre[2]
    shift[2] += level
    axes = millimetres(shape, spacing, shift)
    scale = 5 / np.asarray(spacing)  # textures are measured in voxels of 5 mm
    form = texture(random, shape, 6 * scale, 0.05)
    body = ellipsoid(axes[:2], (0, 0), (160 * k * girth[0], 116 * k * girth[1])) + 0.5 * form
    image = np.full(shape, AIR, np.float32)
    image[body < 1] = FAT
    image[(body < fat) & (body > fat - 0.12)] = SOFT_TISSUE + 10  # muscle
    behind = np.clip(-axes[1] / 20, 0, None)  # where the kidneys lie in fat
    bowel = texture(random, shape, 3 * scale, 1) > 0.4 + behind
    image[(body < fat - 0.12) & bowel] = SOFT_TISSUE + 10
    grain = texture(random, shape, 2 * scale, 5)

    organs = np.zeros(shape, np.uint8)
    for number, (name, organ) in enumerate(placed.items(), start=1):
        near = _window(axes, organ)
        if name in absent or near is None:
            continue
        axes_near = [axis[_along(near, axis)] for axis in axes]
        r = ellipsoid(axes_near, organ.centre, organ.radii, angles[name]) + 2.2 * form[near]
        inside = (r < 1) & (body[near] < WALL)
        image[near] = np.where(inside, organ.hu + grain[near], image[near])
        if name == "stomach":
            image[near] = np.where(inside & (axes_near[1] > organ.centre[1] + 8), -850, image[near])  # gas rises
        organs[near][inside] = number
    spine = np.broadcast_to(ellipsoid(axes[:2], (0, -66 * k), (23, 21)), shape)
    image[spine < 1] = BONE
    image[spine < 0.65] = 220
    organs[spine < 1] = 0
    return Abdomen(image, organs, axes, placed)


def _individual(random: np.random.Generator, organ: Organ, k: float, phase: float) -> Organ:
    """The organ of one patient: moved, of another size, and enhanced by the contrast phase."""
    moved = np.array(organ.centre) * k + random.normal(0, 5, 3) * (0.5 if organ.vessel else 1)
    radii = np.array(organ.radii) * k * np.exp(random.normal(0, 0.10, 3))
    hu = organ.hu * (phase if organ.enhances else 1) + random.normal(0, organ.spread * 0.6)
    return Organ(tuple(moved), tuple(radii), hu, organ.spread)


def _window(axes: Sequence[Volume], organ: Organ) -> tuple[slice, ...] | None:
    """The part of the grid an organ can reach, tilted and bulged; None if it lies outside."""
    reach = np.array(organ.radii) * 1.45
    if not organ.vessel:
        reach = np.maximum(reach, 0.35 * reach.max())
    slices = []
    for axis, at, far in zip(axes, organ.centre, reach, strict=True):
        hit = np.flatnonzero(np.abs(axis.ravel() - at) < far)
        if not hit.size:
            return None
        slices.append(slice(hit[0], hit[-1] + 1))
    return tuple(slices)


def _along(window: tuple[slice, ...], axis: Volume) -> tuple[slice, ...]:
    """The window for an array that has a length along one of its axes only."""
    return tuple(part if n > 1 else slice(None) for part, n in zip(window, axis.shape, strict=True))
