"""How well maps of anomaly scores tell abnormal pixels from normal ones.

A map has 65,536 possible scores, so that counting the pixels of each score loses nothing: the values come from these
counts, over all test images. Their bootstrap takes counts by image, in bins of about equally many pixels, which keeps
thousands of maps small; the interval is moved by what the bins lose of the value. A case without a map has its abnormal
pixels below all scores and its normal ones above.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench.answers import read_answer_map
from m3dspy.m3bench.metrics import area_under_roc, average_precision, dice, region_overlap
from m3dspy.signatures.values import NORMAL, Index, Item
from m3dspy.workspace import sources

THRESHOLD = 32767.5  # a map's scores above it are abnormal
LEVELS = 65536 + 2  # every 16-bit score, one below and one above
BINS = 2048
SAMPLE = 32  # cases with masks, and as many without, that the bins are laid out on

METRICS: dict[str, Callable[[NDArray, NDArray, NDArray], NDArray]] = {
    "pixel AUROC": lambda normal, abnormal, regions: area_under_roc(abnormal, normal),
    "pixel AP": lambda normal, abnormal, regions: average_precision(abnormal, normal),
    "PRO": lambda normal, abnormal, regions: region_overlap(regions, normal),
}


class Measured(NamedTuple):
    """A value and its bootstrap distribution (rounds,)."""

    value: float
    spread: NDArray


@dataclass(frozen=True)
class Pixels:
    """The pixels of the test cases, counted by rising score: normal, abnormal, and abnormal by 1 / size of its region.

    total: (3, LEVELS), all cases.   by_case: (3, cases, bins); a case whose truth is not known counts nothing.
    dice:  (cases,), of the map's pixels above THRESHOLD; NaN where no pixel is abnormal.
    """

    total: NDArray[np.float64]
    by_case: NDArray[np.float32]
    dice: NDArray[np.float64]

    def measured(self, weights: NDArray) -> dict[str, Measured]:
        """Every metric. Args: weights: (rounds, cases), as in m3bench.stats."""
        rounds = [weights @ counts.astype(float) for counts in self.by_case]
        exact, binned = self.total[:, None], self.by_case.sum(1, dtype=float)[:, None]
        values = {name: metric(*exact) for name, metric in METRICS.items()}
        lost = {name: values[name] - metric(*binned) for name, metric in METRICS.items()}
        return {
            name: Measured(float(values[name][0]), metric(*rounds) + lost[name]) for name, metric in METRICS.items()
        }


def judge(index: Index, root: Path, folder: Path, answered: Sequence[str]) -> Pixels | None:
    """Count the pixels of every test case whose truth is known; None if no test case has a mask.

    Args:   folder: of the maps.  answered: ids of the cases whose map counts.
    Raises: DataError: an image or a mask cannot be read, or their sizes differ.
    """
    rows = [row for row, item in enumerate(index.test) if item.mask or item.label == NORMAL]
    if not any(item.mask for item in index.test):
        return None
    known = set(answered)

    def counted(row: int) -> tuple[NDArray, float]:
        item = index.test[row]
        truth = read_truth(item, root)
        scores = read_answer_map(folder, item, truth.shape) if item.id in known else None
        return _counts(truth, scores), _dice(truth, scores)

    marked = [row for row in rows if index.test[row].mask]
    some = [row for kind in (marked, sorted({*rows} - {*marked})) for row in kind[:: -(-len(kind) // SAMPLE) or 1]]
    starts = _bins(np.sum([counted(row)[0] for row in some], axis=0))
    total = np.zeros((3, LEVELS))
    by_case = np.zeros((3, len(index.test), len(starts)), np.float32)
    overlap = np.full(len(index.test), np.nan)
    for row in rows:
        counts, overlap[row] = counted(row)
        total += counts
        by_case[:, row] = np.add.reduceat(counts, starts, axis=1)
    return Pixels(total, by_case, overlap)


def shape_of(item: Item, root: Path) -> tuple[int, int]:
    """Rows and columns of a case's image. Raises: DataError: it cannot be read."""
    try:
        rows, columns = sources.header(root / _only(item)).shape[:2]
    except ValueError as error:
        raise DataError(f"The image of case {item.id} cannot be read: {error}.") from None
    return rows, columns


def read_truth(item: Item, root: Path) -> NDArray[np.bool_]:
    """The abnormal pixels of a case; none where it has no mask.

    Raises: DataError: the image or the mask cannot be read, or their sizes differ.
    """
    shape = shape_of(item, root)
    if item.mask is None:
        return np.zeros(shape, bool)
    try:
        found, _ = sources.read(root / item.mask)
    except ValueError as error:
        raise DataError(f"The mask of case {item.id} cannot be read: {error}.") from None
    marked: NDArray[np.bool_] = np.any(found.reshape(*found.shape[:2], -1) > 0, axis=2)
    if marked.shape != shape:
        raise DataError(
            f"The mask of case {item.id} has {marked.shape[0]} x {marked.shape[1]} pixels, its image {shape[0]} x "
            f"{shape[1]}. Mend {item.mask}, or leave the case out."
        )
    return marked


def _only(item: Item) -> str:
    return item.image if isinstance(item.image, str) else item.image[0]


def _counts(truth: NDArray[np.bool_], scores: NDArray[np.uint16] | None) -> NDArray[np.float64]:
    """(3, LEVELS): the pixels of one case; regions are connected by side or corner."""
    from scipy.ndimage import label

    level = np.where(truth, 0, LEVELS - 1) if scores is None else scores.astype(np.intp) + 1
    abnormal = level[truth]
    counts = np.zeros((3, LEVELS))
    counts[0] = np.bincount(level[~truth], minlength=LEVELS)
    if abnormal.size:
        regions: Any = label(truth, np.ones((3, 3)))
        region = regions[0][truth]
        counts[1] = np.bincount(abnormal, minlength=LEVELS)
        counts[2] = np.bincount(abnormal, 1 / np.bincount(region)[region], minlength=LEVELS)
    return counts


def _dice(truth: NDArray[np.bool_], scores: NDArray[np.uint16] | None) -> float:
    if not truth.any():
        return np.nan
    return 0.0 if scores is None else dice(truth, scores > THRESHOLD) or 0.0


def _bins(counts: NDArray) -> NDArray[np.intp]:
    """The first level of every bin: half of the bins share out the normal pixels evenly, half the abnormal ones."""
    shares = np.arange(1, BINS // 2) / (BINS // 2)
    ends = [np.searchsorted(np.cumsum(kind) / kind.sum(), shares) for kind in counts[:2] if kind.any()]
    return np.unique(np.concatenate([[0, 1, LEVELS - 1], *ends]))
