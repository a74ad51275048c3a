"""COCO: pictures with a JSON of outlines, run lengths or boxes, drawn as masks by pycocotools.

Boxes are drawn full where an object has no outline, and that is said: such masks show where, not in which shape. Labels
that overlap keep a bit each. The split is that of the JSON's name or folder (`instances_train2017.json`); a list of all
pictures beside such lists adds those that they leave out. A list without annotations, as of a hidden test, is left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import join, normpath
from typing import Any

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.tables import read_json
from m3dspy.workspace.unpacking._plain import (
    Plain,
    folders_split,
    mark,
    size_of,
    split_of,
    understood,
    values_of,
    walk,
)

HOLDS_IMAGES = False
_NAMED = re.compile(r"instances|annotation|coco", re.IGNORECASE)
BOXES = "The annotations are boxes, drawn as masks: they show where something is, not its outline, area or volume."


@dataclass
class _Picture:
    """A picture in a list. `size`: rows and columns as said, else 0; `marks`: (label, annotation)."""

    listed: str
    split: Split | None
    size: tuple[int, int]
    marks: list[tuple[str, Mapping[str, Any]]]


def found(root: Path) -> bool:
    return bool(_lists(root))


def unpack(root: Path, plain: Plain) -> bool:
    said = {path: data for path in _lists(root) if _is_coco(data := read_json(root / path))}
    if not any(data["annotations"] for data in said.values()):
        return False
    files: dict[str, list[str]] = defaultdict(list)
    for path in walk(root):
        if path.lower().endswith(IMAGE_SUFFIXES):
            files[path.rpartition("/")[2]].append(path)
    pictures: dict[str, _Picture] = {}
    hidden: dict[str, Split | None] = {}
    labels, missing = set[str](), 0
    for path in sorted(said, key=lambda path: _split(path) is None):
        with understood(path):
            labels.update(_name(category) for category in said[path]["categories"])
            listed, lacking = _pictures(path, said[path], files)
        missing += lacking
        for source, picture in listed.items():
            if said[path]["annotations"]:
                _add(pictures, source, picture)
            else:
                hidden[source] = picture.split
    if not pictures:
        raise DataError(f"None of the {missing} images that {', '.join(said)} names is there. Put the pictures beside.")
    values = values_of(labels)
    plain.labels(values)
    for source, picture in pictures.items():
        mask = _mask(root, source, picture, values, plain)
        kept = plain.keep(source)
        place = plain.array(kept.removeprefix("images/").rpartition(".")[0], mask, "masks")
        plain.pair(kept, place, picture.split or "training")
    plain.how.append(BOXES if plain.boxes else "The outlines were drawn as masks.")
    if missing:
        plain.how.append(f"{missing} images that the annotations name are not there.")
    for split, count in Counter(split for source, split in hidden.items() if source not in pictures).items():
        plain.how.append(f"{count} images of {split or 'a list'} have no annotations: left out.")
    return True


def _lists(root: Path) -> list[str]:
    return [path for path in walk(root) if path.lower().endswith(".json") and _NAMED.search(path)]


def _is_coco(data: Any) -> bool:
    lists = [data.get(key) for key in ("images", "annotations", "categories")] if isinstance(data, dict) else []
    return bool(lists) and all(isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in lists)


def _name(category: Mapping[str, Any]) -> str:
    return clean(category["name"], 60)


def _split(path: str) -> Split | None:
    return split_of(path.rpartition("/")[2]) or split_of(path)


def _pictures(path: str, data: Any, files: Mapping[str, Sequence[str]]) -> tuple[dict[str, _Picture], int]:
    """The pictures that a list names, by their files; and how many are not there."""
    labels = {category["id"]: _name(category) for category in data["categories"]}
    marks: dict[Any, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for annotation in data["annotations"]:
        if annotation["category_id"] not in labels:
            raise ValueError(f"annotation {annotation.get('id')} is of a category that is not listed")
        marks[annotation["image_id"]].append((labels[annotation["category_id"]], annotation))
    named: dict[str, _Picture] = {}
    missing = 0
    for image in data["images"]:
        source = _source(str(image["file_name"]), path, files)
        if source is None:
            missing += 1
            continue
        size = int(image.get("height") or 0), int(image.get("width") or 0)
        _add(named, source, _Picture(path, _split(path), size, marks[image["id"]]))
    return named, missing


def _add(pictures: dict[str, _Picture], source: str, picture: _Picture) -> None:
    """Add a picture; one that is known gets the marks, unless only the first list says its split.

    Raises: DataError: the lists put it into different splits.
    """
    known = pictures.setdefault(source, picture)
    if known is picture or (known.split and not picture.split):
        return
    if known.split != picture.split:
        raise DataError(
            f"{source} is {known.split} in {known.listed} and {picture.split} in {picture.listed}. Keep it in one."
        )
    known.marks += [mark for mark in picture.marks if mark not in known.marks]


def _source(name: str, path: str, files: Mapping[str, Sequence[str]]) -> str | None:
    """The file of the dataset that a list names: from the list's folder, or the only one of that name or path's end."""
    near = files.get(name.rpartition("/")[2], ())
    beside = normpath(join(path.rpartition("/")[0], name))
    if beside in near:
        return beside
    fits = [file for file in near if f"/{file}".endswith(f"/{name.lstrip('./')}")]
    part = split_of(path)
    same = [file for file in fits if part and folders_split(file) == part] or fits
    return same[0] if len(same) == 1 else None


def _mask(root: Path, source: str, picture: _Picture, values: Mapping[str, int], plain: Plain) -> np.ndarray:
    """The mask of a picture: (rows, columns).

    Raises: DataError: the picture has another size than the list says, or a mark cannot be drawn.
    """
    rows, columns = size_of(root, source)
    height, width = picture.size
    if (height or rows, width or columns) != (rows, columns):
        raise DataError(
            f"{source} is {columns} x {rows} pixels, {picture.listed} says {width} x {height}: the marks would lie "
            "elsewhere. Give the pictures that were annotated."
        )
    mask = np.zeros((rows, columns), np.uint8 if sum(values.values()) < 256 else np.uint16)
    for label, annotation in picture.marks:
        try:
            where, is_box = _drawn(annotation, rows, columns)
            mark(mask, where, values[label], len(values))
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise DataError(f"Annotation {clean(annotation.get('id'), 20)} of {source}: {clean(error)}.") from None
        plain.boxes |= is_box
    return mask


def _drawn(annotation: Mapping[str, Any], rows: int, columns: int) -> tuple[np.ndarray, bool]:
    """Where an object is; and whether that is a box only."""
    from pycocotools import mask

    runs: Any = mask  # its types know of no list of outlines
    outline = annotation.get("segmentation")
    if not outline:
        left, top, width, height = map(float, annotation["bbox"])
        return boxed(left, top, left + width, top + height, rows, columns), True
    if isinstance(outline, list):
        found = runs.merge(runs.frPyObjects([_inside(polygon, rows, columns) for polygon in outline], rows, columns))
    else:
        if list(outline["size"]) != [rows, columns]:
            raise ValueError(f"its outline is {outline['size']} pixels, the image {rows} x {columns}")
        plain = isinstance(outline["counts"], list)
        if plain and sum(outline["counts"]) != rows * columns:
            raise ValueError("its run lengths do not fill the image")
        found = runs.frPyObjects(dict(outline), rows, columns) if plain else dict(outline)
    return runs.decode(found).astype(bool), False


def _inside(polygon: Sequence[Any], rows: int, columns: int) -> list[float]:
    """The corners x1, y1, x2, y2 ... of a polygon, moved to the edge where they lie outside of the picture."""
    corners = np.array(polygon, float).reshape(-1, 2)
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise ValueError("its outline is no polygon of three corners or more")
    return np.clip(corners, 0, (columns, rows)).ravel().tolist()


def boxed(left: float, top: float, right: float, bottom: float, rows: int, columns: int) -> np.ndarray:
    """A full box; pixels count whose centres lie inside, one at least.

    >>> boxed(1, 0, 3, 1, 2, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    where = np.zeros((rows, columns), bool)
    x, y = (max(0, round(low)) for low in (left, top))
    where[y : max(y + 1, round(bottom)), x : max(x + 1, round(right))] = True
    return where
