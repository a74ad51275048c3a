"""Look at a dataset folder: what an expert would note before planning, with no pixel and no patient in it.

    fingerprint = look(root, notice=print)

What a language model gets to see is the fingerprint: in it names are patterns, identifiers are masked, and text from
files is cleaned and short. What the person gets to see are the notices: the same warnings, with the files' real names.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError
from m3dspy.signatures.values import ClassFolders, Document, Fingerprint, Pair
from m3dspy.workspace import sources
from m3dspy.workspace.indexes.pairing import pairs
from m3dspy.workspace.looking import findings
from m3dspy.workspace.looking.columns import FileNames, files_named, look_at
from m3dspy.workspace.looking.documents import MAX_BYTES, document, is_document, is_records
from m3dspy.workspace.looking.findings import Notes
from m3dspy.workspace.looking.measuring import Measured, group_of, lookalikes, looks_like_mask, measure, spread
from m3dspy.workspace.looking.patients import patient_keys
from m3dspy.workspace.looking.tree import Family, Tree, families, scan, suffix_of
from m3dspy.workspace.patterns import clean, is_role, masked, word_set, words
from m3dspy.workspace.private import TOKEN, Private, hidden, hiding, of_dicom, of_json, of_rows, of_text
from m3dspy.workspace.tables import TABLE_SUFFIXES, Table, cases_of, read_json, read_table

MOST = 12  # groups, tables, pairs ... that a fingerprint holds
MOST_TEXTS = 4 * MOST  # tables and documents that are read
COMPARED = 24  # pairs whose grids are compared
TOLERANCE = 0.01  # relative difference of spacings
DESCRIBING = word_set("label labels class classes dataset annotation annotations truth groundtruth metadata")
SAMPLED_HEADERS = 2000  # DICOM files whose tags are searched for persons
PATHS = word_set("pattern folder path names_files image mask parent table part")


def look(
    root: Path,
    *,
    sample: int = 200,
    notice: Callable[[str], None] = lambda line: None,
    private: Private | None = None,
) -> Fingerprint:
    """What the folder holds: groups of images, tables, class folders, pairs, patient keys, documents, warnings.

    Args:
        sample: files of each group whose headers are read, evenly spread; voxels are read of as many of these as make
            24 MB on disk, five at least.
        notice: called with each warning as the person should read it, with the files' real names.
        private: is given what could tell who a patient is, before the folder is found to be of no use, too; in the
            fingerprint tokens stand for it.
    Raises:
        UsageError: there is no such folder.  DataError: it is empty, holds no image that can be read, or cannot be
            trained on: every file and row that stands against it is named.
    """
    root = Path(root)
    notes = Notes(notice)
    tree = scan(root)
    findings.of_walk(tree, notes)
    _check_images(root, tree)
    raw, documents, damaged = _texts(root, tree, notes)
    if private is not None:
        _of_texts(root, tree, raw, private)
    found = _measured(root, tree, raw, sample, notes)
    images = [measured for measured in found if not measured.is_mask]
    if private is not None:
        _of_headers(root, images, private)
    if declared := _declared(root, tree):
        for measured in found:
            if measured.is_mask:
                findings.of_declared(measured, declared, notes)
    files = FileNames([m.family for m in found], {m.family.pattern for m in found if m.is_mask})
    tables = [look_at(clean(masked(path)), *table, files) for path, table in raw.items()]
    for seen in tables:
        findings.of_table(seen, files, notes)
    parts = {
        "groups": [group_of(measured) for measured in found],
        "tables": [seen.table for seen in tables],
        "pairs": _pairs(root, found, notes),
        "class_folders": _class_folders(images),
        "patients": patient_keys(root, images, tables),
        "documents": documents,
    }
    cases = {case: paths for measured in images for case, paths in measured.cases.items()}
    ways = findings.labelled(images, tables)
    findings.of_classes(root, tree, ways, cases, notes)
    if not parts["pairs"]:
        findings.of_no_choice(ways, notes)
    for path, error in damaged.items():
        if DESCRIBING.intersection(words(Path(path).stem)) or not (ways or parts["pairs"]):
            notes.refuse((), error)
    if notes.refused:
        raise DataError(f"{root} cannot be used: {'; '.join(notes.refused)}. Correct or remove what is named.")
    for what, values in parts.items():
        if len(values) > MOST:
            notes((), f"{len(values) - MOST} more {what.replace('_', ' ')} are not listed")
    found_out = Fingerprint(
        files=len(tree.sizes),
        megabytes=round(sum(tree.sizes.values()) / 1e6, 2),
        formats=dict(tree.formats.most_common(MOST)),
        lookalikes=sum(map(lookalikes, images)),
        warnings=notes.shown(),
        **{what: tuple(values[:MOST]) for what, values in parts.items()},  # pyright: ignore[reportArgumentType]
    )
    if private is None:
        return found_out
    private.protect(label for way in ways for label in set(way.classes.values()))
    private.protect(part for path in tree.sizes for part in path.split("/")[:-1] if is_role(part))
    with hiding(private):
        return Fingerprint.model_validate(_without_tokens(hidden(found_out.model_dump())))


def _of_texts(root: Path, tree: Tree, raw: Mapping[str, Table], private: Private) -> None:
    """Gather what tables and documents say of persons."""
    for columns, rows in raw.values():
        of_rows(private, columns, rows)
    texts = [path for path in tree.others if is_document(path) and path not in raw and tree.sizes[path] <= MAX_BYTES]
    for path in sorted(texts, key=lambda path: (path.count("/"), path))[:MOST_TEXTS]:
        with suppress(DataError, OSError):
            if suffix_of(path) == ".json":
                of_json(private, read_json(root / path))
            else:
                of_text(private, (root / path).read_bytes().decode("utf-8", "replace"))


def _of_headers(root: Path, images: Sequence[Measured], private: Private) -> None:
    """Gather what DICOM headers say of persons."""
    files = [file for measured in images if measured.family.format == "dicom" for file in measured.family.files]
    if files:
        of_dicom(private, [root / file for file in spread(files, SAMPLED_HEADERS)])


def _without_tokens(value: Any, path: bool = False) -> Any:
    """Paths with a wildcard for each token: they are patterns, by which the files are found again."""
    if isinstance(value, dict):
        return {key: _without_tokens(entry, key in PATHS) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_without_tokens(entry, path) for entry in value)
    return TOKEN.sub("*", value) if path and isinstance(value, str) else value


def _check_images(root: Path, tree: Tree) -> None:
    if not tree.sizes:
        raise DataError(f"{root} is empty. Give the folder that holds the images.")
    if not tree.top.total:
        held = ", ".join(f"{count} {suffix}" for suffix, count in tree.formats.most_common(5))
        known = " ".join(sorted(sources.IMAGE_SUFFIXES))
        raise DataError(f"{root} holds no images, but {held}. Known formats: {known}. Unpack archives first.")


def _measured(root: Path, tree: Tree, raw: Mapping[str, Table], sample: int, notes: Notes) -> list[Measured]:
    """The families of which an image can be read, the largest first.

    Raises: DataError: there is none.
    """
    sorted_out = families(tree, lambda file: looks_like_mask(root, file))
    found = []
    for family in sorted_out:
        single = _named_singly(family, raw)
        family = replace(family, stacks=False) if single else family
        found.append(measure(root, family, tree.sizes, sample, series=not single))
    for measured in found:
        findings.of_images(measured, notes)
    readable = [measured for measured in found if measured.headers]
    if not readable:
        file, wrong = (*found[0].oversized, *found[0].faults)[0]
        raise DataError(f"No image in {root} can be read: {clean(file)} {clean(wrong)}. Give whole images.")
    return readable


def _named_singly(family: Family, raw: Mapping[str, Table]) -> bool:
    """Whether a table names the files one by one: then they are pictures, even where folders look like volumes."""
    if not raw or not (family.stacks or family.format == "dicom"):
        return False
    files = FileNames([replace(family, stacks=False)])
    named = (files_named(rows, column, files) for columns, rows in raw.values() for column in columns)
    return any(2 * len(set(cases)) > len(family.files) for cases in named)


def _texts(root: Path, tree: Tree, notes: Notes) -> tuple[dict[str, Table], list[Document], dict[str, str]]:
    """The tables by path, and the documents, those that lie highest first; and what is wrong with damaged ones."""
    tables: dict[str, Table] = {}
    documents: list[Document] = []
    damaged: dict[str, str] = {}
    wanted = [path for path in tree.others if suffix_of(path) in TABLE_SUFFIXES or is_document(path)]
    wanted, beside = _without_companions(wanted, tree)
    if beside:
        notes((), f"{beside} tables and documents that lie beside single cases are not read")
    if len(wanted) > MOST_TEXTS:
        notes((), f"{len(wanted) - MOST_TEXTS} more tables and documents are not read")
    for path in sorted(wanted, key=lambda path: (path.count("/"), path))[:MOST_TEXTS]:
        suffix = suffix_of(path)
        try:
            said = read_json(root / path) if suffix == ".json" else None
            if suffix in TABLE_SUFFIXES and (suffix != ".json" or is_records(said) or cases_of(said)):
                tables[path] = read_table(root / path)
            if path not in tables or cases_of(said):  # a list of cases may say more, such as what labels are called
                documents += filter(None, [document(root, path)])
        except (DataError, OSError) as error:
            damaged[path] = f"{path.removesuffix(Path(path).name)}{error}".rstrip(".")
            notes((), damaged[path])
    return tables, documents, damaged


def _without_companions(paths: Sequence[str], tree: Tree) -> tuple[list[str], int]:
    """The files less those that each case has beside its image (`sub-004_ct.nii`, `sub-004_ctd.json`), of which one is
    kept; and how many less."""

    def numbered(path: str) -> str:
        return re.sub(r"\D*$", "", path)

    images = {numbered(path) for path in tree.sizes if suffix_of(path) in sources.IMAGE_SUFFIXES}
    alike: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        lead = numbered(path)
        alike[path.removeprefix(lead) if lead in images and "/" not in path.removeprefix(lead) else path].append(path)
    kept = [path for found in alike.values() for path in (found[:1] if len(found) > MOST else found)]
    return kept, len(paths) - len(kept)


def _declared(root: Path, tree: Tree) -> list[int]:
    """The voxel values that a dataset.json lists under "labels", in either direction; [] where there is none."""
    try:
        listed = read_json(root / "dataset.json") if "dataset.json" in tree.others else None
    except (DataError, OSError):
        return []
    labels = listed.get("labels") if isinstance(listed, dict) else None
    said = [str(side) for pair in labels.items() for side in pair] if isinstance(labels, dict) else []
    return [int(word) for word in said if word.isdigit()]


# ------------------------------------------------------------------------------------------------ what belongs together
def _class_folders(images: Sequence[Measured]) -> list[ClassFolders]:
    classes: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for measured in images:
        parts = measured.family.parts
        place = next((i for i, part in enumerate(parts) if part.kind != "fixed"), len(parts))
        if place < len(parts) and parts[place].kind == "class":
            counts = classes[measured.family.folder, len(parts) - place - 1]
            counts.update(clean(case.split("/")[place], 60) for case in measured.cases)
    return [
        ClassFolders(parent=parent, classes=dict(counts.most_common()), levels=levels)
        for (parent, levels), counts in classes.items()
    ]


def _pairs(root: Path, found: Sequence[Measured], notes: Notes) -> list[Pair]:
    """Each image group with the masks that fit it best, and each mask group with the images; all of those that tie."""
    images, masks = [m for m in found if not m.is_mask], [m for m in found if m.is_mask]
    matched = {
        (i, j): pairs(image.cases, mask.cases, _case_pattern(image.family), _case_pattern(mask.family))
        for i, image in enumerate(images)
        for j, mask in enumerate(masks)
        if image.dims == mask.dims
    }

    def fit(pair: tuple[int, int]) -> tuple[int, bool, int]:
        """How many cases match, whether the first is on one grid, and how much else the names share."""
        image, mask = images[pair[0]], masks[pair[1]]
        same_grid = bool(matched[pair]) and not _difference(root, image, matched[pair][0][0], mask, matched[pair][0][1])
        shared = set(words(image.family.name)) & set(words(mask.family.name))
        return len(matched[pair]), same_grid, len(shared)

    fits = {pair: fit(pair) for pair in matched if matched[pair]}
    best = [{n: max(fits[p] for p in fits if p[side] == n) for n in {p[side] for p in fits}} for side in (0, 1)]
    served = {mask for mask, (_, same_grid, _) in best[1].items() if same_grid}
    chosen = [(i, j) for (i, j), how in fits.items() if how in (best[0][i], best[1][j]) and (how[1] or j not in served)]
    return [_pair(root, images[i], masks[j], matched[i, j], notes) for i, j in sorted(chosen)]


def _case_pattern(family: Family) -> str:
    return family.pattern.rpartition("/")[0] if family.stacks else family.pattern


def _pair(root: Path, image: Measured, mask: Measured, matched: list[tuple[str, str]], notes: Notes) -> Pair:
    sampled = spread(matched, COMPARED)
    differ = [(one, other, how) for one, other in sampled if (how := _difference(root, image, one, mask, other))]
    used = {case for couple in matched for case in couple}
    lonely = {
        "images without a mask": [case for case in image.cases if case not in used],
        "masks without an image": [case for case in mask.cases if case not in used],
    }
    held = Counter(value for seen in mask.voxels.values() for value in seen.values)
    pair = Pair(
        image=image.family.pattern,
        mask=mask.family.pattern,
        matched=len(matched),
        images_without_mask=len(lonely["images without a mask"]),
        masks_without_image=len(lonely["masks without an image"]),
        mismatched=len(differ),
        values={str(value): count for value, count in sorted(held.items())},
    )
    findings.of_pair(pair, differ, lonely, notes)
    return pair


def _difference(root: Path, image: Measured, one: str, mask: Measured, other: str) -> str:
    """How the grids of an image and its mask differ, or "". A file that cannot be read is told elsewhere."""
    try:
        first, second = (
            measured.headers.get(case) or sources.header(measured.paths(root, case))
            for measured, case in ((image, one), (mask, other))
        )
    except (ValueError, OSError):
        return ""
    if first.shape != second.shape:
        return f"{' x '.join(map(str, first.shape))} and {' x '.join(map(str, second.shape))} voxels"
    if first.spacing and second.spacing:
        if any(abs(a - b) > TOLERANCE * a for a, b in zip(first.spacing, second.spacing, strict=True)):
            return f"spacing {first.spacing} and {second.spacing} mm"
        if first.orientation != second.orientation:
            return f"axes {first.orientation} and {second.orientation}"
    return ""
