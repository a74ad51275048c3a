"""The releases of the benchmark's datasets, file by file as they are published, with a few small made-up cases each.

Names, nesting, spelling, columns and odd files are those of the releases, not of our phantoms: what a phantom leaves
out, because it makes nothing harder to learn, stands here.
"""

import csv
import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from m3dspy.m3bench.task import find

BTCV = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)
TREES: dict[str, Callable[[Path], tuple[int, int]]] = {}  # each returns how many cases and patients an index holds


def tree(name: str) -> Callable:
    def known(write: Callable[[Path], tuple[int, int]]) -> Callable:
        TREES[name] = write
        return write

    return known


def random(path: Path) -> np.random.Generator:
    """Of a file: no two are alike."""
    return np.random.default_rng(list(path.as_posix().encode()))


def volume(path: Path, values: Iterable[int] = (), shape=(12, 10, 8), spacing=(1.0, 1.0, 3.0), axes="LPS") -> None:
    """A CT or MR volume; with values a mask of boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = random(path).normal(0, 200, shape).astype(np.int16)
    if values := list(values):
        pixels = np.zeros(shape, np.uint8)
        for place, value in enumerate(values):
            pixels[place % shape[0], 2:6, 2:5] = value
    start = np.diag([*spacing, 1.0])
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.io_orientation(np.eye(4)), nibabel.orientations.axcodes2ornt(tuple(axes))
    )
    nibabel.save(nibabel.Nifti1Image(pixels, start).as_reoriented(turn), path)


def picture(path: Path, size=(48, 40), mode="L") -> None:
    """A picture of smooth noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = random(path).integers(0, 256, (6, 5) if mode == "L" else (6, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size).save(path)


def blob(path: Path, size=(48, 40)) -> None:
    """A mask of 0 and 255."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(size[::-1], np.uint8)
    pixels[10:20, 10:24] = 255
    Image.fromarray(pixels).save(path)


def table(path: Path, columns: str, rows: Iterable[Iterable], quoting=csv.QUOTE_MINIMAL) -> None:
    """A CSV. Args: columns: their names, with a comma between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, quoting=quoting).writerows([columns.split(","), *rows])


def text(path: Path, said: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said)


# ------------------------------------------------------------------------------------------------ segmentation
@tree("BTCV")
def btcv(root: Path) -> tuple[int, int]:
    for number in BTCV:
        volume(root / f"RawData/Training/img/img{number:04d}.nii.gz")
        volume(root / f"RawData/Training/label/label{number:04d}.nii.gz", range(1, 14), (14, 10, 8))
    for number in BTCV:  # images and masks have one shape
        volume(root / f"RawData/Training/img/img{number:04d}.nii.gz", shape=(14, 10, 8))
    for number in range(61, 81):
        volume(root / f"RawData/Testing/img/img{number:04d}.nii.gz", shape=(14, 10, 8))
    return 30, 30


@tree("VerSe")
def verse(root: Path) -> tuple[int, int]:
    """Three parts; the field of view, the axes and the patients who came twice differ."""
    numbers = {
        "dataset-01training": range(4, 16),
        "dataset-02validation": range(40, 44),
        "dataset-03test": range(60, 64),
    }
    cases = 0
    for part, found in numbers.items():
        for number in found:
            subject = f"sub-verse{number:03d}"
            names = [subject]
            if number % 5 == 0:
                names = [f"{subject}_split-verse{number + 200}", f"{subject}_split-verse{number + 300}"]
            for name in names:
                axes = "PIR" if number % 2 else "LAS"
                image = root / part / f"rawdata/{subject}/{name}_ct.nii.gz"
                volume(image, shape=(12, 12, 30), axes=axes)
                first = 1 + 5 * (number % 4)
                levels = [*range(first, min(first + 10, 26)), *([28] if number % 3 == 0 else [])]
                own = root / part / f"derivatives/{subject}"
                volume(own / f"{name}_seg-vert_msk.nii.gz", levels, (12, 12, 30), axes=axes)
                points = [{"direction": ["P", "I", "R"]}, *({"label": n, "X": 3.0, "Y": 4.0, "Z": 5.0} for n in levels)]
                text(own / f"{name}_seg-subreg_ctd.json", json.dumps(points))
                picture(own / f"{name}_snp.png")
                cases += 1
    return cases, sum(map(len, numbers.values()))


