"""The parts of a run's report that a report generation has of its own: results by finding, and texts side by side."""

from collections.abc import Mapping
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.signatures.values import Grade, Item
from m3dspy.workspace import untrusted
from m3dspy.workspace.reporting import charts
from m3dspy.workspace.reporting.blocks import Block, Bullets, Charts, Table, Words, interval, scores

LARGEST = 64 << 20  # bytes of a reports.json
LONGEST = 1500  # characters of a report that are shown
BESIDE = {"constant": "the most frequent training report for every case", "retrieval": "report of the nearest image"}
METRICS = ("finding F1", "BLEU-4", "ROUGE-L")


def results(grade: Grade) -> list[Block]:
    """The model beside what needs no model, its further metrics, and each finding."""
    found = (grade.score, *(grade.others.get(name) for name in METRICS[1:]))
    rows: list[tuple[str, ...]] = [("the model", *map(interval, found))]
    for name, shown in BESIDE.items():
        rows.append((shown, *(interval(grade.others.get(f"{name} {metric}")) for metric in METRICS)))
    if grade.control:
        rows.append(("the same pipeline, reports shuffled (control)", interval(grade.control), "", ""))
    own = {name: score for name, score in grade.others.items() if not name.startswith(tuple(BESIDE))}
    blocks: list[Block] = [
        Table("Compared", ("", *METRICS), rows),
        Words(
            "Findings are read off both reports by rules, with what they deny and the side they name; a report without "
            'any counts as having "no finding". Wording (BLEU, ROUGE-L) hardly tells a working model from a constant '
            "report."
        ),
    ]
    if grade.per_label:
        blocks.append(Charts([charts.each("F1 of each finding", "F1", grade.floor.value, grade.per_label)]))
    return [
        *blocks,
        scores("Further metrics", "metric", own.items()),
        Bullets([f"{note[:1].upper()}{note[1:]}." for note in grade.notes]),
    ]


def side_by_side(item: Item, written: Mapping[str, Mapping[str, str]]) -> Table:
    """The radiologist's report of a case and the model's. Args: written: as of `answers`."""
    own = written.get(item.id, {})
    rows = [
        (part, _cut(getattr(item, part)), _cut(own.get(part)) if own else "no report")
        for part in ("findings", "impression")
        if getattr(item, part) or own.get(part)
    ]
    return Table(f"Reports of {item.id}", ("", "radiologist", "model"), rows)


def answers(predictions: Path) -> dict[str, dict[str, str]]:
    """Case id -> findings and impression; none where there is no reports.json that can be read."""
    try:
        return untrusted.reports(untrusted.read(predictions, "reports.json", LARGEST), "reports.json")
    except DataError:
        return {}


def _cut(said: str | None) -> str:
    said = said or ""
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} ..."
