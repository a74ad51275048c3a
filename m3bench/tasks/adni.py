"""ADNI: Alzheimer's disease, mild cognitive impairment or neither, from T1-weighted MR of the head.

The phantom gives every subject a severity s ~ N(mean of its group, 1); hippocampi shrink with s, ventricles and cortex
follow more loosely and with age too. The groups lie two standard deviations apart from end to end, so even a reader who
knew s would score a macro AUROC of about .77 only: a model that does better has seen its test subjects in training.

Quirks of the real thing: several visits a subject; groups that are not asked for (EMCI, LMCI, SMC); rows without a
file, files without a row, a row twice; tensors with and without a channel axis and in half precision; two scanners.
"""

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Caps, Index, Source

LABELS = ("CN", "MCI", "AD")
TABLE = "ADNI1_Complete_2Yr_1.5T.csv"
SHAPE, SPACING = (40, 48, 40), (4.4, 4.4, 4.4)
SEPARATION = 2.0  # between CN and AD, in standard deviations of the severity
STAGE = {"CN": 0.0, "SMC": 0.0, "EMCI": 0.4, "MCI": 0.5, "LMCI": 0.75, "AD": 1.0}  # mean severity / SEPARATION
AGE, AGE_BY_STAGE, AGE_DEVIATION = 72.0, 3.0, 6.0  # years
HALF_PRECISION, CHANNEL_AXIS = 18, 9  # every so many files


@dataclass(frozen=True)
class Visit:
    """One scan, and the row of the table that tells of it."""

    number: int
    visit: int
    severity: float
    age: float
    scanner: int
    row: dict[str, object]

    @property
    def subject(self) -> str:
        return str(self.row["Subject"])

    @property
    def path(self) -> str:
        return f"ADNI_PT/{self.row['Image Data ID']}.pt"


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `ADNI_PT/I*.pt` and the table for `size` subjects."""
    visits = cohort(size, seed)
    (folder / "ADNI_PT").mkdir()
    phantom.each(partial(write_scan, folder=folder, seed=seed), visits, workers)
    write_table(folder / TABLE, [visit.row for visit in visits], stream(seed, "table"))
    first = {visit.subject: visit for visit in reversed(visits)}
    return {"cases": {v.path: {"severity": first[v.subject].severity, "age": first[v.subject].age} for v in visits}}


def cohort(subjects: int, seed: int) -> list[Visit]:
    """Who comes how often: every eleventh subject belongs to a group that nobody asks for."""
    visits: list[Visit] = []
    for number in range(subjects):
        random = stream(seed, "subject", number)
        group = ("EMCI", "LMCI", "SMC")[number % 3] if number % 11 == 10 else LABELS[number % 3]
        severity = STAGE[group] * SEPARATION + random.standard_normal()
        age = float(np.clip(AGE + AGE_BY_STAGE * STAGE[group] + AGE_DEVIATION * random.standard_normal(), 55, 92))
        sex, scanner = "MF"[random.integers(2)], int(random.random() < 0.35)
        name = f"{random.integers(2, 142):03d}_S_{100 + number * 37 % 9000:04d}"
        for visit in range(1 + int(random.choice(4, p=[0.25, 0.3, 0.3, 0.15]))):
            row = {
                "Image Data ID": f"I{10_000 + len(visits) * 499 + random.integers(499)}",
                "Subject": name,
                "Group": group,
                "Sex": sex,
                "Age": int(age + visit / 2),
                "Visit": ("sc", "m06", "m12", "m24")[visit],
                "Modality": "MRI",
                "Description": ("MPR; GradWarp; B1 Correction; N3; Scaled", "MPR-R; GradWarp; N3; Scaled")[scanner],
                "Type": "Processed",
                "Acq Date": f"{random.integers(1, 13)}/{random.integers(1, 29)}/{2006 + visit}",
                "Format": "NiFTI",
                "Downloaded": "",
            }
            visits.append(Visit(len(visits), visit, severity + 0.12 * visit, age + visit / 2, scanner, row))
    return visits


def write_table(path: Path, rows: list[dict[str, object]], random: np.random.Generator) -> None:
    """All cells quoted, as the archive exports it; a few rows are missing, have no file, or come twice."""
    told = [rows[i] for i in random.permutation(len(rows)) if i % 61 != 7]
    fileless = [row | {"Image Data ID": f"I{990_000 + i}"} for i, row in enumerate(rows[::53])]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(told + fileless + told[:1])


def write_scan(visit: Visit, folder: Path, seed: int) -> None:
    volume = head(visit, seed)
    if visit.number % HALF_PRECISION == HALF_PRECISION - 1:
        volume = volume.astype(np.float16)
    elif visit.number % CHANNEL_AXIS == CHANNEL_AXIS - 1:
        volume = volume[None]
    phantom.save_tensor(folder / visit.path, volume)


def head(visit: Visit, seed: int) -> Volume:
    """A T1-weighted head, RAS+: bright scalp and white matter, grey cortex, dark fluid and skull."""
    anatomy = stream(seed, "anatomy", visit.subject)
    scan = stream(seed, "scan", visit.subject, visit.visit)
    axes = phantom.millimetres(SHAPE, SPACING, -scan.normal(0, 2, 3))
    axes = phantom.turned(axes, scan.normal(0, 0.05, 3))
    size = 1 + 0.05 * anatomy.standard_normal()
    shape = texture(anatomy, SHAPE, 5, 0.035)
    sulci = texture(anatomy, SHAPE, 1.3, 1)
    atrophy = 0.55 * visit.severity + 0.02 * (visit.age - AGE)

    r = ellipsoid(axes, (0, 0, 0), np.array([66, 84, 64]) * size) + shape
    image = 0.9 * inside(r / 1.2, 0.05)  # scalp
    image[r < 1.13] = 0.12  # skull
    image[r < 1.04] = 0.22  # fluid
    sulcus = (sulci > 1.15 - 0.18 * atrophy) & (r > 0.84)
    image[(r < 1 - 0.012 * max(atrophy, -1)) & ~sulcus] = 0.55  # grey matter
    image[r < 0.84 + 0.010 * atrophy + 0.05 * np.clip(sulci, -1, 1)] = 0.85  # white matter

    ventricles = np.exp(0.22 * anatomy.standard_normal() + 0.22 * atrophy)
    for side in (-1, 1):  # they differ much from person to person: a weak sign
        r = ellipsoid(axes, (side * 13, 2, 8), np.array([7, 30, 9]) * ventricles, (0, 0, side * 0.22))
        image[r < 1] = 0.20
    for side in (-1, 1):  # hippocampus within the temporal horn: differs little, a strong sign
        shrunk = np.exp(-0.18 * visit.severity) * (1 + 0.03 * anatomy.standard_normal())
        centre = (side * 29, -8 + anatomy.normal(), -24 + anatomy.normal())
        image[ellipsoid(axes, centre, (11.5, 21, 10.5), (0.25, 0, 0)) < 1] = 0.21
        share = inside(ellipsoid(axes, centre, np.array([10, 19.5, 9.2]) * shrunk, (0.25, 0, 0)), 0.25)
        image = image * (1 - share) + 0.58 * share
        image[ellipsoid(axes, (side * 17, 6, 0), (8, 14, 9)) < 1] = 0.6  # deep grey matter

    image = blurred(image, 0.45) * phantom.coil_field(scan, SHAPE, 0.12)
    image = phantom.rician(scan, image, 0.035)
    gain = (900, 260)[visit.scanner] * np.exp(0.1 * scan.standard_normal())
    return (image * gain).astype(np.float32)


def gold(root: Path, seed: int) -> Index:
    """Split by subject, capped and balanced as the card says."""
    from m3dspy.workspace import indexing as ix

    items = ix.from_table(
        root,
        "*.csv",
        file_column="Image Data ID",
        label_column="Group",
        images="ADNI_PT/*.pt",
        labels={label: label for label in LABELS},
        patient_column="Subject",
    )
    splits = ix.cap(ix.split(items, seed=seed), training=1000, test=200, balanced=True, seed=seed)
    return Index.model_validate({"task": "classification", "labels": LABELS, **splits})


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Macro AUROC of the reader who knows the true severity and age of every test subject and makes the best of it."""
    from m3dspy.m3bench.metrics import macro_auroc

    cases = [truth["cases"].get(item.image) for item in index.test]
    if set(index.labels) != set(LABELS) or None in cases or not cases:
        return None
    stage = np.array([STAGE[label] for label in index.labels])
    severity = np.array([[case["severity"]] for case in cases])
    age = np.array([[case["age"]] for case in cases])
    surprise = (severity - SEPARATION * stage) ** 2 + ((age - AGE - AGE_BY_STAGE * stage) / AGE_DEVIATION) ** 2
    likelihood = np.exp(-surprise / 2)
    answer = np.array([index.labels.index(str(item.label)) for item in index.test])
    return macro_auroc(answer, likelihood / likelihood.sum(1, keepdims=True))


