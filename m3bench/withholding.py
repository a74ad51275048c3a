"""What of a dataset's folder tells of its test cases: files that are theirs, and rows of tables that name them.

Nothing here knows a dataset. An expert's index says which cases are tested; their paths, names, ids and patients are
the *marks* by which files and rows are recognised. A mark that a case to learn from bears too tells nothing. A short
number ("12") is a mark only where a name is expected: as a whole file name, or in a column such as `patient_id`.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from m3dspy.signatures.values import Index, Item
from m3dspy.workspace.public import paths, whole
from m3dspy.workspace.sources import IMAGE_SUFFIXES

TABLES, LINES, DOCUMENTS = (".csv", ".tsv"), (".txt", ".lst"), (".md", ".pdf", ".rst", ".docx", ".html")
NAMES_A_CASE = re.compile(
    r"(^|[^a-z])(id|uid|pid|patient|subject|participant|case|exam|study|scan|series|session|image|img|file|filename|name"
    r"|volume|volumename|no|number|mri)s?([^a-z]|$)"
)
SHORT = 5  # digits: a number with fewer is a mark only where a name is expected


@dataclass(frozen=True)
class Marks:
    """How the cases to withhold are recognised. own, others: marks of the test cases, and of those to learn from."""

    own: frozenset[str]
    others: frozenset[str]
    columns: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, index: Index, columns: Iterable[str] = ()) -> "Marks":
        """Args: columns: of tables, known to name a case or a patient."""
        own = {mark for item in index.test for mark in _marks(item, index)}
        others = {mark for item in chain(index.training, index.validation) for mark in _marks(item, index)}
        return cls(frozenset(own - others), frozenset(others), frozenset(_plain(name) for name in columns))

    def tells(self, text: str, *, named: bool = False) -> bool:
        """Whether a cell, a path or a line bears a mark of a test case. Args: named: a name is expected there."""
        if any(_told(candidate, self.own, named) for candidate in _candidates(text)):
            return True
        return self._begins(text)

    def of_others(self, text: str) -> bool:
        """Whether it bears a mark of a case to learn from."""
        return any(_told(candidate, self.others, False) for candidate in _candidates(text))

    def name_is_expected(self, column: str) -> bool:
        spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()
        return _plain(column) in self.columns or bool(NAMES_A_CASE.search(spaced))

    def _begins(self, text: str) -> bool:
        """Whether its last name begins with a mark (`train_12` in `train_12_b.nii.gz`); the longest one decides."""
        name = _plain(text).rpartition("/")[2]
        for end in sorted((found.start() for found in re.finditer(r"[^a-z0-9]", name)), reverse=True):
            if (start := name[:end]) and not _is_short(start):
                if start in self.others:
                    return False
                if start in self.own:
                    return True
        return False


def withheld(root: Path, index: Index, marks: Marks, *, capped: bool) -> dict[str, bytes | None]:
    """Path of a file that is not to be shown as it is -> what is shown in its place, None: nothing.

    Args: root: the dataset.  index: an expert's, with the answers.  capped: cases were left out of the index for being
        too many; whose they are is not known, and their images are not shown.
    """
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    known = {path for item in chain(index.training, index.validation) for path in _files(item, index, root)}
    tested = {path for item in index.test for path in _files(item, index, root)}
    changed, told = _tables(root, [path for path in files if path not in known | tested], marks)
    folders = _folders(tested) - _folders(known)
    twice = _same_bytes(root, files, tested, known)
    found: dict[str, bytes | None] = {}
    for path in files:
        if path in tested or path in twice:
            found[path] = None
        elif path in known:
            continue
        elif path in changed:
            found[path] = changed[path]
        elif _is_theirs(path, marks, told, folders) or (capped and path.lower().endswith(IMAGE_SUFFIXES)):
            found[path] = None
    return found


def _is_theirs(path: str, marks: Marks, told: set[str], folders: set[str]) -> bool:
    """Args: told: what the rows of test cases say.  folders: with test cases, and none to learn from."""
    place = PurePosixPath(path)
    if place.suffix.lower() in DOCUMENTS:
        return False
    if any(str(parent) in folders for parent in place.parents) or marks.tells(path):
        return True
    if _without_suffix(place.name.casefold()) in told or any(marks.tells(part) for part in place.parts[:-1]):
        return True
    return not path.lower().endswith(IMAGE_SUFFIXES) and marks.tells(place.stem, named=True)


def _folders(files: Iterable[str]) -> set[str]:
    """Every folder that holds one of the files, at any depth, but the dataset's own."""
    return {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}


