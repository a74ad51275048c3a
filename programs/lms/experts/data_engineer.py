"""The rules of the Data Engineer: prepare.py written from a plan."""

import re
from typing import Any

from m3dspy.signatures.values import Fingerprint, Group, Plan


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
    if plan.patient is None and plan.task == "classification":
        lines.append("items = ix.group_lookalikes(root, items)  # nothing names the patient")
    lines.append("splits = ix.split(items, seed=0)")
    caps = plan.caps
    if caps.training or caps.test:
        lines.append(
            f"splits = ix.cap(splits, training={caps.training}, test={caps.test}, balanced={caps.balanced}, seed=0)"
        )
    values = f", values={[int(value) for value in plan.label_values]}" if plan.task == "segmentation" else ""
    lines.append(f"ix.write_index(out, task={plan.task!r}, labels={list(plan.labels)}, splits=splits{values})")
    return {"prepare": "\n".join(lines) + "\n"}


def _items(plan: Plan, group: Group, fingerprint: Fingerprint) -> list[str]:
    more = ", slices=True" if group.slices else ""
    if plan.source.kind == "masks":
        masks = next(other for other in fingerprint.groups if other.pattern == plan.source.path)
        return [
            f"items = ix.from_pairs(root, images={_glob(group)!r}, masks={_glob(masks)!r}, "
            f"patient={_patient(plan)!r}{more})"
        ]
    if plan.source.kind == "json":
        return [f"items = ix.from_json(root, {plan.source.path!r})"]
    labels = dict(zip(plan.label_values or plan.labels, plan.labels, strict=True))
    if plan.source.kind == "folder":
        below = group.pattern.rsplit(".", 1)[-1]
        return [
            f"labels = {labels!r}",
            f"items = ix.from_folders(root, {plan.source.path!r}, labels=labels, images={'**/*.' + below!r}, "
            f"patient={_patient(plan)!r}{more})",
        ]
    column = plan.patient.column if plan.patient and plan.patient.where == "column" else None
    return [
        f"labels = {labels!r}",
        f"items = ix.from_table(root, {plan.source.path!r}, file_column={plan.source.file_column!r}, "
        f"label_column={plan.source.column!r}, images={_glob(group)!r}, labels=labels, "
        f"patient_column={column!r}, patient={_patient(plan)!r}{more})",
    ]


def _glob(group: Group) -> str:
    suffix = re.sub(r"^[^.]*", "", group.pattern.rsplit("/", 1)[-1])
    depth = "**/" if "/" in group.pattern.removeprefix(group.folder).strip("/") else ""
    return "/".join(part for part in (group.folder, f"{depth}*{suffix}") if part)


def _patient(plan: Plan) -> str | None:
    if plan.patient is None or plan.patient.where == "column":
        return None
    return "folder" if plan.patient.where == "folder" else plan.patient.part
