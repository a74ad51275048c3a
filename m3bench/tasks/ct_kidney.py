"""CT-kidney: cyst, normal, stone or tumour, from single CT slices through the kidneys.

The phantom's images are adjacent slices of hidden patients: neighbours look alike, nothing names the patient, and a
model split by image recognises its test patients. What a slice shows is not always what its folder says: tumours can
be cystic, cysts dense, stones too small to see; how often is known, and with it the best possible score.

Quirks of the real thing: the folder holds itself once more; spaces and parentheses in file names; classes of unequal
size; a table of paths that belong to another machine.
"""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.anatomy import Abdomen, abdomen
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

LABELS = ("Cyst", "Normal", "Stone", "Tumor")
NAME = "CT-KIDNEY-DATASET-Normal-Cyst-Tumor-Stone"
SLICES, SHAPE, SPACING = 4, (128, 128), (2.7, 2.7, 1.5)  # a patient; pixels; mm
SHARE = {"Cyst": 0.28, "Normal": 0.30, "Stone": 0.20, "Tumor": 0.22}  # of the patients
LOOKS = np.array(  # row: what the folder says, column: how often the kidney looks like that
    [
        [0.87, 0.04, 0.00, 0.09],
        [0.04, 0.88, 0.05, 0.03],
        [0.02, 0.12, 0.86, 0.00],
        [0.10, 0.04, 0.00, 0.86],
    ]
)
WINDOW = (-160.0, 240.0)  # HU shown as black and white


@dataclass(frozen=True)
class Patient:
    """Someone whose slices `first` .. `first + SLICES - 1` lie in the folder `label` but show `looks`."""

    number: int
    label: str
    looks: str
    first: int

    @property
    def paths(self) -> list[str]:
        return [f"{NAME}/{NAME}/{self.label}/{self.label}- ({self.first + i}).jpg" for i in range(SLICES)]


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write four folders of `SLICES` JPEG slices for each of `size` patients, and `kidneyData.csv`."""
    patients = cohort(size, seed)
    for label in LABELS:
        (folder / NAME / NAME / label).mkdir(parents=True)
    phantom.each(partial(write_patient, folder=folder, seed=seed), patients, workers)
    write_table(folder / "kidneyData.csv", patients)
    return {"cases": {path: {"patient": p.number, "looks": p.looks} for p in patients for path in p.paths}}


def cohort(size: int, seed: int) -> list[Patient]:
    """The patients, class by class."""
    counts = {label: max(3, round(share * size)) for label, share in SHARE.items()}
    counts["Normal"] += size - sum(counts.values())
    patients: list[Patient] = []
    for label, count in counts.items():
        for i in range(count):
            looks = LABELS[stream(seed, "looks", label, i).choice(len(LABELS), p=LOOKS[LABELS.index(label)])]
            patients.append(Patient(len(patients), label, looks, 1 + i * SLICES))
    return patients


def write_table(path: Path, patients: list[Patient]) -> None:
    """The published table: an index, a notebook server's path, the class and its number."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "image_id", "path", "diag", "target", "Class"])
        rows = [(patient.label, Path(image)) for patient in patients for image in patient.paths]
        for number, (label, image) in enumerate(rows):
            old = f"/content/data/{image.as_posix()}"
            writer.writerow([number, image.stem, old, label, LABELS.index(label), label])


def write_patient(patient: Patient, folder: Path, seed: int) -> None:
    from PIL import Image

    pixels = slices(patient, seed)
    for image, path in zip(pixels, patient.paths, strict=True):
        Image.fromarray(image).save(folder / path, quality=92)


def slices(patient: Patient, seed: int) -> NDArray[np.uint8]:
    """(SLICES, 128, 128) grey values as a radiologist sees them: the patient's right on the left, the front on top."""
    anatomy, scan = stream(seed, "kidneys", patient.number), stream(seed, "scan", patient.number)
    side = ("right kidney", "left kidney")[anatomy.integers(2)]
    body = abdomen(anatomy, (*SHAPE, SLICES), SPACING, level=side, absent=_surgery(anatomy))
    image = kidneys(body, anatomy)
    image = lesion(image, body, side, patient.looks, anatomy)
    image = blurred(image, (0.6, 0.6, 0.3)) + phantom.ct_noise(scan, image.shape, scan.uniform(14, 26), (0.7, 0.7, 0.2))
    low, high = WINDOW + scan.normal(0, 6, 2)
    grey = np.clip((image - low) / (high - low), 0, 1) * 255
    return np.ascontiguousarray(grey[::-1, ::-1].transpose(2, 1, 0)).astype(np.uint8)


def _surgery(random: np.random.Generator) -> tuple[str, ...]:
    return ("gallbladder",) if random.random() < 0.2 else ()


