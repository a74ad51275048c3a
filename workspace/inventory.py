"""The dataset's files as they were when the index was made: what is trained and graded on must be what was indexed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Index, Request
from m3dspy.workspace.runs import Run, dataset

Inventory = dict[str, tuple[int, int]]  # path below the dataset -> bytes, time of its last change in nanoseconds


def note(run: Run, index: Index, root: Path) -> None:
    """Keep the size and time of every file that the index names."""
    run.commit("files", _found(_paths(index), root))


def check(run: Run, request: Request) -> None:
    """Compare the dataset with what was noted.

    Raises: DataError: files are gone or changed; the message names the first and counts them.
    """
    if run.has("files"):  # a run of an earlier version has none
        noted = run.load("files", Inventory)
        found = _found(noted, dataset(run.folder, request))
        _unchanged({path: (seen, found.get(path)) for path, seen in noted.items()}, len(noted), run)


def moved(run: Run, root: Path) -> None:
    """Note the dataset anew at another place, where times may differ, but not sizes.

    Raises: DataError: it is another dataset.
    """
    noted = run.load("files", Inventory)
    found = _found(noted, root)
    sizes = {path: (seen[0], found[path][0] if path in found else None) for path, seen in noted.items()}
    _unchanged(sizes, len(noted), run)
    run.commit("files", found)


def _unchanged(pairs: Mapping[str, tuple[object, object]], total: int, run: Run) -> None:
    if changed := [path for path, (noted, found) in pairs.items() if noted != found]:
        what = "is gone" if pairs[changed[0]][1] is None else "was changed"
        raise DataError(
            f"The dataset is not the one that run {run.id} indexed: {changed[0]} {what} ({len(changed)} of {total} "
            "files differ). Put it back, or start a new run."
        )


def _paths(index: Index) -> Iterator[str]:
    for item in (item for split in SPLITS for item in index.items(split)):
        yield from (item.image,) if isinstance(item.image, str) else item.image
        if item.mask:
            yield item.mask
        if index.task == "segmentation" and isinstance(item.label, str):
            yield item.label


def _found(paths: Iterator[str] | Inventory, root: Path) -> Inventory:
    found = {}
    for path in paths:
        try:
            status = (root / path).stat()
        except OSError:
            continue
        found[path] = status.st_size, status.st_mtime_ns
    return found
