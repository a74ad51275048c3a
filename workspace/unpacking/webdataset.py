"""WebDataset: tar shards whose files belong together by the name before the first dot.

`000017.png` with `000017.cls` (a class), `000017.json` (words and numbers) or `000017.txt` (a report), and
`000017.seg.png` or `.mask.png` for its mask. The split is that of the shard's name. Nothing is extracted to a path that
the archive names: every file is read as a stream, and written under a name of ours.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace import sources, untrusted
from m3dspy.workspace.patterns import MASK_WORDS, clean, words
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.unpacking._plain import MOST_BYTES, Bounded, Plain, person_of, split_of, text_of, walk

HOLDS_IMAGES = True
_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_PICTURES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp")
_ARRAYS = ("npy", "nii", "nii.gz")
MOST_TEXT = 1 << 20
Sample = dict[str, bytes]


def found(root: Path) -> bool:
    """Archives, and no image beside them: those that lie beside images are left as they are."""
    paths = list(walk(root))
    return any(map(_is_shard, paths)) and not any(path.lower().endswith(IMAGE_SUFFIXES) for path in paths)


def unpack(root: Path, plain: Plain) -> bool:
    shards = [path for path in walk(root) if _is_shard(path)]
    splits: dict[str, Split | None] = {path: split_of(path) for path in shards}
    official = len(set(splits.values()) - {None}) > 1
    images, alone, nested = set[str](), list[tuple[str, str, str]](), set[str]()
    for path in shards:
        seen = set[str]()
        for key, sample in _samples(root / path):
            if key in seen:
                raise DataError(
                    f"{path} holds the files of {clean(key, 60)!r} in two places; those of a sample stand side by "
                    "side. Write it anew, its files sorted by name."
                )
            seen.add(key)
            if _written(key, sample, splits[path] if official else None, plain, nested):
                images.add(key)
            else:
                alone += [(key, suffix, path) for suffix in sample]
    if not images and len(shards) < sum(1 for _ in walk(root)):
        return False
    if not images:
        raise DataError("The tar files hold no pictures and no volumes. Unpack them, and give the folder.")
    for key, suffix, path in alone:
        if key in images or suffix == "cls" or _is_mask(suffix):
            raise DataError(f"{path} holds {clean(f'{key}.{suffix}', 80)!r} without its image; both go into one shard.")
    plain.how.append("Files of the shards were taken together by their names.")
    if official:
        plain.how.append("The split is that of the shards' names.")
    if nested:
        plain.how.append(f"Columns of lists or records are left out: {', '.join(sorted(nested))}.")
    return True


def _is_shard(path: str) -> bool:
    return path.lower().endswith(_SUFFIXES)


def _samples(path: Path) -> Iterator[tuple[str, Sample]]:
    """Name -> the files of one sample by their suffix; those of a sample stand side by side in a shard.

    Raises: DataError: a member is a link or a device, has a path that leads out, is too large, or is cut short.
    """
    bounded, key, sample = Bounded(path.stat().st_size), "", Sample()
    try:
        with sources.at_work(path), tarfile.open(path, "r|*") as archive:
            for member in archive:
                if member.isdir():
                    continue
                _check(member, path)
                bounded.take(member.size, member.name)
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                if not stem:
                    continue
                name = member.name.removesuffix(f".{suffix}") if suffix else member.name
                if name != key and sample:
                    yield key, sample
                    sample = Sample()
                key = name
                if file := archive.extractfile(member):
                    sample[suffix.lower()] = file.read(MOST_BYTES)
        if path.suffix.lower() == ".tar" and not _is_ended(path):
            raise EOFError("the mark of its end is missing")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path.name} is damaged or cut short: {clean(error)}. Fetch it anew.") from None
    if sample:
        yield key, sample


def _is_ended(path: Path) -> bool:
    """Whether an archive ends in two empty blocks, as each does; the reader would not miss them."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1024))
        return not any(file.read())


def _check(member: tarfile.TarInfo, path: Path) -> None:
    if not member.isfile():
        raise DataError(f"{path.name} holds a link or a device. Unpack it with care, and give the folder.")
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise DataError(f"{path.name} holds a path that leads out of it. Unpack it with care, and give the folder.")


def _is_mask(suffix: str) -> bool:
    return bool(MASK_WORDS.intersection(words(suffix)))


def _written(key: str, sample: Sample, split: Split | None, plain: Plain, nested: set[str]) -> bool:
    """Write the image of a sample, its mask and what is said of it; False: it has no image."""
    pictures = {suffix: data for suffix, data in sample.items() if suffix.rpartition(".")[2] in _PICTURES}
    arrays = {suffix: data for suffix, data in sample.items() if suffix.endswith(_ARRAYS)}
    masks = [suffix for suffix in (*pictures, *arrays) if _is_mask(suffix)]
    images = [suffix for suffix in (*pictures, *arrays) if suffix not in masks]
    if not images:
        return False
    if len(images) > 1 or len(masks) > 1:
        raise DataError(f"{clean(key, 60)!r} has {len(images)} images and {len(masks)} masks; one of each is read.")

    def put(suffix: str, folder: str) -> str:
        if suffix in pictures:
            return plain.stored(key, pictures[suffix], folder)
        ending = next(f".{known}" for known in reversed(_ARRAYS) if suffix.endswith(known))
        return plain.raw(key, ending, arrays[suffix], folder)

    image, cells = put(images[0], "images"), _cells(key, sample, nested)
    if masks:
        plain.pair(image, put(masks[0], "masks"), split or "training", person_of(cells))
    if cells:
        plain.row(image, cells, split)
    return True


def _cells(key: str, sample: Sample, nested: set[str]) -> dict[str, Any]:
    """What is said of an image; names of what is no cell go to `nested`."""
    cells: dict[str, Any] = {}
    for suffix, data in sample.items():
        kind = suffix.rpartition(".")[2]
        if kind in ("cls", "txt", "json", "text") and len(data) > MOST_TEXT:
            raise DataError(f"{clean(key, 60)}.{suffix} is larger than {MOST_TEXT >> 20} MB.")
        if kind == "cls":
            cells["label"] = text_of(data)
        elif kind in ("txt", "text"):
            cells["report" if suffix == kind else suffix.rpartition(".")[0]] = data.decode("utf-8", "replace")
        elif kind == "json":
            said = untrusted.strict_json(data, f"{clean(key, 60)}.{suffix}")
            told = said if isinstance(said, dict) else {}
            nested.update(clean(name, 60) for name, value in told.items() if isinstance(value, list | dict))
            cells |= {name: value for name, value in told.items() if isinstance(value, str | int | float)}
    return cells
