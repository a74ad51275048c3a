"""What a report says of anomaly detection: what was learnt from, what the scores mean, what they are compared with."""

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np

from m3dspy.signatures.values import ABNORMAL, Design, Grade, Index, Plan, Score, Tuned
from m3dspy.workspace.reporting import charts, examples
from m3dspy.workspace.reporting.blocks import Block, Bullets, Charts, Table, Words, interval, scores
from m3dspy.workspace.reporting.pictures import THRESHOLD

CHANCE = Score(value=0.5, low=0.5, high=0.5)
BESIDE = {  # how the grade calls another answer -> how the report does
    "untuned": "the settings before tuning",
    "plain CLIP": "plain CLIP: similarity to the text, zero-shot",
    "bank": "bank of CLIP's tokens of normal images (as PatchCore)",
}


def plan_rows(plan: Plan) -> list[tuple[str, str]]:
    """Rows of the plan's table; none for another task."""
    if plan.task != "anomaly_detection":
        return []
    shots = f"{plan.shots} normal and {plan.shots} abnormal images" if plan.shots else "other data sets (zero-shot)"
    return [("images show", plan.about), ("to learn from", shots), ("masks of anomalies", plan.masks or "none")]


def support(index: Index, design: Design | None, tuned: Tuned | None) -> list[Block]:
    """What the model learnt from; nothing for another task."""
    if index.task != "anomaly_detection" or not (design and design.shots is not None):
        return []
    if design.shots == 0:
        subjects = Counter(item.about or index.about for item in index.training)
        shown = ", ".join(f"{name} ({count})" for name, count in subjects.items())
        return [Words(f"Zero-shot: the model learnt from images of other data sets, {shown}. It saw none of this one.")]
    draw = tuned.settings.get("draw", 0) if tuned else 0
    return [
        Words(
            f"Few-shot: of the training cases the model learnt from {design.shots} normal and {design.shots} abnormal "
            f"ones (draw {draw}); the validation cases chose the epoch, the settings, the scales and the thresholds."
        )
    ]


def results(grade: Grade, index: Index, predictions: Path) -> list[Block]:
    """Scores against everything that they are compared with, curves, and what a score means."""
    maps = "pixel AUROC" in grade.others
    head = ("answer", "image AUROC (95 % interval)", *(["pixel AUROC (95 % interval)"] if maps else []))
    notes = []
    if any(" draws" in name for name in grade.others):
        notes.append("The interval of the mean of draws is for a draw and patients both taken at random.")
    if grade.control and any(" draws" in name for name in grade.others):
        notes.append(
            "The control is a hard one: half of the images it learns from have the wrong label, but most patches of "
            "an abnormal one are normal, so that its memory of normal patches hardly suffers. Its validation images "
            "count as normal and as abnormal, so that they choose nothing."
        )
    compared = [f"{name} " for name in BESIDE]
    others = {
        name: score
        for name, score in grade.others.items()
        if name != "pixel AUROC" and " draw" not in name and not name.startswith(tuple(compared))
    }
    share = sum(item.label == ABNORMAL for item in index.test) / len(index.test)
    blocks: list[Block] = [
        Words(
            "The model gives every image a score from 0 to 1. Above 0.5, the threshold chosen on the validation "
            "images, it calls the image abnormal."
            + (" Each pixel has a score of the same kind, with a threshold of its own." if maps else "")
        ),
        Table("Compared", head, [(name, *map(interval, found[: 1 + maps])) for name, *found in _compared(grade)]),
        Bullets([*notes, *(f"Left out: {note}." for note in grade.notes)]),
        _curves(index, grade, predictions),
        scores("Further metrics", "metric", others.items()),
        Words(
            f"An answer at random has an image AP of {share:.3f}, the share of abnormal test images. F1-max is at the "
            "best threshold for the test images themselves, so it is a bound; sensitivity and specificity are at the "
            "threshold of the validation images"
            + (", and so is Dice, the mean over abnormal images." if "Dice" in others else ".")
        ),
    ]
    if grade.confusion:
        rows = [(name, sum(row), *row) for name, row in zip(index.labels, grade.confusion, strict=True)]
        blocks.append(Table("Answers", ("true class", "answered", *(f"called {n}" for n in index.labels)), rows))
    return blocks


def _compared(grade: Grade) -> list[tuple[str, Score | None, Score | None]]:
    """Name, image AUROC and pixel AUROC of everything that answered."""

    def both(name: str) -> tuple[Score | None, Score | None]:
        return grade.others.get(name.format("image AUROC")), grade.others.get(name.format("pixel AUROC"))

    rows: list[tuple[str, Score | None, Score | None]] = [("the model", grade.score, grade.others.get("pixel AUROC"))]
    draws = {
        name.rpartition(" ")[2]: score
        for name, score in grade.others.items()
        if name.startswith("image AUROC of draw ")
    }
    if draws:
        count = len(draws)
        rows.append((f"mean of {count} draws of the shots", *both(f"{{}} over {count} draws")))
        for word, number in (("lowest", min(draws, key=_value(draws))), ("highest", max(draws, key=_value(draws)))):
            rows.append((f"{word} of them, draw {number}", *both(f"{{}} of draw {number}")))
    rows += [(shown, *both(f"{name} {{}}")) for name, shown in BESIDE.items() if f"{name} image AUROC" in grade.others]
    if grade.control:
        rows.append(("the same pipeline, labels shuffled (control)", grade.control, None))
    rows.append(("bank of random features (the trivial answer)", grade.floor, None))
    return [*rows, ("chance", CHANCE, CHANCE)]


def _value(scores: dict[str, Score]):
    return lambda name: scores[name].value


def _curves(index: Index, grade: Grade, predictions: Path) -> Block:
    """ROC curves and spread of scores, of the cases that the model answered."""
    items = [item for item in index.test if item.id not in grade.missing]
    truth = np.array([item.label == ABNORMAL for item in items])
    ids = [item.id for item in items]
    found = {
        name: _scores(predictions / part, ids)
        for name, part in (("the model", ""), ("plain CLIP", "clip"), ("bank of CLIP's tokens", "bank"))
    }
    answers = {name: scores for name, scores in found.items() if scores is not None}
    if "the model" not in answers or truth.all() or not truth.any():
        return Words("The answers allow no ROC curve.")
    rocs = {name: charts.roc(truth, scores) for name, scores in answers.items()}
    recalls = {name: charts.precision_recall(truth, scores) for name, scores in answers.items()}
    axes = ("normal images called abnormal", "abnormal images found")
    about = f"Curves of {', '.join(answers)}; the broken line is chance."
    return Charts(
        [
            charts.curves("ROC", axes, rocs, about, diagonal=True),
            charts.curves("Precision and recall", ("recall", "precision"), recalls, f"Curves of {', '.join(answers)}."),
            charts.spread(answers["the model"], truth, THRESHOLD),
        ]
    )


def _scores(folder: Path, ids: Sequence[str]) -> np.ndarray | None:
    """The score of each case; None unless all have one."""
    try:
        rows = examples.answers(folder)
        scores = [float(rows[name][ABNORMAL]) for name in ids]
    except (KeyError, TypeError, ValueError):
        return None
    return np.array(scores) if all(map(isfinite, scores)) else None
