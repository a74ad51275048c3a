"""ChestX-Det10: ten findings on frontal chest X-ray films, each marked by a box; more than half of the boxes overlap.

Since findings overlap, a mask with one number a pixel would lose them. Masks are therefore 16-bit pictures in which bit
k is set where a box of finding k lies: Atelectasis 1, Calcification 2, Consolidation 4, ... The release holds boxes
only; `arrange` draws the masks from them.

The phantom is a film on which each finding has its look: a plate, a speck, a cloud, a level, lungs too dark and large,
a net, a broken rib, a ball, a small ball, a dark rim without vessels. Boxes are drawn a few pixels beside the finding,
so that no model can reach Dice 1.

Quirks of the real thing: one film in five shows nothing; the records of `train.json` and `test.json` hold two lists
each, `syms` and `boxes`; nothing names the patient.
"""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3dspy.errors import DataError
from m3dspy.m3bench import phantom
from m3dspy.m3bench.annotator import best_reader
from m3dspy.m3bench.phantom import Volume, blurred, ellipsoid, inside, stream, texture
from m3dspy.m3bench.task import BenchTask, Facts, Part
from m3dspy.signatures.values import Caps, Index, Source

LABELS = (
    "Atelectasis",
    "Calcification",
    "Consolidation",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Fracture",
    "Mass",
    "Nodule",
    "Pneumothorax",
)
BITS = {label: 1 << k for k, label in enumerate(LABELS)}
SIDE, PIXEL = 256, 1.5  # pixels; mm
SHAPE = (SIDE, SIDE)
CAPS = Caps(training=80, test=20)
EMPTY = 5  # every so many films show nothing
TEST = 6  # every so many films are of the official test list
CHANCES = np.array([0.10, 0.09, 0.15, 0.15, 0.08, 0.11, 0.08, 0.07, 0.09, 0.08])  # of a finding to be the film's first
ALONG = {  # what comes with a finding, and lies over it
    "Atelectasis": ("Effusion", "Consolidation"),
    "Calcification": ("Nodule", "Mass"),
    "Consolidation": ("Effusion", "Fibrosis"),
    "Effusion": ("Atelectasis", "Consolidation"),
    "Emphysema": ("Nodule", "Fibrosis", "Calcification"),
    "Fibrosis": ("Consolidation", "Emphysema"),
    "Fracture": ("Pneumothorax", "Effusion"),
    "Mass": ("Consolidation", "Emphysema"),
    "Nodule": ("Calcification", "Emphysema"),
    "Pneumothorax": ("Emphysema", "Fracture"),
}
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels, the ends excluded


def build(folder: Path, size: int, seed: int, workers: int) -> dict[str, Any]:
    """Write `images`, `masks`, `labels.json` and the official lists of `size` films."""
    for part in ("images", "masks"):
        (folder / part).mkdir()
    phantom.save_json(folder / "labels.json", BITS)
    made = phantom.each(partial(write_film, folder=folder, seed=seed), range(1, size + 1), workers)
    lists = {"train.json": [], "test.json": []}
    for number, (record, _) in enumerate(made, start=1):
        lists["train.json" if number % TEST else "test.json"].append(record)
    for name, records in lists.items():
        phantom.save_json(folder / name, records)
    return {"cases": {f"images/{record['file_name']}": dices for record, dices in made}}


def write_film(number: int, folder: Path, seed: int) -> tuple[dict[str, Any], dict[str, float]]:
    """One film and its mask; returns its record, and the Dice of a reader who sees where each finding really ends."""
    from PIL import Image

    from m3dspy.m3bench.metrics import dice

    random = stream(seed, "chestx-det10", number)
    names = [] if number % EMPTY == 0 else several(random)
    film, true = frontal(random, names)
    drawn = [(name, beside(random, box)) for name, box in true]
    record = {
        "file_name": f"{36_000 + number}.png",
        "syms": [name for name, _ in drawn],
        "boxes": [list(box) for _, box in drawn],
    }
    mask, ideal = bit_field(SHAPE, drawn), bit_field(SHAPE, true)
    Image.fromarray((film * 255).astype(np.uint8)).save(folder / "images" / record["file_name"])
    Image.fromarray(mask).save(folder / "masks" / record["file_name"])
    found = {name: dice(ideal & bit > 0, mask & bit > 0) for name, bit in BITS.items()}
    return record, {name: round(value, 4) for name, value in found.items() if value is not None}


