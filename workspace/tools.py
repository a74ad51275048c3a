"""What an agent may call to look closer at a dataset: short answers in text, with identifiers masked.

    with tools.desk(root):
        tools.list_folder("images")

The tools are bound to a folder by `desk`; what lies outside of it is refused, and an error is an answer as well. Paths
are relative to it, and may be patterns as the fingerprint shows them: then the first file that matches is meant. The
docstrings are what the agent reads.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError, M3Error
from m3dspy.workspace import sources, tables
from m3dspy.workspace.indexes.cases import natural, regex_of, relative
from m3dspy.workspace.looking.columns import is_missing, kind_of, pattern_of_cells
from m3dspy.workspace.looking.documents import document, is_document, is_records
from m3dspy.workspace.looking.measuring import voxels_of
from m3dspy.workspace.looking.tree import MOST_CLASSES, suffix_of
from m3dspy.workspace.patterns import clean, could_be_class, is_role, masked, pattern_of, shape
from m3dspy.workspace.tables import TABLE_SUFFIXES

LENGTH = 1400  # characters of an answer
ROWS = 3  # of a table that are previewed
MOST_SHAPES = 6  # of names in a list
_root: ContextVar[Path] = ContextVar("the dataset that the tools look at")


@contextmanager
def desk(root: Path) -> Iterator[None]:
    """Bind the tools to a dataset folder, in this context only."""
    token = _root.set(Path(root).resolve())
    try:
        yield
    finally:
        _root.reset(token)


def _answer(tool: Callable[..., str]) -> Callable[..., str]:
    """A tool whose answer is short, and whose errors are answers."""

    @wraps(tool)
    def answered(*arguments: str, **named: str) -> str:
        try:
            answer = tool(*arguments, **named)
        except (M3Error, ValueError, OSError) as error:
            answer = f"Error: {clean(masked(str(error)), 300)}"
        return answer if len(answer) <= LENGTH else answer[: LENGTH - 12].rsplit("\n", 1)[0] + "\n... (cut)"

    return answered


@_answer
def list_folder(folder: str) -> str:
    """List what a folder of the dataset holds: its folders and files, grouped by name pattern, with counts.

    Args:
        folder: relative to the dataset, "" for the dataset itself. A pattern such as "train/*" means its first match.

    In patterns "#" stands for a number and "*" for words that vary; names of patients are never shown.
    """
    path = _found(folder)
    if not path.is_dir():
        raise DataError(f"{folder!r} is a file; use preview.")
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    folders = [entry.name for entry in entries if entry.is_dir() and not entry.is_symlink()]
    files = [entry.name for entry in entries if entry.is_file()]
    lines = [f"{len(folders)} folders, {len(files)} files"]
    lines += [f"{pattern}/ ({count})" for pattern, count in _folder_patterns(folders)]
    shown = sorted(filter(_is_text, files), key=natural)
    lines += [clean(masked(name)) for name in shown[:MOST_CLASSES]]
    by_suffix: dict[str, list[str]] = {}
    for name in sorted(set(files) - set(shown)):
        suffix = suffix_of(name)
        by_suffix.setdefault(suffix, []).append(name[: len(name) - len(suffix)])
    for suffix, stems in by_suffix.items():
        lines += [f"{pattern} ({count})" for pattern, count in _patterns(stems, suffix)]
    return "\n".join(lines)


@_answer
def preview(path: str) -> str:
    """Show what one file of the dataset is: an image's size and values, a table's columns and first rows, or a text.

    Args:
        path: relative to the dataset. A pattern from the fingerprint means the first file that matches.

    Identifiers, dates and free text of tables are masked; no pixels are shown.
    """
    file = _found(path)
    if file.is_dir():
        raise DataError(f"{path!r} is a folder; use list_folder.")
    if _is_table(file):
        return _table(*tables.read_table(file))
    if is_document(file.name):
        found = document(file.parent, file.name)
        return found.text if found else f"a text of {file.stat().st_size / 1e6:.1f} MB, too large to be shown"
    return _image(file)


@_answer
def read_table(path: str, column: str) -> str:
    """Read one column of a table: a category's values with counts, a number's range, or an identifier's pattern.

    Args:
        path: the table, relative to the dataset.
        column: its name, as the fingerprint or preview shows it.
    """
    columns, rows = tables.read_table(_found(path))
    name = next((name for name in columns if column in (name, clean(name, 60))), None)
    if name is None:
        known = ", ".join(repr(clean(name, 60)) for name in columns[:30])
        raise DataError(f"{path!r} has no column {column!r}; it has {known}.")
    kind, counts = _kind(rows, name)
    told = f"{kind}, {len(counts)} different values in {counts.total()} of {len(rows)} rows"
    if kind == "category":
        return "\n".join([told, *(f"{clean(value, 60)}: {count}" for value, count in counts.most_common(40))])
    if kind == "number":
        low, middle, high = np.percentile([float(cell.replace(",", ".")) for cell in counts.elements()], [0, 50, 100])
        return f"{told}; least {low:g}, median {middle:g}, most {high:g}"
    if kind == "text":
        lengths = sorted(len(cell.split()) for cell in counts.elements())
        return f"{told}; {lengths[0]} to {lengths[-1]} words, median {lengths[len(lengths) // 2]}"
    if kind == "empty":
        return told
    most = counts.most_common(1)[0][1]
    return f"{told}; mostly like {pattern_of_cells(list(counts))}, a value stands in up to {most} rows"


# ------------------------------------------------------------------------------------------------ paths
def _found(path: str) -> Path:
    """The file or folder meant.

    Raises: DataError: there is none, or it lies outside of the dataset.
    """
    root = here = _root.get()
    for part in filter(None, relative(path, "The path").split("/")):
        if not (here / part).exists():
            matches = regex_of(part).fullmatch
            names = (entry.name for entry in here.iterdir()) if here.is_dir() else ()
            part = min((name for name in names if name[0] != "." and matches(name)), key=natural, default=None)
            if part is None:
                raise DataError(f"There is no {path!r} in the dataset; list_folder shows what there is.")
        here = here / part
    if not here.resolve().is_relative_to(root):
        raise DataError(f"{path!r} leads out of the dataset.")
    if not here.is_dir() and not here.is_file():
        raise DataError(f"{path!r} is neither a file nor a folder.")
    return here


def _folder_patterns(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names of parts and of classes as they are, others as patterns."""
    plain = {name for name in names if is_role(name)}
    others = [name for name in names if name not in plain]
    if len(others) <= MOST_CLASSES and all(map(could_be_class, others)):
        plain |= set(others)
        others = []
    return [(clean(name, 60), 1) for name in sorted(plain)] + _patterns(others)