@tree("OASIS")
def oasis(root: Path) -> tuple[int, int]:
    subjects = [*range(1, 24), 101, 457]
    names = [f"OASIS_OAS1_{number:04d}_MR1" for number in subjects] + ["OASIS_OAS1_0101_MR2"]
    for name in names:
        for image in ("orig", "norm", "aligned_orig", "aligned_norm"):
            volume(root / name / f"{image}.nii.gz", shape=(36, 10, 8), spacing=(1, 1, 1), axes="LIA")
        for labels, most in (("seg35", 35), ("seg4", 4), ("aligned_seg35", 35), ("aligned_seg4", 4)):
            volume(root / name / f"{labels}.nii.gz", range(1, most + 1), (36, 10, 8), (1, 1, 1), "LIA")
        for image, values in (("norm", ()), ("orig", ()), ("seg4", range(1, 5)), ("seg24", range(1, 25))):
            volume(root / name / f"slice_{image}.nii.gz", values, (36, 10, 1), (1, 1, 1))
    colours = [f"{value} {label} {7 * value} 62 78 255" for value, label in enumerate(find("OASIS").labels, 1)]
    text(root / "seg35_labels.txt", "\n".join(colours) + "\n")
    text(root / "seg4_labels.txt", "1 Cortex 205 62 78 255\n2 Subcortical-Gray-Matter 230 148 34 255\n")
    text(root / "subjects.txt", "\n".join(names) + "\n")
    return len(names), len(subjects)


@tree("COVID19")
def covid19(root: Path) -> tuple[int, int]:
    """As unpacked from the record: two kinds of scan, three kinds of masks."""
    names = [f"coronacases_{number:03d}" for number in range(1, 11)]
    names += [f"radiopaedia_{n}_85506_{n % 3}" for n in (4, 7, 10, 14, 27, 29, 36, 40, 42, 43)]
    for name in names:
        volume(root / f"COVID-19-CT-Seg_20cases/{name}.nii.gz")
        volume(root / f"Lung_and_Infection_Mask/{name}.nii.gz", (1, 2, 3))
        volume(root / f"Lung_Mask/{name}.nii.gz", (1, 2))
        volume(root / f"Infection_Mask/{name}.nii.gz", (1,))
    return 20, 20


@tree("Instance22")
def instance22(root: Path) -> tuple[int, int]:
    for number in range(1, 41):
        volume(root / f"train_2/data/{number:03d}.nii.gz", shape=(12, 10, 6), spacing=(0.42, 0.42, 5))
        volume(root / f"train_2/label/{number:03d}.nii.gz", (1,), (12, 10, 6), (0.42, 0.42, 5))
    for number in range(101, 107):
        volume(root / f"evaluation/{number}.nii.gz", shape=(12, 10, 6), spacing=(0.42, 0.42, 5))
    return 40, 40


@tree("MSD_Pancreas")
def msd_pancreas(root: Path) -> tuple[int, int]:
    top, numbers = (
        root / "Task07_Pancreas",
        (1, 4, 5, 6, 10, 12, 15, 16, 18, 19, 21, 24, 25, 28, 29, 32, 33, 35, 37, 40),
    )
    for number in numbers:
        name = f"pancreas_{number:03d}.nii.gz"
        volume(top / f"imagesTr/{name}")
        volume(top / f"labelsTr/{name}", (1, 2))
        for folder in ("imagesTr", "labelsTr"):
            (top / folder / f"._{name}").write_bytes(b"\x00\x05\x16\x07" + b"\x00" * 200)
    for number in (2, 3, 7):
        volume(top / f"imagesTs/pancreas_{number:03d}.nii.gz")
    listed = {
        "name": "PANCREAS",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "numTraining": len(numbers),
        "training": [
            {"image": f"./imagesTr/pancreas_{n:03d}.nii.gz", "label": f"./labelsTr/pancreas_{n:03d}.nii.gz"}
            for n in numbers
        ],
        "test": [f"./imagesTs/pancreas_{n:03d}.nii.gz" for n in (2, 3, 7)],
    }
    text(top / "dataset.json", json.dumps(listed))
    return len(numbers), len(numbers)


