"""The patient of images, by a table that names both."""

from collections.abc import Sequence
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.workspace.indexes.cases import case_of, left_out, one_file
from m3dspy.workspace.indexes.gathering import check_columns, named_as_shown, namer
from m3dspy.workspace.looking.columns import is_missing
from m3dspy.workspace.tables import read_table


def group_by_table(
    root: Path, items: Sequence[dict], table: str, *, file_column: str, patient_column: str
) -> list[dict]:
    """The items with `patient` from a table, where labels come from elsewhere; items without are left out.

    Example: ix.group_by_table(root, items, "who.csv", file_column="file", patient_column="patient")
    """
    path = one_file(root, table, "table")
    columns, rows = read_table(root / path)
    file_column, patient_column = asked = [named_as_shown(name, columns) for name in (file_column, patient_column)]
    check_columns(path, columns, asked)
    named_by = namer(map(case_of, items), slices=any(not isinstance(item["image"], str) for item in items))
    told: dict[str | None, tuple[int, str]] = {}
    for row in rows:
        cell, person, where = row[file_column], row[patient_column].strip(), f"{path}, row {row.line}"
        case = named_by(cell, where) or named_by(cell.strip(), where)
        if case is None or is_missing(person):
            continue
        line, known = told.setdefault(case, (row.line, person))
        if known != person:
            raise DataError(f"{path}, rows {line} and {row.line} give two patients for {case!r}. Correct one of them.")
    if not told:
        raise DataError(
            f"No row of {path} names the patient of an image: {file_column} is e.g. "
            f"{next((row[file_column] for row in rows), '')!r}, an image is {next(map(case_of, items), '')!r}."
        )
    bare = [item for item in items if case_of(item) not in told]
    left_out([repr(case_of(item)) for item in bare if "split" not in item], f"images without a patient in {path}")
    return [
        item | ({"patient": told[case_of(item)][1]} if case_of(item) in told else {})
        for item in items
        if case_of(item) in told or "split" in item
    ]
