"""Liver: CT slices of the liver, with and without a tumour (the Liver set of the BMAD benchmark).

The phantom's slices show the liver alone, all around it is black. Vessels, fat along the falciform ligament and an
uneven uptake of contrast are normal; the phase of the contrast, the dose and the window differ from scan to scan.
"""

import numpy as np

from m3dspy.m3bench import bmad, phantom
from m3dspy.m3bench.bmad import Picture, Slice, disc
from m3dspy.m3bench.phantom import FAT, blurred, inside, stream, texture

SHAPE, SPACING = (192, 192), (1.6, 1.6)  # pixels; mm


def file_name(s: Slice, random: np.random.Generator) -> str:
    return f"{s.patient}_{random.integers(100, 520)}.png"


def draw(s: Slice, seed: int) -> Picture:
    """A slice as a radiologist sees it: the patient's right on the left, the front on top."""
    anatomy, random = stream(seed, "liver", s.patient), stream(seed, "liver", s.patient, s.number)
    y, x = phantom.millimetres(SHAPE, SPACING, random.normal(0, 4, 2))
    size = (1 + 0.07 * anatomy.standard_normal()) * random.uniform(0.92, 1.05)
    form = texture(random, SHAPE, 22, 0.07) + texture(random, SHAPE, 8, 0.02)
    right = disc(x, y, (-22, 8), (78 * size, 66 * size), 0.35)
    left = disc(x, y, (48, -22), (62 * size, 26 * size), -0.25)
    outline = np.minimum(right, left) + form
    liver = outline < 1

    uptake = anatomy.normal(105, 9)
    image = uptake + texture(random, SHAPE, 12, 4)
    vessels = texture(anatomy, SHAPE, 4, 1) + 0.6 * texture(random, SHAPE, 4, 1)
    image += anatomy.uniform(-10, 60) * np.clip((vessels - 2.1) / 0.3, 0, 1)  # before, or after contrast reaches them
    cleft = disc(x, y, (22, -38), (random.uniform(3, 6), random.uniform(14, 30)), -0.3)
    image += (FAT - image) * inside(cleft, 0.5) * (random.random() < 0.6)

    tumour = np.zeros(SHAPE, bool)
    if s.shows:
        rows, columns = np.nonzero((outline < 0.8) & (cleft > 1.3))
        depth = anatomy.uniform(25, 55)
        for _ in range(1 + random.poisson(0.8)):
            at = random.integers(len(rows))
            centre = float(x[0, columns[at]]), float(y[rows[at], 0])
            distance = disc(x, y, centre, random.uniform(9, 25, 2), random.uniform(0, 3))
            distance = distance + texture(random, SHAPE, 6, 0.15)
            tumour |= (distance < 1) & liver
            image -= depth * inside(distance, 0.4) * np.where(distance < 0.4, random.uniform(0.8, 1.5), 1)

    image = blurred(image, 0.6) + phantom.ct_noise(random, SHAPE, anatomy.uniform(8, 12), 0.8)
    low, high = np.array([-60.0, 200.0]) + anatomy.normal(0, 8, 2)
    return Picture((image - low) / (high - low) * blurred(liver, 0.4), tumour)


SET = bmad.Set("Liver", "liver CT", draw, file_name, patient=r"^(\d+)_", masks=True, slices=2, mixed=True)

TASK = SET.task(
    "CT",
    requests=(
        "few-shot anomaly detection on liver CT, 4 normal and 4 abnormal",
        "Find and mark tumours in CT slices of the liver from four examples of each kind.",
        "Train a few-shot anomaly detector for liver CT slices with 4 normal and 4 abnormal examples. Shots come "
        "from the valid folder, patients of the test folder stay unseen, and we need a heat map beside the score "
        "of each image.",
        "Outlier spotting on CAT scan pictures of the liver: four healthy and four sick ones to learn from.",
        "Few-shot anomaly detection on the liver CT, 4 normal and 4 abnormal. On the other drive there is brain "
        "MRI from the same benchmark; ignore that.",
    ),
    impossible=(
        "tell cirrhosis from steatosis on liver CT",
        "zero-shot anomaly detection on liver CT, without a single example",
        "register the liver CT of two time points",
    ),
    source="github.com/DorisBao/BMAD: Liver CT, made from BTCV and LiTS (Bao et al. 2024)",
    licence="as BTCV and LiTS; see github.com/DorisBao/BMAD",
    counts={"valid": 166, "test": 1493},
)
