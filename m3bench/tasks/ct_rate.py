"""CT-RATE: the report of a chest CT without contrast medium.

Findings of the phantom: cardiomegaly, arterial calcification (the aorta's wall), pleural effusion, consolidation,
opacity (ground glass), nodule, atelectasis and emphysema, each drawn where it is reported; a quarter of the scans have
none. The radiologist misses some and sees some that are not there, so that the best reader stays below an F1 of 1.

Quirks of the real thing: a scan is reconstructed with a soft and a sharp kernel, and both volumes share one report; a
patient comes more than once (`train_12_a`, `train_12_b`); number 12 of `train` is not number 12 of `valid`; fields that
say "Not given."; rows whose volume is missing; labels of eighteen findings that a model has read off the reports, which
the reports are not to be made from. The official validation cases are what is graded.
"""

import csv
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import dictation, phantom
from m3dspy.m3bench.dictation import Finding, Reported, Wording, pick
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.m3bench.thorax import LEFT, LUNG, RIGHT, Thorax, thorax
from m3dspy.signatures.values import Index, Source, Split

REPORTS, LABELS, METADATA = "dataset/radiology_text_reports", "dataset/multi_abnormality_labels", "dataset/metadata"
TABLES = {"train": "train_reports.csv", "valid": "validation_reports.csv"}
SPLIT: dict[str, Split] = {"train": "training", "valid": "test"}
PATIENT = re.compile(r"((?:train|valid)_\d+)_")
NOT_GIVEN = "Not given."
SHAPE, SPACING = np.array([40, 40, 24]), np.array([8.4, 7.4, 11.5])
NORMAL = 0.25  # share of the scans
PREVALENCE = {
    "cardiomegaly": 0.3,
    "arterial calcification": 0.28,
    "pleural effusion": 0.3,
    "consolidation": 0.26,
    "opacity": 0.3,
    "nodule": 0.22,
    "atelectasis": 0.2,
    "emphysema": 0.24,
}
SILVER = {  # their column in the table of labels that were read off the reports
    "Medical material": None,
    "Arterial wall calcification": "arterial calcification",
    "Cardiomegaly": "cardiomegaly",
    "Pericardial effusion": None,
    "Coronary artery wall calcification": None,
    "Hiatal hernia": None,
    "Lymphadenopathy": None,
    "Emphysema": "emphysema",
    "Atelectasis": "atelectasis",
    "Lung nodule": "nodule",
    "Lung opacity": "opacity",
    "Pulmonary fibrotic sequela": None,
    "Pleural effusion": "pleural effusion",
    "Mosaic attenuation pattern": None,
    "Peribronchial thickening": None,
    "Consolidation": "consolidation",
    "Bronchiectasis": None,
    "Interlobular septal thickening": None,
}
LOBES = {"upper lobe": 52.0, "lower lobe": -34.0}  # mm above the middle

