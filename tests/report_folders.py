"""Small made-up folders of images and reports, in the three layouts in which such data is published."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

SIDES, SIGNS = ("left", "right"), ("pleural effusion", "pneumothorax", "nodule", "consolidation")
NORMAL = "The lungs are clear. The heart size is normal."
SHAPE = (12, 12, 8)
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")


def findings(number: int) -> str:
    """What is seen in a case: every third is normal, word for word."""
    if number % 3 == 0:
        return NORMAL
    return f"There is a {SIGNS[number % 4]} on the {SIDES[number % 2]}, as compared with study {number}. No fracture."


def impression(number: int) -> str:
    return "No acute disease." if number % 3 == 0 else f"Acute {SIGNS[number % 4]}."


def chest_films(folder: Path, studies: int = 24) -> Path:
    """IU X-Ray: reports in one table, films in another; study 5 has no findings, study 7 says "Not given."."""
    films, random = folder / "images" / "images_normalized", np.random.default_rng(0)
    films.mkdir(parents=True)
    reports, projections = [], []
    for uid in range(1, studies + 1):
        said = {5: "", 7: "Not given."}.get(uid, findings(uid))
        about = (uid, "normal", "normal", "Xray Chest PA and Lateral", "Chest pain.", "None.", said, impression(uid))
        reports.append(about)
        for number, projection in enumerate(("Frontal", "Lateral")[: 1 + uid % 2]):
            name = f"{uid}_IM-{uid:04d}-{1001 + number}.dcm.png"
            Image.fromarray(random.integers(0, 256, (40, 48), np.uint8)).save(films / name)
            projections.append((uid, name, projection))
    columns = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
    _table(folder / "indiana_reports.csv", columns, reports)
    _table(folder / "indiana_projections.csv", ("uid", "filename", "projection"), projections)
    return folder


def chest_volumes(folder: Path, patients: int = 12, form: str = "csv") -> Path:
    """CT-RATE: two reconstructions of a scan share a report. Args: form: "csv", or "json", the lists of its card."""
    columns = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
    random, count = np.random.default_rng(0), {"train": patients, "valid": max(3, patients // 3)}
    for part, name in (("train", "train_reports"), ("valid", "validation_reports")):
        rows, records = [], []
        for patient in range(1, count[part] + 1):
            for scan in "ab"[: 1 + patient % 2]:
                for reconstruction in (1, 2):
                    stem = f"{part}_{patient}_{scan}_{reconstruction}"
                    path = f"dataset/{part}_fixed/{part}_{patient}/{part}_{patient}_{scan}/{stem}.nii.gz"
                    _volume(folder / path, random.normal(-300, 400, SHAPE))
                    said = "Not given." if (part, patient) == ("train", 4) else findings(patient)
                    rows.append((f"{stem}.nii.gz", "Cough.", "Without contrast.", said, impression(patient)))
                    records.append({"image_path": path, "finding": said, "impression": impression(patient)})
        if form == "json":
            (folder / f"{part}.json").write_text(json.dumps(records))
        else:
            (folder / "dataset" / "radiology_text_reports").mkdir(parents=True, exist_ok=True)
            _table(folder / "dataset" / "radiology_text_reports" / f"{name}.csv", columns, rows)
    return folder


def brain_sequences(folder: Path, training: int = 12, test: int = 4) -> Path:
    """BrainGnome: two JSON lists, and every case once a sequence."""
    random = np.random.default_rng(0)
    for name, cases in (("train", range(training)), ("test", range(training, training + test))):
        records = []
        for case in cases:
            for sequence in SEQUENCES:
                path = f"images/BraTS-GLI-{case:05d}-000-{sequence}.nii.gz"
                _volume(folder / path, random.gamma(2, 90, SHAPE))
                said = f"On {sequence}, {findings(case)[0].lower()}{findings(case)[1:]}"
                records.append({"image_path": path, "finding": said, "impression": impression(case)})
        (folder / f"reports_{name}.json").write_text(json.dumps(records))
    return folder


def _volume(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.int16), np.eye(4)), path)


def _table(path: Path, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
