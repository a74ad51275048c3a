"""Instance22: intracranial haemorrhage on non-contrast CT of the head.

In the phantom blood lies in one or two of five places: in the brain's tissue, in a ventricle, in the sulci, or between
brain and skull, as a crescent (subdural) or a lens (epidural). Calcified plexus, the falx and streaks between the
petrous bones are as bright. Blood ages: what is a few days old is hardly denser than the brain. The annotator's line
is not quite where the blood ends, so that no model can reach Dice 1.

Quirks of the real thing: slices are many times as thick as pixels are wide; the gantry is tilted, which the header does
not tell; one mask in ten is empty; the images of the validation phase have no masks.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.phantom import AIR, FAT, SOFT_TISSUE, Axes, Volume, blurred, ellipsoid, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

LABEL = "intracranial hemorrhage"
SHAPE, SPACING = (96, 96, 14), np.array([2.2, 2.2, 10.0])
RADII = np.array([66.0, 84.0, 78.0])  # of the brain, mm
SKULL, SCALP = 1.09, 1.17  # outer borders, in radii of the brain
WHITE, GREY, FLUID, CORTICAL_BONE = 27.0, 37.0, 7.0, 950.0  # HU
PLACES = ("tissue", "ventricle", "sulci", "subdural", "epidural")
EMPTY = 10  # every so many cases show no blood


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `train_2/data` and `train_2/label` for `size` patients, and a third as many images without masks."""
    for part in ("train_2/data", "train_2/label", "val_2/data"):
        (folder / part).mkdir(parents=True)
    cases = [(number, "train_2") for number in range(1, size + 1)]
    cases += [(number, "val_2") for number in range(size + 1, size + 1 + size // 3)]
    known = phantom.each(partial(write_case, folder=folder, seed=seed), cases, workers)
    return {"cases": {path: told for path, told in known if path.startswith("train_2")}}


def write_case(case: tuple[int, str], folder: Path, seed: int) -> tuple[str, dict[str, Any]]:
    """One image and, in training, its mask; returns its path, where blood is, and the Dice of one who sees its end."""
    from m3dspy.m3bench.metrics import dice

    number, part = case
    random = stream(seed, "instance22", number)
    anatomy = stream(seed, "head", number)
    count = 0 if number % EMPTY == 0 else 1 + (anatomy.random() < 0.3)
    places = [str(place) for place in anatomy.choice(PLACES, count, replace=False)]
    spacing = SPACING * random.uniform(0.96, 1.04, 3)
    image, blood = head(anatomy, random, places, spacing)
    line = blurred(blood, (0.6, 0.6, 0))
    drawn = line + texture(random, SHAPE, (2, 2, 0.3), 0.09) * (line > 0.01) > 0.5
    codes = ("LAS", "RAS", "LPS")[random.integers(3)]
    origin = random.normal(0, 20, 3).round(1)
    name = f"{number:03d}.nii.gz"
    image = np.clip(image, -1024, 3071).round()
    phantom.save_nifti(folder / part / "data" / name, image, spacing, codes, origin, np.int16)
    if part == "train_2":
        phantom.save_nifti(folder / part / "label" / name, drawn, spacing, codes, origin, np.uint8)
    return f"{part}/data/{name}", {"places": places, "dice": dice(line > 0.5, drawn)}


def head(
    anatomy: np.random.Generator, scan: np.random.Generator, places: list[str], spacing: NDArray
) -> tuple[Volume, NDArray[np.bool_]]:
    """A head, RAS+: the image in HU, and where blood is. The scan tilts and moves it.

    Args: places: where it bleeds.  spacing: mm.
    """
    x, y, z = phantom.millimetres(SHAPE, spacing, scan.normal((0, 0, 12), 2))
    y = y + np.tan(scan.uniform(0, 0.35)) * z  # the gantry's tilt shears the stack of slices
    axes = phantom.turned((x, y, z), scan.normal(0, (0.02, 0.03, 0.06)))
    radii = RADII * (1 + 0.04 * anatomy.standard_normal()) * np.exp(anatomy.normal(0, 0.02, 3))
    fine = np.array([1, 1, 0.22])  # slices are thick: a blur of so many voxels along each axis is about round
    form, folds = texture(anatomy, SHAPE, 10 * fine, 0.02), texture(anatomy, SHAPE, 1.5 * fine, 1)
    r = ellipsoid(axes, (0, 0, 0), radii) + form
    x, y, z = axes

    image = np.full(SHAPE, AIR, np.float32)
    image[r < SCALP] = FAT
    image[(r < SCALP - 0.02) & (folds > 0)] = SOFT_TISSUE
    image[r < SKULL] = CORTICAL_BONE
    image[(r < SKULL - 0.025) & (r > 1.025)] = 550  # the marrow between two tables
    image[r < 1] = FLUID
    age = anatomy.uniform(0, 1)
    sulcus = (folds > 1.6 - 0.7 * age) & (r > 0.80)
    brain = (r < 0.985 - 0.03 * age) & ~sulcus
    image[brain] = GREY
    image[(r < 0.86 + 0.05 * np.clip(folds, -1, 1)) & brain] = WHITE
    ventricles = ventricle(anatomy, axes, 0.85 + 0.5 * age)
    for side in (-1, 1):
        image[ellipsoid(axes, (side * 20, 4, 2), (9, 19, 13)) < 1] = GREY + 1  # basal ganglia
    image[ventricles] = FLUID
    image[(np.abs(x) < 1.6) & (r < 0.99) & (z > 12) & (np.abs(y) > 38)] = 62  # falx
    for side in (-1, 1):
        if anatomy.random() < 0.5:
            image[ellipsoid(axes, (side * 15, -26, 4), (4, 5, 6)) < 1] = anatomy.uniform(80, 180)  # calcified plexus
    base = (r < SKULL) & (z < -40 + 6 * np.cos(x / 14) + 0.25 * y)
    image[base] = SOFT_TISSUE
    ridge = np.abs(np.abs(x) - 30 - 0.5 * (y + 14)) < 9
    image[base & ((ridge & (np.abs(y + 14) < 26)) | (ellipsoid((x, y), (0, -6), (13, 24)) < 1))] = 800  # petrous bones
    image[base & (ellipsoid(axes, (0, 46, -56), (24, 18, 24)) < 1)] = AIR  # sinuses
    inside = (r < 0.99) & ~base

    blood = np.zeros(SHAPE, bool)
    for place in places:
        shape = bleeding(anatomy, place, axes, radii, r, folds, ventricles) & inside
        if place == "tissue":
            swollen = blurred(shape, 2.2 * fine) > 0.15
            image[swollen & brain & ~ventricles] = 20  # oedema
        blood |= shape
        image[shape] = (anatomy.uniform(54, 76) + 6 * texture(anatomy, SHAPE, 2 * fine, 1))[shape]
    streaks = 9 * np.cos(y / 4 + anatomy.uniform(0, 6)) * np.exp(-(((z + 36) / 14) ** 2) - (x / 34) ** 2)
    image = blurred(image, (0.5, 0.5, 0.15)) + streaks * (r < 1)
    return image + phantom.ct_noise(scan, SHAPE, scan.uniform(4, 8), (0.6, 0.6, 0.1)), blood


def ventricle(random: np.random.Generator, axes: Axes, size: float) -> NDArray[np.bool_]:
    """The lateral ventricles with their horns, and the third and fourth."""
    found = np.zeros(SHAPE, bool)
    width = size * np.exp(random.normal(0, 0.15))
    for side in (-1, 1):
        found |= ellipsoid(axes, (side * 11, 24, 10), (6 * width, 20, 13), (0, 0, side * 0.30)) < 1  # frontal
        found |= ellipsoid(axes, (side * 15, -4, 19), (7 * width, 34, 9), (0, 0, -side * 0.10)) < 1  # body
        found |= ellipsoid(axes, (side * 24, -38, 8), (7 * width, 18, 12), (0, 0, -side * 0.35)) < 1  # occipital
    found |= ellipsoid(axes, (0, -2, 0), (2.6 * width, 14, 12)) < 1
    return found | (ellipsoid(axes, (0, -40, -26), (8 * width, 6, 9)) < 1)


def bleeding(
    random: np.random.Generator,
    place: str,
    axes: Axes,
    radii: NDArray,
    r: Volume,
    folds: Volume,
    ventricles: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Where blood lies: `place` is one of PLACES, `r` the distance from the head's middle in radii of the brain."""
    side = random.choice([-1, 1])
    bulge = texture(random, SHAPE, (4, 4, 0.9), 0.22)
    if place == "tissue":
        centre = (side * random.uniform(16, 42), random.uniform(-40, 36), random.uniform(-14, 42))
        return ellipsoid(axes, centre, random.uniform(7, 24, 3) + 3, random.normal(0, 0.4, 3)) + bulge < 1
    if place == "ventricle":  # sinks to the back of one side or both
        level = random.uniform(-34, 22)
        return ventricles & (axes[1] < level) & ((side * axes[0] > -3) | (random.random() < 0.5))
    if place == "sulci":
        here = ellipsoid(axes, (side * 44, random.uniform(-30, 40), random.uniform(-16, 30)), (44, 44, 34)) < 1
        return here & (r > 0.76) & (r < 0.985) & (folds > 0.55)
    angle = np.arctan2(axes[0] * side / radii[0], axes[1] / radii[1]) - random.uniform(0.9, 2.2)
    height = (axes[2] - random.uniform(4, 40)) / random.uniform(26, 46)
    if place == "subdural":
        along, deep = random.uniform(0.7, 1.2), random.uniform(0.08, 0.17)
        return r > 1 - deep * np.sqrt(np.clip(1 - (angle / along) ** 2 - height**2, 0, 1)) + 0.08 * bulge
    along, deep = random.uniform(0.35, 0.55), random.uniform(0.18, 0.34)
    return r > 1 - deep * np.clip(1 - (angle / along) ** 2 - height**2, 0, 1) + 0.05 * bulge


def gold(root: Path, seed: int) -> Index:
    """Every file is a patient; images without masks are left out. The release, or `images` and `masks`."""
    from m3dspy.workspace import indexing as ix

    images, masks = ("images", "masks") if (root / "images").is_dir() else ("train_2/data", "train_2/label")
    items = ix.from_pairs(root, images=f"{images}/*.nii.gz", masks=f"{masks}/*.nii.gz")
    return Index.model_validate(
        {"task": "segmentation", "labels": (LABEL,), "values": (1,), **ix.split(items, seed=seed)}
    )


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Mean Dice of the reader who sees where blood really ends, against the line that was drawn; empty masks count not.

    An answer that is empty too has no Dice either.
    """
    cases = [truth["cases"].get(item.image) for item in index.test]
    if None in cases or not cases or index.labels != (LABEL,):
        return None
    known = [case["dice"] for case in cases if case["dice"] is not None]
    return float(np.mean(known)) if known else None


TASK = BenchTask(
    name="Instance22",
    task="segmentation",
    requests=(
        "segment intracranial hemorrhage on head CT",
        "Delineate acute intracranial haemorrhage on non-contrast CT of the brain, whichever compartment it lies in, "
        "so that its volume can be followed.",
        "I have about a hundred non-contrast head CT scans with masks of the bleeding. Train a 3D segmentation model "
        "of intracranial hemorrhage. It must run on a laptop without GPU, cope with slices that are much thicker than "
        "pixels are wide, leave scans without blood unmarked, and keep test patients apart from training patients.",
        "please run an object recognition that colours in all the white blood pools in the skull X-ray slices from the "
        "CT scanner (brain bleeding masks, pixel-wise)",
        "Mark intracranial haemorrhage on these head CT volumes. I also have ADNI brain MR on the other disk, ignore "
        "it, it has no bleeding.",
    ),
    impossible=(
        "Predict survival after intracranial haemorrhage from these head CT scans.",
        "Segment the liver on these CT scans.",
        "Segment the hippocampus on T1-weighted MR of the brain.",
        "Draw bounding boxes around every hemorrhage on head CT.",
    ),
    labels=(LABEL,),
    metric="mean Dice",
    source="instance.grand-challenge.org: Intracranial Hemorrhage Segmentation Challenge 2022 (Li et al. 2023), 100 "
    "scans with masks, 30 and 70 without",
    licence="terms of the challenge: research only, no redistribution",
    access="Join the challenge on instance.grand-challenge.org and send the signed agreement; its organisers answer "
    "with links. The masks of validation and test were never published.",
    layout=(Part("train_2/data/*.nii.gz", 100), Part("train_2/label/*.nii.gz", 100)),
    size=50,
    smallest=10,
    demo=20,
    unit="patients with a mask",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="masks"), values=("1",)),
    oracle=oracle,
)
