"""What is wrong with an index, told from the index and the files' headers; and an index in numbers."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import numpy as np

from m3dspy.signatures.values import SPLITS, Caps, Index, IndexSummary, Item, Split
from m3dspy.workspace import sources
from m3dspy.workspace.indexes import anomalies, reports
from m3dspy.workspace.indexes.copies import copies

THREADS = 8
MOST_LINES = 20
SAMPLED_MASKS = 24
SEARCHED_MASKS = 200  # training masks that are opened to find a rare label
MOST_VALUES = 64  # more voxel values than that, none of them asked for, are no label map
TOLERANCE = 1e-2  # relative difference of spacings
_NO_CAPS = Caps()


def check_index(index: Index, root: Path, caps: Caps = _NO_CAPS) -> list[str]:
    """Every violation of the contract, one line each with its remedy; [] where the index can be trained on.

    Files are judged by their headers, and up to 24 masks by their voxels. With more than 20 violations, the first of
    every kind come first and the last line counts the rest.
    """
    kinds = [list(kind(index)) for kind in (_splits, _repeats, _patients, _labels, _classes)]
    kinds.append(list(_caps(index, caps)))
    bad_files = _files(index, root)
    kinds.append([line for line in bad_files if line])
    kinds.append(list(_copies(index, root)))
    good = [entry for entry, line in zip(_every(index), bad_files, strict=True) if not line and entry[1].label]
    if index.task == "segmentation":
        kinds.append(list(_voxels(index, root, good)))
    if index.task == "anomaly_detection":
        kinds += [list(anomalies.lists(index)), list(anomalies.empty_masks(root, good))]
    if index.task == "report_generation":
        kinds.append(list(reports.lists(index)))
    return _fair(kinds)


def summary(index: Index) -> IndexSummary:
    """The index in numbers, without a name of a file or patient."""
    per_label = Counter(label for item in index.training for label in _classes_of(item))
    return IndexSummary(
        task=index.task,
        labels=index.labels,
        multilabel=index.multilabel,
        cases={name: len(index.items(name)) for name in SPLITS},
        patients={name: len({item.patient for item in index.items(name)}) for name in SPLITS},
        cases_per_label={} if index.task == "segmentation" else {label: per_label[label] for label in index.labels},
        with_mask=sum(item.mask is not None for item in index.training),
    )


def _fair(kinds: Sequence[Sequence[str]]) -> list[str]:
    lines = [line for kind in kinds for line in kind]
    if len(lines) <= MOST_LINES:
        return lines
    in_turn = [line for turn in zip_longest(*kinds) for line in turn if line is not None]
    return [*in_turn[:MOST_LINES], f"and {len(lines) - MOST_LINES} more"]


def _every(index: Index) -> Iterator[tuple[Split, Item]]:
    return ((name, item) for name in SPLITS for item in index.items(name))


def _paths(image: str | tuple[str, ...]) -> tuple[str, ...]:
    return (image,) if isinstance(image, str) else image


def _classes_of(item: Item) -> tuple[str, ...]:
    return (item.label,) if isinstance(item.label, str) else item.label or ()


# ------------------------------------------------------------------------------------------------ lists
def _splits(index: Index) -> Iterator[str]:
    for name in SPLITS:
        if not index.items(name):
            yield f"The list {name!r} is empty: give it at least one case, by split()."


def _repeats(index: Index) -> Iterator[str]:
    for id, times in Counter(item.id for _, item in _every(index)).items():
        if times > 1:
            yield f"The id {id!r} is given to {times} cases: give each its own."
    where: dict[tuple[str, ...], list[Split]] = defaultdict(list)
    for name, item in _every(index):
        where[_paths(item.image)].append(name)
    for paths, names in where.items():
        if len(names) > 1:
            yield f"The image {paths[0]!r} is listed {len(names)} times, in {_and(names)}: keep it once."


def _patients(index: Index) -> Iterator[str]:
    where: dict[str, list[Split]] = defaultdict(list)
    for name, item in _every(index):
        where[item.patient].append(name)
    for patient, names in where.items():
        if len(set(names)) > 1:
            yield f"Patient {patient!r} is in {_and(names)}: split by patient, with split()."
    if 0 < len(where) < 2:
        yield "All cases belong to one patient: at least 3 are needed, one a list. Check how patients are told apart."


def _and(names: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _caps(index: Index, caps: Caps) -> Iterator[str]:
    limits: dict[Split, int | None] = {"training": caps.training, "test": caps.test}
    for name, most in limits.items():
        if most is not None and len(index.items(name)) > most:
            yield f"{name} holds {len(index.items(name))} cases, the cap is {most}: call cap() before write_index()."


# ------------------------------------------------------------------------------------------------ labels
def _labels(index: Index) -> Iterator[str]:
    if len(set(index.labels)) < len(index.labels):
        yield f"labels repeats a name: {', '.join(index.labels)}."
    if index.task == "segmentation":
        if len(index.values) != len(index.labels) or len(set(index.values)) < len(index.values) or 0 in index.values:
            yield f"values {list(index.values)} must give each of {len(index.labels)} labels its own value, never 0."
        elif index.multilabel and any(value < 0 or value.bit_count() != 1 for value in index.values):
            yield f"values {list(index.values)} must be powers of two where labels overlap (multilabel): 1, 2, 4, ..."
        for name, item in _every(index):
            if not item.label:
                yield f"{item.id} in {name} has no mask: leave it out."
        return
    if index.task == "report_generation":
        return
    if len(index.labels) < 2 and not index.multilabel:
        yield f"{', '.join(index.labels)!r} is the only class: nothing can be told apart. Give at least two labels."
    wanted = "a list of class names (multilabel)" if index.multilabel else "one class name"
    for name, item in _every(index):
        if item.label is None or isinstance(item.label, str) == index.multilabel:
            yield f"The label of {item.id} in {name} is {item.label!r}, not {wanted}."
        for label in _classes_of(item):
            if label not in index.labels:
                yield f"{item.id} has the label {label!r}, which is not in labels {list(index.labels)}: map or drop it."


def _classes(index: Index) -> Iterator[str]:
    if index.task != "classification":
        return
    for label in index.labels:
        people = {name: {i.patient for i in index.items(name) if label in _classes_of(i)} for name in SPLITS}
        count = len(set().union(*people.values()))
        if count < 2:
            yield f"Class {label!r} has {count} patients, at least 2 are needed: correct its mapping or leave it out."
        elif not people["training"]:
            yield f"Class {label!r} is missing from training: split by label, with split()."
        elif not people["test"]:
            yield f"Class {label!r} is missing from test: split by label, with split()."


# ------------------------------------------------------------------------------------------------ files
def _files(index: Index, root: Path) -> list[str]:
    """What is wrong with the files of each item, "" where nothing is."""
    outside = _outside(root)

    def wrong(item: Item) -> str:
        try:
            if line := _wrong_paths(item, _masks(index, item), root, outside):
                return line
            if index.task == "anomaly_detection":
                return anomalies.wrong_headers(item, root)
            return _wrong_headers(item, index.task == "segmentation", root)
        except (ValueError, OSError) as error:
            return f"{item.id} cannot be read: {error}. Leave it out."

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(wrong, [item for _, item in _every(index)]))


def _masks(index: Index, item: Item) -> tuple[str, ...]:
    """The files that mark something in an image."""
    if index.task == "segmentation":
        return _classes_of(item)
    return (item.mask,) if item.mask else ()


def _outside(root: Path) -> Callable[[str], bool]:
    """The function that tells whether a path of an index leads out of the dataset, by `..` or by a link."""
    top = os.path.realpath(root)
    real_folder = lru_cache(maxsize=None)(os.path.realpath)

    def outside(path: str) -> bool:
        full = os.path.join(top, path)  # noqa: PTH118
        folder, name = os.path.split(full)
        real = os.path.join(real_folder(folder), name)  # noqa: PTH118
        real = os.path.realpath(real) if os.path.islink(real) else real  # noqa: PTH114
        return ".." in path.split("/") or not real.startswith(top + os.sep)

    return outside


def _wrong_paths(item: Item, masks: Sequence[str], root: Path, outside: Callable[[str], bool]) -> str:
    for path in (*_paths(item.image), *masks):
        if outside(path):
            return f"{item.id}: {path!r} leaves the dataset folder; paths are relative to it."
        if not (root / path).is_file():
            return f"{item.id}: {path!r} is not there; leave the case out or correct the path."
    return ""


def _wrong_headers(item: Item, segmentation: bool, root: Path) -> str:
    if not segmentation or not item.label:
        sources.header(root / _paths(item.image)[0])
        return ""
    image, mask = sources.header(_full(root, item.image)), sources.header(_full(root, item.label))
    for what in ("shape", "spacing", "orientation"):
        one, other = getattr(image, what), getattr(mask, what)
        if what == "spacing" and one and other:
            same = np.allclose(one, other, rtol=TOLERANCE, atol=0) if len(one) == len(other) else False
        else:
            same = one == other or (what != "shape" and not (one and other))
        if not same:
            return (
                f"{item.id}: the image has {what} {one}, its mask {other}. Pair it with its own mask or leave it out."
            )
    return ""


def _full(root: Path, paths: str | tuple[str, ...]) -> Path | list[Path]:
    return root / paths if isinstance(paths, str) else [root / path for path in paths]


def _copies(index: Index, root: Path) -> Iterator[str]:
    for (name, item), *others in copies(index, root):
        other_name, other = next(entry for entry in others if entry[0] != name)
        yield (
            f"{item.id} in {name} and {other.id} in {other_name} are the same image, byte for byte: leave one of them "
            "out, or keep them in one split, with group_lookalikes()."
        )


# ------------------------------------------------------------------------------------------------ voxels
def _voxels(index: Index, root: Path, good: Sequence[tuple[Split, Item]]) -> Iterator[str]:
    """What the masks hold: no values but those of a label map, and every label somewhere in training."""
    sample = good[:: -(-len(good) // SAMPLED_MASKS) or 1]
    missing, seen = set(index.values), set()

    def held(entry: tuple[Split, Item]) -> set[float] | str:
        try:
            return _values(sources.read(_full(root, entry[1].label or ""))[0], index.multilabel)
        except (ValueError, OSError) as error:
            return f"{entry[1].id}: its mask cannot be read: {error}. Leave it out."

    with ThreadPoolExecutor(THREADS) as pool:
        for (name, item), values in zip(sample, pool.map(held, sample), strict=True):
            if isinstance(values, str):
                yield values
                continue
            strange = sorted(values - {0, *index.values})
            if len(strange) > MOST_VALUES or any(value != int(value) for value in strange):
                yield (
                    f"{item.id}: its mask holds {len(strange)} values that are not in values {list(index.values)}, "
                    f"such as {strange[0]:g} and {strange[-1]:g}; it is no label map. Leave it out."
                )
            seen |= values
            missing -= values if name == "training" else set()
    opened = {item.id for _, item in sample}
    others = [entry for entry in good if entry[0] == "training" and entry[1].id not in opened]
    for entry in others[:SEARCHED_MASKS]:
        if not missing:
            return
        values = held(entry)
        missing -= values if isinstance(values, set) else set()
    for label, value in zip(index.labels, index.values, strict=False):
        if value in missing:
            shown = ", ".join(f"{number:g}" for number in sorted(seen)[:MOST_VALUES])
            yield f"No mask of training holds {label!r} (voxel value {value}); masks hold {shown}. Correct values."


def _values(mask: np.ndarray, multilabel: bool) -> set[float]:
    """The values of a mask, or its bits; NaN, which no label has, as 0.5."""
    if mask.dtype.kind == "f":
        mask = np.nan_to_num(mask, nan=0.5)
    if mask.dtype.itemsize > 2 and mask.min() >= 0 and mask.max() < 65536:
        whole = mask.astype(np.uint16)  # sorts ten times faster
        mask = whole if np.array_equal(whole, mask) else mask
    found = set(np.unique(mask).tolist())
    if multilabel and all(value >= 0 and value == int(value) for value in found):
        return {float(1 << bit) for value in found for bit in range(int(value).bit_length()) if int(value) >> bit & 1}
    return found
