# pyright: reportOptionalMemberAccess=false
"""A table is read as a person reads it in a spreadsheet, and a bad line is named."""

import json

import pytest

from m3dspy.errors import DataError
from m3dspy.workspace import tables
from m3dspy.workspace.tables import read_json, read_table

ROWS = [{"id": "c0", "label": "benign"}, {"id": "c1", "label": "mäßig"}]
TEXT = "id,label\nc0,benign\nc1,mäßig\n"


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_csv_is_read_whatever_wrote_it(encoding, delimiter, newline, tmp_path):
    path = tmp_path / "Labels.CSV"
    path.write_bytes(TEXT.replace(",", delimiter).replace("\n", newline).encode(encoding))
    assert read_table(path) == (["id", "label"], ROWS)


def test_quoted_cells_may_hold_commas_quotes_and_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'id,"findings; impression"\nc0,"clear, ""dry""\nlungs"\n\n')
    assert read_table(path)[1] == [{"id": "c0", "findings; impression": 'clear, "dry"\nlungs'}]


def test_cells_are_never_interpreted(tmp_path):
    path = write(tmp_path / "a.csv", "id,x\n007,=1+1\nNA,1e3\n")
    assert read_table(path)[1] == [{"id": "007", "x": "=1+1"}, {"id": "NA", "x": "1e3"}]


def test_unnamed_and_repeated_columns_get_names_of_their_own(tmp_path):
    path = write(tmp_path / "a.csv", ",label, label ,\nx,1,2,3\n")
    assert read_table(path)[0] == ["column 1", "label", "label (2)", "column 4"]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("id,label,x\nc0,a,b\nc1,a,b,c,d\n", r"a.csv line 3: has 5 cells, the header has 3"),
        ("id,label\nc0\n", r"a.csv line 2: has 1 cells, the header has 2"),
        ('id,label\nc0,a\nc1,"a\nc2,b\n', r"a.csv line 3: a quote opens here and is not closed"),
        ("id,label\nc0,be\0nign\n", r"a.csv line 2: holds the byte 0, which no text has"),
        ("id,label\nc0," + "x" * 200_000 + "\n", r"a.csv line 2: field larger than field limit"),
        ("", r"a.csv is empty; a table begins with a line of column names"),
        (b"\x89PNG\r\n\x1a\n\x81\x8d", r"a.csv is not text in UTF-8, UTF-16 or Latin-1"),
        (b"\xff\xfea", r"a.csv is not text"),
    ],
)
def test_a_bad_csv_names_its_line(content, wrong, tmp_path):
    with pytest.raises(DataError, match=f"^{wrong}"):
        read_table(write(tmp_path / "a.csv", content))


def test_a_table_of_too_many_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROWS", 2)
    assert len(read_table(write(tmp_path / "a.csv", "id\n1\n2\n"))[1]) == 2
    with pytest.raises(DataError, match=r"b.csv has more than 2 rows"):
        read_table(write(tmp_path / "b.csv", "id\n1\n2\n3\n"))


def test_a_file_that_is_too_large_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"a.csv is larger than 1 MB"):
        read_table(write(tmp_path / "a.csv", "x" * (1 << 20) + "\n"))


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(
        DataError, match=r"a.xls is no table that is known; save it as one of: .csv, .tsv, .xlsx, .parquet, .json"
    ):
        read_table(write(tmp_path / "a.xls", "x"))
    with pytest.raises(DataError, match=r"There is no table b.csv"):
        read_table(tmp_path / "b.csv")


# ------------------------------------------------------------------------------------------------ XLSX
def test_the_first_sheet_of_a_workbook_reads_like_a_csv(tmp_path):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["id", "age", "note"])
    book.active.append(["c0", 71.0, None])
    book.active.append([None, None, None])
    book.active.append(["c1", 0.5, True])
    book.create_sheet("other").append(["x"])
    book.save(tmp_path / "a.xlsx")
    assert read_table(tmp_path / "a.xlsx") == (
        ["id", "age", "note"],
        [{"id": "c0", "age": "71", "note": ""}, {"id": "c1", "age": "0.5", "note": "True"}],
    )


def test_a_broken_workbook_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^a.xlsx is no Excel workbook that can be read: [^\n]+$"):
        read_table(write(tmp_path / "a.xlsx", "not a zip file"))


# ------------------------------------------------------------------------------------------------ JSON
def test_a_list_of_records_is_a_table(tmp_path):
    records = [{"image": "a.png", "n": 3}, {"image": "b.png", "labels": ["x", "y"], "flag": True, "none": None}]
    columns, rows = read_table(write(tmp_path / "a.json", json.dumps(records)))
    assert columns == ["image", "n", "labels", "flag", "none"]
    assert rows[0] == {"image": "a.png", "n": "3", "labels": "", "flag": "", "none": ""}
    assert rows[1] == {"image": "b.png", "n": "", "labels": '["x", "y"]', "flag": "true", "none": ""}


def test_json_with_comments_and_loose_ends_is_read(tmp_path):
    text = """[ // M3Builder writes its examples so
        {"image_path": "http://x/a,].png", /* all of them */ "labels": ["liver", ], },
        {"image_path": "b \\" // c.png"},
        ...
    ]"""
    assert read_json(write(tmp_path / "a.json", text)) == [
        {"image_path": "http://x/a,].png", "labels": ["liver"]},
        {"image_path": 'b " // c.png'},
    ]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('[{"a": 1},\n {"a" 2}]', r"a.json line 2: is not JSON: Expecting ':' delimiter"),
        ("[" * 200_000, r"a.json: is not JSON that can be read"),
        ('{"training": []}', r"a.json is no table: it is not a list of records"),
        ("[]", r"a.json is no table"),
    ],
)
def test_bad_json_is_one_line(content, wrong, tmp_path):
    with pytest.raises(DataError, match=f"^{wrong}"):
        read_table(write(tmp_path / "a.json", content))
