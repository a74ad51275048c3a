"""Test cases as pictures: the image with truth and answer, upright and windowed as a radiologist expects it."""

import csv
import io
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import ABNORMAL, Design, Index, Item
from m3dspy.workspace import untrusted
from m3dspy.workspace.reporting.pictures import Case, Stack

LARGEST_TABLE = 64 << 20  # bytes of a predictions.csv


def lay(voxels: np.ndarray, affine: np.ndarray | None, dims: int, slices: bool = False) -> Stack:
    """Turn an image or mask, as `sources.read` gives it, into pictures.

    With an affine: across the coarsest axis if that is 1.5 times coarser than the finest (the plane of acquisition),
    else axially. Without one: pictures and `slices` of a volume are shown as stored; another volume is taken to be
    (x, y, z), or (slices, rows, columns) where its first axis is the shortest.

    Args: dims: of one case, 2 or 3.   slices: the volume was read from one file a slice.
    """
    if affine is None:
        if dims == 2:
            return Stack(voxels[:, :, None])
        if slices:
            return Stack(voxels)
        first = voxels.shape[0] < min(voxels.shape[1:3])
        return Stack(np.moveaxis(voxels, 0, 2) if first else np.rot90(voxels))

    from nibabel import orientations

    while voxels.ndim < 3:
        voxels = voxels[..., None]
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt("LPI"))
    upright = orientations.apply_orientation(voxels, turn)  # axes now run to the left, to the back, to the feet
    spacing = np.linalg.norm(affine[:3, :3], axis=0).round(3)[np.argsort(turn[:, 0])]
    if 1 in upright.shape[:3]:
        across = upright.shape.index(1)
    else:
        across = int(spacing.argmax()) if spacing.max() > 1.5 * spacing.min() else 2
    columns, rows = (axis for axis in range(3) if axis != across)
    return Stack(
        np.moveaxis(upright, (rows, columns, across), (0, 1, 2)),
        float(spacing[rows] / spacing[columns]),
        left="A" if across == 0 else "R",
        plane=("sagittal", "coronal", "axial")[across],
    )


def choose(index: Index, worst: Sequence[str], count: int) -> tuple[list[Item], list[Item]]:
    """The `count` worst test cases, and as many others spread evenly over the test list."""
    known = {item.id: item for item in index.test}
    bad = [known[name] for name in worst if name in known]
    shown = bad[:count]
    others = [item for item in index.test if item not in bad] or bad[count:]
    places = np.linspace(0, len(others) - 1, min(count, len(others))).round().astype(int)
    return shown, [others[place] for place in places]


def answers(predictions: Path) -> dict[str, dict[str, str]]:
    """The rows of `predictions.csv` by case id; none where there is no such file that can be read."""
    try:
        table = untrusted.read(predictions, "predictions.csv", LARGEST_TABLE).decode()
        return {row["id"]: row for row in csv.DictReader(io.StringIO(table, newline=""))}
    except (DataError, ValueError, KeyError, csv.Error):
        return {}


