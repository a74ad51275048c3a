"""What is wrong with a dataset folder, in one line each: told to the person, and kept for the fingerprint."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from m3dspy.signatures.values import Pair
from m3dspy.workspace.looking.columns import FileNames, Seen, is_missing, leaves, names_person
from m3dspy.workspace.looking.measuring import Measured
from m3dspy.workspace.looking.patients import patients_of
from m3dspy.workspace.looking.tree import Tree, suffix_of
from m3dspy.workspace.patterns import clean, masked

MOST = 24  # warnings in a fingerprint
SHOWN = 3  # names in a warning
REASONS = 8  # why files of one group cannot be read
RARE = 0.1  # a kind that fewer files have is chance
HASHED = 4000  # files compared byte by byte


class Notes:
    """Warnings, told with the files' real names and kept with the patterns that stand for them."""

    def __init__(self, notice: Callable[[str], None]):
        self._notice = notice
        self._kept: dict[str, None] = {}
        self.refused: list[str] = []

    def __call__(self, names: Sequence[str], text: str, patterns: Iterable[str] | None = None) -> None:
        """`names: text`. `patterns`: what is shown in place of the names; None where these are no files' names."""
        self._notice(_line([clean(name) for name in names], text))
        if patterns is not None:
            names = [pattern for pattern, _ in Counter(patterns).most_common(SHOWN)]
        self._kept[clean(masked(_line(names, text)), 240)] = None

    def refuse(self, names: Sequence[str], text: str) -> None:
        """`names: text`, for which the dataset cannot be used; it is refused once everything was looked at."""
        self.refused.append(_line([clean(name) for name in names], text).rstrip("."))

    def shown(self) -> tuple[str, ...]:
        """The warnings without files' names."""
        lines = list(self._kept)
        left_out = [f"{len(lines) - MOST} more warnings are not listed."] if len(lines) > MOST else []
        return tuple(lines[:MOST] + left_out)


def _line(names: Sequence[str], text: str) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    lead = f"{', '.join(names[:SHOWN])}{more}: " if names else ""
    return f"{lead}{text.rstrip('.')}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# ------------------------------------------------------------------------------------------------ files
def of_walk(tree: Tree, notes: Notes) -> None:
    """What the walk passed over."""
    whys: dict[str, list[str]] = defaultdict(list)
    for path, why in tree.passed:
        whys[why].append(path)
    for why, paths in whys.items():
        notes(paths, f"left out, {why}", (f"*{suffix_of(path)}" for path in paths))
    if tree.hidden:
        notes((), f"left out, hidden files and folders: {tree.hidden}")


def of_images(found: Measured, notes: Notes) -> None:
    """Files that cannot be read or hold nothing, and what differs from file to file."""
    pattern = found.family.pattern
    whys: dict[str, list[str]] = defaultdict(list)
    for file, why in dict.fromkeys(found.faults):
        whys[clean(why, 160)].append(file)
    for why, files in list(whys.items())[:REASONS]:
        notes(files, why if len(files) == 1 else f"{why} ({len(files)} files)", [pattern])
    if len(whys) > REASONS:
        notes([pattern], f"more files are damaged, for {len(whys) - REASONS} more reasons")
    oversized: dict[str, list[str]] = defaultdict(list)
    for file, why in dict.fromkeys(found.oversized):
        oversized[clean(why, 160)].append(file)
    for why, files in oversized.items():
        notes.refuse(files, why)
    if found.is_mask:
        torn = [found.cases[case][0] for case, seen in found.voxels.items() if len(seen.pool) and not seen.values]
        if torn:
            notes(torn, "is no mask: its values are not few and whole", [pattern])
    if found.series > 1:
        notes([pattern], f"a folder holds up to {found.series} DICOM series; sort them into a folder each")
    kinds = {
        "numbers of dimensions": Counter(len(header.shape) for header in found.headers.values()),
        "numbers of channels": Counter(header.channels for header in found.headers.values()),
        "orientations": Counter(header.orientation for header in found.headers.values() if header.orientation),
        "intensity units": Counter() if found.is_mask else found.units,
    }
    for what, counts in kinds.items():
        if len(counts) > 1 and (counts["HU"] or counts.most_common(2)[1][1] > RARE * counts.total()):
            told = ", ".join(f"{kind}: {count}" for kind, count in counts.most_common(6))
            notes([pattern], f"mixed {what} ({told})")


def of_pair(
    pair: Pair, differ: Sequence[tuple[str, str, str]], lonely: Mapping[str, Sequence[str]], notes: Notes
) -> None:
    """Masks on another grid than their image (image, mask, how they differ), and cases without their other half."""
    for image, mask, how in differ[:SHOWN]:
        notes([image, mask], f"the mask does not fit its image, {how}", [pair.image, pair.mask])
        if how.endswith("voxels"):
            notes.refuse([image, mask], f"the mask does not fit its image, {how}")
    if len(differ) > SHOWN:
        notes([pair.mask], f"{len(differ) - SHOWN} more sampled masks do not fit their images")
    for what, cases in lonely.items():
        if cases:
            notes(cases, f"{what} ({len(cases)})", [pair.image if what.startswith("image") else pair.mask])