def several(random: np.random.Generator) -> list[str]:
    """The findings of one film: a first, and mostly one or two that come along with it."""
    names = [str(random.choice(LABELS, p=CHANCES / CHANCES.sum()))]
    for _ in range(random.choice([0, 1, 2], p=[0.2, 0.4, 0.4])):
        names.append(str(random.choice(ALONG[names[0]])))
    if random.random() < 0.3:
        names.append(str(random.choice(LABELS)))
    return list(dict.fromkeys(names))


def beside(random: np.random.Generator, box: Box) -> Box:
    """The box as it was drawn: each side off by some pixels, more so for a large box."""
    left, top, right, bottom = box
    off = random.normal(0, 1, 4) * np.array([right - left, bottom - top] * 2) * 0.035 + random.normal(0, 0.6, 4)
    ends = (np.array(box) + off.round()).astype(int)
    ends = np.clip(ends, 0, SIDE)
    return int(ends[0]), int(ends[1]), int(max(ends[2], ends[0] + 2)), int(max(ends[3], ends[1] + 2))


def bit_field(shape: tuple[int, int], boxes: Sequence[tuple[str, Sequence[float]]]) -> NDArray[np.uint16]:
    """The mask of boxes: bit k of a pixel is set where one of finding k covers it.

    Raises: DataError: a finding that is none of the ten.
    """
    mask = np.zeros(shape, np.uint16)
    for name, box in boxes:
        if name not in BITS:
            raise DataError(f"A box is called {name!r}; known findings are {', '.join(LABELS)}.")
        left, top, right, bottom = (max(0, round(end)) for end in box)
        mask[top:bottom, left:right] |= np.uint16(BITS[name])
    return mask