WORDINGS = {
    "cardiomegaly": Wording(
        ("The heart is enlarged.", "Cardiomegaly is observed.", "Heart size has increased, cardiomegaly is present."),
        ("Heart contour and size are normal.", "The size of the heart is within normal limits."),
        ("Cardiomegaly.",),
    ),
    "arterial calcification": Wording(
        (
            "Calcified atherosclerotic plaques are observed in the wall of the aorta.",
            "There are atherosclerotic wall calcifications in the thoracic aorta.",
        ),
        ("The diameter of the thoracic aorta is normal.", "Mediastinal main vascular structures are normal."),
        ("Atherosclerotic calcifications of the aorta.",),
    ),
    "pleural effusion": Wording(
        (
            "There is a {size} pleural effusion on the {side}.",
            "A {size} {side} pleural effusion is observed.",
            "Free fluid in {side} pleural space is observed, consistent with pleural effusion.",
        ),
        ("Pleural effusion was not observed.", "No pleural effusion was detected.", "There is no pleural effusion."),
        ("{Side} pleural effusion.",),
    ),
    "consolidation": Wording(
        (
            "A consolidation area is observed in the {side} {place}.",
            "There is consolidation with air bronchograms in the {place} of the {side} lung.",
        ),
        ("No consolidation was detected in either lung.",),
        ("Consolidation in the {side} {place}, evaluated in favor of infection.",),
    ),
    "opacity": Wording(
        (
            "Ground-glass opacity is observed in the {side} {place}.",
            "There is an area of ground glass density in the {place} of the {side} lung.",
        ),
        (),
        ("Ground-glass opacity in the {side} {place}.",),
    ),
    "nodule": Wording(
        (
            "A solid nodule is observed in the {side} {place}.",
            "In the {place} of the {side} lung there is a nodule.",
        ),
        ("No nodular or infiltrative lesion was detected in either lung.",),
        ("Nodule in the {side} {place}, follow-up is recommended.",),
    ),
    "atelectasis": Wording(
        ("Linear atelectasis is observed in the {side} lower lobe.", "Band atelectasis at the {side} base.",),
        (),
        ("Atelectasis in the {side} lung.",),
    ),
    "emphysema": Wording(
        ("Emphysematous changes are observed in both lungs.", "There are centrilobular emphysema areas in both lungs."),
        ("Aeration of both lung parenchyma is normal.",),
        ("Emphysema in both lungs.",),
    ),
}  # fmt: skip
TOGETHER = (
    (
        frozenset(("consolidation", "nodule")),
        ("No consolidation or nodule was detected in either lung.", "Nodule or consolidation was not observed."),
    ),
)
OPENING = (
    "Trachea and both main bronchi are open.",
    "Trachea and main bronchi are in the midline and no occlusive pathology was observed.",
)
CLOSING = (
    "No lytic-destructive lesion was detected in bone structures.",
    "Upper abdominal organs included in the sections are normal.",
    "Vertebral corpus heights are preserved.",
)
CLEAR = ("Findings within normal limits.", "No active lung disease.", NOT_GIVEN)
COLUMNS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write the volumes, reports, labels and metadata of `size` patients, one in five of them in `valid`."""
    patients = [("valid", n // 5 + 1) if n % 5 == 4 else ("train", n - n // 5 + 1) for n in range(size)]
    made = phantom.each(partial(write_patient, folder=folder, seed=seed), patients, workers)
    for folder_name in (REPORTS, LABELS, METADATA):
        (folder / folder_name).mkdir(parents=True)
    for name, table in TABLES.items():
        rows = [row for (part, _), rows in zip(patients, made, strict=True) if part == name for row in rows]
        _write(folder / REPORTS / table, COLUMNS, [row["report"] for row in rows])
        silver = [{"VolumeName": row["report"]["VolumeName"]} | row["labels"] for row in rows]
        _write(folder / LABELS / f"{name}_predicted_labels.csv", ("VolumeName", *SILVER), silver)
        metadata = f"{'validation' if name == 'valid' else name}_metadata.csv"
        _write(folder / METADATA / metadata, tuple(rows[0]["metadata"]), [row["metadata"] for row in rows])
    return {"cases": {row["path"]: row["there"] for rows in made for row in rows}}


def _write(path: Path, columns: Sequence[str], rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def write_patient(patient: tuple[str, int], folder: Path, seed: int) -> list[dict[str, Any]]:
    """All volumes of a patient, and what the tables say of each."""
    split, number = patient
    random = stream(seed, "ct-rate", split, number)
    age, sex = int(random.integers(19, 90)), "MF"[random.integers(2)]
    rows = []
    for scan in "ab"[: 1 + (random.random() < 0.2)]:
        there = found(random)
        findings, impression = report(stream(seed, "ct-rate report", split, number, scan), there)
        image, spacing = chest(stream(seed, "ct-rate scan", split, number, scan), there)
        place = Path(f"dataset/{split}_fixed/{split}_{number}/{split}_{number}_{scan}")
        (folder / place).mkdir(parents=True)
        indication = pick(random, (NOT_GIVEN, "Cough.", "Shortness of breath.", "Covid-19?", "Chest pain."))
        kernels = ("B30f", "B70f")[: 1 + (random.random() < 0.6)]
        lost = number % 37 == 36
        for count, kernel in enumerate(kernels, start=1):
            name = f"{split}_{number}_{scan}_{count}.nii.gz"
            if not lost:
                noise = stream(seed, "ct-rate kernel", name)
                save(folder / place / name, image, spacing, kernel, noise)
            told = (name, indication, "Non-contrast images were taken in the axial plane.", findings, impression)
            rows.append(
                {
                    "path": f"{place.as_posix()}/{name}",
                    "there": list(map(str, there)),
                    "report": dict(zip(COLUMNS, told, strict=True)),
                    "labels": {
                        column: int(any(f.name == finding for f in there)) for column, finding in SILVER.items()
                    },
                    "metadata": {
                        "VolumeName": name,
                        "ConvolutionKernel": kernel,
                        "PatientSex": sex,
                        "PatientAge": f"{age:03d}Y",
                        "RescaleSlope": 1,
                        "RescaleIntercept": 0,
                        "XYSpacing": [round(float(step), 3) for step in spacing[:2]],
                        "ZSpacing": round(float(spacing[2]), 3),
                    },
                }
            )
    return rows


def found(random: np.random.Generator) -> list[Finding]:
    """What is there on a scan."""
    if random.random() < NORMAL:
        return []
    return [guess(random, name) for name, share in PREVALENCE.items() if random.random() < share]


def guess(random: np.random.Generator, name: str) -> Finding:
    sided = name not in ("cardiomegaly", "arterial calcification", "emphysema")
    place = pick(random, tuple(LOBES)) if name in ("consolidation", "opacity", "nodule") else ""
    return Finding(name, pick(random, ("left", "right")) if sided else "", place, random.random())


def report(random: np.random.Generator, there: list[Finding]) -> tuple[str, str]:
    """Findings and impression, in the radiologist's belief; now and then the findings are not given."""
    said, concluded = dictation.dictate(
        random, dictation.believed(random, there, guess, PREVALENCE), WORDINGS, TOGETHER
    )
    findings = " ".join([pick(random, OPENING), *said, pick(random, CLOSING)])
    return NOT_GIVEN if random.random() < 0.02 else findings, " ".join(concluded) or pick(random, CLEAR)


