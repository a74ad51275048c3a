"""Columns of a table: what kind each is, which of them names the image files, and which may be shown.

Values are shown of categories only. Whatever could tell one patient from another is an identifier, of which only the
pattern is shown: by its name (patient, mrn, birth ...), or because its cells are long numbers or nearly all different.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Literal

from m3dspy.signatures.values import Column, Table
from m3dspy.workspace.indexes.cases import stem
from m3dspy.workspace.looking.tree import Family
from m3dspy.workspace.patterns import clean, pattern_of, word_set, words
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.tables import Row

Kind = Literal["category", "number", "text", "identifier", "date", "empty"]

MOST_VALUES = 12  # of a category that are shown
MOST_CATEGORIES = 40
MISSING = frozenset(("", "na", "n/a", "nan", "none", "null", "?", "-", "not given", "not given."))
PERSON = word_set("patient patients subject person participant mrn ptid pid rid proband")
_NAMES_A_PERSON = PERSON | word_set(
    "accession uid birth dob ssn phone telephone email mail address surname forename physician"
)
_OF_A_PERSON = word_set("age sex gender weight height size birth dob position orientation group status")
_NAME = re.compile(r"^(full|first|last|given|family|middle|doctor|reader)?[ _-]*names?$", re.IGNORECASE)
_NAMES_A_CASE = word_set("id exam study accession")
_LABEL = word_set(
    "label labels class classes diagnosis diag dx target group category finding findings grade stage disease outcome "
    "sex gender split fold view projection modality"
)
_REPORT = word_set(
    "finding findings impression impressions report reports conclusion conclusions indication history comparison "
    "technique clinical"
)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T]\d.*)?|(?:19|20)\d{6}")


@dataclass
class Seen:
    """A table looked at. `names`: its columns as the file has them; `cases`: column -> the case each row names."""

    table: Table
    names: list[str]
    rows: list[Row]
    cases: dict[str, list[str | None]]

    @property
    def file_column(self) -> str:
        """The column that names the most files, or ""."""
        return max(self.cases, key=lambda name: sum(map(bool, self.cases[name])), default="")

    def labels(self) -> list[str]:
        """Categories whose name says label, class, diagnosis ..."""
        columns = zip(self.names, self.table.columns, strict=True)
        return [name for name, column in columns if column.kind == "category" and says_label(name)]


def says_label(name: str) -> bool:
    """Whether a column's name says that it holds what is to be told apart."""
    found = set(words(name)) - {"sex", "gender", "split", "fold", "view", "projection", "modality"}
    return bool(_LABEL & found)


def names_person(name: str) -> bool:
    """Whether a column's name says which patient.

    >>> names_person("Patient ID"), names_person("PatientAge")
    (True, False)
    """
    said = set(words(name))
    return bool(PERSON & said) and not said & _OF_A_PERSON


def leaves(cell: str) -> bool:
    """Whether a cell that names a file leads out of the folder: upwards, to a home folder, or to a system's own.

    >>> leaves("../x.png"), leaves("a\\\\..\\\\x.png"), leaves("/etc/passwd"), leaves("/data/x.png"), leaves("..b.png")
    (True, True, True, False, False)
    """
    path = cell.strip().replace("\\", "/")
    return ".." in path.split("/") or path.startswith(("~", "/etc/", "/proc/", "/dev/", "/sys/", "/root/"))


def is_missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


# ------------------------------------------------------------------------------------------------ cells that name files
class FileNames:
    """The cases of some families, found by path, name or stem, as `indexing.from_table` finds them.

    masks: patterns of the families that hold masks; a name of both an image and its mask is the image's.
    """

    def __init__(self, families: Iterable[Family], masks: Collection[str] = ()):
        self._masks = masks
        self.patterns: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._by_stem: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for family in families:
            for case in family.cases():
                bare = case if family.stacks else _bare(case)
                self._by_stem[bare.rpartition("/")[2]].append((bare, case))
                self.patterns[case] = family.pattern
                self.counts[family.pattern] += 1

    def case(self, cell: str) -> str | None:
        """The one case that a cell names."""
        path = cell.strip().replace("\\", "/").lstrip("./")
        hits = []
        for bare_path in dict.fromkeys((_bare(path), path)):
            near = self._by_stem.get(bare_path.rpartition("/")[2], ())
            hits = [case for bare, case in near if _is_tail(bare, bare_path)]
            if hits:
                break
        exact = [case for case in hits if _is_tail(case, path)] or hits
        if len(exact) > 1:
            exact = [case for case in exact if self.patterns[case] not in self._masks]
        return exact[0] if len(exact) == 1 else None


def _bare(path: str) -> str:
    folder, mark, _ = path.rpartition("/")
    return folder + mark + stem(path)


def _is_tail(one: str, other: str) -> bool:
    return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")