@tree("ChestX-Det10")
def chestx_det10(root: Path) -> tuple[int, int]:
    """Boxes, one film without any, and one of a size that is not 1024 x 1024."""
    findings = ("Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema")
    findings += ("Fibrosis", "Fracture", "Mass", "Nodule", "Pneumothorax")
    for part, first, count in (("train", 36199, 24), ("test", 51000, 8)):
        records = []
        for place in range(count):
            name = f"{first + 13 * place}.png"
            picture(root / f"{part}_data/{name}", (64, 64) if place != 3 else (60, 72))
            own = [] if place == 1 else [findings[place % 10], findings[(place + 3) % 10]]
            records.append(
                {"file_name": name, "syms": own, "boxes": [[8 + 4 * k, 6, 40 + 4 * k, 36] for k in range(len(own))]}
            )
        text(root / f"{part}.json", json.dumps(records))
    return 32, 32


# ------------------------------------------------------------------------------------------------ diagnosis
@tree("ADNI")
def adni(root: Path) -> tuple[int, int]:
    """The table as the archive exports it, quoted; an image without a row, a row without an image, other groups."""
    import torch

    columns = "Image Data ID,Subject,Group,Sex,Age,Visit,Modality,Description,Type,Acq Date,Format,Downloaded"
    scan = ("MRI", "MPR; GradWarp; B1 Correction; N3", "Processed", "6/29/2006", "NiFTI", "")
    rows, cases, subjects = [], 0, set()
    (root / "ADNI_PT").mkdir(parents=True)
    for place, group in enumerate(["CN", "MCI", "AD", "EMCI"] * 6):
        subject = f"{(2, 116, 941)[place % 3]:03d}_S_{1000 + place:04d}"
        for visit in ("sc", "m12"):
            image = f"I{40000 + 100 * place + len(visit)}"
            rows.append([image, subject, group, "MF"[place % 2], 70 + place % 9, visit, *scan])
            if (place, visit) != (4, "m12"):
                volume_ = torch.from_numpy(random(root / image).random((1, 10, 12, 10), np.float32))
                torch.save(volume_, root / f"ADNI_PT/{image}.pt")
                if group != "EMCI":
                    cases, subjects = cases + 1, subjects | {subject}
    torch.save(torch.zeros(1, 10, 12, 10), root / "ADNI_PT/I99999.pt")
    table(root / "ADNI1_Complete_1Yr_1.5T_2_09_2024.csv", columns, rows, csv.QUOTE_ALL)
    return cases, len(subjects)


