"""YOLO: pictures below `images`, and beside them below `labels` a text of boxes or outlines each, drawn as masks.

A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...`, as shares of the picture. The classes are named by
data.yaml or classes.txt. A picture without a text shows nothing of them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError
from m3dspy.workspace import sources
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.unpacking._plain import (
    Plain,
    filled,
    folders_split,
    mark,
    size_of,
    text_of,
    understood,
    values_of,
    walk,
)
from m3dspy.workspace.unpacking.coco import BOXES, boxed

HOLDS_IMAGES = False
MOST_TEXT = 4 << 20


def found(root: Path) -> bool:
    parts = [path.split("/")[:-1] for path in walk(root) if path.endswith(".txt")]
    return any("labels" in folders for folders in parts) and any(
        "images" in path.split("/")[:-1] and path.lower().endswith(IMAGE_SUFFIXES) for path in walk(root)
    )


def unpack(root: Path, plain: Plain) -> bool:
    every = set(walk(root))
    images = [p for p in sorted(every) if "images" in p.split("/")[:-1] and p.lower().endswith(IMAGE_SUFFIXES)]
    texts = {image: text if (text := _text_of(image)) in every else "" for image in images}
    if not any(texts.values()):
        return False
    names, marks = _names(root, every), {image: _marks(root, text) for image, text in texts.items()}
    classes = sorted({number for found in marks.values() for number, _ in found})
    called = {number: names.get(number) or text_of(number) for number in classes}
    values = values_of(set(called.values()))
    plain.labels(values)
    for image in images:
        rows, columns = size_of(root, image)
        mask = np.zeros((rows, columns), np.uint8 if sum(values.values()) < 256 else np.uint16)
        for number, shares in marks[image]:
            where, is_box = _drawn(shares, rows, columns)
            mark(mask, where, values[called[number]], len(values))
            plain.boxes |= is_box
        kept = plain.keep(image)
        place = plain.array(kept.removeprefix("images/").rpartition(".")[0], mask, "masks")
        plain.pair(kept, place, folders_split(image) or "training")
    plain.how.append(BOXES if plain.boxes else "The outlines were drawn as masks.")
    return True


def _text_of(image: str) -> str:
    """`train/labels/a.txt` of `train/images/a.png`."""
    *folders, name = image.split("/")
    place = len(folders) - 1 - folders[::-1].index("images")
    return "/".join([*folders[:place], "labels", *folders[place + 1 :], f"{name.rpartition('.')[0]}.txt"])


def _names(root: Path, every: set[str]) -> dict[int, str]:
    """Class number -> name."""
    import yaml

    for path in sorted(path for path in every if path.endswith((".yaml", ".yml")) and path.count("/") < 2):
        try:
            said = yaml.safe_load(_read(root / path))
        except yaml.YAMLError as error:
            raise DataError(f"{path} is no YAML that can be read: {clean(error)}.") from None
        listed = said.get("names") if isinstance(said, dict) else None
        if isinstance(listed, list | dict):
            pairs = enumerate(listed) if isinstance(listed, list) else listed.items()
            with understood(path):
                return {int(number): clean(name, 60) for number, name in pairs if isinstance(name, str | int)}
    path = next((path for path in sorted(every) if path.rpartition("/")[2] == "classes.txt"), None)
    return (
        {n: clean(line, 60) for n, line in enumerate(_read(root / path).splitlines()) if line.strip()} if path else {}
    )


def _marks(root: Path, path: str) -> list[tuple[int, list[float]]]:
    """Class and shares of each line of a text."""
    marks = []
    for number, line in enumerate(_read(root / path).splitlines() if path else (), start=1):
        cells = line.split()
        try:
            shares = [float(cell) for cell in cells[1:]]
            if cells and (len(shares) < 4 or len(shares) % 2 or not all(-0.01 <= share <= 1.01 for share in shares)):
                raise ValueError
            if cells:
                marks.append((int(cells[0]), shares))
        except ValueError:
            raise DataError(f"{path} line {number}: is no class with a box or outline in shares of 1.") from None
    return marks


def _read(path: Path) -> str:
    with sources.at_work(path), path.open("rb") as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        raise DataError(f"{path.name} is larger than {MOST_TEXT >> 20} MB, too large for what it should be.")
    return data.decode("utf-8", "replace")


def _drawn(shares: Sequence[float], rows: int, columns: int) -> tuple[np.ndarray, bool]:
    """Where an object is; and whether that is a box only."""
    if len(shares) == 4:
        x, y, width, height = shares
        left, top = (x - width / 2) * columns, (y - height / 2) * rows
        return boxed(left, top, left + width * columns, top + height * rows, rows, columns), True
    down, across = (np.array(shares[start::2]) for start in (1, 0))
    return filled(down * rows - 0.5, across * columns - 0.5, (rows, columns)), False
