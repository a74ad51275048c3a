"""Finished runs on made-up data, trained in seconds, for tests of what comes after a training."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from m3dspy.m3bench.reference import trained
from m3dspy.programs.builder import Script
from m3dspy.signatures.values import ANOMALY_LABELS, Design, Grade, Index, Item, Outcome, Plan, Request, Score, Source
from m3dspy.workspace import emit, inventory
from m3dspy.workspace.runs import Run

SIZE = (16, 16, 16)
SEGMENT = Design(
    template="segment", network="unet", dims=3, size=SIZE, spacing=(1, 1, 1), intensity="percentile", loss="dice_ce",
    lr=5e-3, batch=2, epochs=2,
)  # fmt: skip
CLASSIFY = Design(
    template="classify", network="cnn", dims=3, size=SIZE, intensity="zscore", loss="ce", lr=2e-3, batch=4, epochs=2
)
LABELS = {"segmentation": ("ball", "cube"), "classification": ("large", "small")}


def volume(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noisy image with a ball and a cube, its mask, and an affine that is turned every second time."""
    random = np.random.default_rng(number)
    shape = np.array([24, 20, 18]) + number % 3
    x, y, z = np.mgrid[: shape[0], : shape[1], : shape[2]] - random.uniform(7, 9, 3)[:, None, None, None]
    mask = np.zeros(shape, np.uint8)
    mask[np.maximum(abs(x - 8), np.maximum(abs(y - 4), abs(z))) < 4] = 2
    mask[x**2 + y**2 + z**2 < (36 if number % 2 else 16)] = 1
    image = np.array([0, 100, -100])[mask] + random.normal(0, 50, mask.shape)
    return image.astype(np.int16), mask, np.diag([[1.0, 1, 1, 1], [-1, -1, 1.2, 1]][number % 2])


def nifti(path: Path, number: int) -> None:
    image, _, affine = volume(number)
    nibabel.save(nibabel.Nifti1Image(image, affine), path)


def series(folder: Path, number: int) -> None:
    """The same image as a CT series of single slices, in files whose names say nothing of their order."""
    folder.mkdir(parents=True)
    image, _, _ = volume(number)
    study, whole, frame = (generate_uid(entropy_srcs=[str(number), name]) for name in ("study", "series", "frame"))
    for z in range(image.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[whole, str(z)])
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID = study, whole, frame
        file.PatientName, file.PatientID, file.PatientBirthDate, file.PatientSex = "DOE^JANE", "MRN-7", "", "O"
        file.StudyDate, file.StudyTime, file.StudyID, file.AccessionNumber = "20200101", "101010", "1", ""
        file.ReferringPhysicianName, file.Manufacturer, file.Modality, file.SeriesNumber = "", "maker", "CT", 1
        file.InstanceNumber, file.PositionReferenceIndicator = image.shape[2] - z, ""
        file.ImagePositionPatient, file.ImageOrientationPatient = [-10, -20, 30 + 1.5 * z], [1, 0, 0, 0, 1, 0]
        file.PixelSpacing, file.SliceThickness = [1.0, 1.0], 1.5
        file.Rows, file.Columns = image.shape[1], image.shape[0]
        file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME2", 1
        file.BitsAllocated, file.BitsStored, file.HighBit = 16, 16, 15
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PixelData = np.ascontiguousarray(image[:, :, z].T).tobytes()
        pydicom.dcmwrite(folder / f"{z * 7 % 31:03d}.dcm", file, enforce_file_format=True)


def cases(root: Path, task: str, dims: int = 3) -> Index:
    """Eight volumes, or slices of them, with masks and labels, of which the last two are held out."""
    root.mkdir(parents=True)
    items = []
    for number in range(8):
        image, mask, affine = volume(number)
        names = [f"{kind}{number}.{'nii.gz' if dims == 3 else 'png'}" for kind in ("image", "mask")]
        for array, name in zip((image, mask), names, strict=True):
            if dims == 3:
                nibabel.save(nibabel.Nifti1Image(array, affine), root / name)
            else:
                picture = array[:, :, 8] if array is mask else np.clip(array[:, :, 8] / 2 + 128, 0, 255)
                Image.fromarray(picture.astype(np.uint8)).save(root / name)
        label = names[1] if task == "segmentation" else LABELS[task][1 - number % 2]
        items.append(Item(id=f"case{number}", patient=f"p{number}", image=names[0], label=label))
    split = {"training": tuple(items[:4]), "validation": tuple(items[4:6]), "test": tuple(items[6:])}
    return Index(task=task, labels=LABELS[task], values=(1, 2) if task == "segmentation" else (), **split)


