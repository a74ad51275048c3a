"""COVID19: the two lungs and the infection in them, on chest CT.

In the phantom the infection is ground glass and consolidation, mostly peripheral and posterior, of very different
extent; lung that is merely dependent is denser too. The annotator's line is not quite where the disease ends, so that
no model can reach Dice 1.

Quirks of the real thing: one case in three carries no HU but a window of [-1250, 250] HU scaled to 0..255; orientations
and grids differ from case to case; left and right are labels, so an image must not be mirrored.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.annotator import agreement, best_reader
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.m3bench.thorax import thorax
from m3dspy.signatures.values import Index, Source

LABELS = ("left lung", "right lung", "COVID-19 infection")
FOLDERS = {
    "images": "COVID-19-CT-Seg_20cases",
    "segmentation_masks": "Lung_and_Infection_Mask",
}  # the record's archives
INFECTION = 3
SHAPE, SPACING = np.array([64, 64, 36]), np.array([5.4, 5.0, 8.0])
WINDOWED_SHAPE = np.array([72, 72, 28])


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `images/`, `segmentation_masks/` and `labels.json` for `size` patients."""
    (folder / "images").mkdir()
    (folder / "segmentation_masks").mkdir()
    phantom.save_json(folder / "labels.json", list(LABELS))
    ceilings = phantom.each(partial(write_case, folder=folder, seed=seed), range(1, size + 1), workers)
    return {"cases": dict(ceilings)}


def write_case(number: int, folder: Path, seed: int) -> tuple[str, dict[str, float]]:
    """One image and its mask; returns its path and the Dice of a reader who sees where the infection really ends."""
    random = stream(seed, "covid19", number)
    windowed = number % 5 >= 3
    spacing = SPACING * random.uniform(0.9, 1.1, 3)
    shape = SHAPE
    if windowed:
        shape, spacing = WINDOWED_SHAPE, spacing * SHAPE / WINDOWED_SHAPE
    burden = float(random.choice([0.25, 0.6, 1.0, 1.6]))
    image, mask, ceiling = chest(stream(seed, "chest", number), burden, shape, spacing)
    codes = ("RAS", "LPS", "LAS")[random.integers(3)]
    origin = random.normal(0, 30, 3).round(1)
    if windowed:
        name = f"radiopaedia_{number}_{random.integers(10_000, 90_000)}_0.nii.gz"
        image, dtype = np.clip((image + 1250) / 1500, 0, 1) * 255, np.uint8
    else:
        name = f"coronacases_{number:03d}.nii.gz"
        image, dtype = np.clip(image, -1024, 3071), np.int16
    phantom.save_nifti(folder / "images" / name, image.round(), spacing, codes, origin, dtype)
    phantom.save_nifti(folder / "segmentation_masks" / name, mask, spacing, codes, origin, np.uint8)
    return f"images/{name}", ceiling


def chest(
    random: np.random.Generator, burden: float, shape: NDArray, spacing: NDArray
) -> tuple[Volume, NDArray[np.uint8], dict[str, float]]:
    """A chest, RAS+: the image in HU, its mask, and the Dice per label that noise in the annotation leaves possible.

    Args: burden: about a third of the number of lesions.  spacing: mm.
    """
    chest = thorax(random, shape, spacing)
    image, lungs, axes, lung = chest.image, chest.lungs, chest.axes, chest.lungs > 0
    infected, density = infection(random, burden, axes, spacing, lung)
    density = np.clip(density * (1 + texture(random, shape, 1.2, 0.12)), 0, 1)
    image = np.where(lung, image + density * (30 - image), image)
    line = blurred(infected, 0.6)
    drawn = (line + texture(random, shape, 2, 0.07) > 0.5) & lung
    mask = np.where(drawn, INFECTION, lungs).astype(np.uint8)
    ideal = np.where((line > 0.5) & lung, INFECTION, lungs)
    image = blurred(image, (0.45, 0.45, 0.3))
    image += phantom.ct_noise(random, shape, random.uniform(18, 45), (0.6, 0.6, 0.2))
    return image, mask, agreement(ideal, mask, LABELS, (1, 2, INFECTION))


