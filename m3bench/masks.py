"""Grading of masks: mean Dice decides; surfaces, the lift over the mean mask and the smallest structure beside it.

Mean Dice alone tells little: a network trained on the masks of other patients still finds where organs usually lie. The
trivial answer is therefore the mean mask of the training cases, laid onto every image by its header.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench.answers import read_answer_mask
from m3dspy.m3bench.metrics import dice, known_mean, surface_dice
from m3dspy.m3bench.stats import Examined, Metric, mean_of, scores, worst
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import sources

METRIC = "mean Dice"
SURFACE_TOLERANCE = 2.0  # mm, or one voxel where voxels are larger
ATLAS_MASKS, ATLAS_SIDE = 50, 64  # at most so many training masks, on a grid of at most so many voxels a side
ATLAS_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # of the training cases that must agree on a voxel


def floor(index: Index, root: Path) -> Metric:
    """The mean mask of the training cases."""
    means = mean_masks(index, root)
    rows = []
    for item in index.test:
        truth, affine = read_truth(item, root)
        guess = along_image(fitted(means, _patient_shape(truth.shape, affine)), affine)
        rows.append(_overlaps(truth, guess, index))
    return mean_of(known_mean(np.array(rows)))


def examine(index: Index, root: Path, predictions: Path) -> Examined:
    """The deciding metric and the cases without an answer."""
    overlaps, missing = _table(index, root, predictions)
    return Examined(mean_of(known_mean(overlaps)), missing)


def details(index: Index, root: Path, predictions: Path, trivial: Metric, weights: NDArray) -> dict[str, Any]:
    """The further fields of a Grade."""
    overlaps, _ = _table(index, root, predictions)
    surfaces, voxels = np.full(overlaps.shape, np.nan), np.zeros(len(index.values))
    for row, item in enumerate(index.test):
        truth, affine = read_truth(item, root)
        answer = read_answer_mask(predictions, item, index.values, truth.shape, affine, index.multilabel)
        voxels += [shown(truth, value, index).sum() for value in index.values]
        surfaces[row] = _surfaces(truth, np.zeros_like(truth) if answer is None else answer, affine, index)
    lead, smallest = mean_of(known_mean(overlaps)), int(voxels.argmin())
    others = {
        "mean NSD": mean_of(known_mean(surfaces)),
        "lift over atlas": lambda weights: lead(weights) - trivial(weights),
        f"Dice of the smallest structure ({index.labels[smallest]})": mean_of(overlaps[:, smallest]),
    }
    return {
        "others": scores(others, weights),
        "per_label": scores({label: mean_of(overlaps[:, k]) for k, label in enumerate(index.labels)}, weights),
        "surfaces": scores({label: mean_of(surfaces[:, k]) for k, label in enumerate(index.labels)}, weights),
        "worst": worst(index.test, known_mean(overlaps)),
    }


def dealt_overlaps(index: Index, root: Path, predictions: Path, deal: Sequence[int]) -> NDArray:
    """(cases, labels) Dice of another case's answer, laid onto each case by its header; 0 where that has no answer.

    Args: deal: for every case the place of the case whose answer it is given.
    """
    rows = []
    for item, place in zip(index.test, deal, strict=True):
        truth, affine = read_truth(item, root)
        giver = index.test[place]
        own, own_affine = read_truth(giver, root)
        answer = read_answer_mask(predictions, giver, index.values, own.shape, own_affine, index.multilabel)
        if answer is None:
            rows.append([0.0] * len(index.values))
            continue
        straight = fitted(along_patient(answer, own_affine), _patient_shape(truth.shape, affine))
        rows.append(_overlaps(truth, along_image(straight, affine), index))
    return np.array(rows)


def read_truth(item: Item, root: Path) -> tuple[NDArray, NDArray | None]:
    """The expert's mask of a case and its affine. Raises: DataError: it cannot be read."""
    try:
        return sources.read(root / str(item.label))
    except ValueError as error:
        raise DataError(f"The mask of case {item.id} cannot be read: {error}.") from None