# ------------------------------------------------------------------------------------------------ the film
def frontal(random: np.random.Generator, names: Sequence[str]) -> tuple[Volume, list[tuple[str, Box]]]:
    """A film with these findings, the patient's right on the left, 0 to 1; and the box around each finding."""
    y, x = phantom.millimetres(SHAPE, (PIXEL, PIXEL), random.normal(0, 4, 2))
    size = random.normal(1.06, 0.03)
    x, y = x / size, y / size
    form = texture(random, SHAPE, 28, 0.04)
    wide = "Emphysema" in names
    tissue = 2.3 * np.clip(1.12 - np.hypot(x / 186, np.maximum(y, -60) / 320) - 0.5 * form, 0, 0.8)
    lungs = {}
    for side in (-1, 1):
        r = ellipsoid((x - side * 78, y + 20), (0, 0), (62 + 4 * wide, 124)) + form
        dome = 92 + 14 * wide - 10 * (side < 0) - (20 - 14 * wide) * np.exp(-(((x - side * 76) / 50) ** 2))
        lungs[side] = inside(r, 0.09) * np.clip((dome - y) / 10, 0, 1)
        tissue -= (1.0 + 0.13 * wide) * lungs[side]
    heart = random.uniform(62, 80) * (0.8 if wide else 1)
    tissue += 0.75 * inside(ellipsoid((x, y), (0.25 * heart, 60), (heart, 60)), 0.2) * (y < 112)
    for side in (-1, 1):  # breasts, or muscle
        tissue += random.uniform(0, 0.12) * inside(ellipsoid((x, y), (side * 84, 40), (62, 50)), 0.5)
    tissue += 0.55 * inside(np.abs(x) / 22, 0.5)  # mediastinum and spine
    pitch = random.uniform(31, 36)
    ribs = [y + 156 - i * pitch - 0.0022 * (np.abs(x) - 60) ** 2 for i in range(9)]
    tissue += sum(0.12 * np.exp(-((rib / 4.2) ** 2)) * (np.abs(x) < 158) * (np.abs(x) > 16) for rib in ribs)
    tissue += 0.16 * np.exp(-(((y + 140 + 0.12 * np.abs(x)) / 6) ** 2)) * (np.abs(x) < 150)  # collar bones
    both = lungs[-1] + lungs[1]
    vessels = both * np.clip(texture(random, SHAPE, 2.2, 1), 0, 3) * np.exp(-np.abs(np.abs(x) - 40) / 50)
    tissue += 0.07 * vessels * (0.3 if wide else 1)

    boxes: list[tuple[str, Box]] = []
    main = int(random.choice([-1, 1]))  # findings like to lie on one side
    for name in names:
        sides = (-1, 1) if name == "Emphysema" else (main,)
        for side in sides:
            times = random.integers(1, 4) if name in ("Calcification", "Nodule", "Fracture") else 1
            for _ in range(times):
                added, shown = LOOKS[name](random, x, y, side, lungs[side], ribs)
                tissue = tissue + added
                if (box := around(shown)) is not None:
                    boxes.append((name, box))
    film = 1 - np.exp(-1.05 * np.clip(tissue, 0, None))
    film = blurred(film + random.normal(0, 0.012, SHAPE) * (2 - film), 0.5)
    low, high = np.percentile(film, [1, 99])
    return np.clip((film - low) / (high - low), 0, 1) ** random.uniform(0.92, 1.08), boxes


def around(shown: NDArray[np.bool_]) -> Box | None:
    """The box around the pixels that show a finding; None where there are none."""
    rows, columns = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if rows.size else None


def _atelectasis(random, x, y, side, lung, ribs):
    """Plates: dense bands above the diaphragm."""
    centre, tilt = (side * random.uniform(58, 95), random.uniform(15, 62)), random.uniform(-0.35, 0.35)
    along, across = x - centre[0], y - centre[1] - tilt * (x - centre[0])
    plate = np.exp(-((across / 4.5) ** 2)) + 0.8 * np.exp(-(((across - 13) / 3.5) ** 2))
    added = 0.75 * plate * inside(np.abs(along) / random.uniform(26, 38), 0.2) * lung
    return added, added > 0.2


def _calcification(random, x, y, side, lung, ribs):
    """A speck as bright as bone."""
    r = ellipsoid((x, y), _spot(random, side), random.uniform(4, 6.5, 2)) + texture(random, SHAPE, 1.2, 0.15)
    added = 1.3 * inside(r, 0.4) * (lung > 0.3)
    return added, added > 0.5


def _consolidation(random, x, y, side, lung, ribs):
    """A cloud, denser towards its middle."""
    r = ellipsoid((x, y), _spot(random, side), random.uniform(30, 48, 2)) + texture(random, SHAPE, 7, 0.25)
    added = 0.95 * inside(r, 0.7) * lung * (1 + texture(random, SHAPE, 1.5, 0.25))
    return added, (r < 1) & (lung > 0.5)


def _effusion(random, x, y, side, lung, ribs):
    """Fluid that has sunk to the base and climbs the chest wall."""
    level = random.uniform(20, 66)
    surface = level - 0.010 * np.clip(side * x - 60, 0, None) ** 2
    share = np.clip((y - surface) / 9, 0, 1) * lung
    return 1.15 * share, share > 0.4


def _emphysema(random, x, y, side, lung, ribs):
    """A lung too dark, with bullae; the film's shape is already that of a barrel chest."""
    bullae = np.clip(texture(random, SHAPE, 9, 1) - 0.6, 0, 1.5) * (y < 20)
    return -0.10 * lung - 0.10 * lung * bullae, lung > 0.5