def infection(
    random: np.random.Generator, burden: float, axes: phantom.Axes, spacing: NDArray, lung: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], Volume]:
    """Where the disease is, and how far it fills the air (0 to 1): blobs near the pleura, some with a solid core."""
    from scipy.ndimage import distance_transform_edt

    depth = np.asarray(distance_transform_edt(lung, sampling=spacing))
    chance = np.where(lung, np.exp(-depth / 14) * np.exp(-axes[1] / 60), 0).ravel()
    chance /= chance.sum()
    infected, density = np.zeros(lung.shape, bool), np.zeros(lung.shape, np.float32)
    for _ in range(1 + random.poisson(3.2 * burden)):
        place = np.unravel_index(random.choice(chance.size, p=chance), lung.shape)
        centre = [float(axis.ravel()[i]) for axis, i in zip(axes, place, strict=True)]
        radii = random.uniform(12, 34, 3) * (0.7 + 0.3 * burden)
        r = ellipsoid(axes, centre, radii, random.uniform(-0.6, 0.6, 3)) + texture(random, lung.shape, 2.5, 0.28)
        infected |= (r < 1) & lung
        consolidated, ground_glass = random.random() > 0.55, random.uniform(0.28, 0.62)
        filled = np.where(consolidated & (r < 0.55), 1, ground_glass)
        density = np.maximum(density, inside(r, 0.5) * filled * lung)
    return infected, density


def arrange(root: Path, out: Path) -> None:
    """From the record's two archives, or `images` and `segmentation_masks`, to the latter and `labels.json`."""
    from m3dspy.workspace.public import link

    for part, archive in FOLDERS.items():
        (out / part).mkdir()
        for path in sorted((root / (part if (root / part).is_dir() else archive)).glob("[!.]*.nii.gz")):
            link(path, out / part / path.name)
    phantom.save_json(out / "labels.json", list(LABELS))


def gold(root: Path, seed: int) -> Index:
    """Every file is a patient."""
    from m3dspy.workspace import indexing as ix

    items = ix.from_pairs(root, images="images/*.nii.gz", masks="segmentation_masks/*.nii.gz")
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": (1, 2, 3), **ix.split(items, seed=seed)}
    )


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Mean Dice of the reader who sees where the infection really ends, against the line that was drawn."""
    return best_reader(index, truth) if set(index.labels) <= set(LABELS) else None


TASK = BenchTask(
    name="COVID19",
    task="segmentation",
    requests=(
        "segment both lungs and the COVID-19 infection on chest CT",
        "Mark left lung, right lung and infected tissue in these thoracic CT scans.",
        "Train a 3D segmentation of left lung, right lung and infection on the chest CT volumes. Masks have to "
        "come out in the grid of the image, left and right must never be swapped, and a third of the cases is in "
        "8 bits instead of HU: cope with that.",
        "Classify every voxel of the lung CAT scans as left lung, right lung or corona infection, so that we get "
        "coloured overlays.",
        "Delineate left and right lung and the infection on the chest CT. The abdominal CT with organ masks in "
        "the neighbouring folder is not part of this.",
    ),
    impossible=(
        "segment the liver and the spleen on abdominal CT",
        "register the follow-up chest CT to the baseline scan",
        "segment the lung nodules on chest CT",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="zenodo.org/records/3757476: COVID-19 CT Lung and Infection Segmentation Dataset (Ma et al. 2020), 20 scans",
    licence="CC BY-NC-SA 4.0 (coronacases: CC0)",
    access="Download COVID-19-CT-Seg_20cases.zip and Lung_and_Infection_Mask.zip from the record, without an account; "
    "unpack each into a folder of its name, side by side.",
    layout=tuple(Part(f"{{{part},{archive}}}/*.nii.gz", 20) for part, archive in FOLDERS.items()),
    arrange=arrange,
    size=50,
    smallest=10,
    demo=20,
    unit="patients",
    build=build,
    gold=gold,
    facts=Facts("CT", Source(kind="masks"), values=("1", "2", "3"), sided=True),
    oracle=oracle,
)