# ------------------------------------------------------------------------------------------------ the table
def look_at(path: str, columns: Sequence[str], rows: list[Row], files: FileNames) -> Seen:
    """A table's columns described; `path` as it is to be shown."""
    cases = {name: found for name in columns if (found := files_named(rows, name, files))}
    most = max((len(set(found)) for found in cases.values()), default=0)
    cases = {
        name: found for name, found in cases.items() if 10 * len(set(found)) >= most
    }  # classes 0 and 1 name no files
    if any(not names_person(name) for name in cases):  # a patient's id may be the stem of one of his images
        cases = {name: found for name, found in cases.items() if not names_person(name)}
    described = [_column(name, [row[name] for row in rows], cases.get(name), files) for name in columns]
    repeated = len(rows) - len({tuple(row.values()) for row in rows})
    table = Table(path=path, rows=len(rows), duplicates=repeated, columns=tuple(described))
    return Seen(table, list(columns), rows, cases)


def files_named(rows: Sequence[dict[str, str]], column: str, files: FileNames) -> list[str | None]:
    """The case that each row names, of the groups that are named as a whole; [] where too few rows and files agree."""
    distinct = {row[column] for row in rows}
    found = {cell: case for cell in distinct if not is_missing(cell) and (case := files.case(cell))}
    groups = Counter(files.patterns[case] for case in found.values())
    if not groups:
        return []
    pattern, hits = groups.most_common(1)[0]
    if hits < 0.3 * min(len(distinct), files.counts[pattern]):
        return []
    whole = {group for group, named in groups.items() if group == pattern or 2 * named > files.counts[group]}
    named = (found.get(row[column]) for row in rows)
    return [case if case and files.patterns[case] in whole else None for case in named]


def _column(name: str, cells: Sequence[str], cases: list[str | None] | None, files: FileNames) -> Column:
    counts = Counter(cell.strip() for cell in cells if not is_missing(cell))
    kind = "identifier" if cases else kind_of(name, counts)
    more: dict = {}
    if cases:
        named = [case for case in cases if case]
        groups = Counter(files.patterns[case] for case in named)
        more = {"names_files": groups.most_common(1)[0][0], "rows_with_file": len(named)}
    if kind == "category":
        more["values"] = {clean(value, 60): count for value, count in counts.most_common(MOST_VALUES)}
    if kind == "text":
        lengths = [len(cell.split()) for cell in counts.elements()]
        more = {"words": round(median(lengths)), "commonest": counts.most_common(1)[0][1]}
    if kind in ("identifier", "date"):
        more["pattern"] = pattern_of_cells(list(counts))
    missing = len(cells) - sum(counts.values())
    return Column(name=clean(name, 60), kind=kind, distinct=len(counts), missing=missing, **more)


def kind_of(name: str, counts: Counter[str]) -> Kind:
    """category, number, text, identifier, date or empty; `counts`: cell -> rows."""
    if not counts:
        return "empty"
    said = set(words(name))
    if said & _NAMES_A_PERSON or _NAME.match(name.strip()):
        return "identifier"
    total, cells = sum(counts.values()), list(counts)
    if all(_DATE.fullmatch(cell) for cell in cells):
        return "date"
    if _is_prose(said, cells):
        return "text"
    if len(counts) <= MOST_VALUES and (total >= 2 * len(counts) or said & _LABEL) and not _like_ids(cells):
        return "category"
    numeric = all(_is_number(cell) for cell in cells)
    if numeric and (any("." in cell or "," in cell for cell in cells) or total >= 1.5 * len(counts)):
        return "number"
    if numeric:
        return "identifier" if len(counts) > 0.9 * total or said & _NAMES_A_CASE else "number"
    if sum(len(cell.split()) for cell in cells) >= 5 * len(cells):
        return "text"
    if _like_ids(cells) or total < 3 * len(counts) or len(counts) > MOST_CATEGORIES:
        return "identifier"
    return "category"


def _is_prose(said: set[str], cells: Sequence[str]) -> bool:
    """Whether cells are sentences, which are never shown: of many words, or of a few where the name says report."""
    length = mean(len(cell.split()) for cell in cells)
    return length >= 8 or (
        length >= 2 and bool(said & _REPORT) and sum(cell.endswith(".") for cell in cells) > len(cells) / 2
    )


def _like_ids(cells: Sequence[str]) -> bool:
    """Names, or several cells of which most hold a long number."""
    long = sum(bool(re.search(r"\d{3}", cell)) for cell in cells)
    return _are_names(cells) or (len(cells) > 2 and 2 * long > len(cells))


def _are_names(cells: Sequence[str]) -> bool:
    """Whether one is an image file's name, or a person's as DICOM writes it."""
    return any("^" in cell or cell.lower().endswith(IMAGE_SUFFIXES) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def pattern_of_cells(cells: Sequence[str]) -> str:
    """The most frequent pattern of identifiers, with words of more than three letters left out.

    >>> pattern_of_cells(["116_S_6119", "002_S_0413"]), pattern_of_cells(["DOE^JANE", "ROE^JANE", "POE^JANE"])
    ('###_S_####', '*')
    """
    shown = pattern_of(sorted(set(cells))[:2000])
    return "*" if "^" in shown else clean(re.sub(r"\*[\W_]*\*", "*", re.sub(r"[^\W\d_]{4,}", "*", shown)), 60)
