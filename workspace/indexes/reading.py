"""Cases of an index that must not be learned from: found by reading their files, and left out by name."""

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Index, Item
from m3dspy.workspace import sources
from m3dspy.workspace.indexes.copies import copies
from m3dspy.workspace.sources import Oversized

THREADS = 4
READ_BYTES = 1 << 30  # on disk; of larger datasets only headers are read, and training names what it cannot read


def unreadable(index: Index, root: Path) -> dict[str, list[str]]:
    """Why cases cannot be used -> their ids: a file is damaged, not finite, a mask that is no label map, or a copy.

    Of images of several splits that are the same, byte for byte, one is kept: that of the test, if there is one.

    Raises: DataError: a header claims more than any image holds.
    """
    items = [item for name in SPLITS for item in index.items(name)]
    sizes = [(root / path).stat().st_size for item in items for path in _files(item, index) if (root / path).is_file()]
    whole = sum(sizes) <= READ_BYTES
    with ThreadPoolExecutor(THREADS) as pool:
        faults = list(pool.map(lambda item: _fault(item, index, root, whole), items))
    found: dict[str, list[str]] = defaultdict(list)
    for item, fault in zip(items, faults, strict=True):
        if fault:
            found[fault].append(item.id)
    for *others, _ in copies(without(index, set().union(*found.values())), root):
        found["the same image as a case of another split"] += [item.id for _, item in others]
    return dict(found)


def without(index: Index, ids: set[str]) -> Index:
    """The index without these cases."""
    kept = {name: tuple(item for item in index.items(name) if item.id not in ids) for name in SPLITS}
    return index.model_copy(update=kept)


def _fault(item: Item, index: Index, root: Path, whole: bool) -> str:
    marks = _marks(item, index)
    try:
        for paths in filter(None, (item.image, marks)):
            full = root / paths if isinstance(paths, str) else [root / path for path in paths]
            header = sources.header(full)
            if not whole or not header.dtype:
                continue
            array = sources.read(full)[0]
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return "NaN or infinite values"
            if paths is marks and array.dtype.kind == "f" and (array % 1).any():
                return "a mask that holds fractions"
    except Oversized as error:
        raise DataError(f"{error}. Remove the file, or give a whole one.") from None
    except (ValueError, OSError) as error:
        return f"a file that {str(error).partition(': ')[2] or 'cannot be read'}"
    return ""


def _marks(item: Item, index: Index) -> str | tuple[str, ...] | None:
    return item.label if index.task == "segmentation" else item.mask


def _files(item: Item, index: Index) -> Iterator[str]:
    for paths in filter(None, (item.image, _marks(item, index))):
        yield from [paths] if isinstance(paths, str) else paths
