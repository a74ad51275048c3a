"""HIS: patches of lymph nodes under the microscope, with and without metastasis (the histopathology set of BMAD).

In the phantom two dyes take their part of the light: one stains nuclei blue, the other what lies between them pink.
Lymphocytes are small, round, dark and even; tumour cells are larger, paler, uneven, and lie in nests. Slides differ in
dye and thickness, gaps and connective tissue are normal. A few abnormal patches show no tumour and a few normal ones
do; how many is known, and with it the best possible score.
"""

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import bmad
from m3dspy.m3bench.bmad import Picture, Slice, disc
from m3dspy.m3bench.phantom import Volume, blurred, inside, stream, texture

SHAPE = (192, 192)  # pixels of about half a micrometre
ROWS, COLUMNS = np.ogrid[: SHAPE[0], : SHAPE[1]]
HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)  # optical density in red, green, blue; Ruifrok 2001


def file_name(s: Slice, random: np.random.Generator) -> str:
    return f"{random.integers(1, 6000)}.png"


def draw(s: Slice, seed: int) -> Picture:
    """A patch of a slide; those of one slide share its dyes."""
    slide, random = stream(seed, "slide", s.patient), stream(seed, "slide", s.patient, s.number)
    tumour = texture(random, SHAPE, 30, 1) > random.uniform(-0.7, 0.9) if s.shows else np.zeros(SHAPE, bool)
    gaps = texture(random, SHAPE, 9, 1) > random.uniform(1.2, 3)
    nuclei = cells(random, tumour, gaps)
    pink = 0.32 + 0.06 * texture(random, SHAPE, 6, 1) + 0.12 * blurred(tumour, 3)
    pink = np.clip(pink, 0.05, None) * (1 - 0.8 * blurred(gaps, 1)) * (1 - 0.5 * nuclei)
    blue = 0.06 + 1.15 * nuclei * (1 + 0.18 * texture(random, SHAPE, 0.8, 1))
    strength = slide.uniform(0.7, 1.25, 2)
    hue = slide.normal(0, 0.02, (2, 3))
    density = strength[0] * blue[..., None] * (np.array(HAEMATOXYLIN) + hue[0])
    density = density + strength[1] * pink[..., None] * (np.array(EOSIN) + hue[1])
    light = 0.96 * np.exp(-np.clip(density, 0, None))
    return Picture(blurred(light, (0.5, 0.5, 0)) + random.normal(0, 0.012, light.shape), np.zeros(SHAPE, bool))


def cells(random: np.random.Generator, tumour: NDArray[np.bool_], gaps: NDArray[np.bool_]) -> Volume:
    """How much nucleus every pixel holds, 0 to 1."""
    stained = np.zeros(SHAPE, np.float32)
    step = random.uniform(10.0, 11.5)
    for corner in np.ndindex(*(int(n / step) + 2 for n in SHAPE)):
        y, x = (np.array(corner) - 0.5 + random.uniform(-0.4, 0.4, 2)) * step
        kind = random.random()
        here = tuple(np.clip((int(y), int(x)), 0, np.array(SHAPE) - 1))
        if gaps[here] or (tumour[here] and kind < 0.45):  # large cells need room
            continue
        if tumour[here]:
            radius, dark, form = random.normal(6.2, 1.1), random.uniform(0.45, 0.85), random.uniform(0.7, 1.35)
        elif kind < 0.05:  # of connective tissue and of vessels
            radius, dark, form = random.normal(5.0, 0.6), random.uniform(0.5, 0.8), random.uniform(0.4, 0.6)
        else:
            radius, dark, form = random.normal(4.2, 0.45), random.uniform(0.8, 1.0), random.uniform(0.88, 1.14)
        reach = int(2 * radius) + 2
        box = tuple(slice(max(0, int(at) - reach), max(0, int(at) + reach)) for at in (y, x))
        distance = disc(COLUMNS[:, box[1]], ROWS[box[0]], (x, y), (radius * form, radius / form), random.uniform(0, 3))
        stained[box] = np.maximum(stained[box], dark * inside(distance, 0.35))
    return stained


SET = bmad.Set(
    "HIS",
    "histopathological image",
    draw,
    file_name,
    patient=None,
    masks=False,
    slices=2,
    mixed=True,
    missed=0.06,
    alarms=0.03,
)

TASK = SET.task(
    "microscopy",
    requests=(
        "few-shot anomaly detection on histopathological images, 4 normal and 4 abnormal",
        "Tell lymph node patches with metastasis from those without by four examples of each kind.",
        "Train a few-shot anomaly detector for histopathological patches with 4 normal and 4 abnormal examples. "
        "The stain differs between slides, so make it robust to colour; only a score for each image is needed.",
        "Novelty detection on microscope photos of lymph nodes: four clean and four cancer pictures to learn from.",
        "Few-shot anomaly detection on the histopathology images, 4 normal and 4 abnormal. I also have whole "
        "mammograms on the other disk, ignore them.",
    ),
    impossible=(
        "segment every nucleus in the histopathology images",
        "zero-shot anomaly detection on histopathological images, without a single example",
        "count the mitoses in the microscopy images and give their bounding boxes",
    ),
    source="github.com/DorisBao/BMAD: Histopathology, from Camelyon16 (Bao et al. 2024)",
    licence="as Camelyon16; see github.com/DorisBao/BMAD",
    counts={"valid": 236, "test": 1997},
)