# ------------------------------------------------------------------------------------------------ the scans
def chest(random: np.random.Generator, there: list[Finding]) -> tuple[Volume, NDArray]:
    """A chest with these findings in HU, RAS+, before the kernel; and the size of its voxels in mm."""
    spacing = SPACING * random.uniform(0.94, 1.06, 3)
    of = {finding.name: finding for finding in there}
    heart = random.normal(1.3, 0.06) if "cardiomegaly" in of else random.normal(0.97, 0.05)
    made = thorax(random, SHAPE, spacing, heart=heart, lung=LUNG - 70 * ("emphysema" in of))
    image = made.image
    for finding in there:
        sign(random, finding, made, image)
    return np.clip(image, -1024, 3071), spacing


def sign(random: np.random.Generator, finding: Finding, made: Thorax, image: Volume) -> None:
    """Paint a finding into the image."""
    x, y, z = made.axes
    shape, size = image.shape, finding.size
    side = -1 if finding.side == "left" else 1
    lungs = made.lungs > 0
    lung = made.lungs == (LEFT if finding.side == "left" else RIGHT)
    centre = (side * random.uniform(68, 88), random.uniform(-30, 25), LOBES.get(finding.place, 0) + random.normal(0, 8))
    if finding.name == "pleural effusion":
        fluid = lung & (y + 0.25 * z < -52 + 48 * size)
        image[fluid] = 12
    if finding.name == "consolidation":
        r = ellipsoid(made.axes, centre, (30 + 8 * size, 36, 34)) + texture(random, shape, 1.5, 0.25)
        image[lung & (r < 1)] = 30
        image[lung & (r < 0.8) & (texture(random, shape, 0.7, 1) > 1.6)] = -500  # air bronchograms
    if finding.name == "opacity":
        r = ellipsoid(made.axes, centre, (36 + 8 * size, 44, 42)) + texture(random, shape, 1.5, 0.25)
        share = inside(r, 0.5) * lung * (0.36 + 0.14 * size)
        image[:] = image * (1 - share) + 20 * share
    if finding.name == "nodule":
        share = inside(ellipsoid(made.axes, centre, [13 + 5 * size] * 3), 0.5) * lung
        image[:] = image * (1 - share) + 60 * share
    if finding.name == "atelectasis":
        band = np.abs(z + 46 + 0.3 * (y + 20) + random.normal(0, 5)) < 7
        image[lung & band & (np.abs(x - side * 72) < 40)] = -60
    if finding.name == "emphysema":
        holes = (texture(random, shape, 1.0, 1) > 1.1 - 0.4 * (z > 0)) & lungs
        image[holes] = -985
    if finding.name == "arterial calcification":
        wall = np.abs(ellipsoid(made.axes[:2], (-16, -52), (13, 13)) - 1) < 0.45
        plaque = wall & (texture(random, shape, 1, 1) > 0.2 - 0.5 * size) & (made.lungs == 0)
        image[plaque] = 700
        image[(ellipsoid(made.axes, (-8, 10, 62), (24, 18, 12)) < 1) & (texture(random, shape, 1, 1) > 0.6)] = 620