def classified(item: Item, index: Index, design: Design, root: Path, answer: Mapping[str, str] | None) -> Case:
    """A classified case from its middle slice on, with the true class, the most probable class and its probability.

    Raises: OSError, ValueError: the image cannot be read.
    """
    image = lay(*_read(item, root), design.dims, slices=_sliced(item))
    truth = item.label if isinstance(item.label, tuple) else (item.label or "",)
    said, good = "no prediction", False
    if answer:
        chances = {label: float(answer[label]) for label in index.labels}
        best = max(chances, key=lambda label: chances[label])
        said, good = f"{best} {chances[best]:.2f}", best in truth
    caption = f"{', '.join(truth) or 'none'} → {said}"
    return Case(item.id, caption, image, image.voxels.shape[2] // 2, design.window, good)


def plain(item: Item, design: Design, root: Path) -> Case:
    """A case from its middle slice on.

    Raises: OSError, ValueError: the image cannot be read.
    """
    image = lay(*_read(item, root), design.dims, slices=_sliced(item))
    return Case(item.id, "", image, image.voxels.shape[2] // 2, design.window)


def segmented(item: Item, index: Index, design: Design, root: Path, predictions: Path | None) -> Case:
    """A segmented case from the slice on that shows the true structures best, or the answer's where there are none.

    Args:   predictions: the folder of predicted masks; None: this case has none.
    Raises: OSError, ValueError: the image or a mask cannot be read.
    """
    from m3dspy.workspace import sources

    voxels, affine = _read(item, root)
    image = lay(voxels, affine, design.dims, slices=_sliced(item))

    def mask(path: Path) -> np.ndarray:
        marked, own = sources.read(path)
        own = affine if affine is None or own is None else own  # a file may tell less, or more, than the image's
        laid = lay(marked, own, design.dims, slices=_sliced(item)).voxels
        laid = laid[..., 0] if laid.ndim == 4 else laid
        if laid.shape != image.voxels.shape[:3]:
            raise ValueError(f"{path.name}: is {laid.shape} as a mask, the image is {image.voxels.shape[:3]}")
        return laid

    truth, answer = mask(root / str(item.label)), None
    if predictions:
        suffix = ".nii.gz" if (predictions / f"{item.id}.nii.gz").is_file() else ".png"
        answer = mask(_left(predictions, f"{item.id}{suffix}", image))
    slices = image.voxels.shape[2]
    shares = (_shares(mask, index.values) for mask in (truth, answer) if mask is not None)
    place = next((int(share.argmax()) for share in shares if share.any()), slices // 2)
    return Case(item.id, "" if predictions else "no prediction", image, place, design.window, None, truth, answer)


def mapped(
    item: Item, index: Index, design: Design, root: Path, answer: Mapping[str, str] | None, maps: Path | None
) -> Case:
    """A case of an anomaly detection with its score, the map of its pixels' scores and what the expert marked.

    Args:   maps: the folder of maps; one that holds none for this case leaves the image as it is.
    Raises: OSError, ValueError: the image, its mask or its map cannot be read.
    """
    from m3dspy.workspace import sources

    voxels, affine = _read(item, root)
    image = lay(voxels, affine, design.dims, slices=_sliced(item))

    def plane(path: Path) -> np.ndarray:
        marked = lay(sources.read(path)[0], affine, design.dims).voxels
        marked = marked.max(-1) if marked.ndim == 4 else marked
        if marked.shape[:2] != image.voxels.shape[:2]:
            raise ValueError(f"{path.name}: is {marked.shape[:2]}, the image is {image.voxels.shape[:2]}")
        return marked

    truth = plane(root / item.mask) > 0 if item.mask else None
    heat = maps / f"{item.id}.png" if maps else None
    heat = plane(_left(maps, f"{item.id}.png", image)) / 65535 if maps and heat and heat.is_file() else None
    said, good = "no prediction", False
    if answer:
        said, good = f"{answer['label']} {float(answer[ABNORMAL]):.2f}", answer["label"] == item.label
    caption = f"{item.label} → {said}"
    return Case(item.id, caption, image, 0, design.window, good, truth=truth, heat=heat)


def _left(folder: Path, name: str, image: Stack) -> Path:
    """A mask or map that a script left: a plain file, in itself no larger than it can be for this image.

    Raises: ValueError: it is not.
    """
    from m3dspy.workspace import sources

    voxels = prod(image.voxels.shape[:3])
    try:
        path = untrusted.checked(folder, name, 8 * voxels + (1 << 20))
    except DataError as error:
        raise ValueError(str(error)) from None
    if prod(sources.header(path).shape) != voxels:
        raise ValueError(f"{name}: is not of the image's size")
    return path


def _shares(mask: np.ndarray, values: Sequence[int]) -> np.ndarray:
    """What part of the structures lies in each slice; each structure counts alike, so that small ones are seen."""
    beyond = max(values) + 1
    planes = (np.clip(mask[:, :, place], 0, beyond).astype(np.intp) for place in range(mask.shape[2]))
    counts = np.stack([np.bincount(plane.ravel(), minlength=beyond + 1)[list(values)] for plane in planes])
    return (counts / np.maximum(counts.sum(axis=0), 1)).sum(axis=1)


def _sliced(item: Item) -> bool:
    """Is the case made of pictures, so that rows and columns are known?"""
    from m3dspy.workspace import sources

    return isinstance(item.image, tuple) or sources.source_of(item.image) == "raster"


def _read(item: Item, root: Path) -> tuple[np.ndarray, np.ndarray | None]:
    from m3dspy.workspace import sources

    return sources.read([root / name for name in item.image] if isinstance(item.image, tuple) else root / item.image)
