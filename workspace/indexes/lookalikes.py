"""Images that nearly repeat each other, grouped, so that a split can keep them together."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError
from m3dspy.workspace import sources

SIDE = 24  # pixels of a thumbnail
ALIKE = 0.98  # correlation from which on two images count as neighbours
BLOCK = 2048  # images compared at a time
THREADS = 8


def group_lookalikes(root: Path, items: Sequence[dict]) -> list[dict]:
    """The items with `patient` their group of near-identical images, where nothing names the patient.

    Groups are chains of neighbours that correlate above .98. Cases that share a patient stay together; cases of
    different official splits stay apart.

    Example: items = ix.group_lookalikes(root, items)
    """
    parts: dict[object, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        parts[item.get("split")].append(number)
    grouped = {}
    for numbers in parts.values():
        found = _grouped(root, [items[number] for number in numbers])
        grouped |= dict(zip(numbers, found, strict=True))
    return [grouped[number] for number in range(len(items))]


def _grouped(root: Path, items: Sequence[dict]) -> list[dict]:
    with ThreadPoolExecutor(THREADS) as pool:
        vectors = list(pool.map(lambda item: _thumbnail(root, item["image"]), items))
    looks = np.zeros((len(items), max(map(len, vectors), default=0)), np.float32)
    for row, vector in zip(looks, vectors, strict=True):
        row[: len(vector)] = vector
    _, known = np.unique([item["patient"] for item in items], return_inverse=True)
    groups = _groups(looks, known).tolist()
    first: dict[int, str] = {}
    for item, group in zip(items, groups, strict=True):
        first.setdefault(group, item["patient"])
    largest = max(Counter(groups).values(), default=0)
    print(f"look-alikes: {len(items)} images form {len(first)} groups, the largest of {largest}")
    return [item | {"patient": first[group]} for item, group in zip(items, groups, strict=True)]


def _groups(looks: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """The group number of each image: connected components of the links by look and by patient.

    Args: looks: (n, pixels) float32, rows of norm 1.  patients: (n,) int.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, groups = len(looks), patients
    for start in range(0, n, BLOCK):
        for begin in range(start, n, BLOCK):
            one, other = np.nonzero(looks[start : start + BLOCK] @ looks[begin : begin + BLOCK].T > ALIKE)
            one, other = groups[one + start], groups[other + begin]
            new = one != other
            links = coo_array((np.ones(new.sum(), bool), (one[new], other[new])), shape=(n, n))
            groups = connected_components(links, directed=False)[1][groups]
    return groups


def _thumbnail(root: Path, image: str | list[str]) -> np.ndarray:
    """A picture, or three middle slices of a volume, small, with zero mean and norm 1; zeros where it is flat."""
    path = root / (image if isinstance(image, str) else image[len(image) // 2])
    try:
        looks = _small_jpeg(path) if path.suffix.lower() in (".jpg", ".jpeg") else _small(sources.read(path)[0])
    except (ValueError, OSError) as error:
        raise DataError(f"{path.relative_to(root).as_posix()} cannot be read: {error}. Leave it out.") from None
    looks = np.nan_to_num(looks.astype(np.float32).ravel())
    looks -= looks.mean()
    return looks / (np.linalg.norm(looks) or 1)


def _small_jpeg(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as picture:
        picture.draft("L", (2 * SIDE, 2 * SIDE))  # decodes at 1/2, 1/4 or 1/8 of the size
        return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))


def _small(array: np.ndarray) -> np.ndarray:
    """(rows, columns[, 3]) -> (24, 24); (x, y, z[, channels]) -> (3, 24, 24), the middle slice along each axis."""
    from PIL import Image

    def resized(plane: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))

    if array.ndim == 2:
        return resized(array)
    if array.ndim == 3 and array.shape[-1] <= 4:
        return resized(array[..., :3].mean(axis=-1))
    volume = array if array.ndim == 3 else array[..., 0]
    return np.stack([resized(volume.take(size // 2, axis=axis)) for axis, size in enumerate(volume.shape)])
