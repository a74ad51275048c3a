"""KneeMRI: whether the anterior cruciate ligament is healthy, partially injured or ruptured, from MR of the knee.

The phantom gives every knee an injury s ~ N(mean of its grade, 1). With s the ligament, a dark oblique band in the
notch, thins, brightens and parts; the bone is bruised where the condyle struck the plateau, and fluid gathers, which
it does in some healthy knees too. The grades overlap, so even a reader who knew s would not be always right: a model
that does better has seen its test patients in training.

Quirks of the real thing: volumes are pickled by Python 2, ten folders of them; an examination comes with one volume or
with two, and only the table tells; the grades are of very unequal size, though less so in the phantom, where one knee
in seventeen would be too few to measure by; left and right knees; a region of interest that nobody needs.
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

LABELS = ("0", "1", "2")
TABLE = "metadata.csv"
COLUMNS = (
    *("examId", "seriesNo", "aclDiagnosis", "kneeLR", "roiX", "roiY", "roiZ"),
    *("roiHeight", "roiWidth", "roiDepth", "volumeFilename"),
)
ROWS, SPACING = 64, (4.5, 1.9, 1.9)  # and as many columns; mm: side, height, front
GRADES = "0012001000102010"  # of the patients, in turn: ten healthy, four partial, two ruptured
MEAN = {"0": 0.0, "1": 1.7, "2": 3.4}  # of the injury, in its standard deviations
TWICE = 0.15  # of the examinations have two volumes
WHITE = 4095  # 12 bits


@dataclass(frozen=True)
class Scan:
    """One volume: the `series`-th of an examination, and whose it is."""

    patient: int
    exam: int
    series: int
    grade: str
    injury: float
    side: int
    slices: int
    part: int

    @property
    def path(self) -> str:
        return f"vol{self.part:02d}/{self.exam}-{self.series}.pck"


@dataclass(frozen=True)
class Ligament:
    """Where it begins on the tibia and ends on the femur, mm."""

    tibia: np.ndarray
    femur: np.ndarray

    def along(self, axes: phantom.Axes) -> tuple[Volume, Volume]:
        """How far along the ligament every voxel is (0 at the tibia, 1 at the femur), and how far from its axis, mm."""
        line = self.femur - self.tibia
        moved = [axis - np.float32(at) for axis, at in zip(axes, self.tibia, strict=True)]
        along = [axis * np.float32(step) for axis, step in zip(moved, line, strict=True)]
        place = (along[0] + along[1] + along[2]) / np.float32(line @ line)
        nearest = np.clip(place, 0, 1)
        off = [axis - nearest * np.float32(step) for axis, step in zip(moved, line, strict=True)]
        return place, np.sqrt(sum(axis**2 for axis in off))


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `vol01` to `vol10` and the table for `size` patients."""
    scans = cohort(size, seed)
    for part in {scan.part for scan in scans}:
        (folder / f"vol{part:02d}").mkdir()
    rows = phantom.each(partial(write_scan, folder=folder, seed=seed), scans, workers)
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return {"cases": {scan.path: {"injury": scan.injury} for scan in scans}}


def cohort(size: int, seed: int) -> list[Scan]:
    """The volumes, patient by patient."""
    scans = []
    for number in range(size):
        random = stream(seed, "patient", number)
        grade = GRADES[number % len(GRADES)]
        injury = float(MEAN[grade] + random.standard_normal())
        exam = 300_000 + 1013 * number + int(random.integers(1013))
        side, first = int(random.choice([-1, 1])), int(random.integers(3, 9))
        for series in range(first, first + 1 + (random.random() < TWICE)):
            slices = int(random.integers(18, 24))
            scans.append(Scan(number, exam, series, grade, injury, side, slices, 1 + number % 10))
    return scans


def write_scan(scan: Scan, folder: Path, seed: int) -> dict[str, object]:
    """Write a volume; returns its row of the table."""
    volume, (x, y, z) = knee(scan, seed)
    phantom.save_pickle(folder / scan.path, volume)
    cells = (scan.exam, scan.series, scan.grade, int(scan.side > 0), x - 13, y - 14, z - 2, 28, 26, 5)
    return dict(zip(COLUMNS, (*cells, Path(scan.path).name), strict=True))


