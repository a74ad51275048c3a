"""RESC: scans of the retina by optical coherence tomography, with and without fluid (a set of the BMAD benchmark).

In the phantom fluid lies in pockets between layers that are dark themselves, or lifts the retina. Vessels and their
shadows are normal; the retina's thickness, its tilt and the speckle differ from eye to eye.
"""

import numpy as np

from m3dspy.m3bench import bmad
from m3dspy.m3bench.bmad import Picture, Slice
from m3dspy.m3bench.phantom import stream
from m3dspy.m3bench.retina import cysts, detachment, retina, scanned

SHAPE, SPACING = (128, 256), (8.0, 23.0)  # pixels; micrometres


def file_name(s: Slice, random: np.random.Generator) -> str:
    return f"{1 + s.patient}_{random.integers(10, 100)}.png"


def draw(s: Slice, seed: int) -> Picture:
    """A B-scan, the vitreous on top."""
    anatomy, random = stream(seed, "resc", s.patient), stream(seed, "resc", s.patient, s.number)
    detached = s.shows and anatomy.random() < 0.6
    swollen = s.shows and (anatomy.random() < 0.6 or not detached)
    lifted = detachment(SHAPE, SPACING, anatomy, random) if detached else 0.0
    eye = retina(anatomy, random, SHAPE, SPACING, lifted=lifted)
    image, fluid = eye.image, eye.beneath
    if swollen:
        image, pockets = cysts(image, eye, random, 3 + random.poisson(3), random.uniform(0.5, 0.85))
        fluid = fluid | pockets
    return Picture(scanned(image, anatomy, random), fluid)


SET = bmad.Set("RESC", "retinal OCT", draw, file_name, patient=r"^(\d+)_", masks=True, slices=2, mixed=True)

TASK = SET.task(
    "OCT",
    requests=(
        "few-shot anomaly detection on retinal OCT, 4 normal and 4 abnormal",
        "Find and mark fluid in OCT scans of the retina from four examples of each kind.",
        "Train a few-shot anomaly detector for retinal OCT with 4 normal and 4 abnormal examples. Use the masks "
        "to learn where the fluid is, keep the eyes of one patient together, and choose all settings without the "
        "test folder.",
        "Novelty detection on eye sonar-like layer scans (OCT): learn from four good and four bad ones.",
        "Few-shot anomaly detection on retinal OCT, 4 normal and 4 abnormal. We have fundus photographs of the "
        "same people elsewhere, leave those out.",
    ),
    impossible=(
        "tell glaucoma from diabetic retinopathy on retinal OCT",
        "zero-shot anomaly detection on retinal OCT, without a single example",
        "predict the age of the patient from retinal OCT",
    ),
    source="github.com/DorisBao/BMAD: RESC, from github.com/CharlesKangZhou/P_Net_Anomaly_Detection (Bao et al. 2024)",
    licence="as RESC; see github.com/DorisBao/BMAD",
    counts={"valid": 115, "test": 1805},
)
