"""A made-up retina as optical coherence tomography sees it: layers between vitreous and choroid, vessels, speckle.

Axes run downwards and to the right; lengths are in micrometres. `depth` is measured from the surface of the retina.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.bmad import disc
from m3dspy.m3bench.phantom import Volume, blurred, inside, texture

LAYERS = (  # from, to, reflectivity; the last two are the pigment epithelium and the choroid
    (0, 38, 0.60),
    (38, 112, 0.40),
    (112, 152, 0.28),
    (152, 178, 0.46),
    (178, 252, 0.24),
    (252, 272, 0.72),
    (272, 290, 0.50),
    (290, 322, 0.92),
    (322, 900, 0.50),
)
PHOTORECEPTORS, EPITHELIUM, CHOROID = 252, 290, 322


@dataclass(frozen=True)
class Retina:
    """image: reflectivity, 0 to 1.  x: (1, columns), from the fovea.  depth: (rows, columns), below the surface.

    beneath: (rows, columns), the fluid between the retina and the pigment epithelium.
    """

    image: Volume
    x: Volume
    depth: Volume
    beneath: NDArray[np.bool_]


def retina(
    anatomy: np.random.Generator,
    random: np.random.Generator,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    raised: Volume | float = 0.0,
    lifted: Volume | float = 0.0,
    swollen: Volume | float = 0.0,
) -> Retina:
    """A B-scan near the fovea.

    Args:
        raised: (1, columns), how far something below pushes the pigment epithelium up.
        lifted: (1, columns), how far fluid keeps the retina off the pigment epithelium.
        swollen: (1, columns), share by which fluid in the tissue makes the retina thicker; it fills the pit, too.
    """
    y, x = phantom.millimetres(shape, spacing, (0, random.normal(0, 120)))
    thick = anatomy.normal(1, 0.08)
    tilt, bow = random.normal(0, 0.03), anatomy.uniform(0, 8e-6)
    pit = anatomy.uniform(90, 140) * np.exp(-((x / anatomy.uniform(350, 500)) ** 2))
    surface = tilt * x + bow * x**2 + texture(random, (1, shape[1]), (1, shape[1] / 6), 12) + random.normal(-170, 30)
    pit = pit / (1 + 4 * np.asarray(swollen))
    under = y - surface + lifted + PHOTORECEPTORS * thick * swollen
    depth = np.minimum((under - pit) / (1 - pit / 330), under) / thick  # the pit is in the retina alone
    depth = np.maximum(depth / (1 + np.asarray(swollen)), depth - PHOTORECEPTORS * swollen)
    image = np.full(shape, 0.04, np.float32) + 0.02 * np.clip(texture(random, shape, 12, 1), 0, 2)
    waves = texture(random, (1, shape[1]), (1, 8), 3)
    for start, end, level in LAYERS:
        top = start + waves - (raised if start >= PHOTORECEPTORS else 0) + (lifted if start >= EPITHELIUM else 0)
        bottom = end + waves - (raised if PHOTORECEPTORS <= end <= CHOROID else 0) + (lifted if end > EPITHELIUM else 0)
        share = np.clip((depth - top) / 8 + 0.5, 0, 1) * np.clip((bottom - depth) / 8 + 0.5, 0, 1)
        image += (level * anatomy.normal(1, 0.12) - image) * share
    below = np.clip(depth - CHOROID - lifted, 0, None)
    pattern = 1 + 0.15 * texture(random, shape, (3, 4), 1) * (below > 0)
    image *= np.exp(-below / anatomy.uniform(160, 230)) * pattern
    for _ in range(random.poisson(3)):  # a vessel and its shadow
        at, wide = random.uniform(x.min(), x.max()), random.uniform(25, 110)
        image *= 1 - random.uniform(0.2, 0.8) * np.exp(-(((x - at) / wide) ** 2)) * (depth > 25)
        image += 0.35 * inside(disc(x, depth, (at, 30), (1.2 * wide, 25)), 0.6)
    if random.random() < 0.5:  # the vitreous has come off, and its skin shows
        off = random.uniform(25, 120) + texture(random, x.shape, (1, shape[1] / 5), 15)
        image += random.uniform(0.15, 0.4) * np.exp(-(((depth + off) / 7) ** 2))
    beneath = (depth > EPITHELIUM) & (depth < EPITHELIUM + lifted)
    return Retina(image, x, depth, beneath)


def detachment(
    shape: tuple[int, int], spacing: tuple[float, float], anatomy: np.random.Generator, random: np.random.Generator
) -> Volume:
    """(1, columns): how far fluid under the retina lifts it, a dome."""
    (x,) = phantom.millimetres(shape[1:], spacing[1:], (anatomy.uniform(-700, 700),))
    return (random.uniform(35, 90) * np.clip(1 - (x / anatomy.uniform(600, 1500)) ** 2, 0, None))[None]


def cysts(
    image: Volume, eye: Retina, random: np.random.Generator, count: int, darkness: float
) -> tuple[Volume, NDArray[np.bool_]]:
    """The image with so many pockets of fluid in the middle layers, and where they are.

    Args: darkness: share of the light that they take.
    """
    fluid = np.zeros(image.shape, bool)
    share = np.zeros(image.shape, np.float32)
    rough = texture(random, image.shape, 5, 0.12)
    centre = random.uniform(0.7 * eye.x.min(), 0.7 * eye.x.max())
    for _ in range(count):
        at = centre + random.normal(0, 500), random.uniform(95, 225)
        distance = disc(eye.x, eye.depth, at, (random.uniform(120, 400), random.uniform(20, 55))) + rough
        within = (eye.depth > 45) & (eye.depth < 248)
        fluid |= (distance < 1) & within
        share = np.maximum(share, inside(distance, 0.3) * within)
    return image * (1 - darkness * share), fluid


def exudates(image: Volume, eye: Retina, random: np.random.Generator, count: int) -> Volume:
    """The image with so many bright specks in the middle layers (hyperreflective foci), and their shadows."""
    centre = random.uniform(0.6 * eye.x.min(), 0.6 * eye.x.max())
    for _ in range(count):
        at = centre + random.normal(0, 450), random.uniform(90, 250)
        speck = inside(disc(eye.x, eye.depth, at, (random.uniform(30, 75), random.uniform(14, 28))), 0.4)
        shadow = np.exp(-(((eye.x - at[0]) / 45) ** 2)) * (eye.depth > at[1])
        image = image * (1 - 0.25 * shadow) + (1.3 - image) * speck
    return image


def scanned(image: Volume, anatomy: np.random.Generator, random: np.random.Generator) -> Volume:
    """The image with multiplicative speckle, a bright or a weak scan that fades to the sides, as on the screen."""
    looks = anatomy.uniform(4, 14)
    speckled = blurred(image, 0.7) * blurred(random.gamma(looks, 1 / looks, image.shape), 0.45)
    fading = 1 + random.uniform(-0.35, 0.35) * np.linspace(-1, 1, image.shape[1], dtype=np.float32)
    return np.clip(speckled * fading * anatomy.uniform(0.7, 1.2), 0, None) ** anatomy.uniform(0.65, 0.95) + 0.01