@tree("KneeMRI")
def kneemri(root: Path) -> tuple[int, int]:
    columns = "examId,seriesNo,aclDiagnosis,kneeLR,roiX,roiY,roiZ,roiHeight,roiWidth,roiDepth,volumeFilename"
    rows = []
    for place in range(40):
        exam, series = 329637 + 17 * (place // 2 if place < 4 else place), 5 + place % 4
        name = f"{exam}-{series}.pck"
        path = root / f"vol{1 + place % 10:02d}/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(random(path).integers(0, 4000, (6, 16, 16)).astype(np.uint16), protocol=2))
        rows.append([exam, series, (0, 0, 1, 0, 2)[place // 2 % 5], place % 2, 100, 95, 12, 90, 85, 3, name])
    table(root / "metadata.csv", columns, rows)
    return 40, len({row[0] for row in rows})


@tree("CC-CCII")
def cc_ccii(root: Path) -> tuple[int, int]:
    """Patients and scans are numbers, slices are not padded; one scan is empty, one class comes as JPEG in part."""
    cases = patients = 0
    for label, first in (("CP", 1060), ("NCP", 37), ("Normal", 1700)):
        for patient in range(first, first + 12):
            patients += 1
            for scan in range(3000 + patient, 3001 + patient + (patient % 4 == 0)):
                cases += 1
                for place in range(11):
                    suffix = "jpg" if label == "NCP" and patient % 3 == 0 else "png"
                    picture(root / f"{label}/{patient}/{scan}/{place}.{suffix}", (20, 20))
    (root / "NCP/37/9999").mkdir()
    return cases, patients


@tree("CT-kidney")
def ct_kidney(root: Path) -> tuple[int, int]:
    twice = "CT-KIDNEY-DATASET-Normal-Cyst-Tumor-Stone"
    rows = []
    for target, label in enumerate(("Cyst", "Normal", "Stone", "Tumor")):
        for number in range(1, 13):
            name = f"{label}- ({number})"
            picture(root / f"{twice}/{twice}/{label}/{name}.jpg", mode="RGB")
            rows.append([len(rows), name, f"/content/data/{twice}/{label}/{name}.jpg", label, target])
    columns = "Unnamed: 0,image_id,path,diag,target,Class"
    table(root / "kidneyData.csv", columns, [[*row, row[3]] for row in rows])
    return 48, 48


# ------------------------------------------------------------------------------------------------ reports
@tree("CT-RATE")
def ct_rate(root: Path) -> tuple[int, int]:
    """Two kernels of a scan share a report; a patient has a second scan; one report is not given."""
    reports = (
        "Bilateral pleural effusion is observed.",
        "There is a nodule in the right lung.",
        "No active infiltration.",
    )
    cases, patients = 0, 0
    for part, count in (("train", 10), ("valid", 4)):
        rows, labels, metadata = [], [], []
        for patient in range(1, count + 1):
            given = (part, patient) != ("train", 5)
            patients += given
            for scan in "ab"[: 1 + (patient == 2)]:
                for kernel in (1, 2):
                    name = f"{part}_{patient}_{scan}_{kernel}.nii.gz"
                    volume(root / f"dataset/{part}_fixed/{part}_{patient}/{part}_{patient}_{scan}/{name}")
                    said = reports[patient % 3] if given else "Not given."
                    rows.append([name, "Cough, fever", "Non-contrast", said, said])
                    labels.append([name, int("effusion" in said), int("nodule" in said)])
                    metadata.append([name, "SIEMENS", "[0.7, 0.7]", 1, -1024])
                    cases += given
        columns = "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN"
        spelled = {"train": "train_reports.csv", "valid": "validation_reports.csv"}[part]
        table(root / "dataset/radiology_text_reports" / spelled, columns, rows)
        predicted = root / f"dataset/multi_abnormality_labels/{part}_predicted_labels.csv"
        table(predicted, "VolumeName,Pleural effusion,Lung nodule", labels)
        spelled = {"train": "train_metadata.csv", "valid": "validation_metadata.csv"}[part]
        columns = "VolumeName,Manufacturer,XYSpacing,RescaleSlope,RescaleIntercept"
        table(root / "dataset/metadata" / spelled, columns, metadata)
    return cases, patients


@tree("BrainGnome")
def brain_gnome(root: Path) -> tuple[int, int]:
    names = [f"BraTS-GLI-{n:05d}-000-{s}" for n in range(8) for s in ("t1n", "t1c", "t2w", "t2f")]
    names += [f"BraTS-MEN-{n:05d}-000-t1c" for n in range(4, 7)] + [f"sub-strokecase{n:04d}_dwi" for n in range(3, 6)]
    lists = {"reports_train.json": [], "reports_test.json": []}
    for place, name in enumerate(names):
        volume(root / f"images/{name}.nii.gz")
        lobe = ("frontal", "parietal", "occipital")[place % 3]
        found = "" if place == 2 else f"A mass with oedema in the right {lobe} lobe."
        record = {"image_path": f"images/{name}.nii.gz", "finding": found, "impression": "Consider high-grade glioma."}
        lists[
            "reports_test.json" if name.startswith(("BraTS-GLI-00007", "sub-strokecase0005")) else "reports_train.json"
        ] += [record]
    for name, records in lists.items():
        text(root / name, json.dumps(records, indent=2))
    return len(names) - 1, 8 + 3 + 3


@tree("IU-Xray")
def iu_xray(root: Path) -> tuple[int, int]:
    """Two films a study, or one, or none at all; de-identified words; studies without findings."""
    reports, films, cases, studies = [], [], 0, 0
    for uid in range(1, 31):
        findings = (
            "" if uid % 8 == 0 else "The heart is XXXX enlarged. No pneumothorax." if uid % 3 else "Lungs are clear."
        )
        reports.append(
            [uid, "normal", "normal", "Xray Chest PA and Lateral", "XXXX", "None.", findings, "No acute disease."]
        )
        for number, view in ((1001, "Frontal"), (2001, "Lateral"))[: (2, 2, 1)[uid % 3]]:
            name = f"{uid}_IM-{1000 + uid:04d}-{number}.dcm.png"
            picture(root / f"images/images_normalized/{name}")
            films.append([uid, name, view])
            cases += bool(findings)
        studies += bool(findings)
    reports.append([31, "normal", "normal", "Xray Chest PA", "XXXX", "None.", "Lungs are clear.", "Normal chest."])
    columns = "uid,MeSH,Problems,image,indication,comparison,findings,impression"
    table(root / "indiana_reports.csv", columns, reports)
    table(root / "indiana_projections.csv", "uid,filename,projection", films)
    return cases, studies


# ------------------------------------------------------------------------------------------------ anomalies
def bmad(root: Path, images: str, masks: str, name: Callable[[str, str, int], str], size=(48, 40)) -> int:
    """A set in MVFA's form (img, anomaly_mask), or in BMAD's (img, label, and a folder train of normal images)."""
    for split, count in (("valid", 12), ("test", 16)):
        for kind in ("good", "Ungood"):
            for place in range(count):
                file = name(split, kind, place)
                picture(root / split / kind / images / file, size)
                if masks:
                    blob(root / split / kind / masks / file, size)
    return 56


@tree("Brain")
def brain(root: Path) -> tuple[int, int]:
    """MVFA's: good images have masks too, empty ones."""

    def name(split: str, kind: str, place: int) -> str:
        first = {"valid": 20, "test": 200}[split] + 50 * (kind == "good")
        return f"{first + place // 2:05d}_{60 + place % 2}.png"

    count = bmad(root / "Brain_AD", "img", "anomaly_mask", name)
    for path in root.glob("Brain_AD/*/good/anomaly_mask/*.png"):
        Image.new("L", (48, 40)).save(path)
    return count, count // 2


@tree("Liver")
def liver(root: Path) -> tuple[int, int]:
    """BMAD's: masks lie in `label`, and there are normal images to train on."""

    def name(split: str, kind: str, place: int) -> str:
        return f"{ {'valid': 0, 'test': 10}[split] + 5 * (kind == 'good') + place // 4 }_{390 + place}.png"

    count = bmad(root / "Liver", "img", "label", name)
    for path in root.glob("Liver/*/good/label/*.png"):
        Image.new("L", (48, 40)).save(path)
    for place in range(6):
        picture(root / f"Liver/train/good/{100 + place}_{place}.png")
    return count, count // 4


@tree("RESC")
def resc(root: Path) -> tuple[int, int]:
    def name(split: str, kind: str, place: int) -> str:
        return f"{ {'valid': 0, 'test': 20}[split] + 10 * (kind == 'good') + place // 2 }_{76 + place}.png"

    return bmad(root / "RESC_AD", "img", "anomaly_mask", name), 28


@tree("OCT17")
def oct17(root: Path) -> tuple[int, int]:
    """Lossy, spelled .jpeg, without masks and without a folder img."""

    def name(split: str, kind: str, place: int) -> str:
        disease = "NORMAL" if kind == "good" else ("CNV", "DME", "DRUSEN")[place // 2 % 3]
        return f"{disease}-{ {'valid': 10, 'test': 90}[split] + 40 * (kind == 'good') + place // 2 }8596-{place}.jpeg"

    return bmad(root / "OCT2017", "", "", name), 28


@tree("Chest")
def chest(root: Path) -> tuple[int, int]:
    def name(split: str, kind: str, place: int) -> str:
        return f"{'Normal' if kind == 'good' else 'Lung_Opacity'}-{place:08x}-{split}-4dc2.png"

    return bmad(root / "Chest-RSNA", "", "", name), 56


@tree("HIS")
def his(root: Path) -> tuple[int, int]:
    def name(split: str, kind: str, place: int) -> str:
        return f"{ {'valid': 1000, 'test': 5000}[split] + 500 * (kind == 'good') + place }.png"

    return bmad(root / "Camelyon16_256", "", "", name), 56


def litter(root: Path) -> None:
    """What archivers, file managers and careful people leave in any folder."""
    for name in (".DS_Store", "Thumbs.db", "README.md", "LICENSE", "__MACOSX/._README.md"):
        text(root / name, "This folder was downloaded in March.\n")
