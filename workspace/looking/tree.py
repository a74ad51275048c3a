"""A dataset folder walked once, and its image files sorted into families: one format, one pattern of path.

Folders side by side are taken for one family where their names are numbered or vary like patients' (`sub-###`), or are
words and hold the same kind of images (classes). They stay apart where a name says what part the files play
(images and masks, training and test, T1 and T2), or where some hold masks and others do not.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Literal

from m3dspy.errors import DataError
from m3dspy.workspace.indexes.cases import existing, natural
from m3dspy.workspace.patterns import (
    could_be_class,
    is_id,
    is_mask_name,
    is_role,
    is_sequence,
    numbers,
    pattern_of,
    sequence_of,
    shape,
)
from m3dspy.workspace.sources import IMAGE_SUFFIXES, source_of

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip", ".7z", ".rar")
DEPTH = 40  # folders below one another
MOST_CLASSES = 12  # more words side by side are names, unless each of up to 30 folders is large
MOST_LARGE_CLASSES, LARGE = 30, 20
LEAST_SLICES = 5
SAMPLED_FOLDERS = 50
_SUFFIX = re.compile(r"(\.[a-z]{1,4})?(\.[a-z][a-z0-9]{0,6})$", re.IGNORECASE)


@dataclass
class Folder:
    """A folder: its path, the image files in it (name -> reader), and how many images are in and below it."""

    path: str
    images: dict[str, str] = field(default_factory=dict)
    folders: dict[str, "Folder"] = field(default_factory=dict)
    total: int = 0


@dataclass
class Tree:
    """What one walk saw. `passed`: (path, why) of what was passed over."""

    top: Folder
    sizes: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    passed: list[tuple[str, str]] = field(default_factory=list)
    hidden: int = 0


@dataclass(frozen=True)
class Part:
    """One folder of a pattern. "class": its names look like class names; "id": they vary like patients'; "bundle": they
    number the portions of a large set (images_001, images_002).
    """

    pattern: str
    kind: Literal["fixed", "class", "id", "bundle"] = "fixed"


@dataclass
class Family:
    """Image files of one format whose paths follow one pattern, in natural order.

    `stacks`: each folder is one volume. A case is named by its file, or by its folder where `stacks`.
    """

    parts: tuple[Part, ...]
    name: str
    format: str
    files: list[str]
    stacks: bool = False

    @property
    def pattern(self) -> str:
        return "/".join([*(part.pattern for part in self.parts), self.name])

    @property
    def folder(self) -> str:
        """The fixed folder above all files."""
        kinds = [part.kind for part in self.parts] + ["id"]
        end = next(place for place, kind in enumerate(kinds) if kind != "fixed")
        return "/".join(part.pattern for part in self.parts[:end])

    def cases(self) -> dict[str, list[str]]:
        """Case -> its files."""
        if not self.stacks:
            return {file: [file] for file in self.files}
        cases: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            cases[file.rpartition("/")[0]].append(file)
        return cases


# ------------------------------------------------------------------------------------------------ the walk
def scan(root: Path) -> Tree:
    """Every file once. Links that leave the folder, linked folders, pipes, sockets and hidden files are passed over.

    Raises: UsageError: no such folder.  DataError: it cannot be read.
    """
    tree = Tree(Folder(""))
    inside, waiting, order = existing(root).resolve(), [tree.top], []
    while waiting:
        here = waiting.pop()
        order.append(here)
        try:
            with os.scandir(root / here.path) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if here is tree.top:
                raise DataError(f"The folder {root} cannot be read: {error.strerror}.") from None
            tree.passed.append((here.path, f"folders cannot be read ({error.strerror})"))
            continue
        for entry in listed:
            path = f"{here.path}/{entry.name}" if here.path else entry.name
            if why := _passed_over(entry, inside):
                tree.passed.append((path, why))
            elif entry.name.startswith((".", "__MACOSX")):
                tree.hidden += 1
            elif not entry.is_dir(follow_symlinks=False):
                _file(tree, here, entry, path)
            elif path.count("/") < DEPTH:
                here.folders[entry.name] = Folder(path)
                waiting.append(here.folders[entry.name])
            else:
                tree.passed.append((path, f"folders lie more than {DEPTH} deep"))
    for folder in reversed(order):
        folder.total = len(folder.images) + sum(below.total for below in folder.folders.values())
    return tree


def _passed_over(entry: os.DirEntry, inside: Path) -> str:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "names are not valid text"
    if entry.is_symlink():
        target = Path(os.path.realpath(entry.path))
        if not target.is_relative_to(inside):
            return "links leave the dataset folder"
        if not target.is_file():
            return "links lead to folders or to nothing"
    elif not entry.is_dir() and not entry.is_file():
        return "entries are pipes, sockets or devices"
    return ""


def _file(tree: Tree, folder: Folder, entry: os.DirEntry, path: str) -> None:
    tree.sizes[path] = entry.stat().st_size
    suffix = suffix_of(entry.name)
    tree.formats[suffix or "none"] += 1
    if not suffix or suffix in IMAGE_SUFFIXES:
        try:
            folder.images[entry.name] = source_of(entry.path)
            return
        except (ValueError, OSError):
            pass
    if entry.name.lower().endswith(ARCHIVES):
        tree.passed.append((path, "archives are not unpacked where images lie beside them"))
    tree.others.append(path)


def suffix_of(name: str) -> str:
    """`.nii.gz` of `a.v2.nii.gz`; "" where the last part is no suffix but a number, as in DICOM's names."""
    lower = name.lower()
    known = next((suffix for suffix in IMAGE_SUFFIXES if lower.endswith(suffix)), "")
    found = _SUFFIX.search(lower)
    return known or (found[2] if found else "")


