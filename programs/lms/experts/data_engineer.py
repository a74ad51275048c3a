"""The rules of the Data Engineer: prepare.py written from a plan."""

from typing import Any

from m3dspy.programs.lms.experts import anomalies, reports
from m3dspy.signatures.values import Column, Fingerprint, Group, PatientKey, Plan, Table
from m3dspy.workspace.indexes.splitting import SPELLINGS
from m3dspy.workspace.looking.columns import names_person


def next_look() -> dict[str, Any]:
    """The fingerprint is all that rules read."""
    return {"next_thought": "The fingerprint says it all.", "next_tool_name": "finish", "next_tool_args": {}}


def look_closer() -> dict[str, Any]:
    return {"notes": ""}


def write_prepare(plan: Plan, fingerprint: Fingerprint) -> dict[str, Any]:
    """Ten lines on the helpers of `workspace.indexing`."""
    group = next(group for group in fingerprint.groups if group.pattern == plan.images)
    lines = [
        f'"""Index this dataset: {plan.goal}"""',
        "",
        "from m3dspy.workspace import indexing as ix",
        "",
        "root, out = ix.arguments()",
        *_items(plan, group, fingerprint),
    ]
    if plan.patient and plan.patient.where == "header":
        lines.append("items = ix.group_by_header(root, items)")
    if key := _beside(plan):
        files = file_column(next(table for table in fingerprint.tables if table.path == key.table)).name
        named = f"file_column={files!r}, patient_column={key.column!r}"
        lines.append(f"items = ix.group_by_table(root, items, {key.table!r}, {named})")
    if plan.patient is None and plan.task != "segmentation":
        lines.append("items = ix.group_lookalikes(root, items)  # nothing names the patient")
    shares = f", {anomalies.shares(plan, fingerprint)}" if plan.task == "anomaly_detection" else ""
    lines.append(f"splits = ix.split(items, seed=0{shares})")
    caps = plan.caps
    if caps.training or caps.test:
        lines.append(
            f"splits = ix.cap(splits, training={caps.training}, test={caps.test}, balanced={caps.balanced}, seed=0)"
        )
    values = f", values={[int(value) for value in plan.label_values]}" if plan.task == "segmentation" else ""
    values += ", multilabel=True" if _overlapping(plan, fingerprint) else ""
    about = f", about={plan.about!r}" if plan.about else ""
    lines.append(f"ix.write_index(out, task={plan.task!r}, labels={list(plan.labels)}, splits=splits{values}{about})")
    return {"prepare": "\n".join(lines) + "\n"}


def _items(plan: Plan, group: Group, fingerprint: Fingerprint) -> list[str]:
    if plan.task == "anomaly_detection":
        return anomalies.gathering(plan, fingerprint, _patient(plan))
    if plan.task == "report_generation":
        return reports.gathering(plan, fingerprint, group, _split_column(plan, fingerprint))
    more = ", slices=True" if group.slices else ""
    if plan.source.kind == "masks":
        return [
            f"items = ix.from_pairs(root, images={group.pattern!r}, masks={plan.source.path!r}, "
            f"patient={_patient(plan)!r}{more})"
        ]
    if plan.source.kind == "json":
        return [f"items = ix.from_json(root, {plan.source.path!r}, patient={_patient(plan)!r})"]
    labels = dict(zip(plan.label_values or plan.labels, plan.labels, strict=True))
    if plan.source.kind == "folder":
        suffixes = sorted({other.pattern.rsplit(".", 1)[-1] for other in fingerprint.groups if _in(plan, other)})
        images = "**/*." + (suffixes[0] if len(suffixes) == 1 else f"{{{','.join(suffixes)}}}")
        return [
            f"labels = {labels!r}",
            f"items = ix.from_folders(root, {plan.source.path!r}, labels=labels, images={images!r}, "
            f"patient={_patient(plan)!r}{more})",
        ]
    column = plan.patient.column if plan.patient and plan.patient.where == "column" and not _beside(plan) else None
    if official := _split_column(plan, fingerprint):
        more = f", split_column={official!r}{more}"
    return [
        f"labels = {labels!r}",
        f"items = ix.from_table(root, {plan.source.path!r}, file_column={plan.source.file_column!r}, "
        f"label_column={plan.source.column!r}, images={group.pattern!r}, labels=labels, "
        f"patient_column={column!r}, patient={_patient(plan)!r}{more})",
    ]


def _overlapping(plan: Plan, fingerprint: Fingerprint) -> bool:
    """Whether masks are bit fields: every label is a power of two, and some voxels hold a sum of several."""
    bits = [int(value) for value in plan.label_values] if plan.task == "segmentation" else []
    if len(bits) < 2 or any(bit.bit_count() != 1 for bit in bits):
        return False
    masks = [g for g in fingerprint.groups if g.pattern == plan.source.path or plan.source.kind == "json"]
    held = {value for group in masks for value in group.values}
    return any(value.bit_count() > 1 and value & sum(bits) for value in held)


def _split_column(plan: Plan, fingerprint: Fingerprint) -> str | None:
    """The column of the plan's table that gives an official split: of two parts at least, all spelled as parts are."""
    table = next(table for table in fingerprint.tables if table.path == plan.source.path)
    return next((c.name for c in table.columns if is_split(c) and c.name != plan.source.column), None)


def is_split(column: Column) -> bool:
    """Whether a column gives an official split: of two parts at least, all spelled as parts are."""
    parts = {SPELLINGS.get(value.strip().lower()) for value in column.values}
    return column.kind == "category" and None not in parts and len(parts) > 1


def file_column(table: Table) -> Column:
    """The column that names the most images."""
    return max(table.columns, key=lambda column: column.rows_with_file)


def _beside(plan: Plan) -> PatientKey | None:
    """The patient key, where it is a column that is not read along with the labels."""
    key, source = plan.patient, plan.source
    if not key or key.where != "column" or plan.task == "report_generation":
        return None
    read = key.table == source.path and (source.kind != "json" or names_person(key.column))
    return None if read else key


def _in(plan: Plan, group: Group) -> bool:
    """Whether a group holds images of the class folders: in one set some may be PNG and some JPEG."""
    return group.dims == plan.dims and not group.values and group.pattern.startswith(plan.source.path)


def _patient(plan: Plan) -> str | None:
    if plan.patient is None or plan.patient.where in ("column", "header"):
        return None
    return "folder" if plan.patient.where == "folder" else plan.patient.part
