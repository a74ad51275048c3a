"""OASIS: thirty-five structures of the brain on skull-stripped T1-weighted MR, left and right apart.

In the phantom the brain differs from patient to patient in size, form and pose, and with age the ventricles widen and
the cortex thins. Nuclei differ from each other by a few hundredths of the signal, so that place and form decide.

Simplified: voxels of 4.2 mm, at which amygdala, accumbens, inferior horn, vessel and choroid plexus are a few voxels
each, as they are for a network that sees the real images at half their resolution; the cortex has no single gyri, and
structures are ellipsoids. `orig` and `norm` lie on one grid, everything aligned on another, as in the release.

Quirks of the real thing (the release by neurite): the images of a folder are the same brain four times, with (`norm`)
and without (`orig`) cleaning, as scanned and aligned; masks of 35 and of 4 labels lie beside them, and single slices;
the names of the labels stand in colour tables; intensities run from 0 to 1; some subjects came twice (MR1, MR2).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import phantom
from m3dspy.m3bench.annotator import agreement, best_reader, traced
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, stream
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Index, Source

_HALF = (
    "Cerebral-White-Matter",
    "Cerebral-Cortex",
    "Lateral-Ventricle",
    "Inf-Lat-Ventricle",
    "Cerebellum-White-Matter",
    "Cerebellum-Cortex",
    "Thalamus",
    "Caudate",
    "Putamen",
    "Pallidum",
    "Hippocampus",
    "Amygdala",
    "Accumbens",
    "Ventral-DC",
    "Vessel",
    "Choroid-Plexus",
)
LABELS = (
    *(f"Left-{name}" for name in _HALF[:10]),
    "3rd-Ventricle",
    "4th-Ventricle",
    "Brain-Stem",
    *(f"Left-{name}" for name in _HALF[10:]),
    *(f"Right-{name}" for name in _HALF),
)
VALUES = tuple(range(1, len(LABELS) + 1))
COARSE = ("Cortex", "Subcortical-Gray-Matter", "White-Matter", "CSF")  # of seg4
SIGNAL = {  # of T1-weighted MR, white matter 0.75
    "Cortex": 0.5,
    "White-Matter": 0.75,
    "Ventricle": 0.14,
    "Thalamus": 0.61,
    "Caudate": 0.53,
    "Putamen": 0.57,
    "Pallidum": 0.68,
    "Hippocampus": 0.50,
    "Amygdala": 0.49,
    "Accumbens": 0.52,
    "Ventral-DC": 0.65,
    "Vessel": 0.30,
    "Choroid-Plexus": 0.33,
    "Brain-Stem": 0.70,
}
NUCLEI = {  # centre and radii in mm of those of the right half, RAS+, from the middle of the brain; later ones in front
    "Ventral-DC": ((11, -10, -11), (10, 11, 7)),
    "Thalamus": ((11, -14, 5), (9, 15, 9)),
    "Putamen": ((27, 6, 2), (7, 18, 11)),
    "Pallidum": ((19, 1, 0), (5.5, 10, 7)),
    "Lateral-Ventricle": ((11, 0, 18), (7, 34, 9)),
    "Caudate": ((16, 17, 13), (6, 15, 10)),
    "Accumbens": ((10, 15, -6), (5.5, 6, 5)),
    "Hippocampus": ((28, -18, -15), (7, 19, 6.5)),
    "Inf-Lat-Ventricle": ((37, -18, -13), (4.5, 15, 5)),
    "Amygdala": ((24, 4, -17), (8, 7, 8)),
    "Choroid-Plexus": ((19, -30, 12), (4.5, 9, 5)),
    "Vessel": ((25, 2, -10), (3.4, 3.4, 3.4)),
}
SIDE, SPACING = 48, 4.2  # voxels, mm, of the grid as scanned
ALIGNED = (32, 44, 40)  # voxels, right, front, head
CODES = "LIA"  # FreeSurfer's order of axes
AGAIN = 10  # one subject of so many came twice


# ------------------------------------------------------------------------------------------------ the files
def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write one folder a visit for `size` subjects, the colour tables and the list of visits."""
    visits = [(3 * number + 1, 1) for number in range(size)] + [(3 * number + 1, 2) for number in range(0, size, AGAIN)]
    names = sorted(f"OASIS_OAS1_{subject:04d}_MR{visit}" for subject, visit in visits)
    (folder / "subjects.txt").write_text("\n".join(names) + "\n")
    for name, labels in (("seg35", LABELS), ("seg4", COARSE)):
        (folder / f"{name}_labels.txt").write_text(colour_table(labels))
    return {"cases": dict(phantom.each(partial(write_visit, folder=folder, seed=seed), sorted(visits), workers))}


def colour_table(labels: tuple[str, ...]) -> str:
    """Value, name, red, green, blue and alpha, a line each, as FreeSurfer reads it."""
    turns = np.arange(len(labels) + 1)[:, None] * 2.4 + np.array([0, 2.1, 4.2])
    colours = (127 + 127 * np.cos(turns)).astype(int)
    rows = zip(range(len(labels) + 1), ("Unknown", *labels), colours, strict=True)
    return "".join(f"{value:<3} {name:<32} {r:>3} {g:>3} {b:>3} 0\n" for value, name, (r, g, b) in rows)


