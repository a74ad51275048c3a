"""A made-up chest in HU, as several datasets need it: air in two lungs, the heart, the great vessels and the cage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.phantom import AIR, BLOOD, BONE, FAT, SOFT_TISSUE, Numbers, Volume, ellipsoid, texture

LEFT, RIGHT = 1, 2
LUNG = -830.0  # HU


@dataclass(frozen=True)
class Thorax:
    """The image in HU before blur and noise; the lungs, LEFT or RIGHT, 0 elsewhere; the heart; where they lie.

    axes: mm (RAS+).  size: of the patient, around 1.
    """

    image: Volume
    lungs: NDArray[np.uint8]
    heart: NDArray[np.bool_]
    axes: list[Volume]
    size: float


def thorax(
    random: np.random.Generator, shape: Numbers, spacing: Numbers, *, heart: float = 1.0, lung: float = LUNG
) -> Thorax:
    """A chest of its own, RAS+.

    Args: shape, spacing: of the grid, voxels and mm.  heart: its size, 1 is healthy.  lung: HU of the air spaces.
    """
    axes = phantom.millimetres(shape, spacing, random.normal(0, 5, 3))
    x, y, z = axes
    k = 1 + 0.07 * random.standard_normal()  # the patient's size
    form = texture(random, shape, 7, 0.03)

    body = ellipsoid(axes[:2], (0, 0), (158 * k, 112 * k)) + form
    image = np.full([int(n) for n in shape], AIR, np.float32)
    image[body < 1] = FAT
    image[body < 0.93 - 0.03 * random.random()] = SOFT_TISSUE

    radii = (50 * k * heart, 44 * k * heart, 52 * k * heart)
    cor = ellipsoid(axes, (-22 * k, 26, -38), radii) < 1
    lungs = np.zeros(image.shape, np.uint8)
    for label, side, width in ((LEFT, -1, 0.92), (RIGHT, 1, 1.0)):
        dome = z > k * (34 * np.exp(-((x - side * 70) ** 2 + y**2) / 2800) - 98)  # the diaphragm
        r = ellipsoid(axes, (side * 72 * k, 6, 6), (54 * k * width, 78 * k, 118 * k)) + form
        inside = (r < 1) & dome & ~cor
        image[inside] = (lung - 0.45 * y + texture(random, shape, 2, 28))[inside]  # gravity: denser at the back
        lungs[inside] = label
    air = lungs > 0
    hilum = np.exp(-((np.abs(x) - 28) ** 2 / 1800 + (y / 60) ** 2 + (z / 80) ** 2))
    image[air & (texture(random, shape, 1, 1) > 2.3 - hilum)] = -120  # vessels
    image[cor] = BLOOD
    image[(ellipsoid(axes[:2], (0, 22), (9, 9)) < 1) & (z > 20)] = AIR + 20  # trachea
    spine = np.broadcast_to(ellipsoid(axes[:2], (0, -78 * k), (19, 17)), image.shape)
    image[spine < 1] = BONE
    image[spine < 0.6] = 200
    cage = np.abs(ellipsoid(axes[:2], (0, 4), (140 * k, 97 * k)) - 1) < 0.035
    rib = np.sin((z + 0.35 * np.abs(y)) / 30 * 2 * np.pi) > 0.2
    image[cage & rib & ~air & (body < 0.93)] = BONE
    image[(ellipsoid(axes[:2], (-16, -52), (12, 12)) < 1) & ~air] = BLOOD + 5  # aorta
    return Thorax(image, lungs, cor, axes, k)
