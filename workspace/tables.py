"""Tables as plain strings: CSV and TSV, the first sheet of an XLSX, Parquet, and JSON lists of records or cases.

    columns, rows = read_table(path)        # rows: column -> cell, "" where nothing stands
    rows[0].line                            # where it begins in the file

Cells stay text, as a person would read them in a spreadsheet: no type is guessed, and nothing is computed.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError
from m3dspy.workspace.indexes.splitting import SPELLINGS
from m3dspy.workspace.sources import at_work

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx", ".parquet", ".json")
MAX_BYTES = 512 << 20
MAX_ROWS = 2_000_000


class Row(dict[str, str]):
    """Column -> cell. `line`: of the text, or the row of the sheet, or the place among records, from 1 on."""

    __slots__ = ("line",)

    def __init__(self, cells: Iterable[tuple[str, str]], line: int):
        super().__init__(cells)
        self.line = line


Table = tuple[list[str], list[Row]]

_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"({_STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
_LOOSE_END = re.compile(
    rf"({_STRING})|,\s*(?:\.\.\.\s*)?(?=[\]}}])", re.DOTALL
)  # "a comma, or a comma and ...", then ]


def read_table(path: Path) -> Table:
    """Column names and rows of a table file.

    An empty column name becomes "column 3" by its place, a repeated one "label (2)". Blank lines are skipped.

    Raises: DataError: the file or one of its lines cannot be read; the line is named.
    """
    if not path.is_file():
        raise DataError(f"There is no table {path.name}.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MB; cut it down to the columns that matter.")
    with at_work(path):
        return _read(path)


def _read(path: Path) -> Table:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _table(path, _csv_lines(path))
        case ".xlsx":
            return _table(path, _sheet_lines(path))
        case ".parquet":
            return _parquet(path)
        case ".json":
            return _records(path)
    raise DataError(f"{path.name} is no table that is known; save it as one of: {', '.join(TABLE_SUFFIXES)}.")


def read_json(path: Path) -> Any:
    """A JSON file, also one with // comments, a comma too many, or "..." for what was left out.

    Raises: DataError: the file cannot be read; the line is named.
    """
    if not path.is_file():
        raise DataError(f"There is no file {path.name}.")
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{path.name} is larger than {MAX_BYTES >> 20} MB.")
    with at_work(path):
        return _json(path, _text(path))


def _json(path: Path, text: str) -> Any:
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            plain = _COMMENT.sub(lambda found: found[1] or "\n" * found[0].count("\n"), text)
            return json.loads(_LOOSE_END.sub(lambda found: found[1] or "\n" * found[0].count("\n"), plain))
    except json.JSONDecodeError as error:
        raise DataError(f"{path.name} line {error.lineno}: is not JSON: {error.msg}.") from error
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path.name}: is not JSON that can be read: {error}.") from error


# ------------------------------------------------------------------------------------------------ lines to tables
def _table(path: Path, lines: Iterable[tuple[int, list[str]]]) -> Table:
    """From numbered lines of cells, the first of which names the columns."""
    columns: list[str] = []
    rows: list[Row] = []
    for number, cells in lines:
        if not columns:
            columns = _distinct(cells)
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path.name} line {number}: has {len(cells)} cells, the header has {len(columns)}; "
                "check its commas and quotes."
            )
        if len(rows) == MAX_ROWS:
            raise DataError(f"{path.name} has more than {MAX_ROWS:,} rows; cut it down to the images at hand.")
        rows.append(Row(zip(columns, cells, strict=True), number))
    if not columns:
        raise DataError(f"{path.name} is empty; a table begins with a line of column names.")
    return columns, rows


def _distinct(names: list[str]) -> list[str]:
    """
    >>> _distinct(["id", "", "label", "label"])
    ['id', 'column 2', 'label', 'label (2)']
    """
    columns: list[str] = []
    for place, name in enumerate(names, start=1):
        wanted = name = " ".join(name.split()) or f"column {place}"
        again = 1
        while wanted in columns:
            again += 1
            wanted = f"{name} ({again})"
        columns.append(wanted)
    return columns


# ------------------------------------------------------------------------------------------------ CSV
def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            wrong = "a quote opens here and is not closed" if "unexpected end" in str(error) else str(error)
            raise DataError(f"{path.name} line {number}: {wrong}; check its quotes.") from error
        if any(cells):
            yield number, cells


def _delimiter(text: str) -> str:
    """The one that cuts the header into most columns; a comma where there is only one column."""
    start = text[: csv.field_size_limit() // 2]
    return max(",;\t|", key=lambda mark: len(next(csv.reader(io.StringIO(start, newline=""), delimiter=mark), [])))


def _text(path: Path) -> str:
    """UTF-16 where the file says so, else UTF-8, else what Windows calls Latin-1."""
    data = path.read_bytes()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ("utf-16",)
    else:
        encodings = ("utf-8-sig", "cp1252")
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if odd := re.search(r"[\x00-\x08\x0e-\x1f]", text):
            line = text.count("\n", 0, odd.start()) + 1
            raise DataError(f"{path.name} line {line}: holds the byte {ord(odd[0])}, which no text has; save it anew.")
        return text
    raise DataError(f"{path.name} is not text in UTF-8, UTF-16 or Latin-1; save it as UTF-8.")


# ------------------------------------------------------------------------------------------------ XLSX
def _sheet_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of the first sheet, cut or filled to the width of its header."""
    from openpyxl import load_workbook

    width = 0
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise DataError(f"{path.name} unpacks to more than {MAX_BYTES >> 20} MB.")
        sheet = load_workbook(path, read_only=True, data_only=True).worksheets[0]
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            cells = [_cell(value) for value in row]
            while len(cells) > width and not cells[-1]:
                cells.pop()
            if cells and any(cells):
                width = width or len(cells)
                yield number, cells + [""] * (width - len(cells))
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path.name} is no Excel workbook that can be read: {error}.") from error


