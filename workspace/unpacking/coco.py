"""COCO: pictures with a JSON of outlines, run lengths or boxes, drawn as masks by pycocotools.

Boxes are drawn full where an object has no outline, and that is said: such masks show where, not in which shape. Labels
that overlap keep a bit each. The split is that of the JSON's name or folder (`instances_train2017.json`).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import join, normpath
from typing import Any

import numpy as np

from m3dspy.errors import DataError
from m3dspy.workspace import sources
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.tables import read_json
from m3dspy.workspace.unpacking._plain import Plain, mark, split_of, values_of, walk

HOLDS_IMAGES = False
_NAMED = re.compile(r"instances|annotation|coco", re.IGNORECASE)
BOXES = "The annotations are boxes, drawn as masks: they show where something is, not its outline, area or volume."


def found(root: Path) -> bool:
    return bool(_lists(root))


def unpack(root: Path, plain: Plain) -> bool:
    said = {path: data for path in _lists(root) if _is_coco(data := read_json(root / path))}
    if not said:
        return False
    values = values_of({_name(category) for data in said.values() for category in data["categories"]})
    plain.labels(values)
    files: dict[str, list[str]] = defaultdict(list)
    for path in walk(root):
        if path.lower().endswith(IMAGE_SUFFIXES):
            files[path.rpartition("/")[2]].append(path)
    missing = 0
    for path, data in said.items():
        names = {category["id"]: _name(category) for category in data["categories"]}
        marks: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in data["annotations"]:
            marks[annotation["image_id"]].append(annotation)
        split = split_of(path.rpartition("/")[2]) or split_of(path) or "training"
        for image in data["images"]:
            source = _source(str(image["file_name"]), path, files)
            if source is None:
                missing += 1
                continue
            mask = _mask(root / source, marks[image["id"]], names, values, plain)
            kept = plain.keep(source)
            plain.pair(kept, plain.array(kept.removeprefix("images/").rpartition(".")[0], mask, "masks"), split)
    plain.how.append(BOXES if plain.boxes else "The outlines were drawn as masks.")
    if missing:
        plain.how.append(f"{missing} images that the annotations name are not there.")
    return True


def _lists(root: Path) -> list[str]:
    return [path for path in walk(root) if path.lower().endswith(".json") and _NAMED.search(path)]


def _is_coco(data: Any) -> bool:
    lists = [data.get(key) for key in ("images", "annotations", "categories")] if isinstance(data, dict) else []
    return bool(lists) and all(isinstance(one, list) and all(isinstance(entry, dict) for entry in one) for one in lists)


def _name(category: Mapping[str, Any]) -> str:
    return clean(category["name"], 60)


def _source(name: str, path: str, files: Mapping[str, Sequence[str]]) -> str | None:
    """The file of the dataset that a list names: from the list's folder, or the only one of that name or path's end."""
    near = files.get(name.rpartition("/")[2], ())
    beside = normpath(join(path.rpartition("/")[0], name))
    if beside in near:
        return beside
    fits = [file for file in near if f"/{file}".endswith(f"/{name.lstrip('./')}")]
    part = split_of(path)
    same = [file for file in fits if part and split_of(file) == part] or fits
    return same[0] if len(same) == 1 else None


def _mask(
    image: Path, marks: Sequence[Mapping[str, Any]], names: Mapping[Any, str], values: Mapping[str, int], plain: Plain
) -> np.ndarray:
    """The mask of a picture: (rows, columns)."""
    rows, columns = sources.header(image).shape
    mask = np.zeros((rows, columns), np.uint8 if sum(values.values()) < 256 else np.uint16)
    for annotation in marks:
        try:
            where, is_box = _drawn(annotation, rows, columns)
            mark(mask, where, values[names[annotation["category_id"]]], len(values))
        except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
            raise DataError(f"Annotation {clean(annotation.get('id'), 20)} of {image.name}: {clean(error)}.") from None
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