def knee(scan: Scan, seed: int) -> tuple[Volume, tuple[int, int, int]]:
    """A knee with fat suppressed: (slices, rows, columns) of 12 bits, the front on the left and the head on top; and
    where the middle of the ligament is (column, row, slice)."""
    anatomy, random = stream(seed, "anatomy", scan.patient), stream(seed, "scan", scan.patient, scan.series)
    shape = (scan.slices, ROWS, ROWS)
    axes = phantom.millimetres(shape, SPACING, random.normal(0, 2, 3))
    x, z, y = axes = [axes[0] * scan.side, -axes[1], -axes[2]]  # x: outwards on either knee
    axes = phantom.turned([x, y, z], random.normal(0, 0.05, 3))
    x, y, z = axes
    k = 1 + 0.05 * anatomy.standard_normal()
    form = texture(anatomy, shape, (2, 5, 5), 0.03)
    state = 1 / (1 + np.exp(-1.6 * (scan.injury - 1.7)))  # 0: whole, 1: gone

    leg = ellipsoid([x, y], (0, -4), (58 * k, 60 * k)) + form
    image = 0.17 * inside(leg, 0.05) + texture(anatomy, shape, 1.5, 0.02)  # fat under the skin
    muscle = (ellipsoid([x, y], (0, -30 * k), (40 * k, 24 * k)) + 2 * form < 1) & (leg < 0.93)
    image[muscle] = 0.42
    image[(ellipsoid(axes, (0, 30, 2), (34, 16, 34)) + form < 1)] = 0.24  # fat behind the patella
    image[ellipsoid(axes, (0, 4, 2), (36 * k, 26 * k, 26 * k)) + form < 1] = 0.50  # joint capsule and notch

    fluid = np.exp(0.5 * anatomy.standard_normal()) * (0.25 + 0.75 * state) + (anatomy.random() < 0.15)
    pouch = ellipsoid(axes, (4, 24, 33), (26, 4 + 5 * fluid, 12 + 6 * fluid)) + 2 * form
    image = _painted(image, pouch, 1.0, 0.4)
    bones = _bones(axes, k, form)
    image = _painted(image, bones * 0.94, 0.62, 0.08)  # cartilage
    image = _painted(image, bones, 0.06, 0.08)  # cortex
    marrow = 0.21 + texture(anatomy, shape, 1, 0.02)
    bruise = np.zeros(shape, np.float32)
    for centre in ((20, 12, 10), (22, -12, -20)):  # outer condyle in front, outer plateau behind
        at = np.array(centre) * k + anatomy.normal(0, 3, 3)
        blot = ellipsoid(axes, at, anatomy.uniform(9, 15, 3)) + texture(anatomy, shape, (1, 3, 3), 0.15)
        bruise = np.maximum(bruise, inside(blot, 0.9))
    marrow = marrow + 0.62 * state * np.exp(0.25 * anatomy.standard_normal()) * bruise
    image = np.where(bones < 0.93, marrow, image)
    for side in (-1, 1):  # menisci, wedges between the bones
        ring = ellipsoid([x, y], (side * 20 * k, -2), (17 * k, 22 * k))
        image[(np.abs(ring - 0.85) < 0.22) & (np.abs(z + 12 * k) < 3.5)] = 0.07
    patella = ellipsoid(axes, (0, 37 * k, 18), (19, 8, 19))
    image = _painted(_painted(image, patella, 0.06, 0.1), patella / 0.85, 0.2, 0.1)
    tendon = (np.abs(x) < 13) & (np.abs(y - 38 * k - 0.1 * z) < 2.6) & ((np.abs(z + 22) < 24) | (z > 34))
    image[tendon & (leg < 0.95)] = 0.06

    posterior = Ligament(np.array([-3, -20, -18]) * k, np.array([-6, 3, 6]) * k)
    _, far = posterior.along(axes)
    image = _painted(image, (far + 2 * form) / 4.6, 0.07, 0.3)
    ligament = Ligament(
        (np.array([0, 13, -15]) + anatomy.normal(0, 1, 3)) * k, (np.array([7, -13, 15]) + anatomy.normal(0, 1, 3)) * k
    )
    place, far = ligament.along(axes)
    image = _painted(image, far / 9, 0.5 + 0.4 * state, 0.8)  # fat, or oedema, around it
    width = (5.0 - 1.6 * state) * np.exp(0.08 * anatomy.standard_normal())
    gap = np.clip((0.35 * (state - 0.35) - np.abs(place - anatomy.uniform(0.4, 0.65))) / 0.06, 0, 1)
    fibre = 0.08 + 0.38 * state + 0.03 * anatomy.standard_normal()
    image = _painted(image, far / width + 0.8 * gap + 0.3 * state * texture(anatomy, shape, 1, 1), fibre, 0.35)

    image = blurred(np.clip(image, 0, None), (0.3, 0.5, 0.5)) * phantom.coil_field(random, shape, 0.12)
    image = phantom.rician(random, image, 0.03)
    gain = 1500 * np.exp(0.2 * random.standard_normal())
    middle = (ligament.tibia + ligament.femur) / 2
    place = np.unravel_index(
        np.argmin(sum((axis - at) ** 2 for axis, at in zip(axes, middle, strict=True))), shape
    )  # slice, row, column
    return np.clip(image * gain, 0, WHITE).astype(np.uint16), (int(place[2]), int(place[1]), int(place[0]))


