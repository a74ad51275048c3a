"""The parts of a run's report that a report generation has of its own: results by finding, and texts side by side."""

from collections.abc import Sequence
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.signatures.values import Grade, Item
from m3dspy.workspace import untrusted
from m3dspy.workspace.reporting.prose import interval, table, text

LARGEST = 64 << 20  # bytes of a reports.json
LONGEST = 1500  # characters of a report that are shown
BESIDE = {"constant": "the most frequent training report for every case", "retrieval": "report of the nearest image"}
METRICS = ("finding F1", "BLEU-4", "ROUGE-L")


def results(grade: Grade) -> list[str]:
    """The model beside what needs no model, its further metrics, and each finding."""
    found = (grade.score, *(grade.others.get(name) for name in METRICS[1:]))
    rows: list[tuple[str, ...]] = [("the model", *map(interval, found))]
    for name, shown in BESIDE.items():
        rows.append((shown, *(interval(grade.others.get(f"{name} {metric}")) for metric in METRICS)))
    if grade.control:
        rows.append(("the same pipeline, reports shuffled (control)", interval(grade.control), "", ""))
    lines = table(("", *METRICS), rows)
    lines += [
        "Findings are read off both reports by rules, with what they deny and the side they name; a report without any "
        'counts as having "no finding". Wording (BLEU, ROUGE-L) hardly tells a working model from a constant report.',
        "",
    ]
    own = {name: score for name, score in grade.others.items() if not name.startswith(tuple(BESIDE))}
    lines += table(("metric", "value (95 % interval)"), ((name, interval(score)) for name, score in own.items()))
    lines += table(("finding", "F1 (95 % interval)"), ((n, interval(s)) for n, s in grade.per_label.items()))
    return lines + [f"- {text(note[:1].upper() + note[1:])}." for note in grade.notes]


def side_by_side(items: Sequence[Item], predictions: Path) -> list[str]:
    """The radiologist's report and the model's, of each case."""
    written = answers(predictions)
    lines = []
    for item in items:
        own = written.get(item.id, {})
        rows = [
            (part, _cut(getattr(item, part)), _cut(own.get(part)) if own else "no report")
            for part in ("findings", "impression")
            if getattr(item, part) or own.get(part)
        ]
        lines += [f"**{text(item.id)}**", "", *table(("", "radiologist", "model"), rows)]
    return lines


def answers(predictions: Path) -> dict[str, dict[str, str]]:
    """Case id -> findings and impression; none where there is no reports.json that can be read."""
    try:
        return untrusted.reports(untrusted.read(predictions, "reports.json", LARGEST), "reports.json")
    except DataError:
        return {}


def _cut(said: str | None) -> str:
    said = said or ""
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
