"""The hand that draws a phantom's masks: its line is not quite where a structure ends, so no model can reach Dice 1."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench.metrics import dice
from m3dspy.m3bench.phantom import texture
from m3dspy.signatures.values import Index


def traced(random: np.random.Generator, mask: NDArray[np.uint8], unsteady: float) -> NDArray[np.uint8]:
    """The mask as it is drawn: every border moved by a smooth random field. Args: unsteady: deviation, voxels."""
    moves = np.rint([texture(random, mask.shape, 1.2, unsteady) for _ in mask.shape]).astype(int)
    places = [
        np.clip(place + move, 0, side - 1)
        for place, move, side in zip(np.indices(mask.shape), moves, mask.shape, strict=True)
    ]
    return mask[tuple(places)]


def agreement(ideal: NDArray, drawn: NDArray, labels: Sequence[str], values: Sequence[int]) -> dict[str, float]:
    """Dice of the reader who sees where every structure really ends, against what was drawn, for the labels there."""
    found = {label: dice(ideal == value, drawn == value) for label, value in zip(labels, values, strict=True)}
    return {label: round(value, 4) for label, value in found.items() if value is not None}


def best_reader(index: Index, truth: dict[str, Any]) -> float | None:
    """Mean Dice of that reader on the test cases, from the agreements kept as `cases` by the path of the image.

    A case that shows none of the labels has no Dice, and is left out.
    """
    cases = [truth["cases"].get(str(item.image)) for item in index.test]
    if None in cases:
        return None
    found = [[case[label] for label in index.labels if label in case] for case in cases]
    known = [np.mean(dices) for dices in found if dices]
    return float(np.mean(known)) if known else None