def finished(home: Path, design: Design, **settings: object) -> Run:
    """A run that is done: two epochs on these volumes."""
    root, task = home / "data", "segmentation" if design.template == "segment" else "classification"
    index = cases(root, task, design.dims)
    run = Run.create(Request(text="Say what is there.", data=str(root)), home / "runs")
    where = {"kind": "masks", "path": "mask#.nii.gz"}
    source = Source(**where) if task == "segmentation" else Source(kind="table", path="t.csv", file_column="image")
    plan = Plan(
        task=task, goal="Find the ball.", modality="CT", dims=design.dims, images="image#.nii.gz", labels=index.labels,
        source=source,
    )  # fmt: skip
    half = Score(value=0.5, low=0.4, high=0.6)
    grade = Grade(metric="score", score=half, floor=half, cases=2, patients=2, s1=True, s2=False)
    inventory.note(run, index, root)
    stages = {"plan": plan, "index": index, "design": design, "script": Script(trusted=True)}
    for name, value in (stages | {"outcome": Outcome(status="done", grade=grade, phantom=True)}).items():
        run.commit(name, value)
    (home / "training").mkdir()
    trained(design, index, root, home / "training", **settings).rename(run.folder / "model")
    (home / "training" / "code").rename(run.folder / "code")
    return run


TINY_CLIP = '''"""A CLIP of four blocks with 32 features, for tests."""

import open_clip
import torch

OPEN_CLIP = "tiny"


def network(s, weights=None):
    """Random, from a fixed seed, without `weights`."""
    from mvfa.backbone import fill, read_weights

    seen = {"image_size": s.size, "layers": 4, "width": 32, "head_width": 16, "patch_size": 16}
    told = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        clip = open_clip.CLIP(embed_dim=16, vision_cfg=seen, text_cfg=told)
    if weights:
        fill(clip, read_weights(weights))
    return clip.eval()
'''
TRAINED_CLIP = """
import sys, safetensors.torch, torch
from types import SimpleNamespace
from network import network

clip = network(SimpleNamespace(size=(64, 48)))
torch.manual_seed(7)
for weight in clip.parameters():
    weight.data.add_(0.02 * torch.randn_like(weight))
safetensors.torch.save_file({name: value.contiguous() for name, value in clip.state_dict().items()}, sys.argv[1])
"""
DETECT = Design(
    template="detect", network="clip_vit_b16", dims=2, channels=3, size=(64, 48), intensity="unit", loss="log-odds",
    lr=1e-2, batch=8, epochs=1, shots=2,
)  # fmt: skip


def detecting(home: Path) -> tuple[Run, Path]:
    """A run that tells pictures with a spot from those without, on a small CLIP; and that CLIP's file."""
    root, items = home / "data", []
    root.mkdir(parents=True)
    for number in range(14):
        random, label = np.random.default_rng(number), ANOMALY_LABELS[number % 2]
        picture, spot = random.normal(90, 15, (72, 80)), np.zeros((72, 80), bool)
        spot[20:44, 30:56] = number % 2
        Image.fromarray(np.clip(picture + 100 * spot, 0, 255).astype(np.uint8)).save(root / f"{number}.png")
        Image.fromarray(spot.astype(np.uint8) * 255).save(root / f"mask{number}.png")
        mask = {"mask": f"mask{number}.png"} if number % 2 else {}
        items.append(Item(id=f"case{number}", patient=f"p{number}", image=f"{number}.png", label=label, **mask))
    split = {"training": tuple(items[:6]), "validation": tuple(items[6:12]), "test": tuple(items[12:])}
    index = Index(task="anomaly_detection", labels=ANOMALY_LABELS, about="picture", **split)
    run = Run.create(Request(text="Find what is abnormal.", data=str(root)), home / "runs")
    plan = Plan(
        task="anomaly_detection", goal="Find what is abnormal.", modality="other", dims=2, images="#.png",
        labels=ANOMALY_LABELS, label_values=ANOMALY_LABELS, source=Source(kind="folder", path=""), about="picture",
        shots=2,
    )  # fmt: skip
    inventory.note(run, index, root)
    stages = {"plan": plan, "index": index, "design": DETECT, "script": Script(trusted=True)}
    for name, value in (stages | {"outcome": Outcome(status="done", phantom=True)}).items():
        run.commit(name, value)
    code, weights = emit.emit(DETECT, index, run.folder / "code"), home / "clip.safetensors"
    (code / "network.py").write_text(TINY_CLIP)
    subprocess.run([sys.executable, "-c", TRAINED_CLIP, str(weights)], cwd=code, check=True)
    (home / "index.json").write_text(index.without_test_labels().model_dump_json())
    given = ["--index", home / "index.json", "--data", root, "--out", run.folder / "model", "--weights", weights]
    subprocess.run([sys.executable, "train.py", *map(str, given), "--set", "workers=1"], cwd=code, check=True)
    return run, weights


def table(path: Path) -> dict[str, str]:
    """The rows of a predictions.csv by case, as they stand."""
    return {row["id"]: ",".join(row.values()) for row in csv.DictReader(io.StringIO(path.read_text()))}