def _bones(axes: phantom.Axes, k: float, form: Volume) -> Volume:
    """Distance to femur and tibia, below 1 inside."""
    x, y, z = axes
    condyles = [ellipsoid(axes, (side * 21 * k, -2, 10 * k), (16.5 * k, 25 * k, 19 * k)) for side in (-1, 1)]
    femur = np.maximum(ellipsoid([x, y], (0, 4), (19 * k, 16 * k)), 1 - (z - 22 * k) / 12)
    bridge = ellipsoid(axes, (0, 9, 22 * k), (30 * k, 17 * k, 14 * k))
    taper = 1 - 0.35 * np.clip((-z - 18 * k) / 40, 0, 1)
    tibia = np.maximum(ellipsoid([x, y], (0, -1), (36 * k, 25 * k)) / taper, 1 + (z + 16 * k) / 25)
    return np.minimum.reduce([*condyles, femur, bridge, tibia]) + form


def _painted(image: Volume, distance: Volume, value: float, edge: float) -> Volume:
    share = inside(distance, edge)
    return image * (1 - share) + value * share


def gold(root: Path, seed: int) -> Index:
    """Split by examination, capped and balanced as the card says."""
    from m3dspy.workspace import indexing as ix

    items = ix.from_table(
        root,
        TABLE,
        file_column="volumeFilename",
        label_column="aclDiagnosis",
        images="vol##/*.pck",
        labels={label: label for label in LABELS},
        patient_column="examId",
    )
    splits = ix.cap(ix.split(items, seed=seed), training=1000, test=200, balanced=True, seed=seed)
    return Index.model_validate({"task": "classification", "labels": LABELS, **splits})


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Macro AUROC of the reader who knows how injured every ligament is."""
    from m3dspy.m3bench.metrics import macro_auroc

    cases = [truth["cases"].get(item.image) for item in index.test]
    if set(index.labels) != set(LABELS) or None in cases or not cases:
        return None
    injury = np.array([[case["injury"]] for case in cases])
    means = np.array([MEAN[label] for label in index.labels])
    share = np.array([GRADES.count(label) for label in index.labels])
    likelihood = share * np.exp(-((injury - means) ** 2) / 2)
    answer = np.array([index.labels.index(str(item.label)) for item in index.test])
    return macro_auroc(answer, likelihood / likelihood.sum(1, keepdims=True))


TASK = BenchTask(
    name="KneeMRI",
    task="classification",
    requests=(
        "grade injury of the anterior cruciate ligament on knee MRI: 0 healthy, 1 partially injured, 2 ruptured",
        "Please train a model that reads sagittal knee MR examinations and diagnoses the state of the ACL: intact, "
        "partial tear or complete rupture, as in the column aclDiagnosis of our metadata.",
        "Build a 3D classifier for ACL status (aclDiagnosis 0, 1 and 2) on proton density knee MRI. Constraints: all "
        "volumes of one examination stay in one split, classes are balanced, no more than 1000 volumes are used for "
        "training and 200 for testing, and it has to train without a GPU.",
        "Sort these knee scan pictures by how broken the cross ligament is, with a regression to the three classes.",
        "Predict the ACL diagnosis from the knee MRI volumes in this folder. The brain MRI and the chest CT that we "
        "also have on the other disk are for later, leave them alone.",
    ),
    impossible=(
        "segment the anterior cruciate ligament and the menisci on knee MRI",
        "tell kidney cysts, stones and tumours apart on CT",
        "predict the survival of these patients in months from knee MRI",
    ),
    labels=LABELS,
    metric="macro AUROC",
    source="riteh.uniri.hr/~istajduh/projects/kneeMRI: 917 volumes of the Clinical Hospital Centre Rijeka "
    "(Stajduhar 2017)",
    licence="for research; cite Stajduhar et al. 2017, doi:10.1016/j.cmpb.2016.12.006",
    access="Download the ten archives vol01 to vol10 and metadata.csv from the authors' page, and unpack them "
    "side by side.",
    layout=(Part("metadata.csv", 1), Part("vol##/*.pck", 917)),
    size=320,
    smallest=48,
    demo=96,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts(
        "MR",
        Source(kind="table", path=TABLE, column="aclDiagnosis", file_column="volumeFilename"),
        patient="examId",
        caps=Caps(training=1000, test=200, balanced=True),
    ),
    oracle=oracle,
)