def write_visit(visit: tuple[int, int], folder: Path, seed: int) -> tuple[str, dict[str, float]]:
    """The four images and their masks; returns the path of `norm` and the best possible Dice of each label."""
    subject, number = visit
    random = stream(seed, "oasis", subject, number)
    out = folder / f"OASIS_OAS1_{subject:04d}_MR{number}"
    out.mkdir()
    head = partial(brain, seed, subject)

    native = phantom.millimetres((SIDE,) * 3, (SPACING,) * 3, random.normal(0, 4, 3))
    clean, ideal = head(phantom.turned(native, random.normal(0, 0.09, 3)))
    drawn = traced(random, ideal, 0.22)
    _save(random, out, "", clean, drawn, (SPACING,) * 3)
    clean, straight = head(phantom.millimetres(ALIGNED, (SPACING,) * 3))
    straight = traced(random, straight, 0.22)
    _save(random, out, "aligned_", clean, straight, (SPACING,) * 3)
    return f"{out.name}/norm.nii.gz", agreement(ideal, drawn, LABELS, VALUES)


def _save(random: np.random.Generator, out: Path, lead: str, clean: Volume, mask: NDArray, spacing: tuple) -> None:
    """The image as scanned, the cleaned image, both masks; and of the aligned ones a slice."""
    noisy = phantom.rician(random, blurred(clean, 0.4), random.uniform(0.015, 0.035))
    norm = np.where(clean > 0, noisy * random.uniform(0.9, 1.05), 0)
    shell = blurred((clean > 0).astype(np.float32), 2.4)
    skull = np.where((shell > 0.02) & (shell < 0.16), 0.8, 0.0) * (clean == 0)
    orig = (noisy + blurred(skull, 0.5)) * phantom.coil_field(random, clean.shape, 0.15) * 0.85
    for name, image in (("norm", norm), ("orig", orig)):
        image = (np.clip(image, 0, 1) * 255).round() / 255  # FreeSurfer's bytes, scaled
        phantom.save_nifti(out / f"{lead}{name}.nii.gz", image, spacing, CODES, (0, 0, 0), np.float32)
        if lead:
            cut = image[:, image.shape[1] // 2 : image.shape[1] // 2 + 1]
            phantom.save_nifti(out / f"slice_{name}.nii.gz", cut, spacing, CODES, (0, 0, 0), np.float32)
    for name, marked in (("seg35", mask), ("seg4", coarse(mask))):
        phantom.save_nifti(out / f"{lead}{name}.nii.gz", marked, spacing, CODES, (0, 0, 0), np.uint8)


def coarse(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mask of 35 labels in four: cortex, deep grey matter, white matter and brain stem, fluid."""

    def kind(name: str) -> int:
        if "Cortex" in name:
            return 1
        return 3 if "White" in name or "Stem" in name else 4 if "Ventricle" in name or "Choroid" in name else 2

    return np.array([0, *map(kind, LABELS)], np.uint8)[mask]


# ------------------------------------------------------------------------------------------------ the brain
def brain(seed: int, subject: int, axes: phantom.Axes) -> tuple[Volume, NDArray[np.uint8]]:
    """The signal of a subject's brain before blur and noise, 0 outside, and its 35 structures.

    Args: axes: mm from the middle of the brain, to the right, the front and the head.
    """
    random = stream(seed, "oasis brain", subject)
    age = random.random()
    size, place = random.normal(1, 0.035, 3), random.normal(0, 1.2, (len(NUCLEI), 2, 3))
    swell = random.normal(1, 0.06, (len(NUCLEI), 2, 3))
    mid = random.normal(0, 0.6)  # how far the brain's middle is off, mm
    thin, wide = 0.80 + 0.05 * age + 0.01 * random.standard_normal(), 0.75 + 0.75 * age
    waves = random.uniform(0, 2 * np.pi, 6)
    x, y, z = (np.asarray(axis, np.float32) / np.float32(scale) for axis, scale in zip(axes, size, strict=True))
    x, y, z = np.broadcast_arrays(x - mid, y, z)
    along = ((x, 5), (y, 6), (z, 5.5), (x + y, 7), (y + z, 6.5), (z - x, 7))
    fold = sum(np.sin(axis / step + phase) for (axis, step), phase in zip(along, waves, strict=True)) / 6
    right = x > 0

    mask = np.zeros(x.shape, np.uint8)

    def put(where: NDArray, name: str) -> None:
        mask[where & right] = VALUES[LABELS.index(f"Right-{name}")]
        mask[where & ~right] = VALUES[LABELS.index(f"Left-{name}")]

    small = ellipsoid((np.abs(x), y, z), (24, -54, -42), (27, 28, 20))
    put(small < 1, "Cerebellum-Cortex")
    put(small + 0.25 * fold < 0.62, "Cerebellum-White-Matter")
    stem = ellipsoid((x, y - 0.25 * z, z), (0, -16, -44), (11, 10, 30)) < 1
    mask[stem] = VALUES[LABELS.index("Brain-Stem")]
    bulge = 1 + 0.10 * (y > 0) * np.abs(x) / 66
    big = ellipsoid((np.abs(x) * bulge, y, z), (2, 0, 6), (64, 82, 54)) + 0.06 * fold
    temporal = ellipsoid((np.abs(x), y, z), (42, 4, -24), (22, 38, 18)) + 0.03 * fold
    fissure = np.abs(x) < 1.2 + 2 * (np.abs(big) > 0.86)
    sylvian = (np.abs(np.abs(x) - 52) < 10) & (np.abs(z + 10 - 0.25 * y) < 2.5) & (y > -20)
    cerebrum = (((big < 1) & (z > -20 + 0.18 * np.abs(x))) | (temporal < 1)) & ~fissure & ~sylvian & ~stem
    depth = np.minimum(big, np.where(z < -14, temporal, big))
    put(cerebrum, "Cerebral-Cortex")
    medial = (np.abs(x) < 5) & (np.abs(z - 10) > 18)
    put(cerebrum & (depth + 0.3 * fold < thin) & ~medial, "Cerebral-White-Matter")

    for number, (name, (centre, radii)) in enumerate(NUCLEI.items()):
        grown = np.array(radii) * (wide if "Ventricle" in name else 1)
        for side, half in enumerate((right, ~right)):
            at = np.array(centre) + place[number, side]
            bent = z - (0.012 * (y - 5) ** 2 - 3 if name == "Hippocampus" else 0)
            bent = bent + (0.008 * (y - 5) ** 2 - 2 if name == "Lateral-Ventricle" else 0)
            near = ellipsoid((np.abs(x), y, bent), at, grown * swell[number, side]) + 0.05 * fold
            put((near < 1) & half, name)
    mask[ellipsoid((x, y, z), (0, -8, 0), (2.6 + 1.6 * wide, 14, 11)) < 1] = VALUES[LABELS.index("3rd-Ventricle")]
    mask[ellipsoid((x, y, z), (0, -34, -38), (7, 5, 10)) < 1] = VALUES[LABELS.index("4th-Ventricle")]

    signal = np.array([0.0, *map(_signal, LABELS)], np.float32)[mask]
    fluid = ((big < 1.04) & (z > -22)) | (small < 1.05) | (temporal < 1.05)
    return np.where(fluid & (mask == 0), np.float32(SIGNAL["Ventricle"]), signal), mask


def _signal(label: str) -> float:
    return next(signal for name, signal in SIGNAL.items() if label.endswith(name))


# ------------------------------------------------------------------------------------------------ the index
def gold(root: Path, seed: int) -> Index:
    """The cleaned image as scanned with its 35 labels, by subject.

    Reads the release, and `images`, `masks` as in M3Builder's card.
    """
    from m3dspy.workspace import indexing as ix

    if (root / "images").is_dir():
        items = ix.from_pairs(root, images="images/*.nii.gz", masks="masks/*.nii.gz", patient=r"(OASIS_OAS1_\d+)")
    else:
        folder = "OASIS_OAS1_*_MR#"
        items = ix.from_pairs(
            root, images=f"{folder}/norm.nii.gz", masks=f"{folder}/seg35.nii.gz", patient=r"([^/]+)_MR\d+/"
        )
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": VALUES, **ix.split(items, seed=seed)}
    )


TASK = BenchTask(
    name="OASIS",
    task="segmentation",
    requests=(
        "segment the brain structures on T1 MRI",
        "Delineate cortex, white matter, ventricles and all deep grey nuclei of both hemispheres on T1-weighted MR of "
        "the brain.",
        "We want a parcellation tool for our memory clinic: mark all 35 structures of the brain on skull-stripped MR, "
        "left and right kept apart, no mirrored copies in training, and both visits of a subject in the same split.",
        "paint in every anatomical part of the head on these magnetic resonance pictures, mask by mask",
        "Segment all brain structures in these MR volumes. I also have knee MRI on the other disk, ignore it.",
    ),
    impossible=(
        "segment the brain tumour on CT of the head",
        "segment the organs on abdominal MR",
        "register the MR volumes of the brain to each other",
        "estimate by regression how many years old each brain is",
        "write a radiology report for each brain MR",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="github.com/adalca/medical-datasets (neurite-OASIS): Hoopes et al. 2021 on OASIS-1, Marcus et al. 2007, "
    "doi:10.1162/jocn.2007.19.9.1498, 414 subjects",
    licence="OASIS data use agreement: cite, no re-identification",
    access="Free download of neurite-OASIS version 1.0 after reading the OASIS data use agreement; unpack the archive.",
    layout=(
        Part("OASIS_OAS1_*_MR#/norm.nii.gz", 414),
        Part("OASIS_OAS1_*_MR#/seg35.nii.gz", 414),
        Part("seg35_labels.txt", 1),
    ),
    size=50,
    smallest=10,
    demo=20,
    unit="subjects",
    build=build,
    gold=gold,
    facts=Facts("MR", Source(kind="masks"), patient="folder", values=tuple(map(str, VALUES)), sided=True),
    oracle=best_reader,
)
