"""Brain: slices of MR images of the brain, with and without a tumour (the Brain set of the BMAD benchmark).

The phantom's slices are FLAIR images without the skull, a few of each patient, with and without the tumour in them.
Bright spots and rims at the ventricles are normal; scanners differ in brightness, coil and noise.
"""

import numpy as np

from m3dspy.m3bench import bmad, phantom
from m3dspy.m3bench.bmad import Picture, Slice, disc
from m3dspy.m3bench.phantom import blurred, inside, stream, texture

SHAPE, SPACING = (192, 192), (1.1, 1.1)  # pixels; mm
FLUID, WHITE, GREY = 0.12, 0.42, 0.52  # of the scanner's full signal


def file_name(s: Slice, random: np.random.Generator) -> str:
    return f"{124 + s.patient:05d}_{random.integers(30, 100)}.png"


def draw(s: Slice, seed: int) -> Picture:
    """A slice of the head, front on top."""
    anatomy, random = stream(seed, "brain", s.patient), stream(seed, "brain", s.patient, s.number)
    y, x = phantom.millimetres(SHAPE, SPACING, random.normal(0, 1.5, 2))
    level = random.uniform(-12, 18)  # mm above the middle of the ventricles
    size = (1 + 0.03 * anatomy.standard_normal()) * np.sqrt(1 - (level / 80) ** 2)
    outline = disc(x, y, (0, 0), (66 * size, 82 * size)) + texture(anatomy, SHAPE, 16, 0.02)
    folds = texture(random, SHAPE, 2.4, 1)

    image = np.full(SHAPE, WHITE, np.float32)
    image[outline > 0.86 + 0.06 * np.clip(folds, -1, 1)] = GREY
    image[(outline > 0.78) & (folds > 1.6)] = FLUID
    wide = anatomy.uniform(4, 8) * (1 - abs(level) / 60)
    for side in (-1, 1):
        ventricle = disc(x, y, (side * 11, -0.2 * level), (wide, 24), side * 0.25)
        image += anatomy.uniform(0, 0.2) * inside(ventricle / 1.25, 0.5)
        image[ventricle < 1] = FLUID
        image[disc(x, y, (side * 22, 4), (7, 15), side * 0.3) < 1] = 0.5 * (WHITE + GREY)
    for _ in range(random.poisson(3)):  # spots of age
        angle, away = random.uniform(0, 2 * np.pi), random.uniform(20, 48)
        spot = disc(x, y, (away * np.sin(angle), away * np.cos(angle)), random.uniform(2, 5, 2), angle)
        image += random.uniform(0.08, 0.3) * inside(spot, 0.6) * (outline < 0.85)

    tumour = np.zeros(SHAPE, bool)
    if s.shows:
        side, ahead, across = anatomy.choice([-1, 1]), anatomy.uniform(-45, 45), anatomy.uniform(14, 40)
        radii = anatomy.uniform(12, 25, 2) * random.uniform(0.7, 1)
        distance = disc(x, y, (side * across, ahead), radii, anatomy.uniform(0, 3)) + texture(random, SHAPE, 9, 0.22)
        tumour = (distance < 1) & (outline < 0.94)
        uneven = np.clip(1 + texture(random, SHAPE, 1.6, 0.6), 0, 2)
        image += anatomy.uniform(0.16, 0.38) * inside(distance, 0.35) * tumour * uneven
        if anatomy.random() < 0.6:  # a core that takes up less, or more
            image += anatomy.choice([-0.25, 0.12]) * inside(distance / 0.55, 0.5)

    image = blurred(image * (outline < 1), 0.6) * phantom.coil_field(anatomy, SHAPE, 0.12)
    image = phantom.rician(random, image, anatomy.uniform(0.015, 0.03)) * anatomy.uniform(0.85, 1.2)
    return Picture(image * (outline < 1.01), tumour)


SET = bmad.Set("Brain", "brain MR", draw, file_name, patient=r"^(\d+)_", masks=True, slices=2, mixed=True)

TASK = SET.task(
    "MR",
    requests=(
        "few-shot anomaly detection on brain MR, 4 normal and 4 abnormal",
        "Find and mark tumours in MR slices of the brain from four examples of each kind.",
        "Train a few-shot anomaly detector for brain MR slices with 4 normal and 4 abnormal examples, drawn from "
        "valid only. It must give a score for every image and a map of where the anomaly lies; no image of the "
        "test folder may be used for tuning.",
        "Novelty spotting on head magnet pictures: learn from four good and four bad ones, then flag the odd ones.",
        "Few-shot anomaly detection on the brain MRI slices, 4 normal and 4 abnormal. The retinal scans in the "
        "parent folder are another study, do not touch them.",
    ),
    impossible=(
        "tell glioma from meningioma on brain MRI",
        "write a radiological report on each brain MRI",
        "draw bounding boxes around the brain tumours on MRI",
    ),
    source="github.com/DorisBao/BMAD: Brain MRI, made from BraTS2021 (Bao et al. 2024)",
    licence="as BraTS2021; see github.com/DorisBao/BMAD",
    counts={"valid": 83, "test": 3715},
)
