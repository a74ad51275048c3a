"""Cases of a dataset folder: which files there are, in what order, under which id, of which patient.

A *pattern* is a path relative to the dataset folder: `*` any text within a name, `**` any folders, `?` one character,
`#` any number, `{png,jpg}` one of these. A *case* is a file, or with slices a folder; both are named by their path.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path

from m3dspy.errors import DataError, UsageError

UNREADABLE: set[str] = set()  # ids of cases that an earlier check found damaged: they get no item
_WILDCARD = re.compile(r"\*\*/|\*\*|\*|\?|#+|\[[^\]]+\]|\{[^{}]*\}")
_SUFFIX = re.compile(r"(\.nii\.gz|\.[A-Za-z]\w{0,4})$")


def natural(text: str) -> tuple[list[str | int], str]:
    """The sort key in which slice 2 comes before slice 10."""
    return [int(part) if part.isdigit() else part for part in re.split("([0-9]+)", text.lower())], text


def stem(path: str) -> str:
    """The file name without folder and suffix: `a/img0001.nii.gz` -> `img0001`."""
    name = path.rpartition("/")[2]
    return _SUFFIX.sub("", name) or name


def regex_of(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern, with one group a wildcard."""
    out, end = "", 0
    for found in _WILDCARD.finditer(pattern):
        out += re.escape(pattern[end : found.start()])
        token, end = found.group(), found.end()
        if token == "**/":
            out += "((?:[^/]+/)*)"
        elif token == "**":
            out += "(.*)"
        elif token == "*":
            out += "([^/]*)"
        elif token == "?":
            out += "([^/])"
        elif token[0] == "#":
            out += "([0-9]+|#+)"
        elif token[0] == "[":
            out += "(" + token.replace("[!", "[^") + ")"
        else:
            out += "(?:" + "|".join(re.escape(word) for word in token[1:-1].split(",")) + ")"
    return re.compile(out + re.escape(pattern[end:]), re.DOTALL)


def fixed_folder(pattern: str) -> str:
    """The folders of a pattern before its first wildcard."""
    return "/".join(takewhile(lambda part: not _WILDCARD.search(part), pattern.split("/")[:-1]))


def relative(path: str, said_by: str) -> str:
    """`path` in the one spelling used in an index.

    Raises: DataError: it leaves the dataset folder.
    """
    spelled = path.replace("\\", "/")
    parts = [part for part in spelled.split("/") if part not in ("", ".")]
    if spelled.startswith("/") or ".." in parts:
        raise DataError(f"{said_by} gives {path!r}, which leaves the dataset folder. Give a path relative to it.")
    return "/".join(parts)


def existing(root: Path) -> Path:
    """The dataset folder.

    Raises: UsageError: there is no such folder.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise UsageError(f"{root} {what}. Give the folder that holds the images.")
    return root


def within(root: Path, folder: str) -> Path:
    """A folder of the dataset.

    Raises: DataError: it is not there (with the nearest name that is), or a link leads out of the dataset.
    """
    path = root
    for part in filter(None, folder.split("/")):
        if not (path / part).is_dir():
            here = [entry.name for entry in path.iterdir() if entry.is_dir()] if path.is_dir() else []
            near = get_close_matches(part, here, n=1)
            raise DataError(
                f"There is no folder {folder!r} in the dataset: {part!r} is missing."
                + (f" Did you mean {near[0]!r}?" if near else "")
            )
        path = path / part
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"The folder {folder!r} is a link that leaves the dataset folder; put the files inside it.")
    return path


def _walk(root: Path, folder: str) -> Iterator[str]:
    """Every file below a folder; hidden names, linked folders and links that leave the dataset are passed over."""
    inside, waiting = root.resolve(), [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = list(os.scandir(root / here))
        except OSError as error:
            if here == folder:
                raise DataError(f"The folder {here!r} cannot be read: {error.strerror}.") from None
            continue  # a look names it
        for entry in entries:
            path = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith(".") or not _is_text(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif entry.is_symlink():
                target = Path(os.path.realpath(entry.path))
                if target.is_relative_to(inside) and os.path.isfile(target):  # noqa: PTH113 a circle is no file
                    yield path
            elif entry.is_file():
                yield path


def _is_text(name: str) -> bool:
    """Whether a file name can be written to JSON; names in broken encodings cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def find(root: Path, pattern: str, below: str = "") -> list[str]:
    """Paths of the files that match a pattern, read from the folder `below` on, in natural order.

    Raises: DataError: nothing matches.
    """
    pattern, lead = relative(pattern, "The pattern"), f"{below}/" if below else ""
    folder = (lead + fixed_folder(pattern)).rstrip("/")
    within(root, folder)
    matches = regex_of(pattern).fullmatch
    found = sorted((path for path in _walk(root, folder) if matches(path, len(lead))), key=natural)
    if not found:
        raise DataError(f"No file of the dataset matches {lead + pattern!r}.")
    return found


def one_file(root: Path, pattern: str, what: str) -> str:
    """The path of a file that is named, or fits a pattern alone.

    Raises: DataError: none fits, or several.
    """
    path = relative(pattern, f"The {what}")
    if (root / path).is_file():
        return path
    matches = find(root, path)
    if len(matches) != 1:
        raise DataError(
            f"{len(matches)} files match the {what} {pattern!r}: {', '.join(matches[:5])}. Name one of them."
        )
    return matches[0]