def kidneys(body: Abdomen, random: np.random.Generator) -> Volume:
    """The image with fat and vessels in the middle of both kidneys, and medulla darker than cortex."""
    image = body.image.copy()
    for side, name in ((1, "right kidney"), (-1, "left kidney")):
        organ = body.placed[name]
        here = body.organs == list(body.placed).index(name) + 1
        medulla = inside(ellipsoid(body.axes, organ.centre, np.array(organ.radii) * 0.78), 0.3)
        image = np.where(here, image - random.uniform(10, 35) * medulla, image)
        hilum = np.array(organ.centre) - (side * 0.75 * organ.radii[0], 0, 0)
        sinus = inside(ellipsoid(body.axes, hilum, np.array(organ.radii) * (0.75, 0.3, 0.5)), 0.4)
        image = np.where(here, image * (1 - sinus) + random.uniform(-80, 0) * sinus, image)
    return image


def lesion(image: Volume, body: Abdomen, side: str, looks: str, random: np.random.Generator) -> Volume:
    """The image with what `looks` says in the kidney at the slices' height: a cyst is round, dark and sharp, a tumour
    uneven, nearly as bright as the kidney and bulging, a stone small and as dense as bone."""
    organ = body.placed[side]
    lateral = 1 if side == "right kidney" else -1
    angle = random.uniform(-1.4, 1.4)
    outward = np.array([lateral * np.cos(angle), np.sin(angle), 0])
    edge = np.array(organ.centre) + 0.8 * outward * organ.radii + (0, 0, random.normal(0, 2))
    form = texture(random, image.shape, (3, 3, 4), 1)
    if looks == "Cyst":
        radius = random.uniform(14, 28)
        share = inside(ellipsoid(body.axes, edge, (radius,) * 3), 0.2)
        return image * (1 - share) + random.normal(8, 6) * share
    if looks == "Tumor":
        radius = random.uniform(18, 34)
        share = inside(ellipsoid(body.axes, edge, radius * random.uniform(0.8, 1.25, 3)) + 0.12 * form, 0.35)
        return image * (1 - share) + (random.normal(95, 12) + 28 * form) * share
    if looks == "Stone":
        for _ in range(random.integers(1, 4)):
            centre = np.array(organ.centre) + random.uniform(-0.35, 0.35, 3) * organ.radii * (1, 1, 0.15)
            share = inside(ellipsoid(body.axes, centre, random.uniform(4, 8, 3) * (1, 1, 1.5)), 0.6)
            image = image * (1 - share) + random.uniform(500, 1000) * share
    return image


def gold(root: Path, seed: int) -> Index:
    """Nothing names the patient: look-alike slices are kept together."""
    from m3dspy.workspace import indexing as ix

    labels = {label: label for label in LABELS}
    items = ix.from_folders(root, f"{NAME}/{NAME}", labels=labels, images="**/*.jpg", patient=None)
    splits = ix.split(ix.group_lookalikes(root, items), seed=seed)
    return Index.model_validate({"task": "classification", "labels": LABELS, **splits})


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Macro AUROC of the reader who always sees what a kidney looks like, and knows how often looks deceive."""
    from m3dspy.m3bench.metrics import macro_auroc

    cases = [truth["cases"].get(item.image) for item in index.test]
    if set(index.labels) != set(LABELS) or None in cases or not cases:
        return None
    joint = np.array([SHARE[label] * LOOKS[LABELS.index(label)] for label in index.labels])
    seen = joint[:, [LABELS.index(case["looks"]) for case in cases]].T
    answer = np.array([index.labels.index(str(item.label)) for item in index.test])
    return macro_auroc(answer, seen / seen.sum(1, keepdims=True))


TASK = BenchTask(
    name="CT-kidney",
    task="classification",
    requests=(
        "tell kidney cysts, stones, tumours and normal kidneys apart on CT",
        "Diagnose kidney CT slices: normal, cyst, stone or tumor.",
        "Train a 2D classifier with the four classes Cyst, Normal, Stone and Tumor on these renal CT images. "
        "Near-identical slices must not be spread over training and test; judge it by macro AUROC; no pretrained "
        "weights.",
        "Label the kidney CAT scan photos: renal calculus, cystic, cancer or healthy.",
        "Distinguish cyst, stone, tumor and normal in the kidney CT slices. Next door lies a set of chest X-rays "
        "that belongs to another project; leave it alone.",
    ),
    impossible=(
        "segment the kidney tumours on CT",
        "tell stages of chronic kidney disease apart on renal ultrasound",
        "tell pneumonia from healthy lungs on chest X-ray",
    ),
    labels=LABELS,
    metric="macro AUROC",
    source="kaggle.com/datasets/nazmul0087/ct-kidney-dataset-normal-cyst-tumor-and-stone: 12,446 slices (Islam 2022)",
    licence="CC BY-NC-SA 4.0",
    access="Download the archive from the Kaggle page (with an account there), and unpack it.",
    layout=(
        Part("kidneyData.csv", 1),
        *(
            Part(f"{NAME}/{NAME}/{label}/*.jpg", count)
            for label, count in zip(LABELS, (3709, 5077, 1377, 2283), strict=True)
        ),
    ),
    size=200,
    smallest=12,
    demo=100,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="folder", path=f"{NAME}/{NAME}")),
    oracle=oracle,
)
