"""OCT17: scans of the retina by optical coherence tomography, healthy or with one of three diseases (a BMAD set).

The phantom shows new vessels under the retina (CNV), fluid that swells it (DME) or small deposits under it (DRUSEN),
each with bright specks. A few abnormal scans show nothing, and a few healthy ones deposits; how many is known, and with
it the best possible score.
"""

import numpy as np

from m3dspy.m3bench import bmad
from m3dspy.m3bench.bmad import UNGOOD, Picture, Slice
from m3dspy.m3bench.phantom import stream, texture
from m3dspy.m3bench.retina import CHOROID, EPITHELIUM, cysts, detachment, exudates, retina, scanned

SHAPE, SPACING = (192, 200), (5.5, 29.0)  # pixels; micrometres
DISEASES = ("CNV", "DME", "DRUSEN")


def disease(s: Slice) -> str:
    return DISEASES[s.patient % len(DISEASES)]


def file_name(s: Slice, random: np.random.Generator) -> str:
    number = 1_000_000 + 7919 * s.patient
    return f"{disease(s) if s.kind == UNGOOD else 'NORMAL'}-{number}-{random.integers(1, 100)}.jpeg"


def draw(s: Slice, seed: int) -> Picture:
    """A B-scan, the vitreous on top."""
    anatomy, random = stream(seed, "oct17", s.patient), stream(seed, "oct17", s.patient, s.number)
    x = np.linspace(-2500, 2500, SHAPE[1], dtype=np.float32)[None]
    what = (disease(s) if s.kind == UNGOOD else "DRUSEN") if s.shows else None
    raised, swollen = np.zeros_like(x), np.zeros_like(x)
    if what == "CNV":
        at, wide = anatomy.uniform(-900, 900), anatomy.uniform(450, 900)
        dome = np.exp(-(((x - at) / wide) ** 2))
        raised = random.uniform(130, 210) * dome * (1 + texture(random, x.shape, (1, 5), 0.2))
        swollen = random.uniform(0.2, 0.5) * np.sqrt(dome)
    if what == "DME":
        at, wide = anatomy.uniform(-600, 600), anatomy.uniform(1000, 1800)
        swollen = random.uniform(0.4, 0.9) * np.exp(-(((x - at) / wide) ** 2))
    if what == "DRUSEN":
        for _ in range(8 + random.poisson(3)):
            at, wide = anatomy.uniform(-1900, 1900), random.uniform(120, 260)
            raised = np.maximum(raised, random.uniform(80, 150) * np.exp(-(((x - at) / wide) ** 2)))
    lifted = detachment(SHAPE, SPACING, anatomy, random) if what in ("CNV", "DME") and anatomy.random() < 0.8 else 0.0
    eye = retina(anatomy, random, SHAPE, SPACING, raised, lifted, swollen)
    image = eye.image
    if what == "CNV":  # the lesion under the epithelium is bright and uneven
        lesion = (eye.depth > EPITHELIUM + 20 + lifted - raised) & (eye.depth < CHOROID + lifted) & (raised > 15)
        image = np.where(lesion, 0.55 + 0.12 * texture(random, SHAPE, 3, 1), image)
    if what == "DME":
        image, _ = cysts(image, eye, random, 5 + random.poisson(3), random.uniform(0.7, 0.95))
    if what is not None:
        image = exudates(image, eye, random, 4 + random.poisson(4))
    return Picture(scanned(image, anatomy, random), np.zeros(SHAPE, bool))


SET = bmad.Set(
    "OCT17",
    "retinal OCT",
    draw,
    file_name,
    patient=r"-(\d+)-",
    masks=False,
    slices=2,
    mixed=False,
    missed=0.06,
    alarms=0.03,
)

TASK = SET.task(
    "OCT",
    requests=(
        "few-shot anomaly detection on retinal OCT, 4 normal and 4 abnormal, no masks",
        "Tell healthy OCT scans of the retina from diseased ones by four examples of each kind.",
        "Train a few-shot anomaly detector for retinal OCT with 4 normal and 4 abnormal examples; there are no "
        "masks, so an image-level score is enough. Do not use the disease in the file names, and keep all scans "
        "of a patient together.",
        "Outlier hunting in OCT pictures of the eye: four healthy and four ill ones are all you get.",
        "Few-shot anomaly detection on the retinal OCT, 4 normal and 4 abnormal. Beside it lies a folder of "
        "liver CT that is for a colleague, so ignore it.",
    ),
    impossible=(
        "segment the retinal layers on OCT",
        "write an ophthalmological report on each OCT scan",
        "predict the age of the patient from retinal OCT",
    ),
    source="github.com/DorisBao/BMAD: OCT2017, from kaggle.com/datasets/paultimothymooney/kermany2018 (Bao 2024)",
    licence="as OCT2017; see github.com/DorisBao/BMAD",
    counts={"valid": 32, "test": 968},
)
