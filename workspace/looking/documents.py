"""Small text and JSON files that may describe the data, shortened so that what they say of labels stays whole."""

import json
import re
from pathlib import Path
from typing import Any

from m3dspy.signatures.values import Document
from m3dspy.workspace.patterns import clean, masked, pattern_of, shape, word_set, words
from m3dspy.workspace.tables import read_json

SUFFIXES = (".json", ".md", ".txt", ".rst")
MAX_BYTES = 1 << 20
TEXT, JSON_TEXT = 600, 3000  # characters shown
MOST_ENTRIES = 60
_REPORT = re.compile(r"(?im)^\W*(?:findings?|impressions?)\b\W*:")  # a heading of a report, which may name a patient
_TEXTS = word_set("finding findings impression impressions report reports")  # keys of JSON that hold reports
_COLOUR = re.compile(r"\s*(\d+)\s+([^\W\d_][\w./-]*|\d\w+-[\w-]+)(?:\s+\d+){3,4}\s*")


def is_document(path: str) -> bool:
    """A README, or a file of text or JSON."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(SUFFIXES) or name.startswith("readme")


def document(root: Path, path: str) -> Document | None:
    """The beginning of a document; None where it is too large to be one.

    Raises: DataError: JSON that cannot be read; the line is named.
    """
    file = root / path
    if file.stat().st_size > MAX_BYTES:
        return None
    if file.suffix.lower() == ".json":
        text = gist(read_json(file))
    else:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES).decode("utf-8", "replace")
        text = _of_text(raw)
    return Document(path=clean(masked(path)), text=text)


def _of_text(raw: str) -> str:
    if labels := colour_table(raw):
        return gist({"labels": labels})
    return _counted(raw) if _REPORT.search(raw) else clean(masked(_without_names(raw)[: 8 * TEXT]), TEXT)


def colour_table(text: str) -> dict[str, str]:
    """Value -> name from lines of a value, a name and the parts of a colour, as FreeSurfer has them; {} if it is none.

    >>> colour_table("0 Unknown 0 0 0 0\\n17 Left-Hippocampus 220 216 20 0\\n")
    {'0': 'Unknown', '17': 'Left-Hippocampus'}
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    hits = [_COLOUR.fullmatch(line) for line in lines]
    return {hit[1]: hit[2] for hit in hits if hit} if all(hits) else {}


def _without_names(text: str) -> str:
    """The text; a mere list of names that are built alike, such as patients', as how many of which form.

    >>> _without_names("sub-01\\nsub-02\\nsub-17"), _without_names("Scans of 2007,\\nunpacked.")
    ('3 names such as sub-##', 'Scans of 2007,\\nunpacked.')
    """
    names = text.split()
    alike = len(names) > 2 and any(map(str.isdigit, text)) and len({shape(name) for name in names}) == 1
    return f"{len(names)} names such as {pattern_of(names)}" if alike else text


def is_records(data: Any) -> bool:
    """Whether JSON is a table: a list of records, none of whose values is a list or record."""
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(record, dict) for record in data)
        and not any(isinstance(value, dict) for record in data for value in record.values())
    )


def gist(data: Any) -> str:
    """JSON in which lists of cases are counted and long texts are cut; lists of labels stay as they are.

    >>> gist({"labels": {"0": "background", "1": "spleen"}, "training": [{"image": "a.nii"}, {"image": "b.nii"}]})
    '{"labels": {"0": "background", "1": "spleen"}, "training": "2 entries"}'
    """
    for most in (MOST_ENTRIES, 20, 5, 0):
        text = json.dumps(_short(data, most), ensure_ascii=False)
        if len(text) <= JSON_TEXT:
            return text
    return json.dumps("too long to be shown")


def _short(data: Any, most: int) -> Any:
    if isinstance(data, dict):
        if len(data) > most:
            return f"{len(data)} entries"
        return {_word(str(key)): _shown(str(key), value, most) for key, value in data.items()}
    if isinstance(data, list):
        cases = [entry for entry in data if isinstance(entry, dict | list) or _is_path(entry)]
        if len(data) > most or len(cases) > 1:
            return f"{len(data)} entries"
        return [_short(entry, most) for entry in data]
    return _word(data) if isinstance(data, str) else data


def _shown(key: str, value: Any, most: int) -> Any:
    says_report = isinstance(value, str) and _TEXTS.intersection(words(key))
    return _counted(value) if says_report else _short(value, most)


def _counted(report: str) -> str:
    return f"a report of {len(report.split())} words"


def _word(text: str) -> str:
    return clean(masked(text), 200)


def _is_path(entry: Any) -> bool:
    return isinstance(entry, str) and ("/" in entry or "\\" in entry or "." in entry[-8:])