TASK = BenchTask(
    name="ADNI",
    task="classification",
    requests=(
        "tell Alzheimer's disease, mild cognitive impairment and healthy controls apart on brain MRI",
        "Train a 3D model that diagnoses AD, MCI or CN from T1 scans of the head.",
        "Build a three-class classifier (AD, MCI, CN) on the T1-weighted brain MRI volumes. Use at most 1000 "
        "images for training and 200 for testing, balanced over the classes; all visits of one subject go into "
        "the same split; no data beyond this folder; it must train on one CPU.",
        "Sort these head magnet scans by dementia: Alzheimer patients, people with mild cognitive impairment, "
        "and normal old people.",
        "Classify the brain MRI scans here as AD, MCI or CN. We also have knee MRI on the other disk, ignore it.",
    ),
    impossible=(
        "segment the hippocampus on brain MRI",
        "predict the survival time of these patients from brain MRI",
        "tell Parkinson's disease from Lewy body dementia on brain MRI",
    ),
    labels=LABELS,
    metric="macro AUROC",
    source="adni.loni.usc.edu (on application); T1-weighted images as tensors, and the table of the image collection",
    licence="ADNI data use agreement: no redistribution",
    access="Apply at adni.loni.usc.edu. Search the image collection for T1-weighted images, download them with "
    "the table that "
    "the collection exports, and save every volume as a tensor in ADNI_PT, named by its Image Data ID.",
    layout=(Part("*.csv", 1), Part("ADNI_PT/*.pt")),
    size=400,
    smallest=12,
    demo=36,
    unit="subjects",
    build=build,
    gold=gold,
    facts=Facts(
        "MR",
        Source(kind="table", path=TABLE, column="Group", file_column="Image Data ID"),
        patient="Subject",
        caps=Caps(training=1000, test=200, balanced=True),
    ),
    oracle=oracle,
)
