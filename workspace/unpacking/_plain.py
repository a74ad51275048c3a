"""What every unpacker writes: plain files below one folder, in words that the look and the helpers of an index know."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace import sources
from m3dspy.workspace.indexes.splitting import SPELLINGS
from m3dspy.workspace.looking.columns import is_missing, names_person
from m3dspy.workspace.patterns import clean

MOST_IMAGES = 90_000  # each may have a mask; a sandbox takes 200,000 files
MOST_BYTES = 4 << 30  # of one image as it lies in a container
LEAST_TOTAL, GAIN = 1 << 30, 200  # bytes that any container may hold, and how many times its own size a larger one
MOST_BITS = 16  # labels whose masks may overlap
MAGIC = {b"\x89PNG\r\n\x1a\n": ".png", b"\xff\xd8\xff": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif", b"BM": ".bmp"}
VOLUMES = (".nii", ".nii.gz")
MOST_CHANNELS = 16
DEPTH = 40


class Plain:
    """Images, masks, labels and words about them, written below `out`.

    named: label -> voxel value, of masks that no list pairs with images.
    kept: place below `out` -> path below the dataset, of files that stay as they are: they are linked, not copied.
    how: sentences on what was done, without a name of a file or patient.  boxes: masks are boxes, not outlines.
    """

    def __init__(self, out: Path):
        self.out = out
        self.kept: dict[str, str] = {}
        self.how: list[str] = []
        self.boxes = False
        self.named: dict[str, int] = {}
        self._rows: list[dict[str, str]] = []
        self._cases: dict[str, list[dict[str, str]]] = {}
        self._values: dict[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._images = 0

    # -------------------------------------------------------------------------------------------- files
    def place(self, folder: str, name: str, suffix: str) -> str:
        """Where a file goes: `folder/name.suffix`, the name made safe, and told from those before by a number.

        Letters beyond ASCII become their numbers: folders of patients stay apart.
        """
        spelled = re.sub(r"[^\W\x00-\x7f]", lambda sign: f"u{ord(sign[0]):x}", name)
        parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.")[:100] for part in spelled.split("/")]
        stem = "/".join(filter(None, parts)) or "image"
        self._taken[f"{folder}/{stem}{suffix}".lower()] += 1
        again = self._taken[f"{folder}/{stem}{suffix}".lower()]
        if folder == "images":
            self._images += 1
            if self._images > MOST_IMAGES:
                raise DataError(f"The container holds more than {MOST_IMAGES:,} images; cut it down to those at hand.")
        return f"{folder}/{stem}{f'-again-{again}' if again > 1 else ''}{suffix}"

    def stored(self, name: str, data: bytes, folder: str = "images") -> str:
        """A picture as it stands in a container.

        Raises: DataError: it is no PNG, JPEG, TIFF or BMP.
        """
        suffix = next((suffix for start, suffix in MAGIC.items() if data.startswith(start)), "")
        if not suffix:
            raise DataError(f"{name[:100]!r} in the container is no PNG, JPEG, TIFF or BMP.")
        place = self.place(folder, name, suffix)
        self._write(place, data)
        return place

    def raw(self, name: str, suffix: str, data: bytes, folder: str = "images") -> str:
        """A file of a format that the readers know, as it stands in a container; they judge it."""
        place = self.place(folder, name, suffix)
        self._write(place, data)
        return place

    def array(self, name: str, pixels: np.ndarray, folder: str = "images") -> str:
        """A picture (rows, columns) or (rows, columns, 3) of 8 or 16 bits as PNG; any other array as .npy."""
        buffer = BytesIO()
        if pixels.dtype in (np.uint8, np.uint16) and (
            pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8)
        ):
            from PIL import Image

            Image.fromarray(pixels).save(buffer, "PNG")
            place = self.place(folder, name, ".png")
        else:
            np.save(buffer, pixels, allow_pickle=False)
            place = self.place(folder, name, ".npy")
        self._write(place, buffer.getvalue())
        return place

    def volume(self, name: str, voxels: np.ndarray, affine: np.ndarray, folder: str = "images") -> str:
        """A volume (x, y, z) or (x, y, z, channels), as NIfTI."""
        import nibabel

        place = self.place(folder, name, ".nii.gz")
        (self.out / place).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels, affine), self.out / place)
        return place

    def merged(self, root: Path, name: str, files: Sequence[str]) -> str:
        """One image of several files, its channels; a single file stays as it is.

        Raises: DataError: they are no volumes, or lie on different grids.
        """
        if len(files) == 1:
            return self.keep(files[0], name=name)
        if not all(file.lower().endswith(VOLUMES) for file in files):
            raise DataError(
                f"{files[0]} is one of {len(files)} channels of a picture; several files an image are read of NIfTI "
                "only. Write the channels of a picture into one RGB file."
            )
        if len(files) > MOST_CHANNELS:
            raise DataError(f"{name} has {len(files)} files, more than the {MOST_CHANNELS} channels that are read.")
        read = [sources.read(root / file) for file in files]
        first, affine = read[0][0], np.asarray(read[0][1])
        for file, (array, other) in zip(files, read, strict=True):
            if array.shape != first.shape or array.ndim != 3 or not np.allclose(np.asarray(other), affine, atol=1e-2):
                raise DataError(f"{file} lies on another grid than {files[0]}: the channels of a case must fit.")
        return self.volume(name, np.stack([array for array, _ in read], axis=-1), affine)

    def keep(self, source: str, folder: str = "images", name: str = "") -> str:
        """A file of the dataset that stays as it is, under its own path or a name."""
        suffix = suffix_of(source)
        place = self.place(folder, name or source[: len(source) - len(suffix)], suffix)
        self.kept[place] = source
        return place

    def _write(self, place: str, data: bytes) -> None:
        (self.out / place).parent.mkdir(parents=True, exist_ok=True)
        (self.out / place).write_bytes(data)

    # -------------------------------------------------------------------------------------------- labels
    def row(self, file: str, cells: Mapping[str, object], split: Split | None = None) -> None:
        """A row of labels.csv; the column `file` is ours, and `split` the container's own."""
        told = {"file (2)" if name == "file" else name: _cell(value) for name, value in cells.items()}
        self._rows.append({"file": file, **told, **({"split": split} if split else {})})

    def pair(self, image: str, label: str, split: Split = "training", patient: str = "") -> None:
        """An image and its mask, in dataset.json."""
        person = {"patient": patient} if patient else {}
        self._cases.setdefault(split, []).append({"image": image, "label": label, **person})

    def labels(self, values: Mapping[str, int]) -> None:
        """Name the labels of the masks and their voxel values."""
        self._values = dict(values)

    def finish(self) -> None:
        """Write labels.csv and dataset.json, or the labels' names alone."""
        if self._rows:
            columns = list(dict.fromkeys(name for row in self._rows for name in row))
            with (self.out / "labels.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows(self._rows)
        if self._cases:
            said = {"labels": self._values, **self._cases}
            (self.out / "dataset.json").write_text(json.dumps(said, indent=1))
        elif self.named:
            (self.out / "labels.json").write_text(json.dumps({"labels": self.named}, indent=1))


def _cell(value: object) -> str:
    return " ".join(str("" if value is None else value).split())


# ------------------------------------------------------------------------------------------------ what formats share
def bits(labels: Sequence[str]) -> dict[str, int]:
    """Label -> voxel value: a bit each, so that masks may overlap.

    Raises: DataError: there are more labels than bits.

    >>> bits(["liver", "spleen", "tumour"])
    {'liver': 1, 'spleen': 2, 'tumour': 4}
    """
    if len(labels) > MOST_BITS:
        raise DataError(f"{len(labels)} labels are marked; masks that may overlap hold {MOST_BITS} at most.")
    return {label: 1 << place for place, label in enumerate(labels)}


def values_of(labels: Collection[str]) -> dict[str, int]:
    """Label -> voxel value: one bit each where they may overlap, plain numbers where they are too many for bits.

    >>> values_of({"tumour", "liver", "spleen"})
    {'liver': 1, 'spleen': 2, 'tumour': 4}
    """
    ordered = sorted(labels)
    return bits(ordered) if len(ordered) <= MOST_BITS else {label: n for n, label in enumerate(ordered, start=1)}


def mark(mask: np.ndarray, where: np.ndarray, value: int, labels: int) -> None:
    """Add a label with a value of `values_of` to a mask.

    Raises: DataError: it overlaps another one, and there are too many for bits.
    """
    if labels > MOST_BITS and mask[where].any():
        raise DataError(
            f"{labels} labels are marked, and some overlap; {MOST_BITS} labels that overlap are read at most."
        )
    mask[where] |= mask.dtype.type(value)


def filled(i: np.ndarray, j: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The cells (i, j) of a grid whose centres lie inside a polygon, whose corners are given in cells.

    >>> filled(np.array([-0.5, 1.5, 1.5, -0.5]), np.array([0.5, 0.5, 2.5, 2.5]), (3, 3)).astype(int).tolist()
    [[0, 1, 1], [0, 1, 1], [0, 0, 0]]
    """
    from matplotlib.path import Path as Outline

    inside = np.zeros(shape, bool)
    low = [max(0, int(np.floor(axis.min()))) for axis in (i, j)]
    high = [min(n, int(np.ceil(axis.max())) + 1) for axis, n in zip((i, j), shape, strict=True)]
    grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), axis=-1)
    if grid.size:
        hits = Outline(np.column_stack([i, j]), closed=False).contains_points(grid.reshape(-1, 2))
        inside[low[0] : high[0], low[1] : high[1]] = hits.reshape(grid.shape[:2])
    return inside


def split_of(text: str) -> Split | None:
    """The split that a name speaks of.

    >>> split_of("train-00000-of-00001"), split_of("shards/Test_0001.tar"), split_of("scans")
    ('training', 'test', None)
    """
    spelled = re.findall(r"[a-z]+", text.lower())
    return next((SPELLINGS[word] for word in spelled if word in SPELLINGS), None)


def folders_split(path: str) -> Split | None:
    """The split that the folders of a file speak of: a word in its own name says nothing.

    >>> folders_split("images/train/a.png"), folders_split("images/stress-test_001.png")
    ('training', None)
    """
    return split_of(path.rpartition("/")[0])


def size_of(root: Path, picture: str) -> tuple[int, int]:
    """Rows and columns of a picture that is to be marked.

    Raises: DataError: it is a volume.
    """
    shape = sources.header(root / picture).shape
    if len(shape) != 2:
        raise DataError(
            f"{picture} is a volume; boxes and outlines are drawn on pictures. Give its slices as pictures."
        )
    return shape[0], shape[1]


@contextmanager
def understood(path: str) -> Iterator[None]:
    """Whatever a list of cases lacks, or has in another form, leaves as one line that names it."""
    try:
        yield
    except KeyError as error:
        raise DataError(f"{path} has an entry without {clean(error, 60)}. Correct it.") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is not built as its format says: {clean(error)}. Correct it.") from None


def person_of(cells: Mapping[str, object]) -> str:
    """The patient that a column names; "" where none does.

    >>> person_of({"patient_age": 61, "subject_id": "S07"}), person_of({"patient": None, "label": "cyst"})
    ('S07', '')
    """
    named = (_cell(value) for name, value in cells.items() if names_person(name))
    return next((person for person in named if not is_missing(person)), "")


def walk(root: Path) -> Iterator[str]:
    """Every plain file below a folder, as a path relative to it, in order; no link is followed."""
    waiting = [""]
    while waiting:
        here = waiting.pop()
        with os.scandir(root / here) as entries:
            listed = sorted(entries, key=lambda entry: entry.name, reverse=True)
        for entry in listed:
            path = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir():
                if path.count("/") < DEPTH:
                    waiting.append(path)
            elif entry.is_file():
                yield path


def suffix_of(path: str) -> str:
    """`.nii.gz` of `a/b.nii.gz`."""
    name = path.rpartition("/")[2]
    return ".nii.gz" if name.lower().endswith(".nii.gz") else Path(name).suffix


class Bounded:
    """Counts what comes out of a container against its size.

    Raises: DataError: it holds more than any sound one of its size.
    """

    def __init__(self, size: int):
        self.left = max(LEAST_TOTAL, GAIN * size)

    def take(self, count: int, name: str) -> None:
        self.left -= count
        if count > MOST_BYTES or self.left < 0:
            raise DataError(f"{name[:100]} unpacks to more than any sound container of its size holds.")


def text_of(value: Any) -> str:
    """A class as a name: numbers as `class 3`, for a number is no word that a request could use.

    >>> text_of(3), text_of("3"), text_of("effusion")
    ('class 3', 'class 3', 'effusion')
    """
    said = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return f"class {said.strip()}" if re.fullmatch(r"\d+", said.strip()) else said.strip()