def _patterns(names: Sequence[str], suffix: str = "") -> list[tuple[str, int]]:
    """One pattern for names of one shape each, or for all where there are many shapes."""
    shapes: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        shapes.setdefault(shape(name), []).append(name)
    if len(shapes) > MOST_SHAPES:
        shapes = {(): list(names)}
    return [(clean(pattern_of(alike, suffix), 80), len(alike)) for alike in shapes.values()]


# ------------------------------------------------------------------------------------------------ files
def _is_text(name: str) -> bool:
    return suffix_of(name) in TABLE_SUFFIXES or is_document(name)


def _is_table(file: Path) -> bool:
    suffix = suffix_of(file.name)
    return suffix in TABLE_SUFFIXES and (suffix != ".json" or is_records(tables.read_json(file)))


def _kind(rows: Sequence[Mapping[str, str]], name: str) -> tuple[str, Counter[str]]:
    counts = Counter(row[name].strip() for row in rows if not is_missing(row[name]))
    return kind_of(name, counts), counts


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """Each column with its kind, and how it stands in the first rows."""
    lines = [f"{len(rows)} rows; column (kind): the first {ROWS} cells"]
    for name in columns:
        kind, counts = _kind(rows, name)
        cells = [row[name] for row in rows[:ROWS]]
        if kind == "text":
            cells = [f"{len(cell.split())} words" for cell in cells]
        elif kind in ("identifier", "date"):
            cells = [f"like {pattern_of_cells(list(counts))}"]
        lines.append(f"{clean(name, 60)} ({kind}): {' | '.join(clean(cell, 40) for cell in cells)}")
    return "\n".join(lines)


def _image(file: Path) -> str:
    try:
        header = sources.header(file)
        seen = voxels_of(sources.read(file)[0], header)
    except ValueError as error:
        raise DataError(str(error).replace(file.name, "it")) from None
    spacing = f", spacing {' x '.join(f'{size:g}' for size in header.spacing)} mm" if header.spacing else ""
    orientation = f", axes {header.orientation}" if header.orientation else ""
    values = f", values {', '.join(map(str, seen.values))}" if seen.values else ""
    return (
        f"{sources.source_of(file)} image, {' x '.join(map(str, header.shape))} {header.dtype}, "
        f"{header.channels} channel(s){spacing}{orientation}; from {seen.low:g} to {seen.high:g}, "
        f"{seen.unit or 'flat'}{values}"
    )