def _cell(value: Any) -> str:
    """As a spreadsheet shows it: 3 rather than 3.0."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


# ------------------------------------------------------------------------------------------------ Parquet
def _parquet(path: Path) -> Table:
    """The columns of numbers, words and dates; a column of bytes or records has no cells."""
    from pyarrow import ArrowException, types
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise DataError(f"{path.name} has more than {MAX_ROWS:,} rows; cut it down to the images at hand.")
            if sum(file.metadata.row_group(k).total_byte_size for k in range(file.num_row_groups)) > MAX_BYTES:
                raise DataError(f"{path.name} unpacks to more than {MAX_BYTES >> 20} MB.")
            plain = [
                field.name
                for field in file.schema_arrow
                if not (types.is_nested(field.type) or types.is_binary(field.type) or types.is_large_binary(field.type))
            ]
            if not plain:
                raise DataError(f"{path.name} has no column of numbers or words.")
            columns = file.read(columns=plain).to_pydict()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path.name} is no Parquet file that can be read: {error}.") from error
    named = dict(zip(_distinct(list(columns)), columns.values(), strict=True))
    cells = zip(*([_cell(value) for value in column] for column in named.values()), strict=True)
    return list(named), [Row(zip(named, row, strict=True), number) for number, row in enumerate(cells, start=1)]


# ------------------------------------------------------------------------------------------------ JSON
def cases_of(data: Any) -> list[dict[str, Any]] | None:
    """The cases of a MONAI datalist or of a dataset.json of MSD, each with its `split`; None where it is neither.

    Numbers become names where `labels` lists them. Where cases have a `fold` and no list is for validation, the first
    fold is.

    >>> cases_of({"labels": {"0": "cyst"}, "training": [{"image": "a.png", "label": 0}], "test": ["b.png"]})
    [{'image': 'a.png', 'label': 'cyst', 'split': 'training'}, {'image': 'b.png', 'label': None, 'split': 'test'}]
    """
    lists = {name: data[name] for name in SPELLINGS if isinstance(data.get(name), list)} if _is_dict(data) else {}
    if not lists:
        return None
    pairs = data["labels"].items() if _is_dict(data.get("labels")) else ()
    names = {str(number): name for name, number in pairs if isinstance(number, int)} or dict(pairs)
    folds = [entry["fold"] for entries in lists.values() for entry in entries if _is_dict(entry) and "fold" in entry]
    has_validation = any(SPELLINGS[name] == "validation" for name in lists)
    first = None if has_validation or len(set(map(str, folds))) < 2 else min(folds, key=str)
    cases = []
    for name, entries in lists.items():
        for entry in entries:
            case = entry if _is_dict(entry) else {"image": entry}
            label = _named(case.get("label"), names)
            split = SPELLINGS[name]
            if split == "training" and first is not None and case.get("fold") == first:
                split = "validation"
            cases.append(case | {"label": label, "split": split})
    return cases


def _named(label: Any, names: dict[str, Any]) -> Any:
    """A number by its name; one in a list is as if it stood alone."""
    if isinstance(label, list) and label and all(isinstance(one, int) for one in label):
        return _named(label[0], names) if len(label) == 1 else [_named(one, names) for one in label]
    return str(names.get(str(label), label)) if isinstance(label, int) else label


def _is_dict(data: Any) -> bool:
    return isinstance(data, dict)


def _records(path: Path) -> Table:
    """A list of records, or the lists of cases of `cases_of`; a value that is itself a list or record stays JSON."""
    data = read_json(path)
    records = cases_of(data) or data
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path.name} is no table: it is not a list of records, [{{...}}, {{...}}].")
    if len(records) > MAX_ROWS:
        raise DataError(f"{path.name} has more than {MAX_ROWS:,} rows; cut it down to the images at hand.")
    columns = list(dict.fromkeys(name for record in records for name in record))
    cells = (((name, _json_cell(record.get(name))) for name in columns) for record in records)
    return columns, [Row(row, number) for number, row in enumerate(cells, start=1)]


def _json_cell(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else _cell(value)
