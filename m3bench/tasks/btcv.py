"""BTCV: thirteen organs on abdominal CT.

In the phantom the organs differ from patient to patient in place, size, tilt and enhancement; the adrenal glands are a
few voxels large, as they are for a network that sees the real scans at 5 mm. The gallbladder may have been removed.

Quirks of the real thing: image numbers leave out 11 to 20; the images under `Testing` have no masks; kidneys and
adrenal glands are sided; slice thickness and orientation differ.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.m3bench import phantom
from m3dspy.m3bench.anatomy import ORGANS, abdomen
from m3dspy.m3bench.phantom import blurred, stream
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

LABELS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal vein and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
VALUE = np.array([0, *(LABELS.index(name) + 1 for name in ORGANS)], np.uint8)  # place in ORGANS -> voxel value
HEIGHT = 240.0  # mm


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `Training` for `size` patients, `Testing` (images only) for a third as many, and `labels.json`."""
    for part in ("Training/img", "Training/label", "Testing/img"):
        (folder / part).mkdir(parents=True)
    phantom.save_json(folder / "labels.json", {str(value): name for value, name in enumerate(LABELS, start=1)})
    training = [number if number <= 10 else number + 10 for number in range(1, size + 1)]
    testing = range(training[-1] + 21, training[-1] + 21 + size // 3)
    cases = [(number, "Training") for number in training] + [(number, "Testing") for number in testing]
    phantom.each(partial(write_case, folder=folder, seed=seed), cases, workers)
    return {}


def write_case(case: tuple[int, str], folder: Path, seed: int) -> None:
    number, part = case
    random = stream(seed, "btcv", number)
    in_plane = 5 * random.uniform(0.92, 1.08)
    spacing = (in_plane, in_plane, 5 * random.uniform(0.8, 1.2))
    shape = (72, 56, round(HEIGHT / spacing[2]))
    absent = ("gallbladder",) if random.random() < 0.15 else ()
    patient = abdomen(stream(seed, "abdomen", number), shape, spacing, absent=absent)
    image = blurred(patient.image, 0.4) + phantom.ct_noise(random, shape, random.uniform(12, 28))
    codes = ("LAS", "RAS", "LAS", "LPS")[random.integers(4)]
    origin = random.normal(0, 30, 3).round(1)
    image = np.clip(image, -1024, 3071).round()
    phantom.save_nifti(folder / part / "img" / f"img{number:04d}.nii.gz", image, spacing, codes, origin, np.int16)
    if part == "Training":
        mask = VALUE[patient.organs]
        phantom.save_nifti(
            folder / part / "label" / f"label{number:04d}.nii.gz", mask, spacing, codes, origin, np.uint8
        )


def gold(root: Path, seed: int) -> Index:
    """Every file is a patient; the images without masks are left out."""
    from m3dspy.workspace import indexing as ix

    items = ix.from_pairs(root, images="Training/img/*.nii.gz", masks="Training/label/*.nii.gz")
    values = tuple(range(1, len(LABELS) + 1))
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": values, **ix.split(items, seed=seed)}
    )


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Not known: the masks are exact, and how much of them the noise hides has no formula."""
    return None


TASK = BenchTask(
    name="BTCV",
    task="segmentation",
    requests=(
        "segment the abdominal organs on CT",
        "Delineate all thirteen organs of the abdomen, including both adrenal glands, in CT scans.",
        "Train a 3D model that segments every labelled organ of the abdominal CT. Do not mirror left and right, "
        "respect the voxel spacing, use only the cases that have a mask, and report the Dice of each organ.",
        "Colour in all the innards on these belly CAT scans, each with its own colour.",
        "Segment all organs on the abdominal CT scans. A liver MRI dataset is on the same server, it has nothing "
        "to do with this.",
    ),
    impossible=(
        "segment the prostate on pelvic MRI",
        "draw bounding boxes around the abdominal organs on CT",
        "predict which of these patients will survive five years from abdominal CT",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="synapse.org/Synapse:syn3193805 (on application): Beyond the Cranial Vault, MICCAI 2015, 30 + 20 scans",
    licence="Synapse terms of the challenge: no redistribution",
    access="Register at synapse.org, join the challenge (syn3193805) and accept its terms; RawData.zip of the "
    "abdomen holds Training "
    "and Testing. Write labels.json from the list of organs there.",
    layout=(
        Part("Training/img/img####.nii.gz", 30),
        Part("Training/label/label####.nii.gz", 30),
        Part("Testing/img/img####.nii.gz", 20),
    ),
    size=30,
    smallest=8,
    demo=12,
    unit="training cases",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="masks"), values=tuple(str(i + 1) for i in range(len(LABELS))), sided=True),
    oracle=oracle,
)
