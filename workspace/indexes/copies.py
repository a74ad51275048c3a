"""Cases of different splits whose images are the same files, byte for byte: who learnt from one knows the other."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from m3dspy.signatures.values import SPLITS, Index, Item, Split

THREADS = 8
MIDDLE = 1 << 16  # bytes, by which nearly all files of one size differ
Entry = tuple[Split, Item]


def copies(index: Index, root: Path) -> list[list[Entry]]:
    """Groups of cases of the same bytes and of several splits; files are read whole only where their middles agree."""
    groups: list[list[Entry]] = [[(name, item) for name in SPLITS for item in index.items(name)]]
    for key in (_sizes, _middle, _bytes):
        groups = [part for group in groups for part in _parted(group, root, key)]
    return groups


def _parted(group: Sequence[Entry], root: Path, key: Callable[[list[Path]], object]) -> list[list[Entry]]:
    """The cases of a group by a key of their files; groups of one split or one image are no more of interest."""

    def of(entry: Entry) -> object:
        image = entry[1].image
        try:
            return key([root / path for path in ([image] if isinstance(image, str) else image)])
        except OSError:
            return entry[1].id  # told where its header is read

    parts: dict[object, list[Entry]] = defaultdict(list)
    with ThreadPoolExecutor(THREADS) as pool:
        for entry, found in zip(group, pool.map(of, group), strict=True):
            parts[found].append(entry)
    return [part for part in parts.values() if min(len({s for s, _ in part}), len({i.image for _, i in part})) > 1]


def _sizes(files: list[Path]) -> object:
    return tuple(file.stat().st_size for file in files)


def _middle(files: list[Path]) -> object:
    file = files[len(files) // 2]
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - MIDDLE) // 2)
        return opened.read(MIDDLE)


def _bytes(files: list[Path]) -> object:
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "blake2b").digest())
    return tuple(digests)
