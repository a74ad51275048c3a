"""What the images of a family are: headers of many, voxels of some."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from m3dspy.signatures.values import Group, Spread
from m3dspy.workspace import sources
from m3dspy.workspace.indexes.cases import stem
from m3dspy.workspace.looking.tree import Family, Part
from m3dspy.workspace.patterns import is_mask_name
from m3dspy.workspace.sources import Header, Oversized

STACKS = 40  # slice folders and series whose headers are read; each takes all its files
LEAST_READ = 5  # images whose voxels are read, however large
READ_BYTES = 24 << 20  # on disk; smaller images are read up to this sum
RUN = 4  # pictures side by side that are sampled together, so that look-alikes are found
POOL = 10_000  # voxels an image gives to the percentiles
MOST_VALUES = 48  # a mask has no more
SERIES_FOLDERS = 8  # DICOM folders that tell whether their files are slices
SIDE, ALIKE = 24, 0.98  # thumbnails, as in lookalikes.py
T = TypeVar("T")
_PAIRS = ("RL", "AP", "SI")  # the two directions of each axis
PERCENTILES = {"min": 0.0, "p0.5": 0.5, "p50": 50.0, "p99.5": 99.5, "max": 100.0}


@dataclass
class Voxels:
    """What the voxels of one image show. `values`: all of them, where it could be a mask."""

    pool: np.ndarray
    low: float
    high: float
    unit: str
    values: tuple[int, ...]
    thumbnail: np.ndarray | None


@dataclass
class Measured:
    """A family's sampled cases. `faults`: (file, what is wrong with it); `oversized`: those that claim too much."""

    family: Family
    cases: dict[str, list[str]]
    headers: dict[str, Header] = field(default_factory=dict)
    voxels: dict[str, Voxels] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    oversized: list[tuple[str, str]] = field(default_factory=list)
    series: int = 1  # most DICOM series in one folder

    @property
    def units(self) -> Counter[str]:
        return Counter(seen.unit for seen in self.voxels.values() if seen.unit)

    def paths(self, root: Path, case: str) -> Path | list[Path]:
        """What a reader takes."""
        paths = [root / file for file in self.cases[case]]
        return paths if self.family.stacks else paths[0]

    @property
    def dims(self) -> int:
        return Counter(len(found.shape) for found in self.headers.values()).most_common(1)[0][0]

    @property
    def is_mask(self) -> bool:
        """Whether four in five images that are not flat hold few whole numbers in areas; half of all, if so named."""
        if any(map(is_mask_name, self.family.pattern.split("/"))):
            return 2 * sum(bool(seen.values) for seen in self.voxels.values()) >= max(1, len(self.voxels))
        shown = [seen for seen in self.voxels.values() if seen.high > seen.low]
        return bool(shown) and 5 * sum(seen.unit == "mask" for seen in shown) >= 4 * len(shown)


def measure(root: Path, family: Family, sizes: Mapping[str, int], sample: int, series: bool = True) -> Measured:
    """Headers of up to `sample` cases, evenly spread, and the voxels of as many of them as READ_BYTES allow.

    Args: series: whether DICOM files may be slices of volumes.
    """
    if family.format == "dicom" and series:
        family = _as_series(root, family)
    found = Measured(family, family.cases())
    found.faults = [(file, "is empty") for file in family.files if sizes[file] == 0]
    empty = {file for file, _ in found.faults}
    whole = [case for case, files in found.cases.items() if not empty.intersection(files)]
    run = RUN if family.format == "raster" and not family.stacks else 1
    sampled = spread(whole, min(sample, STACKS) if family.stacks else sample, run)
    for case in sampled:
        _read_header(root, found, case)
    if family.stacks and 2 * len(found.headers) < len(sampled):  # the files of its folders do not fit together
        return measure(root, replace(family, stacks=False), sizes, sample, series=False)
    total = sum(sizes[file] for case in found.headers for file in found.cases[case])
    count = max(LEAST_READ, int(READ_BYTES * len(found.headers) / max(total, 1)))
    for case in spread(list(found.headers), count, run):
        _read_voxels(root, found, case)
    flat = "is an empty mask" if found.is_mask else "is flat: every value is the same"
    found.faults += [
        (found.cases[case][0], flat)
        for case, seen in found.voxels.items()
        if len(seen.pool) and seen.low == seen.high and not (found.is_mask and seen.low)
    ]
    return found


def _read_header(root: Path, found: Measured, case: str) -> None:
    with _judged(found, case):
        if found.family.stacks and found.family.format == "dicom":
            volumes = _series(root, found.cases[case])
            found.series = max(found.series, len(volumes))
            found.cases[case] = volumes[0] or found.cases[case]
        header = sources.header(found.paths(root, case))
        if len(header.shape) > 3:
            raise ValueError(f"has {len(header.shape)} axes; a picture has 2, a volume 3")
        found.headers[case] = header