# ------------------------------------------------------------------------------------------------ tables
def of_table(seen: Seen, files: FileNames, notes: Notes) -> None:
    """Values of two spellings, rows and files that do not find each other, rows that repeat or disagree on a file."""
    path, column = seen.table.path, seen.file_column
    for described in seen.table.columns:
        spellings: dict[str, list[str]] = defaultdict(list)
        for value in described.values:
            spellings[value.casefold()].append(value)
        for alike in spellings.values():
            if len(alike) > 1:
                notes([path], f"{described.name} spells one value in {len(alike)} ways: {', '.join(sorted(alike))}")
    if seen.table.duplicates:
        notes([path], f"{_count(seen.table.duplicates, 'row')} told twice, word for word")
    if not column:
        return
    cases = seen.cases[column]
    pattern = Counter(files.patterns[case] for case in cases if case).most_common(1)[0][0]
    outside = [row.line for row in seen.rows if leaves(row[column])]
    if outside:
        numbers = ", ".join(f"row {line}" for line in outside[: 2 * SHOWN])
        notes.refuse([path], f"{numbers}: a path that leaves the dataset folder")
    rows = [row[column] for row, case in zip(seen.rows, cases, strict=True) if not case and not is_missing(row[column])]
    if rows:
        notes(rows, f"{_count(len(rows), 'row')} of {path} without a file", [pattern])
    named = set(cases)
    without = [case for case, group in files.patterns.items() if group == pattern and case not in named]
    if without:
        notes(without, f"{_count(len(without), 'file')} without a row in {path}", [pattern])
    naming = column if names_person(seen.names[0]) else seen.names[0]
    for label in seen.labels():
        bare = [row[naming] for row, case in zip(seen.rows, cases, strict=True) if case and is_missing(row[label])]
        if bare:
            notes(bare, f"{_count(len(bare), 'row')} of {path} without {clean(label, 60)}", [pattern])
        told: dict[str, set[str]] = defaultdict(set)
        for row, case in zip(seen.rows, cases, strict=True):
            if case and not is_missing(row[label]):
                told[case].add(row[label].strip())
        torn = [case for case, values in told.items() if len(values) > 1]
        if torn:
            notes(torn, f"rows of {path} disagree on {clean(label, 60)} ({_count(len(torn), 'file')})", [pattern])


# ------------------------------------------------------------------------------------------------ classes
@dataclass(frozen=True)
class Labelled:
    """Cases with their class and patient, as one table or the class folders give them. `where`: for messages."""

    where: str
    classes: Mapping[str, str]
    patients: Mapping[str, str]


def labelled(images: Sequence[Measured], tables: Sequence[Seen]) -> list[Labelled]:
    """Every way in which the folder tells the class of an image."""
    ways = []
    for found in images:
        kinds = [part.kind for part in found.family.parts]
        if "class" in kinds:
            place = kinds.index("class")
            classes = {case: case.split("/")[place] for case in found.cases}
            ways.append(Labelled(f"the folders of {found.family.folder or 'the dataset'}", classes, patients_of(found)))
    of_path = {case: patient for found in images for case, patient in patients_of(found).items()} if tables else {}
    for seen in tables:
        if not seen.file_column:
            continue
        person = next((name for name in seen.names if names_person(name)), None)
        named = [(case, row) for case, row in zip(seen.cases[seen.file_column], seen.rows, strict=True) if case]
        patients = {case: row[person] if person else of_path.get(case, case) for case, row in named}
        for label in seen.labels():
            classes = {case: row[label].strip() for case, row in named if not is_missing(row[label])}
            ways.append(Labelled(f"{clean(label, 60)} of {seen.table.path}", classes, patients))
    return ways


def of_classes(
    root: Path, tree: Tree, ways: Sequence[Labelled], files: Mapping[str, Sequence[str]], notes: Notes
) -> None:
    """One class only, a class of one patient, and the same bytes in two classes. `files`: case -> its files."""
    for way in ways:
        if len(set(way.classes.values())) == 1:
            notes([way.where], _one_class(way))
            continue
        patients: dict[str, set[str]] = defaultdict(set)
        for case, label in way.classes.items():
            patients[label].add(way.patients[case])
        small = [clean(label, 60) for label, found in sorted(patients.items()) if len(found) < 2]
        if small:
            notes([way.where], f"fewer than 2 patients in {', '.join(small[:6])}")
    for way in ways[:1]:
        for one, other in _same_bytes(root, tree, way, files)[:SHOWN]:
            labels = f"{clean(way.classes[one], 60)} and {clean(way.classes[other], 60)}"
            notes([one, other], f"the same image in two classes, {labels}", [way.where])


def of_no_choice(ways: Sequence[Labelled], notes: Notes) -> None:
    """Every way to tell the classes gives one class only."""
    if ways and all(len(set(way.classes.values())) == 1 for way in ways):
        for way in ways:
            notes.refuse([way.where], _one_class(way))


def _one_class(way: Labelled) -> str:
    return f"one class only, {clean(next(iter(way.classes.values())), 60)} ({_count(len(way.classes), 'image')})"


def of_declared(found: Measured, declared: Iterable[int], notes: Notes) -> None:
    """Masks with values that the dataset's own list of labels does not have."""
    known = {0, *declared}
    for case, seen in found.voxels.items():
        if strange := [value for value in seen.values if value not in known]:
            shown = ", ".join(map(str, strange[:6]))
            notes(found.cases[case], f"holds values that dataset.json does not list: {shown}", [found.family.pattern])


def _same_bytes(root: Path, tree: Tree, way: Labelled, files: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Cases of one file whose bytes are the same and whose classes differ."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for case in way.classes:
        if len(files[case]) == 1:
            by_size[tree.sizes[files[case][0]]].append(case)
    alike = [case for size, cases in by_size.items() if size for case in cases if len(cases) > 1]
    seen: dict[bytes, str] = {}
    same = []
    for case in alike[:HASHED]:
        try:
            with (root / files[case][0]).open("rb") as file:
                first = seen.setdefault(blake2b(file.read(1 << 20)).digest(), case)
        except OSError:
            continue  # told where its header is read
        if way.classes[first] != way.classes[case]:
            same.append((first, case))
    return same
