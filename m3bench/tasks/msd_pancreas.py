"""MSD_Pancreas: the pancreas and the mass in it, on portal venous CT (task 7 of the Medical Segmentation Decathlon).

The phantom is the upper abdomen around the pancreas. Most masses are duller than the gland and dam up its duct, some
are cysts, a few enhance; their edge is blurred and the annotator's line is not quite where they end, so that no model
can reach Dice 1.

Quirks of the real thing: `._*` files beside every image, which a Mac left in the archive and which are no images;
`dataset.json` writes paths as `./imagesTr/...`; `imagesTs` has no masks; numbers of training and test cases are mixed.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.anatomy import ORGANS, abdomen
from m3dspy.m3bench.annotator import agreement, best_reader
from m3dspy.m3bench.phantom import Axes, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

LABELS = ("pancreas", "cancer")
PANCREAS, CANCER = 1, 2
TOP = "Task07_Pancreas"
SHAPE, SPACING = (82, 66, 40), np.array([2.8, 2.8, 3.4])
MARGIN = 10, 10, 8  # voxels of that which a scan leaves out, more on one side than on the other
TEST = 4  # every so many cases have no mask
RESOURCE_FORK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ".ljust(163, b"\x00")  # AppleDouble


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `Task07_Pancreas` with `size` cases that have masks, and a third as many that have none."""
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / TOP / part).mkdir(parents=True)
    numbers = range(1, size + size // (TEST - 1) + 1)
    known = phantom.each(partial(write_case, folder=folder / TOP, seed=seed), numbers, workers)
    names = {part: [f"./{path}" for path, _ in known if path.startswith(part)] for part in ("imagesTr", "imagesTs")}
    listed = {
        "name": "Pancreas",
        "description": "Pancreas and cancer segmentation",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "pancreas", "2": "cancer"},
        "numTraining": len(names["imagesTr"]),
        "numTest": len(names["imagesTs"]),
        "training": [{"image": path, "label": path.replace("images", "labels")} for path in names["imagesTr"]],
        "test": names["imagesTs"],
    }
    phantom.save_json(folder / TOP / "dataset.json", listed)
    return {"cases": {f"{TOP}/{path}": told for path, told in known if path.startswith("imagesTr")}}


def write_case(number: int, folder: Path, seed: int) -> tuple[str, dict[str, float]]:
    """One image and, in training, its mask; returns its path and the Dice of a reader who sees where things end."""
    scan, anatomy = stream(seed, "msd pancreas", number), stream(seed, "pancreas", number)
    spacing = SPACING * scan.uniform(0.94, 1.06, 3)
    patient = abdomen(anatomy, SHAPE, spacing, level="pancreas")
    gland, found = patient.placed["pancreas"], list(ORGANS).index("pancreas") + 1
    pancreas = patient.organs == found
    centre = place(anatomy, patient.axes, pancreas)
    kind = str(anatomy.choice(("solid", "cyst", "bright"), p=(0.65, 0.22, 0.13)))
    hu = {"solid": gland.hu - anatomy.uniform(24, 46), "cyst": anatomy.uniform(8, 24), "bright": gland.hu + 45}[kind]
    radii = anatomy.uniform(6, 14) * anatomy.uniform(0.8, 1.25, 3)
    r = ellipsoid(patient.axes, centre, radii, anatomy.normal(0, 0.4, 3)) + texture(anatomy, SHAPE, 2.5, 0.16)
    reachable = np.isin(patient.organs, (0, found)) & (patient.image > -200) & (patient.image < 200)
    mass = (r < 1) & reachable

    image = patient.image
    if kind == "solid":  # the duct is dammed up towards the tail, on the patient's left
        x, y, z = patient.axes
        tail = np.hypot(y - centre[1], z - centre[2]) < 3.2
        image = np.where(pancreas & tail & (x < centre[0]), 14, image)
    share = inside(r, 0.35) * reachable
    image = image * (1 - share) + (hu + texture(anatomy, SHAPE, 1.5, 5)) * share
    image = blurred(image, (0.6, 0.6, 0.4)) + phantom.ct_noise(scan, SHAPE, scan.uniform(10, 18))
    truth = np.where(mass, CANCER, np.where(pancreas, PANCREAS, 0))
    drawn = annotated(scan, pancreas, mass)

    start = [int(scan.integers(margin + 1)) for margin in MARGIN]
    seen = tuple(slice(s, s + n - margin) for s, n, margin in zip(start, SHAPE, MARGIN, strict=True))
    image, truth, drawn = image[seen], truth[seen], drawn[seen]
    test = number % TEST == 0
    name = f"pancreas_{number:03d}.nii.gz"
    origin = scan.normal(0, 30, 3).round(1)
    parts = {"imagesTs" if test else "imagesTr": (np.clip(image, -1024, 3071).round(), np.int16)}
    parts |= {} if test else {"labelsTr": (drawn, np.uint8)}
    for part, (volume, dtype) in parts.items():
        phantom.save_nifti(folder / part / name, volume, spacing, "RAS", origin, dtype)
        (folder / part / f"._{name}").write_bytes(RESOURCE_FORK)
    return f"{next(iter(parts))}/{name}", agreement(truth, drawn, LABELS, (PANCREAS, CANCER))


