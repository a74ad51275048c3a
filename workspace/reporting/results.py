"""What a report says of the test results: scores, and curves of the classes."""

from pathlib import Path

import numpy as np

from m3dspy.signatures.values import Grade, Index, Item
from m3dspy.workspace.reporting import anomalies, charts, examples, reports
from m3dspy.workspace.reporting.blocks import Block, Bullets, Charts, Table, Words, interval, scores
from m3dspy.workspace.reporting.committed import Committed

CURVES = 5  # classes whose curves are shown


def graded(run: Committed) -> list[Block]:
    """The examiner's figures, by the kind of task."""
    grade, index, predictions = run.grade, run.index, run.folder / "predictions"
    if not (grade and index):
        return [Words("No model was graded.")]
    if index.task == "anomaly_detection":
        return anomalies.results(grade, index, predictions)
    if index.task == "report_generation":
        return reports.results(grade)
    metrics = scores("Metrics", "metric", [(grade.metric, grade.score), *grade.others.items()])
    notes = Bullets([f"{note[:1].upper()}{note[1:]}." for note in grade.notes])
    if index.task == "segmentation":
        rows = [(name, interval(dice), interval(grade.surfaces.get(name))) for name, dice in grade.per_label.items()]
        charted = (
            ("Dice of each structure", "Dice", grade.floor.value, grade.per_label),
            ("Agreement of each structure's surface", "NSD", None, grade.surfaces),
        )
        return [
            Charts([charts.each(title, metric, floor, found) for title, metric, floor, found in charted if found]),
            metrics,
            Table("Structures", ("structure", "Dice (95 % interval)", "NSD (95 % interval)"), rows),
            notes,
        ]
    each = grade.metric.removeprefix("macro ")
    drawn = [charts.each(f"{each} of each class", each, grade.floor.value, grade.per_label)] if grade.per_label else []
    drawn += _class_curves(index, grade, predictions)
    if not grade.confusion:
        return [
            Words("A case may have several labels at once, so there is no confusion matrix."),
            Charts(drawn),
            metrics,
            scores("Classes", "class", grade.per_label.items()),
            notes,
        ]
    drawn.insert(0, charts.confusion(grade.confusion, index.labels))
    answered = [sum(column) for column in zip(*grade.confusion, strict=True)]
    rows = [
        (name, sum(grade.confusion[i]), grade.confusion[i][i], answered[i], interval(grade.per_label.get(name)))
        for i, name in enumerate(index.labels)
    ]
    head = ("class", "test cases", "recognised", "times answered", f"{each} (95 % interval)")
    return [Charts(drawn), metrics, Table("Classes", head, rows), notes]


def _class_curves(index: Index, grade: Grade, predictions: Path) -> list[charts.Chart]:
    """ROC, precision and recall of the classes told apart worst, and calibration, of the cases that were answered."""
    rows = examples.answers(predictions)
    items = [item for item in index.test if item.id not in grade.missing and item.id in rows]
    try:
        chances = np.array([[float(rows[item.id][name]) for name in index.labels] for item in items])
    except (KeyError, TypeError, ValueError):
        return []
    if not items or not np.isfinite(chances).all():
        return []
    truth = np.array([[name in _labels(item) for name in index.labels] for item in items])
    tellable = [n for n in range(len(index.labels)) if truth[:, n].any() and not truth[:, n].all()]
    value = {n: grade.per_label[name].value for n, name in enumerate(index.labels) if name in grade.per_label}
    chosen = sorted(sorted(tellable, key=lambda n: value.get(n, 1.0))[:CURVES])
    some = "" if len(chosen) == len(index.labels) else f" Of {len(index.labels)} classes, those told apart worst."
    found = {index.labels[n]: (truth[:, n], chances[:, n]) for n in chosen}
    drawn = []
    if found:
        rocs = {name: charts.roc(*pair) for name, pair in found.items()}
        recalls = {name: charts.precision_recall(*pair) for name, pair in found.items()}
        axes = ("others called so", "cases found")
        drawn.append(
            charts.curves(
                "ROC, each class against the others", axes, rocs, f"The broken line is chance.{some}", diagonal=True
            )
        )
        drawn.append(charts.curves("Precision and recall", ("recall", "precision"), recalls, f"By class.{some}"))
    if not index.multilabel:
        best = chances.argmax(1)
        right = truth[np.arange(len(items)), best]
        reliable = {"the model": charts.reliability(right, chances.max(1))}
        about = "Share of right answers by the probability that was given; on the broken line they are equal."
        drawn.append(charts.curves("Calibration", ("probability given", "share right"), reliable, about, diagonal=True))
    return drawn


def _labels(item: Item) -> tuple[str, ...]:
    return item.label if isinstance(item.label, tuple) else (item.label or "",)