def one_folder(root: Path, pattern: str, holding: Iterable[str]) -> str:
    """The path of a folder that is named, or fits a pattern and holds these folders alone.

    Raises: DataError: none does, or several.
    """
    path = relative(pattern, "The folder")
    if (root / path).is_dir() or not _WILDCARD.search(path):
        return path
    found = [""]
    for part in path.split("/"):
        fits = regex_of(part).fullmatch
        below = [(folder, name) for folder in found for name in _folders(within(root, folder))]
        found = [f"{folder}/{name}".lstrip("/") for folder, name in below if fits(name)]
    wanted = list(holding)
    found = sorted(folder for folder in found if all((root / folder / name).is_dir() for name in wanted))
    if len(found) != 1:
        raise DataError(
            f"{len(found)} folders match {pattern!r} and hold {', '.join(wanted)}: {', '.join(found[:5])}. Name one."
        )
    return found[0]


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."]


def cases(root: Path, pattern: str, slices: bool, below: str = "") -> dict[str, str | list[str]]:
    """Case -> its image: a file is its own image, a slice folder the list of its files in order."""
    files = find(root, pattern, below)
    if not slices:
        return {path: path for path in files}
    folders: dict[str, str | list[str]] = {}
    for path in files:
        folders.setdefault(path.rpartition("/")[0], []).append(path)  # pyright: ignore[reportAttributeAccessIssue]
    return folders


def patients(names: Sequence[str], base: str, rule: str | None, slices: bool) -> list[str | None]:
    """The patient of each case.

    Args:
        names: cases, by path.  base: the folder above them.
        rule: "folder": the first folder below `base`; else a regular expression with one group, searched in the last
            part of the path, or in the whole path where it holds a `/`; None: not known.
        slices: the cases are folders.
    Raises: DataError: a case to which the rule does not apply.
    """
    if rule is None:
        return [None] * len(names)
    if rule == "folder":
        parts = [name.removeprefix(base).strip("/").split("/") for name in names]
        found = [below[0] if len(below) > (not slices) else None for below in parts]
    else:
        try:
            search = re.compile(rule).search
        except re.error as error:
            raise DataError(f"patient={rule!r} is not a regular expression: {error}.") from None
        texts = names if "/" in rule else [name.rpartition("/")[2] for name in names]
        hits = [search(text) for text in texts]
        if any(hit and hit.re.groups != 1 for hit in hits):
            raise DataError(f"patient={rule!r} needs exactly one group, such as r'^(\\d+)_'.")
        found = [hit.group(1) or None if hit else None for hit in hits]
    missed = [name for name, patient in zip(names, found, strict=True) if patient is None]
    if missed:
        raise DataError(
            f"patient={rule!r} finds no patient in {len(missed)} of {len(names)} cases, e.g. {missed[0]!r}."
        )
    return found


def ids(names: Sequence[str], slices: bool = False) -> list[str]:
    """An id for each case: its stem, led by as many folders as tell it from the others; safe as a file name."""
    parts = [[*name.split("/")[:-1], name.split("/")[-1] if slices else stem(name)] for name in names]
    used = [1] * len(names)
    while True:
        out = [_safe("-".join(part[-n:])) for part, n in zip(parts, used, strict=True)]
        times = Counter(text.lower() for text in out)
        longer = [times[text.lower()] > 1 and n < len(part) for text, n, part in zip(out, used, parts, strict=True)]
        if not any(longer):
            return numbered(out)
        used = [n + more for n, more in zip(used, longer, strict=True)]


def _safe(text: str) -> str:
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._") or "case"
    return clean if len(clean) <= 120 else f"{clean[:100]}-{blake2b(text.encode(), digest_size=8).hexdigest()}"


def numbered(texts: Sequence[str]) -> list[str]:
    """The texts, with -2, -3 .. behind those that repeat an earlier one."""
    taken: set[str] = set()
    out = []
    for text in texts:
        unique, number = text, 1
        while unique.lower() in taken:
            number += 1
            unique = f"{text}-{number}"
        taken.add(unique.lower())
        out.append(unique)
    return out


def items(
    images: Iterable[tuple[str, str | list[str]]], labels: Iterable, patients: Iterable[str | None], slices: bool
) -> list[dict]:
    """Items of an index: (case, image) pairs with their labels and patients; an unknown patient is the case itself."""
    images = list(images)
    return [
        {"id": id, "patient": patient or id, "image": image, "label": label}
        for id, (_, image), label, patient in zip(
            ids([name for name, _ in images], slices), images, labels, patients, strict=True
        )
        if id not in UNREADABLE
    ]


def case_of(item: Mapping) -> str:
    """The case of an item: its file, or the folder of its slices."""
    return item["image"] if isinstance(item["image"], str) else item["image"][0].rpartition("/")[0]


def left_out(which: Sequence[str], what: str) -> None:
    """One printed line on what a prepare.py drops, with the first as example; silent where nothing is dropped."""
    if which:
        print(f"left out: {len(which)} {what}, e.g. {which[0]}")
