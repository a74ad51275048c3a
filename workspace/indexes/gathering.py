"""Items from a dataset folder: by a table, by class folders, or by pairs of image and mask."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from posixpath import join
from typing import Any

from m3dspy.errors import DataError
from m3dspy.workspace.indexes.cases import (
    cases,
    find,
    fixed_folder,
    items,
    left_out,
    natural,
    one_file,
    one_folder,
    patients,
    relative,
    stem,
    within,
)
from m3dspy.workspace.indexes.pairing import pairs
from m3dspy.workspace.indexes.splitting import split_named
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.sources import IMAGE_SUFFIXES, source_of
from m3dspy.workspace.tables import read_table


def from_images(root: Path, *, slices: bool = False) -> list[dict]:
    """Items without a label from every image below a folder, or (slices) from every folder of images.

    Raises: DataError: there is none.
    """
    found = [path for path in find(root, "**/*") if path.lower().endswith(IMAGE_SUFFIXES) or _has_magic(root / path)]
    if not found:
        raise DataError(f"There are no images in {root}. Formats: {', '.join(sorted(IMAGE_SUFFIXES))}.")
    folders: dict[str, list[str]] = defaultdict(list)
    for path in found:
        folders[path.rpartition("/")[0] or "."].append(path)
    named = list(folders.items()) if slices else [(path, path) for path in found]
    return items(named, [None] * len(named), [None] * len(named), slices)


def _has_magic(path: Path) -> bool:
    try:
        source_of(path)
    except ValueError:
        return False
    return True


def from_table(
    root: Path,
    table: str,
    *,
    file_column: str,
    label_column: str,
    images: str,
    labels: Mapping[str, str],
    patient_column: str | None = None,
    patient: str | None = None,
    split_column: str | None = None,
    slices: bool = False,
) -> list[dict]:
    """Items from a table with one row an image.

    `table`: its path, or a pattern that one file matches. `file_column` holds paths, names or stems of the files that
    match `images`. `labels`: cell of `label_column` -> label; other rows are left out. `patient_column`, or `patient`
    as in from_folders. `split_column`: an official split (train, val, test), which split() obeys. `slices`: each folder
    of files is one image, and `file_column` names folders.

    Example: ix.from_table(root, "ADNI1.csv", file_column="Image Data ID", label_column="Group", images="ADNI_PT/*.pt",
                           labels={"CN": "CN", "AD": "AD"}, patient_column="Subject")
    """
    path = one_file(root, table, "table")
    columns, rows = read_table(root / path)
    asked = [named_as_shown(name, columns) for name in (file_column, label_column, patient_column, split_column)]
    check_columns(path, columns, asked)
    file_column, label_column, patient_column, split_column = asked
    wanted = {str(cell).strip(): label for cell, label in labels.items()}
    _check_cells(path, label_column, wanted, Counter(row[label_column].strip() for row in rows))

    found = cases(root, images, slices)
    named_by = namer(found, slices)
    chosen: dict[str, tuple[int, tuple]] = {}
    seen, with_row = set(), set()
    repeats, unlabelled, fileless, nameless = [], [], [], []
    for row in rows:
        cells = tuple(row.values())
        cell = row[file_column]
        case = named_by(cell, f"{path}, row {row.line}") or named_by(cell.strip(), f"{path}, row {row.line}")
        with_row.add(case)
        label = wanted.get(row[label_column].strip())
        person = row[patient_column].strip() if patient_column else None
        if cells in seen:
            repeats.append(f"row {row.line}")
        elif label is None:
            unlabelled.append(f"row {row.line}")
        elif case is None:
            fileless.append(repr(cell))
        elif person == "":
            nameless.append(f"row {row.line}")
        else:
            entry = (label, person, split_named(row[split_column], path) if split_column else None)
            earlier, known = chosen.setdefault(case, (row.line, entry))
            if known != entry:
                raise DataError(
                    f"{path}, rows {earlier} and {row.line} disagree on {case!r}: {_shown(known)} and {_shown(entry)}. "
                    "Choose the column that tells them apart, or leave this image out."
                )
            if earlier != row.line:
                repeats.append(f"row {row.line}")
        seen.add(cells)
    left_out(repeats, "rows that repeat an earlier one")
    left_out(unlabelled, f"rows whose {label_column} is not one of {', '.join(wanted)}")
    left_out(fileless, "rows whose image is not there")
    left_out(nameless, f"rows without {patient_column}")
    left_out([repr(case) for case in found if case not in with_row], "images without a row")
    if not chosen:
        raise DataError(
            f"No labelled row of {path} names a file that matches {images!r}: {file_column} is e.g. "
            f"{next((row[file_column] for row in rows), '')!r}, a file is {next(iter(found))!r}."
        )

    order = sorted(chosen, key=natural)
    label_of, person_of, split_of = zip(*(chosen[case][1] for case in order), strict=True)
    people = person_of if patient_column else patients(order, fixed_folder(images), patient, slices)
    made = items([(case, found[case]) for case in order], label_of, people, slices)
    if not split_column:
        return made
    given = {_key(found[case]): name for case, name in zip(order, split_of, strict=True)}
    return [item | {"split": given[_key(item["image"])]} for item in made]


def from_folders(
    root: Path,
    parent: str,
    *,
    labels: Mapping[str, str],
    images: str,
    patient: str | None = None,
    slices: bool = False,
) -> list[dict]:
    """Items from one folder a class.

    `parent`: a folder, or a pattern that fits one. `labels`: folder below it -> label; others are left out.
    `images`: pattern below the class folder, `**/*.png` for any depth. `patient`: "folder" (the first folder below the
    class), or a regular expression with one group on the file name (on the path, if it holds a /), or None (each image
    its own patient; then call group_lookalikes). `slices`: as in from_table.

    Example: ix.from_folders(root, "CT/data", labels={"Cyst": "cyst", "Normal": "normal"}, images="**/*.jpg")
    """
    parent = one_folder(root, parent, labels)
    image_of, label_of, people = {}, {}, []
    for folder, label in labels.items():
        below = relative(join(parent, folder), "labels")
        here = cases(root, images, slices, below)
        image_of |= here
        label_of |= dict.fromkeys(here, label)
        people += patients(list(here), below, patient, slices)
    taken = {relative(folder, "labels").partition("/")[0] for folder in labels}
    others = [entry.name for entry in within(root, parent).iterdir() if entry.is_dir() and entry.name[0] != "."]
    left_out([repr(name) for name in others if name not in taken], f"folders of {parent!r} that `labels` does not name")
    return items(image_of.items(), label_of.values(), people, slices)


def from_pairs(root: Path, *, images: str, masks: str, patient: str | None = None, slices: bool = False) -> list[dict]:
    """Items from images and their masks, matched case by case.

    Both are patterns. A pair has the same text in place of the wildcards, or the same words in its paths but for those
    that only images or only masks have. `patient`: as in from_folders ("folder": the first below the fixed part of
    `images`). `slices`: as in from_table.

    Example: ix.from_pairs(root, images="Training/img/img#.nii.gz", masks="Training/label/label#.nii.gz")
    """
    mask_of = cases(root, masks, slices=False)
    found = cases(root, images, slices)
    if not slices:
        found = {case: image for case, image in found.items() if case not in mask_of}
    matched = pairs(found, mask_of, images.rpartition("/")[0] if slices else images, masks)
    if slices:
        folders = cases(root, masks, slices=True)
        by_folder = pairs(found, folders, images.rpartition("/")[0], masks.rpartition("/")[0])
        if len(by_folder) > len(matched):
            mask_of, matched = folders, by_folder
    if not matched:
        raise DataError(
            f"No image of {images!r} has a mask in {masks!r}; an image is {next(iter(found), None)!r}, a mask "
            f"{next(iter(mask_of))!r}. Put a wildcard where both name the case."
        )
    paired, used = zip(*matched, strict=True)
    left_out([repr(case) for case in found if case not in set(paired)], "images without a mask")
    left_out([repr(case) for case in mask_of if case not in set(used)], "masks without an image")
    people = patients(paired, fixed_folder(images), patient, slices)
    return items([(case, found[case]) for case in paired], [mask_of[case] for case in used], people, slices)


def _key(image: str | list[str]) -> str:
    return image if isinstance(image, str) else image[0]


def named_as_shown(name: str | None, columns: Iterable[str]) -> Any:
    """The column of that name, also where the fingerprint showed its name cleaned and cut."""
    return (
        name
        if name is None or name in columns
        else next((column for column in columns if clean(column, 60) == name), name)
    )


def check_columns(path: str, columns: Iterable[str], asked: Iterable[str | None]) -> None:
    for name in asked:
        if name is not None and name not in columns:
            near = get_close_matches(name, columns, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise DataError(f"{path} has no column {name!r}.{hint} Columns: {', '.join(map(repr, columns))}.")


def _check_cells(path: str, column: str, wanted: Iterable[str], held: Counter[str]) -> None:
    for cell in wanted:
        if cell not in held:
            shown = ", ".join(f"{value!r} ({count})" for value, count in held.most_common(12))
            raise DataError(f"No row of {path} has {column} = {cell!r}. The column holds {shown}.")


def _shown(entry: tuple) -> str:
    return "/".join(str(part) for part in entry if part is not None)


def namer(found: Iterable[str], slices: bool) -> Callable[[str, str], str | None]:
    """The function that finds the case a table's cell names: by path, by name, or by stem.

    A cell and a case agree when one is the tail of the other, suffixes left out where only one has them or they differ.
    """

    def bare(path: str) -> str:
        return path if slices else path.removesuffix(path.rpartition("/")[2]) + stem(path)

    by_stem: dict[str, list[str]] = defaultdict(list)
    for case in found:
        by_stem[bare(case).rpartition("/")[2]].append(case)

    def is_tail(one: str, other: str) -> bool:
        return f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}")

    def named_by(cell: str, where: str) -> str | None:
        if not cell.strip():
            return None
        path = relative(cell.lstrip("/"), where)
        near = by_stem.get(bare(path).rpartition("/")[2], [])
        hits = [case for case in near if is_tail(case, path)] or [
            case for case in near if is_tail(bare(case), bare(path))
        ]
        if len(hits) > 1:
            raise DataError(f"{where}: {cell!r} names {len(hits)} files, {hits[0]!r} and {hits[1]!r}. Narrow `images`.")
        return hits[0] if hits else None

    return named_by
