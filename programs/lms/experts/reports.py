"""What the rules know of reports: where their texts and their images are named, and how a writer is trained."""

import re
from typing import NamedTuple

from m3dspy.signatures.values import (
    Catalogue,
    Column,
    Design,
    Fingerprint,
    Group,
    IndexSummary,
    Knob,
    NetworkEntry,
    Plan,
    Source,
    Table,
)
from m3dspy.workspace.indexes.cases import regex_of
from m3dspy.workspace.indexes.reports import official

_FINDINGS = re.compile(r"findings?(?![a-z])", re.I)
_IMPRESSION = re.compile(r"impressions?|conclusions?", re.I)
_REPORT = re.compile(r"reports?|description|caption|text", re.I)
_FINDINGS_ONLY = re.compile(
    r"\b(?:only|just)\b[^.;]{0,20}\bfindings\b|\bfindings\s+(?:section\s+)?only\b|"
    r"\b(?:no|without|not)\b[^.;]{0,20}\bimpressions?\b",
    re.I,
)
_SPACE = {
    "lr": Knob(low=3e-4, high=3e-3, log=True),
    "augment": Knob(low=0.0, high=0.5),
    "dropout": Knob(low=0.0, high=0.4),
}
_LEARNT_LR, _LEARNT_LRS = 2e-4, Knob(low=3e-5, high=1e-3, log=True)  # where the decoder knows a language already


class Texts(NamedTuple):
    """Where the reports are. `named`: the column that names their images."""

    source: Source
    findings: str
    impression: str
    named: Column


def texts(request: str, fingerprint: Fingerprint) -> Texts | None:
    """The reports of a folder, the most of them; None where no column holds any, or none of them names an image."""
    found: list[tuple[int, Texts]] = []
    for table in fingerprint.tables:
        if not (findings := _findings(table)):
            continue
        impression = "" if _FINDINGS_ONLY.search(request) else _impression(table, findings)
        kind = "json" if table.path.lower().endswith(".json") else "table"
        for column, files, key in _files(table, fingerprint):
            source = Source(kind=kind, path=table.path, file_column=column.name, files=files, key=key)
            found.append((table.rows, Texts(source, findings, impression, column)))
            break
    training = [entry for entry in found if official(entry[1].source.path) in (None, "training")]
    return max(training or found, key=lambda entry: entry[0])[1] if found else None


def _findings(table: Table) -> str:
    """The column that holds findings, or else whole reports, or else impressions."""
    written = [column.name for column in table.columns if column.kind == "text"]
    for rule in (_FINDINGS, _REPORT, _IMPRESSION):
        if named := [name for name in written if rule.search(name)]:
            return named[0]
    return ""


def _impression(table: Table, findings: str) -> str:
    named = [column.name for column in table.columns if column.kind in ("text", "category")]
    return next((name for name in named if _IMPRESSION.search(name) and name != findings), "")


def _files(table: Table, fingerprint: Fingerprint) -> list[tuple[Column, str, str]]:
    """Each column that names images of these reports, with the table it is in and the column both share."""
    own = [(column, "", "") for column in table.columns if column.rows_with_file]
    names = {column.name for column in table.columns if column.kind in ("identifier", "number")}
    joined = [
        (column, other.path, shared.name)
        for other in fingerprint.tables
        if other is not table and not _findings(other)
        for column in other.columns
        if column.rows_with_file
        for shared in other.columns
        if shared.name in names and shared is not column
    ]
    return sorted(own, key=lambda entry: -entry[0].rows_with_file) + joined


# ------------------------------------------------------------------------------------------------ prepare.py
def gathering(plan: Plan, fingerprint: Fingerprint, group: Group, split_column: str | None) -> list[str]:
    """The lines of a prepare.py that gather the items."""
    source, key = plan.source, plan.patient
    column = key.column if key and key.where == "column" else None
    files = [f"    files={source.files!r},", f"    key={source.key!r},"] if source.files else []
    return [
        "items = ix.from_reports(",
        "    root,",
        f"    {_lists(plan, fingerprint)!r},",
        f"    findings={plan.findings!r},",
        *([f"    impression={plan.impression!r},"] if plan.impression else []),
        *files,
        f"    file_column={source.file_column!r},",
        f"    images={_images(group, fingerprint)!r},",
        *([f"    patient_column={column!r},"] if column else [f"    patient={_patient(plan)!r},"]),
        *([f"    split_column={split_column!r},"] if split_column else []),
        *(["    slices=True,"] if group.slices else []),
        ")",
    ]


def _lists(plan: Plan, fingerprint: Fingerprint) -> str | list[str]:
    """The plan's table, and those beside it with the same columns: official lists, one a split."""
    columns = {table.path: [column.name for column in table.columns] for table in fingerprint.tables}
    alike = [path for path, names in columns.items() if names == columns[plan.source.path]]
    several = len(alike) > 1 and None not in map(official, alike)
    return alike if several else plan.source.path


def _images(group: Group, fingerprint: Fingerprint) -> str | list[str]:
    """Every image of the kind: reports name files of several groups, such as the sequences of a case."""
    kin = [other for other in fingerprint.groups if (other.format, other.dims) == (group.format, group.dims)]
    kin = [other for other in kin if not other.values]
    if group.slices:
        return list(dict.fromkeys(other.pattern for other in kin if other.slices))
    suffixes = sorted({re.sub(r"^.*?(?=\.nii\.gz$|\.[^.]*$)", "", other.pattern) for other in kin})
    return [f"**/*{suffix}" for suffix in suffixes] if len(suffixes) > 1 else f"**/*{suffixes[0]}"


def _patient(plan: Plan) -> str | None:
    """A regular expression on the path."""
    if plan.patient is None or plan.patient.where == "header":
        return None
    if plan.patient.where != "folder":
        return plan.patient.part
    part = re.sub(r"\((?!\?)", "(?:", regex_of(plan.patient.part).pattern)
    return f"(?:^|/)({part})/"


# ------------------------------------------------------------------------------------------------ design
def design(
    request: str,
    plan: Plan,
    index: IndexSummary,
    group: Group,
    catalogue: Catalogue,
    network: NetworkEntry,
    *,
    size: tuple[int, ...],
    intensity: str,
    window: tuple[float, float] | None,
    hurry: bool,
    alone: bool,
) -> Design:
    """An encoder and a decoder of words. Left and right are words, too: nothing is mirrored.

    Args: size, intensity, window: of the image, as for a classification.  alone: images one by one, for want of memory.
    """
    template = next(template for template in catalogue.templates if template.task == plan.task)
    cases = max(1, index.cases.get("training", 1))
    batch = 1 if alone else 32 if cases >= 128 else 8
    steps = 300 if hurry else 800
    space = _SPACE | ({"lr": _LEARNT_LRS} if network.pretrained else {})
    return Design.model_validate(
        {
            "template": template.name,
            "network": network.name,
            "dims": plan.dims,
            "channels": group.channels,
            "size": size,
            "intensity": intensity,
            "window": window,
            "augment": 0.2,
            "loss": template.losses[0],
            "lr": _LEARNT_LR if network.pretrained else 2e-3 / (1 if network.size == "small" else 4),
            "weight_decay": 1e-2,
            "batch": batch,
            "epochs": min(60, max(8, round(steps * batch / cases))),
            "space": {name: knob for name, knob in space.items() if name == "lr" or name in template.settings},
            "why": f"The {network.size} network {network.name} reads {' x '.join(map(str, size))} voxels, the whole "
            "image, and writes word by word; images are not mirrored, for reports tell left from right.",
        }
    )