def place(random: np.random.Generator, axes: Axes, pancreas: NDArray[np.bool_]) -> list[float]:
    """A point of the gland, in mm."""
    points = np.argwhere(pancreas)
    point = points[random.integers(len(points))]
    return [float(axis.ravel()[i]) for axis, i in zip(axes, point, strict=True)]


def annotated(random: np.random.Generator, pancreas: NDArray, mass: NDArray) -> NDArray[np.uint8]:
    """The mask as it was drawn: with a hand that trembles by a voxel, more so around the mass."""
    drawn = np.zeros(SHAPE, np.uint8)
    for value, structure, tremor in ((PANCREAS, pancreas | mass, 0.10), (CANCER, mass, 0.14)):
        line = blurred(structure, 0.8)
        drawn[(line + texture(random, SHAPE, 2, tremor) > 0.5) & (line > 0.1)] = value
    return drawn


def gold(root: Path, seed: int) -> Index:
    """Every file is a patient; the images without masks are left out. The release, unpacked here or above, or a copy
    in `images` and `masks`."""
    from m3dspy.workspace import indexing as ix

    if (root / "images").is_dir():
        images, masks = "images", "masks"
    else:
        top = f"{TOP}/" if (root / TOP).is_dir() else ""
        images, masks = f"{top}imagesTr", f"{top}labelsTr"
    items = ix.from_pairs(root, images=f"{images}/*.nii.gz", masks=f"{masks}/*.nii.gz")
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": (PANCREAS, CANCER), **ix.split(items, seed=seed)}
    )


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Mean Dice of the reader who sees where gland and mass really end, against the lines that were drawn."""
    return best_reader(index, truth) if set(index.labels) <= set(LABELS) else None


TASK = BenchTask(
    name="MSD_Pancreas",
    task="segmentation",
    requests=(
        "segment the pancreas and pancreatic cancer on abdominal CT",
        "Delineate pancreatic parenchyma and tumour on portal venous phase CT for planning of resection.",
        "Train a 3D model that marks two structures on contrast-enhanced CT of the abdomen: the pancreas, and the "
        "cancer in it. Report each apart, since the tumour is small. Use only the cases that come with masks, ignore "
        "hidden files, never let a test patient into training, and keep the network small enough for a CPU.",
        "classify every pixel as pancreas gland or pancreas carcinoma mass and draw the outline (CAT scan, CT)",
        "Mark pancreas and its tumour on these CT scans. I also have knee MRI on the other disk, ignore it, this is "
        "about the CT masks only.",
    ),
    impossible=(
        "Tell me how many months a patient with pancreatic cancer will survive, from these CT scans.",
        "Segment the spleen on abdominal CT.",
        "Segment the pancreas on T2-weighted MRI.",
        "Register the arterial to the portal venous phase of these CT scans.",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="medicaldecathlon.com: Task07_Pancreas, Memorial Sloan Kettering (Simpson et al. 2019; Antonelli et al. "
    "2022), 281 scans with masks, 139 without",
    licence="CC BY-SA 4.0",
    access="Free: Task07_Pancreas.tar is linked on medicaldecathlon.com. The masks of imagesTs were never published.",
    layout=(
        Part(f"{TOP}/dataset.json", 1),
        Part(f"{TOP}/imagesTr/pancreas_*.nii.gz", 281),
        Part(f"{TOP}/labelsTr/pancreas_*.nii.gz", 281),
        Part(f"{TOP}/imagesTs/pancreas_*.nii.gz", 139),
    ),
    size=45,
    smallest=10,
    demo=18,
    unit="cases with a mask",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="masks"), values=("1", "2")),
    oracle=oracle,
)
