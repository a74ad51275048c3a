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
    return area_under_roc(*tally(positive, answer, weights))


def tally(positive: NDArray[np.bool_], answer: NDArray, weights: NDArray) -> tuple[NDArray, NDArray]:
    """Weight of the positive and of the negative cases at each distinct answer, lowest answer first.

    Args: as in `auroc`.  Returns: two (rounds, answers); what the metrics on counts below take.
    """
    order = np.argsort(answer, kind="stable")
    first_of_tie = np.flatnonzero(np.r_[True, np.diff(answer[order]) > 0])
    weights = weights[:, order]
    return (
        np.add.reduceat(weights * positive[order], first_of_tie, axis=1),
        np.add.reduceat(weights * ~positive[order], first_of_tie, axis=1),
    )


def area_under_roc(positives: NDArray, negatives: NDArray) -> NDArray:
    """Area under the ROC curve from counts at rising scores; ties count half, NaN where one side has none.

    Args: positives, negatives: (rounds, scores).  Returns: (rounds,).
    """
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(1), positives.sum(1) * negatives.sum(1))


def average_precision(positives: NDArray, negatives: NDArray) -> NDArray:
    """Precision at each score as threshold, averaged by the recall gained there; NaN without positives.

    Args: positives, negatives: (rounds, scores), at rising scores.  Returns: (rounds,).
    Source: as scikit-learn's `average_precision_score`.
    """
    found, false = _from_above(positives), _from_above(negatives)
    precision = np.divide(found, found + false, out=np.zeros(found.shape), where=found > 0)
    return _ratio((positives * precision).sum(1), positives.sum(1))


def best_f1(positives: NDArray, negatives: NDArray) -> NDArray:
    """The highest F1 = 2 TP / (2 TP + FP + FN) that any threshold gives; NaN without positives.

    It is a bound, not an outcome: the threshold is chosen on the very cases that are judged.
    Args: positives, negatives: (rounds, scores), at rising scores.  Returns: (rounds,).
    """
    found, marked = _from_above(positives), _from_above(positives + negatives)
    total = positives.sum(1, keepdims=True)
    f1 = np.divide(2 * found, marked + total, out=np.zeros(found.shape), where=found > 0)
    return np.where(total[:, 0] > 0, f1.max(1), np.nan)


def region_overlap(regions: NDArray, negatives: NDArray, limit: float = 0.3) -> NDArray:
    """Per-region overlap (PRO): mean share found of each connected anomaly, over false-positive rates up to `limit`.

    The area under that curve, divided by `limit`, so that 1 is perfect; NaN without regions or normal pixels.
    Args: regions: (rounds, scores), at rising scores: pixels of anomalies, each weighing 1 / size of its region.
        negatives: (rounds, scores): normal pixels.  Returns: (rounds,).
    Source: Bergmann et al. 2021, doi:10.1007/s11263-020-01400-4.
    """
    start = np.zeros((len(regions), 1))
    overlap, rate = (
        np.hstack([start, np.divide(above, above[:, -1:], out=np.full(above.shape, np.nan), where=above[:, -1:] > 0)])
        for above in (np.cumsum(counts[:, ::-1], axis=1) for counts in (regions, negatives))
    )
    step = np.diff(rate, axis=1)
    share = np.divide((limit - rate[:, :-1]).clip(0), step, out=np.ones(step.shape), where=step > 0).clip(0, 1)
    rise = np.diff(overlap, axis=1) * share
    return (step * share * (overlap[:, :-1] + rise / 2)).sum(1) / limit


def _from_above(counts: NDArray) -> NDArray:
    """What lies at each score or above it."""
    return np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]


def _ratio(above: NDArray, below: NDArray) -> NDArray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


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
