"""Grading of classes: macro one-vs-rest AUROC decides; accuracy, calibration and each label stand beside it."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench.answers import read_probabilities
from m3dspy.m3bench.metrics import auroc, calibration_error, known_mean, one_vs_rest
from m3dspy.m3bench.stats import Examined, Metric, mean_of, scores, worst
from m3dspy.signatures.values import Index

METRIC = "macro AUROC"


def floor(index: Index, root: Path) -> Metric:
    """The same answer for every case."""
    return partial(one_vs_rest, _truth(index), np.zeros((len(index.test), len(index.labels))))


def examine(index: Index, root: Path, predictions: Path) -> Examined:
    """The deciding metric and the cases without an answer."""
    answers = read_probabilities(predictions, index)
    missing = tuple(item.id for item in index.test if item.id not in answers)
    return Examined(partial(one_vs_rest, _truth(index), _ranked(index, answers)), missing)


def details(index: Index, root: Path, predictions: Path, trivial: Metric, weights: NDArray) -> dict[str, Any]:
    """The further fields of a Grade."""
    answers = read_probabilities(predictions, index)
    truth, ranked = _truth(index), _ranked(index, answers)
    chances = ranked.clip(0, 1)
    said = np.array(
        [[label in answers.get(item.id, ("",))[0].split(";") for label in index.labels] for item in index.test]
    )
    sensitivity = {label: mean_of(np.where(truth[:, k], said[:, k], np.nan)) for k, label in enumerate(index.labels)}

    def balanced_accuracy(weights: NDArray) -> NDArray:
        return known_mean(np.stack([metric(weights) for metric in sensitivity.values()], axis=1))

    others: dict[str, Metric] = {
        "balanced accuracy": balanced_accuracy,
        "Brier": mean_of(((chances - truth) ** 2).sum(1)),
    }
    if not index.multilabel:
        right = truth[np.arange(len(truth)), chances.argmax(1)]
        others["calibration error"] = partial(calibration_error, chances.max(1), right)
    others |= {f"sensitivity {label}": metric for label, metric in sensitivity.items()}
    areas = {label: partial(auroc, truth[:, k], ranked[:, k]) for k, label in enumerate(index.labels)}
    confusion = truth.T.astype(int) @ said.astype(int)
    return {
        "others": scores(others, weights),
        "per_label": scores(areas, weights),
        "confusion": () if index.multilabel else tuple(tuple(int(n) for n in row) for row in confusion),
        "worst": worst(index.test, np.where(truth, ranked, 1 - ranked).mean(1)),
    }


def _truth(index: Index) -> NDArray[np.bool_]:
    """(cases, labels): which labels hold."""
    names = [item.label if isinstance(item.label, tuple) else (item.label,) for item in index.test]
    return np.array([[label in held for label in index.labels] for held in names])


def _ranked(index: Index, answers: dict[str, tuple[str, list[float]]]) -> NDArray[np.float64]:
    """(cases, labels): the probabilities; without an answer -1 for what is true and 2 for what is not."""
    ranked = np.where(_truth(index), -1.0, 2.0)
    for row, item in enumerate(index.test):
        if item.id in answers:
            ranked[row] = answers[item.id][1]
    return ranked