def _fibrosis(random, x, y, side, lung, ribs):
    """A net of fine lines."""
    centre = (side * random.uniform(70, 100), random.uniform(-60, 55))
    r = ellipsoid((x, y), centre, random.uniform(26, 44, 2)) + texture(random, SHAPE, 8, 0.15)
    net = np.exp(-((texture(random, SHAPE, 2.0, 1) / 0.35) ** 2))
    return 0.62 * net * inside(r, 0.4) * lung, (r < 1) & (lung > 0.5)


def _fracture(random, x, y, side, lung, ribs):
    """A rib that is broken near the chest wall: a step, and callus around it."""
    rib, at = ribs[int(random.integers(2, 7))], side * random.uniform(104, 128)
    near = np.exp(-(((x - at) / 7) ** 2) - (rib / 7) ** 2)
    gap = np.exp(-(((x - at - 0.4 * rib) / 1.7) ** 2)) * (np.abs(rib) < 7)
    return 0.85 * near - 0.7 * gap, near > 0.15


def _mass(random, x, y, side, lung, ribs):
    """A ball of three centimetres or more, lobed."""
    r = ellipsoid((x, y), _spot(random, side), random.uniform(17, 26, 2)) + texture(random, SHAPE, 6, 0.10)
    added = 1.05 * np.sqrt(np.clip(1.1 - r**2, 0, 1)) * (lung > 0.2)
    return added, added > 0.25


def _nodule(random, x, y, side, lung, ribs):
    """A small ball."""
    r = ellipsoid((x, y), _spot(random, side), np.full(2, random.uniform(6.5, 10.5)))
    added = 0.85 * np.sqrt(np.clip(1.1 - r**2, 0, 1)) * (lung > 0.2)
    return added, added > 0.2


def _pneumothorax(random, x, y, side, lung, ribs):
    """Air beside the lung: a dark rim without vessels from the apex down the wall, and the pleura's thin line."""
    collapsed = ellipsoid(
        (x, y), (side * random.uniform(50, 58), 10), (random.uniform(36, 48), random.uniform(84, 100))
    )
    edge = 40 * (collapsed - 1) * (side * x > 40)
    air = lung * np.clip(edge / 2 + 0.5, 0, 1) * np.clip((70 - y) / 10, 0, 1)
    line = 0.35 * np.exp(-((edge / 2.2) ** 2)) * lung * (y < 70) * (side * x > 40)
    return line - 0.28 * air, air > 0.5


def _spot(random: np.random.Generator, side: int) -> tuple[float, float]:
    """A place in the lung of that side, mm."""
    return side * random.uniform(56, 104), random.uniform(-76, 50)


LOOKS: dict[str, Any] = dict(
    zip(
        LABELS,
        (
            _atelectasis,
            _calcification,
            _consolidation,
            _effusion,
            _emphysema,
            _fibrosis,
            _fracture,
            _mass,
            _nodule,
            _pneumothorax,
        ),
        strict=True,
    )
)


# ------------------------------------------------------------------------------------------------ the release
def arrange(root: Path, out: Path) -> None:
    """From the release (`train.json`, `test.json`, `train_data`, `test_data`) to `images`, `masks` and `labels.json`.

    Raises: DataError: a list or an image that is not there, or one name in both lists.
    """
    from PIL import Image

    for part in ("images", "masks"):
        (out / part).mkdir(parents=True)
    phantom.save_json(out / "labels.json", BITS)
    for name in ("train", "test"):
        records = records_of(root / f"{name}.json")
        phantom.save_json(out / f"{name}.json", records)
        for record in records:
            image, to = root / f"{name}_data" / record["file_name"], out / "images" / record["file_name"]
            if to.exists() or not image.is_file():
                raise DataError(f"{image} {'is in both lists' if to.exists() else 'is not there'}; see {name}.json.")
            with Image.open(image) as film:
                width, height = film.size
            shutil.copyfile(image, to)
            mask = bit_field((height, width), list(zip(record["syms"], record["boxes"], strict=True)))
            Image.fromarray(mask).save(out / "masks" / record["file_name"])


