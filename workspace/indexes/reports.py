"""Items of a report generation, and what its index must hold beside what is asked of every index.

The text of a report may name its patient. It stands in the index, and nowhere else: what is printed, and every
complaint, names files, rows and ids only.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Index, Split
from m3dspy.workspace.indexes.cases import cases, fixed_folder, items, left_out, natural, one_file, patients, stem
from m3dspy.workspace.indexes.gathering import check_columns, namer
from m3dspy.workspace.indexes.splitting import SPELLINGS, split_named
from m3dspy.workspace.looking.columns import is_missing
from m3dspy.workspace.patterns import words
from m3dspy.workspace.tables import Row, read_table

LONGEST = 20_000  # characters of a text; CT-RATE's longest has about 8,000


class _Said(NamedTuple):
    """One report: where it stands, its texts, the row it comes from, and the split that its file or row is of."""

    where: str
    findings: str
    impression: str
    row: Mapping[str, str]
    split: Split | None


def from_reports(
    root: Path,
    reports: str | Sequence[str],
    *,
    findings: str,
    file_column: str,
    images: str | Sequence[str],
    impression: str | None = None,
    files: str | None = None,
    key: str | None = None,
    patient_column: str | None = None,
    patient: str | None = None,
    split_column: str | None = None,
    slices: bool = False,
) -> list[dict]:
    """Items with findings and impression, from tables or JSON lists of records.

    `reports`: one, or several with the same columns; if these are called train, val, test, split() obeys. `findings`,
    `impression`: columns; cases with empty findings are left out. `files`: the table that holds `file_column` where the
    reports do not; `key`: the column both share. The rest: as in from_table.

    Example: ix.from_reports(root, "reports.csv", findings="findings", files="films.csv", key="uid",
                             file_column="filename", images="images/**/*.png", patient_column="uid")
    """
    if (files is None) != (key is None):
        raise DataError("`files` and `key` belong together: the table that names the files, and the column both share.")
    said = _read(root, _several(reports), (findings, impression, key, split_column), findings, impression, split_column)
    named, columns = _named_rows(root, said, files, key, file_column)
    if patient_column:
        check_columns(files or "the table of reports", columns, [patient_column])
    base_of: dict[str, str] = {}
    found: dict[str, str | list[str]] = {}
    for pattern in _several(images):
        for case, image in cases(root, pattern, slices).items():
            base_of.setdefault(case, fixed_folder(pattern))
            found.setdefault(case, image)
    chosen = _chosen(found, named, file_column, patient_column, slices)

    order = sorted(chosen, key=natural)
    people: dict[str, str | None] = {case: chosen[case][1] for case in order}
    if not patient_column:
        for base in dict.fromkeys(base_of[case] for case in order):
            here = [case for case in order if base_of[case] == base]
            people |= dict(zip(here, patients(here, base, patient, slices), strict=True))
    made = items([(case, found[case]) for case in order], [None] * len(order), [people[c] for c in order], slices)
    told = {_key(found[case]): chosen[case][0] for case in order}
    return [item | _texts(told[_key(item["image"])]) for item in made]


def _texts(said: _Said) -> dict[str, str]:
    texts = {"findings": said.findings} | ({"impression": said.impression} if said.impression else {})
    return texts | ({"split": said.split} if said.split else {})


def _several(patterns: str | Sequence[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)


def _key(image: str | list[str]) -> str:
    return image if isinstance(image, str) else image[0]


def told(cell: str) -> str:
    """The text of a cell on one line; "" where nothing was given.

    >>> told(" The lungs\\n are clear. "), told("Not given."), told("nan")
    ('The lungs are clear.', '', '')
    """
    return "" if is_missing(cell) else " ".join(cell.split())


def official(path: str) -> Split | None:
    """The split that a file of reports is called after: `reports_train.json`, `validation_reports.csv`."""
    return next((SPELLINGS[word] for word in words(stem(path)) if word in SPELLINGS), None)


# ------------------------------------------------------------------------------------------------ rows
def _read(
    root: Path,
    tables: Sequence[str],
    asked: Sequence[str | None],
    findings: str,
    impression: str | None,
    split_column: str | None,
) -> list[_Said]:
    """Every report of the tables, those without findings too: whoever asks leaves them out and counts them."""
    paths = [one_file(root, table, "table of reports") for table in tables]
    parts: list[Split | None] = [official(path) for path in paths]
    by_file = not split_column and len(paths) > 1 and None not in parts
    said: list[_Said] = []
    for path, part in zip(paths, parts, strict=True):
        columns, rows = read_table(root / path)
        check_columns(path, columns, asked)
        of_file = part if by_file else None
        for row in rows:
            split = split_named(row[split_column], path) if split_column else of_file
            concluded = told(row[impression]) if impression else ""
            said.append(_Said(f"{path}, row {row.line}", told(row[findings]), concluded, row, split))
    return said


def _named_rows(
    root: Path, said: Sequence[_Said], files: str | None, key: str | None, file_column: str
) -> tuple[list[tuple[_Said, Mapping[str, str], str]], list[str]]:
    """Each report with a row that names a file of it, and where that row stands; and the columns of both rows."""
    own = list(said[0].row) if said else []
    if files is None or key is None:
        check_columns("the table of reports", own, [file_column])
        return [(report, report.row, report.where) for report in said], own
    path = one_file(root, files, "table of files")
    columns, rows = read_table(root / path)
    check_columns(path, columns, [file_column, key])
    report_of: dict[str, _Said] = {}
    for report in said:
        earlier = report_of.setdefault(report.row[key].strip(), report)
        if earlier[1:3] != report[1:3]:
            raise DataError(
                f"{earlier.where} and {report.where} give two reports for one {key}. Choose the column that tells "
                "them apart."
            )
    joined, alone = [], []
    for row in rows:
        if report := report_of.get(row[key].strip()):
            joined.append((report, _joined(report.row, row), f"{path}, row {row.line}"))
        else:
            alone.append(f"row {row.line}")
    left_out(alone, f"rows of {path} without a report")
    if not joined:
        raise DataError(f"No row of {path} has the {key} of a report. Choose the column that both tables share.")
    return joined, [*own, *columns]


def _joined(report: Mapping[str, str], row: Row) -> dict[str, str]:
    return {**report, **row}


def _chosen(
    found: Mapping[str, Any],
    named: Sequence[tuple[_Said, Mapping[str, str], str]],
    file_column: str,
    patient_column: str | None,
    slices: bool,
) -> dict[str, tuple[_Said, str | None]]:
    """Case -> its report and its patient."""
    named_by = namer(found, slices)
    chosen: dict[str, tuple[_Said, str | None]] = {}
    empty, fileless, nameless, repeats, with_row = [], [], [], [], set()
    for report, row, where in named:
        cell = row[file_column]
        case = named_by(cell, where) or named_by(cell.strip(), where)
        with_row.add(case)
        person = row[patient_column].strip() if patient_column else None
        if not report.findings:
            empty.append(where)
        elif case is None:
            fileless.append(repr(cell))
        elif person == "":
            nameless.append(where)
        else:
            earlier, known = chosen.setdefault(case, (report, person))
            if (earlier.findings, earlier.impression, known) != (report.findings, report.impression, person):
                raise DataError(
                    f"{earlier.where} and {report.where} give different reports or patients for {case!r}. Choose the "
                    "column that tells them apart, or leave this image out."
                )
            if earlier is not report:
                repeats.append(where)
    left_out(empty, "rows without findings")
    left_out(fileless, "rows whose image is not there")
    left_out(nameless, f"rows without {patient_column}")
    left_out(repeats, "rows that repeat an earlier one")
    left_out([repr(case) for case in found if case not in with_row], "images without a report")
    if not chosen:
        cell = next((row[file_column] for _, row, _ in named), "")
        raise DataError(
            f"No report with findings names a file that `images` matches: {file_column} is e.g. {cell!r}, a file is "
            f"{next(iter(found))!r}."
        )
    return chosen


# ------------------------------------------------------------------------------------------------ the check
def lists(index: Index) -> Iterator[str]:
    """Texts, as far as the lists say."""
    for name in SPLITS:
        for item in index.items(name):
            if item.label is not None:
                yield f"{item.id} in {name} has a label; a case of a report generation has findings: use from_reports."
            if not (item.findings or "").strip():
                yield f"{item.id} in {name} has no findings: leave it out."
            if len(item.findings or "") + len(item.impression or "") > LONGEST:
                yield f"The report of {item.id} in {name} is longer than {LONGEST:,} characters: leave it out."
    texts = {item.findings for item in index.training}
    if index.training and len(texts) < 2:
        yield "All reports of training are the same: there is nothing to learn. Choose the column that holds findings."