def save(path: Path, image: Volume, spacing: NDArray, kernel: str, random: np.random.Generator) -> None:
    """Reconstruct with a soft or a sharp kernel, and write."""
    soft = kernel == "B30f"
    volume = blurred(image, (0.5, 0.5, 0.3) if soft else (0.3, 0.3, 0.2))
    volume += phantom.ct_noise(random, image.shape, 18 if soft else 60, (0.7, 0.7, 0.2) if soft else (0.35, 0.35, 0.1))
    volume = np.clip(volume.round(), -1024, 3071)
    phantom.save_nifti(path, volume, spacing, "LPS", random.normal(0, 30, 3).round(1), np.int16)


# ------------------------------------------------------------------------------------------------ the expert
def gold(root: Path, seed: int) -> Index:
    """Every volume whose report has findings. The two kernels of a scan, and the scans of a patient, stay together."""
    return dictation.index_of(root, (case for name in TABLES for case in _reported(root, name)), seed)


def _reported(root: Path, name: str) -> list[Reported]:
    """The volumes of one official list; none where that list is not there."""
    table = root / REPORTS / TABLES[name]
    if not table.is_file():
        return []
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Reported(
            volume_path(row["VolumeName"], name),
            _patient(row["VolumeName"]),
            _given(row["Findings_EN"]),
            _given(row["Impressions_EN"]),
            SPLIT[name],
        )
        for row in rows
    ]


def volume_path(volume: str, name: str) -> str:
    """Where a volume lies: `dataset/train_fixed/train_1/train_1_a/train_1_a_2.nii.gz`."""
    scan = volume.rpartition("_")[0]
    return f"dataset/{name}_fixed/{scan.rpartition('_')[0]}/{scan}/{volume}"


def _patient(volume: str) -> str:
    named = PATIENT.match(volume)
    return named[1] if named else volume


def _given(text: str) -> str:
    return "" if text.strip() == NOT_GIVEN else text.strip()


TASK = BenchTask(
    name="CT-RATE",
    task="report_generation",
    requests=(
        "generate the radiology report of a chest CT volume",
        "Dictate findings and impression for non-contrast thoracic CT, as a radiologist reads the volume.",
        "Build a model that writes reports of 3D chest CT: findings first, then the impression. Grade on the official "
        "validation patients, keep both reconstructions of a scan together, leave out reports that are not given, and "
        "never mirror left and right.",
        "make text captions that describe the lung CAT scan films",
        "Write the reports of these chest CTs. The chest X-ray reports in my other folder belong to another study.",
    ),
    impossible=(
        "predict the overall survival of the patients from chest CT",
        "segment the vertebrae on these CT volumes",
        "write the report of brain MRI",
    ),
    labels=(),
    metric="finding F1",
    source="CT-RATE on Hugging Face (Hamamci et al. 2024, arXiv:2403.17834): 25,692 scans of 21,304 patients",
    licence="CC BY-NC-SA 4.0",
    access="Ask for access on the dataset's page on Hugging Face; it is granted on agreeing to the terms.",
    layout=(
        Part("dataset/train_fixed/*/*/*.nii.gz"),
        Part("dataset/valid_fixed/*/*/*.nii.gz"),
        *(Part(f"{REPORTS}/{table}", 1) for table in TABLES.values()),
        *(Part(f"{LABELS}/{name}_predicted_labels.csv", 1) for name in TABLES),
    ),
    size=300,
    smallest=20,
    demo=80,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts(
        "CT",
        Source(kind="table", path=f"{REPORTS}/{TABLES['train']}", file_column="VolumeName"),
        patient="file name",
        sided=True,
        findings="Findings_EN",
        impression="Impressions_EN",
    ),
    oracle=dictation.oracle,
)