def records_of(file: Path) -> list[dict[str, Any]]:
    """The records of one official list. Raises: DataError: it is not there, or is no such list."""
    try:
        records = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}. ChestX-Det10 has train.json and test.json.") from None
    keys = {"file_name", "syms", "boxes"}
    if not isinstance(records, list) or not all(isinstance(one, dict) and keys <= set(one) for one in records):
        raise DataError(f"{file} is not a list of records with {', '.join(sorted(keys))}.")
    return records


def gold(root: Path, seed: int) -> Index:
    """The official test list, where its films are there; every film counts as a patient, for nothing names one."""
    from m3dspy.workspace import indexing as ix

    listed = root / "test.json"
    test = {record["file_name"] for record in records_of(listed)} if listed.is_file() else set()
    items = ix.from_pairs(root, images="images/*.png", masks="masks/*.png")
    if any(Path(item["image"]).name in test for item in items):
        items = [item | {"split": "test" if Path(item["image"]).name in test else "training"} for item in items]
    splits = ix.cap(ix.split(items, seed=seed), training=CAPS.training, test=CAPS.test, seed=seed)
    values = tuple(BITS.values())
    return Index.model_validate(
        {"task": "segmentation", "labels": LABELS, "values": values, "multilabel": True, **splits}
    )


def oracle(index: Index, truth: dict[str, Any]) -> float | None:
    """Mean Dice of the reader who boxes every finding exactly, against the boxes that were drawn."""
    return best_reader(index, truth) if set(index.labels) <= set(LABELS) else None


TASK = BenchTask(
    name="ChestX-Det10",
    task="segmentation",
    requests=(
        "segment the ten findings on chest X-ray",
        "Mark every thoracic finding (atelectasis, calcification, consolidation, effusion, emphysema, fibrosis, "
        "fracture, mass, nodule and pneumothorax) on frontal chest radiographs.",
        "Train a 2D model that marks all ten kinds of finding on frontal chest X-ray films. Findings may overlap: a "
        "pixel can belong to several. Many films show nothing and must stay empty. Use at most 80 training and 20 test "
        "films and no GPU.",
        "colour in all ten diseases on the lung pictures, every pixel may have more than one (chest x-ray masks)",
        "Segment all ten findings on these chest X-ray films. I also have a COVID CT set with infection masks on "
        "another disk, leave it alone.",
    ),
    impossible=(
        "Write the radiology report for each chest X-ray.",
        "Segment the liver on abdominal CT.",
        "Segment lung nodules on chest CT.",
        "Predict survival from the chest X-ray.",
    ),
    labels=LABELS,
    metric="mean Dice",
    source="github.com/Deepwise-AILab/ChestX-Det10-Dataset (Liu et al. 2020, arXiv:2006.10550): 3001 + 542 films of "
    "NIH ChestX-ray14 with 8339 boxes in training",
    licence="as published with the dataset; the films are NIH ChestX-ray14, free with attribution",
    access="Free: the lists and links to the films are on github.com/Deepwise-AILab/ChestX-Det10-Dataset. Masks are "
    "drawn from the boxes once train.json, test.json, train_data and test_data lie in one folder.",
    layout=(
        Part("train.json", 1),
        Part("test.json", 1),
        Part("train_data/*.png", 3001),
        Part("test_data/*.png", 542),
    ),
    size=120,
    smallest=60,
    demo=60,
    unit="films",
    build=build,
    gold=gold,
    facts=Facts("X-ray", Source(kind="masks"), values=tuple(map(str, BITS.values())), caps=CAPS),
    oracle=oracle,
    arrange=arrange,
)