# ------------------------------------------------------------------------------------------------ families
IsMask = Callable[[str], bool]
Named = tuple[str, str, str]  # folder, stem, suffix


def families(tree: Tree, is_mask: IsMask) -> list[Family]:
    """The image files by family, the largest first. `is_mask` looks into a file where names do not tell."""
    return sorted(_below([tree.top], (), is_mask), key=lambda family: -len(family.files))


def _below(folders: Sequence[Folder], parts: tuple[Part, ...], is_mask: IsMask) -> Iterator[Family]:
    by_format: dict[str, list[tuple[str, str]]] = defaultdict(list)
    children: dict[str, list[Folder]] = defaultdict(list)
    for folder in folders:
        for name, source in folder.images.items():
            by_format[source].append((folder.path, name))
        for name, child in folder.folders.items():
            if child.total:
                children[name].append(child)
    for source, files in by_format.items():
        yield from _by_name(files, parts, source)
    for part, names in _bunches(children, is_mask):
        yield from _below([child for name in names for child in children[name]], (*parts, part), is_mask)


def _bunches(children: dict[str, list[Folder]], is_mask: IsMask) -> Iterator[tuple[Part, list[str]]]:
    """Folder names that stand side by side, taken together where they mean the same."""
    names = [name for name in children if not is_role(name)]
    roles: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in sorted(set(children) - set(names)):
        roles[(name,) if is_sequence(name) else shape(name)].append(name)
    for alike in roles.values():
        yield (Part(pattern_of(alike), "bundle") if len(alike) > 1 else Part(_literal(alike[0]))), alike
    if len(names) < 2:
        for name in names:
            yield (Part("*", "id") if is_id(name) else Part(_literal(name))), [name]
    elif _could_be_classes({name: children[name] for name in names}):
        kinds: dict[tuple, list[str]] = defaultdict(list)
        for name in names:
            kinds[_kind(children[name], is_mask)].append(name)
        for alike in kinds.values():
            yield (Part("*", "class") if len(alike) > 1 else Part(_literal(alike[0]))), alike
    else:
        shapes: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in names:
            shapes[shape(name)].append(name)
        if len(shapes) > 3 or min(map(len, shapes.values())) < 2:
            shapes = {(): names}
        for alike in shapes.values():
            yield Part(pattern_of(alike), "id"), alike


def _literal(name: str) -> str:
    """A folder's own name, with what a pattern would take for a wildcard as one."""
    return re.sub(r"[*?\[{]", "?", name)


def _could_be_classes(children: dict[str, list[Folder]]) -> bool:
    """Few names, without long numbers, each with several images; names that are mere numbers need many images each."""
    totals = [sum(folder.total for folder in folders) for folders in children.values()]
    few = len(children) <= MOST_CLASSES or (len(children) <= MOST_LARGE_CLASSES and min(totals) >= LARGE)
    if not few or mean(totals) < 2 or not all(map(could_be_class, children)):
        return False
    if len({shape(name) for name in children}) > 1:
        return True
    folders = [folder for found in children.values() for folder in found]
    return mean(totals) >= 10 and not _are_stacks([list(folder.images) for folder in folders])


def _kind(folders: Sequence[Folder], is_mask: IsMask) -> tuple:
    """What siblings have in common if they are classes: the format of their images, and whether these are masks.

    A folder that is called as masks are is asked last: the masks of what is normal may be empty, and look like images.
    """
    waiting = list(folders)
    while waiting:
        folder = waiting.pop()
        for name, source in folder.images.items():
            return source, is_mask(f"{folder.path}/{name}")
        waiting += sorted(folder.folders.values(), key=lambda below: not is_mask_name(below.path.rpartition("/")[2]))
    return ()