def _table(index: Index, root: Path, predictions: Path) -> tuple[NDArray, tuple[str, ...]]:
    """(cases, labels) Dice, and the cases without an answer: those score 0 for every structure."""
    rows, missing = [], []
    for item in index.test:
        truth, affine = read_truth(item, root)
        answer = read_answer_mask(predictions, item, index.values, truth.shape, affine, index.multilabel)
        if answer is None:
            missing.append(item.id)
        rows.append([0.0] * len(index.values) if answer is None else _overlaps(truth, answer, index))
    return np.array(rows), tuple(missing)


def shown(mask: NDArray, value: int, index: Index) -> NDArray[np.bool_]:
    """Where a mask shows the label of that value: alone or, where labels overlap, among others."""
    return mask.astype(np.int64) & value != 0 if index.multilabel else mask == value


def _overlaps(truth: NDArray, answer: NDArray, index: Index) -> list[float]:
    """Dice of every structure; NaN for one that is in neither mask."""
    found = [dice(shown(truth, value, index), shown(answer, value, index)) for value in index.values]
    return [np.nan if value is None else value for value in found]


def _surfaces(truth: NDArray, answer: NDArray, affine: NDArray | None, index: Index) -> list[float]:
    """Surface Dice of every structure; NaN for one that is in neither mask."""
    spacing = np.ones(truth.ndim) if affine is None else np.linalg.norm(affine[:3, :3], axis=0)
    tolerance = spacing.max() if affine is None else max(SURFACE_TOLERANCE, spacing.max())
    found = [
        surface_dice(shown(truth, value, index), shown(answer, value, index), spacing, tolerance)
        for value in index.values
    ]
    return [np.nan if value is None else value for value in found]


# ------------------------------------------------------------------------------------------------ the mean mask
def mean_masks(index: Index, root: Path) -> NDArray[np.integer]:
    """The one mask that fits the training cases best, on a grid along the patient's axes; 0 is the background.

    A voxel may belong to a label if enough training cases agree; how many are enough is chosen for each label such that
    the mask's expected Dice is highest. Of several labels, the one that most cases agree on wins; overlapping ones all.
    """
    items = index.training[:: -(-len(index.training) // ATLAS_MASKS)]
    if not items:
        raise DataError("The index has no training cases, so there is no mean mask to compare with.")
    counts, grid = np.zeros(0), ()
    for item in items:
        mask = along_patient(*read_truth(item, root))
        if not grid:
            grid = tuple(min(ATLAS_SIDE, side) for side in mask.shape)
            counts = np.zeros((len(index.values), *grid))
        mask = fitted(mask, grid)
        counts += np.stack([shown(mask, value, index) for value in index.values])
    shares = counts / len(items)
    for share in shares:
        share[share < max(ATLAS_SHARES, key=lambda least: _expected_dice(share, least))] = 0
    if index.multilabel:
        return np.tensordot(np.array(index.values), shares > 0, 1)
    return np.where(shares.max(0) > 0, np.array(index.values)[shares.argmax(0)], 0)


def _expected_dice(share: NDArray, least: float) -> float:
    chosen = share >= least
    return float(2 * share[chosen].sum() / max(chosen.sum() + share.sum(), 1))


def fitted(mask: NDArray, shape: Sequence[int]) -> NDArray:
    """The mask stretched to another grid, nearest voxel."""
    lines = [((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(shape, mask.shape, strict=True)]
    return mask[np.ix_(*lines)]


def along_patient(volume: NDArray, affine: NDArray | None) -> NDArray:
    """The volume with its axes running to the patient's right, front and head."""
    from nibabel.orientations import apply_orientation, io_orientation

    return volume if affine is None else apply_orientation(volume, io_orientation(affine))


def along_image(volume: NDArray, affine: NDArray | None) -> NDArray:
    """The way back from `along_patient`."""
    from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

    if affine is None:
        return volume
    straight = np.array([[0, 1], [1, 1], [2, 1]])
    return apply_orientation(volume, ornt_transform(straight, io_orientation(affine)))


def _patient_shape(shape: tuple[int, ...], affine: NDArray | None) -> tuple[int, ...]:
    from nibabel.orientations import io_orientation

    return shape if affine is None else tuple(shape[axis] for axis in np.argsort(io_orientation(affine)[:, 0]))