def _files(item: Item, index: Index, root: Path) -> Iterator[str]:
    """The files of a case: its images, with the other half of a pair, and its masks."""
    for path in paths(item.image):
        yield from (place for place, _ in whole(path, root / path))
    yield from _masks(item, index)


def _masks(item: Item, index: Index) -> Iterator[str]:
    if index.task == "segmentation" and isinstance(item.label, str):
        yield item.label
    if item.mask:
        yield item.mask


def _same_bytes(root: Path, files: Iterable[str], tested: set[str], known: set[str]) -> set[str]:
    """Files that hold the image of a test case once more, or its mask, unless that is also one to learn from."""

    def digest(path: str) -> bytes:
        with (root / path).open("rb") as file:
            content = blake2b(digest_size=16)
            while block := file.read(1 << 20):
                content.update(block)
        return content.digest()

    sizes: dict[int, list[str]] = {}
    for path in files:
        sizes.setdefault((root / path).stat().st_size, []).append(path)
    found: set[str] = set()
    for size, alike in sizes.items():
        if size and len(alike) > 1 and not tested.isdisjoint(alike):
            digests = {path: digest(path) for path in alike}
            theirs = {digests[path] for path in alike if path in tested}
            shared = {digests[path] for path in alike if path in known}
            found |= {path for path in alike if digests[path] in theirs - shared and path not in tested}
    return found


# ------------------------------------------------------------------------------------------------ marks
def _marks(item: Item, index: Index) -> Iterator[str]:
    """The id, the patient, and every end of a path of a case, with and without its suffix."""
    yield _plain(item.id)
    yield _plain(item.patient)
    if isinstance(item.image, str):
        yield from _ends(item.image)
    else:
        yield from _ends(item.image[0].rpartition("/")[0])
        yield from (path.casefold() for path in item.image)
    for mask in _masks(item, index):
        yield from _ends(mask)


def _ends(path: str) -> Iterator[str]:
    parts = path.casefold().split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        yield end
        yield _without_suffix(end)


def _without_suffix(name: str) -> str:
    return next((name[: -len(suffix)] for suffix in IMAGE_SUFFIXES if name.endswith(suffix)), name)


def _plain(text: str) -> str:
    """A cell as it is compared: without blanks, quotes, brackets and the `.0` of a number that was read as one."""
    plain = text.strip(" \t\r\n\"'[](){}<>").replace("\\", "/").casefold().removeprefix("./")
    return plain[:-2] if plain.endswith(".0") and plain[:-2].isdigit() else plain


def _is_short(mark: str) -> bool:
    return mark.isdigit() and len(mark) < SHORT


def _told(candidate: str, marks: frozenset[str], named: bool) -> bool:
    if _is_short(candidate):
        return named and (candidate in marks or candidate.lstrip("0") in marks)
    return candidate in marks


def _candidates(text: str) -> Iterator[str]:
    """A text as a whole, and its words, each with every end of it that could be a path."""
    wholly = _plain(text)
    for word in dict.fromkeys((wholly, text.strip().casefold(), *map(_plain, re.split(r"[;,|\s]+", text)))):
        yield from dict.fromkeys((word, *_ends(word.removeprefix("._"))))


# ------------------------------------------------------------------------------------------------ tables
def _tables(root: Path, files: Iterable[str], marks: Marks) -> tuple[dict[str, bytes | None], set[str]]:
    """Tables with the rows of test cases taken out, where there were any; and every mark that those rows bear."""
    changed: dict[str, bytes | None] = {}
    told: set[str] = set()
    for path in files:
        suffix = PurePosixPath(path).suffix.lower()
        if suffix in TABLES:
            kept, gone = _rows((root / path).read_bytes(), marks)
        elif suffix == ".json":
            kept, gone = _json((root / path).read_bytes(), marks)
        elif suffix == ".xlsx":
            kept, gone = _sheets(root / path, marks)
        elif suffix in LINES:
            kept, gone = _lines((root / path).read_bytes(), marks)
        else:
            continue
        if gone:
            changed[path] = kept
            told |= {_without_suffix(_plain(cell)) for cell in gone if len(cell) < 200}
    return changed, {mark for mark in told if re.search(r"\d", mark) and not _is_short(mark) and len(mark) >= SHORT}


def _is_of_test(cells: Iterable[tuple[str, str]], marks: Marks) -> bool:
    """Whether a row tells of a test case. Args: cells: (column, text).

    A short number does not weigh against the mark of a case to learn from.
    """
    cells = [(column, text) for column, text in cells if text]
    if any(marks.tells(text) for _, text in cells):
        return True
    expected = [text for column, text in cells if marks.name_is_expected(column)]
    return any(marks.tells(text, named=True) for text in expected) and not any(marks.of_others(t) for _, t in cells)