def _by_name(files: list[tuple[str, str]], parts: tuple[Part, ...], source: str) -> Iterator[Family]:
    """Families of files in the same folders, by what their names say: mask or image, sequence, and parallel shapes."""
    sets: dict[tuple[bool, str], list[Named]] = defaultdict(list)
    for folder, name in files:
        suffix = name[len(name) - len(suffix_of(name)) :]
        stem = name.removesuffix(suffix)
        sets[is_mask_name(stem), sequence_of(stem)].append((folder, stem, suffix))
    _join_numbered(sets)
    for (marks, sequence), found in sets.items():
        sorts = _by_stem(found) if marks else [found]
        for together in (part for sort in sorts for part in _parallel(sort)):
            suffixes = {suffix for _, _, suffix in together}
            ending = f"{sequence}{suffixes.pop() if len(suffixes) == 1 else '.*'}"
            if len(sorts) > 1:
                pattern = _literal(together[0][1]) + ending.removeprefix(sequence)
            else:
                pattern = pattern_of([stem.removesuffix(sequence) for _, stem, _ in together], ending)
            paths = [f"{folder}/{stem}{suffix}" if folder else stem + suffix for folder, stem, suffix in together]
            stacks = source != "dicom" and _stacks(together, parts)  # DICOM says itself what is a volume
            yield Family(parts, pattern, source, sorted(paths, key=natural), stacks)


def _join_numbered(sets: dict[tuple[bool, str], list[Named]]) -> None:
    """Put files of one name in one folder together: scan_0000 to scan_0009 are numbered cases, not channels of one."""
    for marks in (False, True):
        channels = [key for key in sets if key[0] == marks and key[1][1:].isdigit()]
        names = {(folder, stem.removesuffix(key[1])) for key in channels for folder, stem, _ in sets[key]}
        if len(channels) > 1 and len(names) == 1:
            for key in channels:
                sets[marks, ""] += sets.pop(key)


def _by_stem(files: list[Named]) -> list[list[Named]]:
    """Masks apart by their stem where several lie in each folder under the same few names, as seg4 and seg35 do."""
    folders: dict[str, set[str]] = defaultdict(set)
    for folder, stem, _ in files:
        folders[folder].add(stem)
    stems = set.union(*folders.values())
    every = len(stems) * len(folders) == len(files)
    if len(folders) < 2 or not 1 < len(stems) <= MOST_CLASSES or not every or _numbered_through(sorted(stems)):
        return [files]
    return [[file for file in files if file[1] == stem] for stem in sorted(stems)]


def _parallel(files: list[Named]) -> list[list[Named]]:
    """Files apart where names of another shape repeat their numbers, case by case: x_1 and y_1 in the same folder."""
    shapes: dict[tuple[str, ...], list[Named]] = defaultdict(list)
    for file in files:
        shapes[shape(file[1])].append(file)
    if len(shapes) > MOST_CLASSES:
        return [files]
    clusters: list[tuple[set, list[Named]]] = []
    for found in sorted(shapes.values(), key=len, reverse=True):
        keys = {(folder, *numbers(stem)) for folder, stem, _ in found}
        for taken, members in clusters:
            if 2 * len(keys & taken) <= len(keys):
                taken |= keys
                members += found
                break
        else:
            clusters.append((keys, list(found)))
    return [members for _, members in clusters]


# ------------------------------------------------------------------------------------------------ slice folders
def _stacks(files: list[Named], parts: tuple[Part, ...]) -> bool:
    """Whether each folder is one volume: folders vary like patients', and number their files through."""
    if all(part.kind != "id" for part in parts):
        return False
    folders: dict[str, list[str]] = defaultdict(list)
    for folder, stem, _ in files:
        folders[folder].append(stem)
    every = max(1, len(folders) // SAMPLED_FOLDERS)
    return len(folders) > 1 and _are_stacks(list(folders.values())[::every])


def _are_stacks(folders: Sequence[Sequence[str]]) -> bool:
    """Most folders number their files through, and each anew: files that all folders number in one row are apart."""
    if not folders or median(map(len, folders)) < LEAST_SLICES:
        return False
    stems = [stem for folder in folders for stem in folder]
    if len(folders) > 1 and len(set(stems)) == len(stems) and len({shape(stem) for stem in stems}) == 1:
        return False
    return sum(map(_numbered_through, folders)) >= 0.8 * len(folders)


def _numbered_through(stems: Sequence[str]) -> bool:
    """One number varies, and takes most of the values between its least and its largest."""
    if len({shape(stem) for stem in stems}) > 1 or len(stems) < 2:
        return False
    varying = [place for place in zip(*map(numbers, stems), strict=True) if len(set(place)) > 1]
    if len(varying) != 1:
        return False
    values = list(map(int, varying[0]))
    return len(set(values)) == len(values) and max(values) - min(values) < 1.5 * len(values)