def _read_voxels(root: Path, found: Measured, case: str) -> None:
    with _judged(found, case):
        array = sources.read(found.paths(root, case))[0]
        if not np.isfinite(array).all():
            some = "some values that are" if np.isfinite(array).any() else "nothing but"
            found.faults.append((found.cases[case][0], f"holds {some} NaN or infinite"))
        found.voxels[case] = voxels_of(array, found.headers[case])


def spread(items: Sequence[T], most: int, run: int = 1) -> list[T]:
    """At most `most` items, evenly spread, in runs of neighbours.

    >>> spread("abcdefgh", 4), spread("abcdefgh", 4, run=2)
    (['a', 'c', 'e', 'g'], ['a', 'b', 'e', 'f'])
    """
    if len(items) <= most:
        return list(items)
    runs = max(1, most // run)
    starts = [k * len(items) // runs for k in range(runs)]
    return [item for start in starts for item in items[start : start + min(run, most)]]


def looks_like_mask(root: Path, file: str) -> bool:
    """Whether one file holds few whole numbers, in areas; False where it cannot be read."""
    try:
        return voxels_of(sources.read(root / file)[0], sources.header(root / file)).unit == "mask"
    except (ValueError, OSError):
        return False


@contextmanager
def _judged(found: Measured, case: str) -> Iterator[None]:
    """A case that cannot be read becomes a fault; so does what a reader warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            yield
        except (ValueError, OSError) as error:
            found.headers.pop(case, None)
            fault = _fault(found.cases[case], str(error))
            (found.oversized if isinstance(error, Oversized) else found.faults).append(fault)
    found.faults += [_fault(found.cases[case], str(line.message)) for line in told if line.category is UserWarning]


def _fault(files: Sequence[str], said: str) -> tuple[str, str]:
    """The file that a reader's line begins with, and the rest of that line."""
    for file in files:
        name = "".join(sign if sign.isprintable() else "?" for sign in file.rpartition("/")[2])
        if said.startswith(f"{name}: "):
            return file, said[len(name) + 2 :].replace(name, "the file").replace(stem(name), "*")
    return files[0], said


# ------------------------------------------------------------------------------------------------ DICOM
def _as_series(root: Path, family: Family) -> Family:
    """The family with `stacks` set where the files of a folder make a volume; such a folder is no class."""
    folders = replace(family, stacks=True).cases()
    several = [folder for folder, files in folders.items() if len(files) > 1]
    if not any(len(_series(root, folders[folder])[0]) > 1 for folder in spread(several, SERIES_FOLDERS)):
        return family
    *above, last = family.parts or (None,)
    if last is not None and last.kind == "class":
        return replace(family, stacks=True, parts=(*above, Part(last.pattern, "id")))
    return replace(family, stacks=True)


def _series(root: Path, files: Sequence[str]) -> list[list[str]]:
    """The DICOM volumes among the files of a folder, the one of most slices first; [[]] if there is none."""
    from m3dspy.workspace.sources import dicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volumes = dicom.series([root / file for file in files])
    named = [[path.relative_to(root).as_posix() for path in volume] for volume in volumes]
    return sorted(named, key=len, reverse=True) or [[]]


# ------------------------------------------------------------------------------------------------ voxels
def voxels_of(array: np.ndarray, header: Header) -> Voxels:
    """Values, guessed unit and thumbnail of one image; voxels that are NaN or infinite count as absent."""
    flat = array.reshape(-1)
    pool = flat[:: max(1, flat.size // POOL)].astype(np.float64)
    pool = pool[np.isfinite(pool)]
    if not pool.size:
        return Voxels(pool, 0.0, 0.0, "", (), None)
    if array.dtype.kind == "f":
        finite = flat if len(pool) == len(flat) else flat[np.isfinite(flat)]
        low, high = float(finite.min()), float(finite.max())
    else:
        low, high = float(flat.min()), float(flat.max())
    values = _whole_values(array, pool, low, high)
    unit = "mask" if values and _in_areas(array) else _unit(pool, low, high)
    flat_image = low == high
    thumbnail = None if flat_image or len(header.shape) != 2 else _thumbnail(array)
    return Voxels(pool, low, high, "" if flat_image else unit, values, thumbnail)


def _whole_values(array: np.ndarray, pool: np.ndarray, low: float, high: float) -> tuple[int, ...]:
    """All values, sorted, if there are few, all whole and none negative; () otherwise."""
    most = min(MOST_VALUES, max(2, array.size // 25))
    if low < 0 or high > 65535 or len(np.unique(pool)) > most or (pool % 1).any():
        return ()
    whole = np.nan_to_num(array).astype(np.int64).reshape(-1)
    if array.dtype.kind == "f" and (whole != np.nan_to_num(array).reshape(-1)).any():
        return ()
    values = np.flatnonzero(np.bincount(whole))
    return tuple(map(int, values)) if len(values) <= most else ()


def _in_areas(array: np.ndarray) -> bool:
    """Whether most neighbours along the first axis are equal, as in an outline and not in noise."""
    return bool((array[1:] == array[:-1]).mean() > 0.6) if len(array) > 1 else True


def _unit(pool: np.ndarray, low: float, high: float) -> str:
    if -33_000 < low <= -200 and 50 < high < 66_000 and np.percentile(pool, 5) <= -50:
        return "HU"
    if low >= 0 and 1.5 < high <= 255 and not (pool % 1).any():
        return "8-bit"
    if low >= -0.01 and high <= 1.01:
        return "0..1"
    return "arbitrary"


def _thumbnail(array: np.ndarray) -> np.ndarray | None:
    """24 x 24 means of a picture, as a vector of mean 0 and norm 1; None where it is smaller or flat."""
    grey = array if array.ndim == 2 else array.mean(axis=-1)
    rows, columns = grey.shape[0] // SIDE, grey.shape[1] // SIDE
    if not rows or not columns:
        return None
    cut = grey[: rows * SIDE, : columns * SIDE].astype(np.float32)
    small = cut.reshape(SIDE, rows, SIDE, columns).mean(axis=(1, 3)).ravel()
    small -= small.mean()
    norm = float(np.linalg.norm(small))
    return small / norm if np.isfinite(norm) and norm > 1e-3 else None


def lookalikes(found: Measured) -> int:
    """How many of the sampled pictures nearly repeat another one."""
    small = [seen.thumbnail for seen in found.voxels.values() if seen.thumbnail is not None]
    if found.is_mask or len(small) < 2:
        return 0
    likeness = np.stack(small) @ np.stack(small).T
    np.fill_diagonal(likeness, 0)
    return int((likeness > ALIKE).any(axis=1).sum())


# ------------------------------------------------------------------------------------------------ the group
def group_of(found: Measured) -> Group:
    """The family in numbers."""
    alike = [header for header in found.headers.values() if len(header.shape) == found.dims]
    spacings = [_along_patient(header.spacing, header) for header in alike if header.spacing]
    values = sorted({value for seen in found.voxels.values() for value in seen.values}) if found.is_mask else []
    return Group(
        pattern=found.family.pattern,
        folder=found.family.folder,
        format=found.family.format,
        count=len(found.cases),
        slices=found.family.stacks,
        dims=3 if found.dims == 3 else 2,
        channels=Counter(header.channels for header in alike).most_common(1)[0][0],
        shape=_spread([_along_patient(header.shape, header) for header in alike]),
        spacing=_spread(spacings) if spacings else None,
        orientations=_counted(header.orientation for header in alike if header.orientation),
        dtypes=_counted(header.dtype for header in alike),
        intensity=_intensity(found),
        units=dict(found.units),
        values=tuple(values[:64]),
    )


def _along_patient(sizes: Sequence[float], header: Header) -> tuple[float, ...]:
    """Sizes of a volume's axes in the order right, front, head, in which scripts see it; as stored where unknown."""
    places = [n for pair in _PAIRS for n, code in enumerate(header.orientation or "") if code in pair]
    return tuple(sizes[n] for n in places) if len(places) == len(sizes) else tuple(sizes)


def _spread(sizes: Sequence[Sequence[float]]) -> Spread:
    each = np.array(sizes, float)
    places = {"least": 0, "tenth": 10, "median": 50, "most": 100}
    rounded = {name: np.percentile(each, place, axis=0).round(3).tolist() for name, place in places.items()}
    return Spread.model_validate(rounded)


def _intensity(found: Measured) -> dict[str, float]:
    pools = [seen.pool for seen in found.voxels.values() if len(seen.pool)]
    if not pools or found.is_mask:
        return {}
    pool = np.concatenate(pools)
    numbers = dict(zip(PERCENTILES, np.percentile(pool, list(PERCENTILES.values())), strict=True))
    numbers["min"] = min(seen.low for seen in found.voxels.values() if len(seen.pool))
    numbers["max"] = max(seen.high for seen in found.voxels.values() if len(seen.pool))
    numbers |= {"mean": pool.mean(), "std": pool.std()}
    return {name: float(f"{number:.4g}") for name, number in numbers.items()}


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(Counter(words).most_common(8))
