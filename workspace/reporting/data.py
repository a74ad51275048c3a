"""What a report says of the data: the look at the folder, and the split by patient."""

from collections.abc import Iterable

from m3dspy.signatures.values import SPLITS
from m3dspy.workspace.reporting import anomalies, charts
from m3dspy.workspace.reporting.blocks import Block, Bullets, Charts, Table, Words
from m3dspy.workspace.reporting.committed import Committed, supervision


def glance(run: Committed) -> list[Block]:
    """The fingerprint of the folder, its warnings, and the split."""
    blocks: list[Block] = []
    if found := run.fingerprint:
        blocks.append(Words(f"{found.files} files, {found.megabytes:.0f} MB: {_counts(found.formats)}."))
        rows = [
            (
                group.pattern,
                f"{group.count} slice folders" if group.slices else group.count,
                group.format,
                _size(group.shape.median) + (f", {group.channels} channels" if group.channels > 1 else ""),
                _size(group.spacing.median) if group.spacing else "not given",
                _counts(group.orientations),
                _counts(group.units),
            )
            for group in found.groups
        ]
        head = ("images", "count", "format", "median size", "spacing (mm)", "orientation", "units")
        if rows:
            blocks.append(Table("What a look at the folder found", head, rows))
        if found.unpacked:
            blocks.append(Words(f"Unpacked from {found.unpacked.format}: {' '.join(found.unpacked.how)}"))
        blocks.append(
            Bullets([f"Warning: {warning}" for warning in found.warnings])
            if found.warnings
            else Words("The folder gave no warnings.")
        )
    drawn = [charts.intensities(found)] if found else []
    if run.index:
        drawn.append(charts.parts(run.index))
    if charted := [chart for chart in drawn if chart]:
        blocks.append(Charts(charted))
    if not (index := run.index):
        return [*blocks, Words("The cases were not split.")]
    classes = () if index.task == "segmentation" else index.labels
    rows = []
    for split in SPLITS:
        items = index.items(split)
        labels = [item.label if isinstance(item.label, tuple) else (item.label,) for item in items]
        patients = len({item.patient for item in items})
        rows.append((split, len(items), patients, *(sum(name in given for given in labels) for name in classes)))
    return [
        *blocks,
        Words(
            "No patient is in two of these parts. The model was chosen on the validation cases; it never saw the "
            f"{supervision(index.task)} of the test cases."
        ),
        Table("The split, by patient", ("part", "cases", "patients", *classes), rows),
        *anomalies.support(index, run.design, run.tuned),
    ]


def _size(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items()) or "not known"