@contextmanager
def _long_cells() -> Iterator[None]:
    before = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _rows(content: bytes, marks: Marks) -> tuple[bytes, list[str]]:
    """A CSV or TSV file without the rows of test cases, byte for byte as it was; and the cells of those rows."""
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    lines = content.decode(coding, "surrogateescape").splitlines(keepends=True)
    if not lines:
        return content, []
    delimiter = max(",;\t|", key=lines[0].count)
    reader, start, kept, gone = csv.reader(lines, delimiter=delimiter), 0, [], []
    header: list[str] = []
    with _long_cells():
        for cells in reader:
            columns = [*header, *[""] * max(0, len(cells) - len(header))]
            if header and _is_of_test(zip(columns, cells, strict=False), marks):
                gone += cells
            else:
                kept += lines[start : reader.line_num]
            start, header = reader.line_num, header or [cell.removeprefix("\ufeff") for cell in cells]
    return "".join(kept).encode(coding, "surrogateescape"), gone


def _lines(content: bytes, marks: Marks) -> tuple[bytes, list[str]]:
    """A list, one case a line, without the lines of test cases."""
    lines = content.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    gone = [line for line in lines if marks.tells(line, named=len(line.split()) == 1)]
    kept = [line for line in lines if line not in set(gone)]
    return "".join(kept).encode("utf-8", "surrogateescape"), gone


def _sheets(path: Path, marks: Marks) -> tuple[bytes, list[str]]:
    """A workbook without the rows of test cases."""
    from openpyxl import load_workbook

    book, gone = load_workbook(path), []
    for sheet in book.worksheets:
        header, *rows = list(sheet.iter_rows(values_only=True)) or [()]
        columns = [str(cell or "") for cell in header]
        for number in range(len(rows), 0, -1):
            cells = ["" if cell is None else str(cell) for cell in rows[number - 1]]
            if _is_of_test(zip(columns, cells, strict=False), marks):
                gone += cells
                sheet.delete_rows(number + 1)
    written = io.BytesIO()
    book.save(written)
    return written.getvalue(), gone


def _json(content: bytes, marks: Marks) -> tuple[bytes, list[str]]:
    """A JSON file without the records, and the keys, of test cases; one that cannot be read, line by line."""
    try:
        data = json.loads(content)
    except ValueError:
        return _lines(content, marks)
    gone: list[str] = []
    kept = _without(data, marks, gone)
    if not gone:
        return content, []
    indent = len(found[1]) if (found := re.search(rb"\n( +)\S", content)) else None
    return json.dumps(kept, indent=indent, ensure_ascii=False).encode(), gone


def _without(data: Any, marks: Marks, gone: list[str]) -> Any:
    if isinstance(data, list):
        kept = []
        for entry in data:
            if _record_is_of_test(entry, marks):
                gone += _texts(entry)
            else:
                kept.append(_without(entry, marks, gone))
        return kept
    if isinstance(data, dict):
        kept = {}
        for key, entry in data.items():
            if marks.tells(key, named=isinstance(entry, dict | list)) or (
                isinstance(entry, dict) and _record_is_of_test(entry, marks)
            ):
                gone += [key, *_texts(entry)]
            else:
                kept[key] = _without(entry, marks, gone)
        return kept
    return data


def _record_is_of_test(entry: Any, marks: Marks) -> bool:
    """Whether an entry of a list, or a record, names a test case in one of its own fields."""
    if isinstance(entry, str):
        return marks.tells(entry)
    if not isinstance(entry, dict):
        return False
    fields = [(key, str(value)) for key, value in entry.items() if isinstance(value, str | int | float)]
    fields += [
        (key, text) for key, value in entry.items() if isinstance(value, list) for text in value if _is_text(text)
    ]
    return _is_of_test(fields, marks) and not _holds_both(entry, marks)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _holds_both(entry: dict[str, Any], marks: Marks) -> bool:
    """A list in it names cases to learn from as well: it is a list of cases, and not the record of one."""
    lists = [value for value in entry.values() if isinstance(value, list)]
    return any(any(_is_text(text) and marks.of_others(text) for text in value) for value in lists)


def _texts(data: Any) -> list[str]:
    if isinstance(data, dict):
        return [text for entry in data.values() for text in _texts(entry)]
    if isinstance(data, list):
        return [text for entry in data for text in _texts(entry)]
    return [str(data)]
