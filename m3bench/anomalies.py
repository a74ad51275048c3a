"""Grading of anomaly detection: image AUROC decides; precision, thresholds and the maps' pixels stand beside it.

What learnt nothing on the same backbone (plain CLIP, a bank of its tokens), the untuned settings and other draws of the
shots are measured on the same cases, for the report; they decide nothing.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.m3bench import pixels, random_bank
from m3dspy.m3bench.answers import read_answer_map, read_probabilities
from m3dspy.m3bench.metrics import auroc, average_precision, best_f1, tally
from m3dspy.m3bench.pixels import Measured
from m3dspy.m3bench.stats import Examined, Metric, mean_of, scores, with_interval, worst
from m3dspy.signatures.values import ABNORMAL, ANOMALY_LABELS, NORMAL, Index, Score

METRIC = "image AUROC"
COMPARED = (METRIC, "pixel AUROC")  # what is measured of every other answer
BASELINES = {"plain CLIP": "clip", "bank": "bank"}  # name -> folder in the predictions

Answers = dict[str, tuple[str, list[float]]]


def floor(index: Index, root: Path) -> Metric:
    """How odd an image looks to random filters that saw a few normal ones; the mean over several draws of these."""
    truth, draws = _abnormal(index), random_bank.oddness(index, root)
    return lambda weights: np.mean([auroc(truth, draw, weights) for draw in draws], axis=0)


def examine(index: Index, root: Path, predictions: Path) -> Examined:
    """The deciding metric and the cases without an answer: a row and, where masks were learnt from, a map."""
    answers = _answers(index, root, predictions)
    return Examined(partial(auroc, _abnormal(index), _ranked(index, answers)), _missing(index, answers))


def details(
    index: Index,
    root: Path,
    predictions: Path,
    trivial: Metric,
    weights: NDArray,
    draws: Sequence[Path] = (),
    untuned: Path | None = None,
) -> dict[str, Any]:
    """The further fields of a Grade."""
    answers = _answers(index, root, predictions)
    truth, ranked = _abnormal(index), _ranked(index, answers)
    said = np.array([answers.get(item.id, ("",))[0] for item in index.test])
    others: dict[str, Metric] = {
        "image AP": lambda weights: average_precision(*tally(truth, ranked, weights)),
        "F1-max": lambda weights: best_f1(*tally(truth, ranked, weights)),
        "sensitivity": mean_of(np.where(truth, said == ABNORMAL, np.nan)),
        "specificity": mean_of(np.where(truth, np.nan, said == NORMAL)),
    }
    found = scores(others, weights)
    delivered = {METRIC: _measured(partial(auroc, truth, ranked), weights)}
    if maps := pixels.judge(index, root, predictions, tuple(answers)):
        delivered |= maps.measured(weights)
        found = {name: with_interval(*delivered[name]) for name in pixels.METRICS} | found
        found |= scores({"Dice": mean_of(maps.dice)}, weights)
    beside, notes = _beside(index, root, predictions, untuned, weights)
    over, left_out = _over_draws(index, root, delivered, draws, weights)
    confusion = [[int(((truth == bad) & (said == label)).sum()) for label in ANOMALY_LABELS] for bad in (False, True)]
    return {
        "others": {name: score for name, score in (found | beside | over).items() if np.isfinite(score.value)},
        "confusion": tuple(map(tuple, confusion)),
        "worst": worst(index.test, np.where(truth, ranked, 1 - ranked)),
        "notes": (*notes, *left_out),
    }


def _beside(
    index: Index, root: Path, predictions: Path, untuned: Path | None, weights: NDArray
) -> tuple[dict[str, Score], list[str]]:
    """Baselines, where there are any, and the untuned settings."""
    folders = {} if predictions.is_symlink() else {name: predictions / part for name, part in BASELINES.items()}
    folders = {name: folder for name, folder in folders.items() if folder.is_dir()}
    if untuned is not None:
        folders["untuned"] = untuned
    found, notes = {}, []
    for name, folder in folders.items():
        if measured := _compared(index, root, folder, weights):
            found |= {f"{name} {metric}": with_interval(*value) for metric, value in measured.items()}
        else:
            notes.append(f"{name} did not answer every test case")
    return found, notes


def _over_draws(
    index: Index, root: Path, delivered: dict[str, Measured], draws: Sequence[Path], weights: NDArray
) -> tuple[dict[str, Score], list[str]]:
    """Each draw of the shots, and their mean.

    Its interval is for a draw and patients both taken at random: the bootstrap distributions of all draws in one.
    """
    measured, notes = [], []
    for number, folder in enumerate(draws, start=1):
        if values := _compared(index, root, folder, weights):
            measured.append((number, values))
        else:
            notes.append(f"draw {number} did not answer every test case")
    found = {}
    for metric in COMPARED if measured else ():
        if metric not in delivered:
            continue
        every = [delivered[metric], *(values[metric] for _, values in measured)]
        mean = float(np.mean([each.value for each in every]))
        found[f"{metric} over {len(every)} draws"] = with_interval(mean, np.concatenate([e.spread for e in every]))
        found[f"{metric} of draw 0"] = with_interval(*delivered[metric])
        found |= {f"{metric} of draw {number}": with_interval(*values[metric]) for number, values in measured}
    return found, notes


def _compared(index: Index, root: Path, folder: Path, weights: NDArray) -> dict[str, Measured]:
    """What is measured of an answer beside the model's own; {} unless it answers every test case."""
    answers = _answers(index, root, folder)
    if _missing(index, answers):
        return {}
    found = {METRIC: _measured(partial(auroc, _abnormal(index), _ranked(index, answers)), weights)}
    if maps := pixels.judge(index, root, folder, tuple(answers)):
        found |= maps.measured(weights)
    return {name: value for name, value in found.items() if name in COMPARED}


def _measured(metric: Metric, weights: NDArray) -> Measured:
    return Measured(float(metric(np.ones((1, weights.shape[1])))[0]), metric(weights))


def _abnormal(index: Index) -> NDArray[np.bool_]:
    """(cases,): which ones are abnormal."""
    return np.array([item.label == ABNORMAL for item in index.test])


def _answers(index: Index, root: Path, folder: Path) -> Answers:
    """Case id -> label and probabilities; without the cases that lack a map where the training list has masks."""
    answers = read_probabilities(folder, index)
    if not any(item.mask for item in index.training):
        return answers
    items = {item.id: item for item in index.test}
    return {
        name: answer
        for name, answer in answers.items()
        if name in items and read_answer_map(folder, items[name], pixels.shape_of(items[name], root)) is not None
    }


def _missing(index: Index, answers: Answers) -> tuple[str, ...]:
    return tuple(item.id for item in index.test if item.id not in answers)


def _ranked(index: Index, answers: Answers) -> NDArray[np.float64]:
    """(cases,): the probability of being abnormal; without an answer -1 for what is abnormal and 2 for what is not."""
    place = index.labels.index(ABNORMAL)
    return np.array(
        [
            answers[item.id][1][place] if item.id in answers else (-1.0 if item.label == ABNORMAL else 2.0)
            for item in index.test
        ]
    )
