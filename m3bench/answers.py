"""Reading what a script left behind. It may be anything, so nothing of it is executed, followed or believed:

fixed names only, no links, bounded sizes, and a case whose answer is not exactly what was asked for has no answer.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import sources, untrusted

MAX_TABLE, MAX_WEIGHTS = 64 << 20, 8 << 30  # bytes
MASK_SUFFIXES = (".nii.gz", ".png")


def plain_file(folder: Path, name: str, largest: int) -> Path | None:
    """The path of a regular file of at most so many bytes, with one name and behind no link; else None."""
    try:
        return untrusted.checked(folder, name, largest)
    except DataError:
        return None


def valid_weights(path: Path) -> bool:
    """Whether a file holds one tensor or more in safetensors' form, every number finite."""
    from safetensors import SafetensorError, safe_open

    if not plain_file(path.parent, path.name, MAX_WEIGHTS):
        return False
    try:
        with safe_open(path, framework="numpy") as weights:  # the header must tell where every byte belongs
            names = list(weights.keys())
            return bool(names) and all(bool(np.isfinite(weights.get_tensor(name)).all()) for name in names)
    except (SafetensorError, OSError, TypeError, ValueError, KeyError):
        return False


def read_probabilities(folder: Path, index: Index) -> dict[str, tuple[str, list[float]]]:
    """`predictions.csv`: case id -> the label cell and one probability a label.

    The header is `id,label,<label>,<label>...`; probabilities lie in [0, 1] and add up to 1 unless several labels may
    hold. Rows that break this, and every row of an id that comes twice, are left out.
    """
    path = plain_file(folder, "predictions.csv", MAX_TABLE)
    if path is None:
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error):
        return {}
    if header != ["id", "label", *index.labels]:
        return {}
    answers, seen = {}, set()
    for row in rows:
        if len(row) != len(header) or row[0] in seen:
            answers.pop(row[0] if row else "", None)
            continue
        seen.add(row[0])
        probabilities = _probabilities(row[2:])
        if probabilities and _fits(row[1], probabilities, index):
            answers[row[0]] = (row[1], probabilities)
    return answers


def _probabilities(cells: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return None
    return numbers if all(math.isfinite(number) and 0 <= number <= 1 for number in numbers) else None


def _fits(label: str, probabilities: Sequence[float], index: Index) -> bool:
    if index.multilabel:
        return set(label.split(";")) - {""} <= set(index.labels)
    return label in index.labels and abs(sum(probabilities) - 1) < 1e-3


def read_reports(folder: Path, index: Index) -> dict[str, tuple[str, str]]:
    """`reports.json`: id of a test case -> findings and impression; without cases that have no text at all."""
    try:
        found = untrusted.reports(untrusted.read(folder, "reports.json", MAX_TABLE), "reports.json")
    except DataError:
        return {}
    asked = {item.id for item in index.test}
    texts = {case: (report["findings"], report["impression"]) for case, report in found.items() if case in asked}
    return {case: text for case, text in texts.items() if "".join(text).strip()}


def read_answer_mask(
    folder: Path,
    item: Item,
    values: Sequence[int],
    shape: tuple[int, ...],
    affine: NDArray | None,
    multilabel: bool = False,
) -> NDArray | None:
    """The mask that was predicted for a case; None unless it has the case's grid and no other values than asked for.

    Args: values: of the labels, 0 is the background.  shape, affine: of the case's own mask.  multilabel: values are
        bits, and any sum of them may be answered.
    """
    largest = math.prod(shape) * 8 + (1 << 20)
    found = [plain_file(folder, f"{item.id}{suffix}", largest) for suffix in MASK_SUFFIXES]
    path = next(filter(None, found), None)
    if path is None:
        return None
    try:
        header = sources.header(path)
        if (header.shape, header.channels) != (shape, 1):
            return None
        mask, own_affine = sources.read(path)
    except ValueError:
        return None
    if mask.shape != shape:
        return None
    if multilabel:
        if mask.dtype.kind not in "ui" or (mask.astype(np.int64) & ~sum(values)).any():
            return None
    elif not np.isin(mask, (0, *values)).all():
        return None
    if affine is not None and (own_affine is None or not np.allclose(own_affine, affine, atol=0.02)):
        return None
    return mask


def read_answer_map(folder: Path, item: Item, shape: tuple[int, ...]) -> NDArray[np.uint16] | None:
    """The map of anomaly scores that was written for a case; None unless it is 16-bit grey of that shape.

    Args: shape: rows and columns of the case's own image.
    """
    path = plain_file(folder, f"{item.id}.png", math.prod(shape) * 2 + (1 << 20))
    if path is None:
        return None
    try:
        found = sources.header(path)
        if (found.shape, found.channels, found.dtype) != (shape, 1, "uint16"):
            return None
        scores, _ = sources.read(path)
    except ValueError:
        return None
    return scores
