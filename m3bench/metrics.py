"""The metrics, on plain arrays.

Where a metric takes `weights` (rounds, cases) it gives one value a round, as m3bench.stats asks for.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 10  # of the calibration error


def auroc(positive: NDArray[np.bool_], answer: NDArray, weights: NDArray) -> NDArray:
    """Chance that a positive case is ranked above a negative one; ties count half, NaN where one of them is missing.

    Args: positive, answer: (cases,).  weights: (rounds, cases).  Returns: (rounds,).
    """
    order = np.argsort(answer, kind="stable")
    first_of_tie = np.flatnonzero(np.r_[True, np.diff(answer[order]) > 0])
    weights = weights[:, order]
    positives = np.add.reduceat(weights * positive[order], first_of_tie, axis=1)
    negatives = np.add.reduceat(weights * ~positive[order], first_of_tie, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide(wins, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def one_vs_rest(truth: NDArray[np.bool_], answer: NDArray, weights: NDArray) -> NDArray:
    """Mean AUROC over the labels that have positive and negative cases.

    Args: truth, answer: (cases, labels).  weights: (rounds, cases).  Returns: (rounds,).
    """
    return known_mean(np.stack([auroc(truth[:, k], answer[:, k], weights) for k in range(truth.shape[1])], axis=1))


def known_mean(table: NDArray) -> NDArray:
    """Mean of every row over the entries that are not NaN; NaN for a row without any."""
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(1)
    return np.divide(total, known.sum(1), out=np.full(len(table), np.nan), where=known.any(1))


def macro_auroc(label: NDArray[np.int_], answer: NDArray) -> float:
    """Macro one-vs-rest AUROC. Args: label: (cases,) number of the true class.  answer: (cases, classes).

    >>> macro_auroc(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]))
    1.0
    """
    truth = np.eye(answer.shape[1], dtype=bool)[label]
    return float(one_vs_rest(truth, answer, np.ones((1, len(label))))[0])


def calibration_error(confidence: NDArray, right: NDArray[np.bool_], weights: NDArray) -> NDArray:
    """Expected calibration error over ten bins of equal width: how far confidence and accuracy lie apart.

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    bin_of = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = (confidence - right) * weights
    apart = sum(np.abs(gap[:, bin_of == k].sum(1)) for k in range(BINS))
    return apart / weights.sum(1)


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float | None:
    """Overlap of two masks, `2 |A and B| / (|A| + |B|)`; None where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else None


def surface_dice(
    one: NDArray[np.bool_], other: NDArray[np.bool_], spacing: Sequence[float] | NDArray, tolerance: float
) -> float | None:
    """Share of both surfaces that lies within `tolerance` mm of the other one (NSD); None where both masks are empty.

    The surface is the layer of mask voxels that touch the outside by a face.
    Source: Nikolov et al. 2018, arXiv:1809.04430.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not (one.any() or other.any()):
        return None
    if not (one.any() and other.any()):
        return 0.0
    box = tuple(slice(*_ends(one | other, axis)) for axis in range(one.ndim))
    borders = []
    for mask in (one[box], other[box]):
        padded = np.pad(mask, 1)
        borders.append(padded & ~binary_erosion(padded))
    near = 0
    for border, target in (borders, borders[::-1]):
        near += int((np.asarray(distance_transform_edt(~target, sampling=spacing))[border] <= tolerance + 1e-6).sum())
    return near / sum(int(border.sum()) for border in borders)


def _ends(mask: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
    return int(hit[0]), int(hit[-1]) + 1
