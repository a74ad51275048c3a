"""The dataset as a training script may see it: what the index names, and nothing that tells the label of a test case.

    public/<index>/tuning/   training and validation images and masks, at their own paths
    public/<index>/all/      the same, and the test images: `test/test-000012.nii.gz`, or `test/test-000012/0001.dcm`

A test case's id, patient and path may name its class. The script is given others (`test-000012`), in an order that the
whole index decides and nobody can tell without it. Answers get their own ids back when they are taken: `named_answers`.

Files are hard links where the file system has them: they cost no space, are never to be written to, and still say when
the original was changed. prepare.py, which makes the split, is shown the whole dataset; a training script never is.
"""

import csv
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import chain
from pathlib import Path, PurePosixPath

from filelock import FileLock

from m3dspy.errors import DataError
from m3dspy.signatures.values import Index, Item, Request
from m3dspy.workspace import sources, untrusted
from m3dspy.workspace.runs import Run, dataset, disk, write_atomic

FOLDER = "public"
LARGEST_TABLE = 64 << 20  # bytes of a predictions.csv or a reports.json
UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_HALVES = (".img", ".head", ".par")  # images whose other half is a file beside them
_OTHER_HALVES = (".hdr", ".mat", ".brik", ".brik.gz", ".brik.bz2", ".rec")
_ANSWER = re.compile(r"((?:[a-z]+/)?)(test-\d{6})(\.nii\.gz|\.png)")
_TABLE = re.compile(r"(?:[a-z]+/)?predictions\.csv")
REPORTS = "reports.json"


def shown(run: Run, *, test: bool, trusted: bool) -> tuple[Path, Path]:
    """The index and the dataset folder that a training script is given; the folder is made once and kept.

    Args:   test: with the images of test cases.  trusted: the script is ours; where files can be neither linked nor
            copied into half of the free space it is given the dataset as it lies, and an event says so.
    Raises: DataError: they can be neither, and the script is not ours; or a file of the index is gone.
    """
    root, index = dataset(run.folder, run.load("request", Request)), run.load("index", Index)
    view = run.folder / FOLDER / blake2b(_bytes(index), digest_size=8).hexdigest()
    with disk(run.folder), FileLock(run.folder / f"{FOLDER}.lock"):  # workers elsewhere may want it, too
        lacking = "" if view.is_dir() else _made(view, run, index, root)
        if lacking and not trusted:
            raise DataError(
                f"A script that a language model wrote may not see what tells the labels of test cases, so it needs a "
                f"view of the dataset of its own, and {lacking}. Put the runs on the disk of the data, or free space."
            )
        if lacking:
            run.event("warning", text=f"Our own script is given the dataset as it lies: {lacking}.")
        given = _given(index, as_it_lies=bool(lacking)) if test else index.model_copy(update={"test": ()})
        path = run.folder / ("public_index.json" if test else "tuning_index.json")
        write_atomic(path, given.model_dump_json(indent=1).encode())
    return path, root if lacking else view / ("all" if test else "tuning")


def forget(run: Run) -> None:
    """Remove the view of the dataset; it is made again where it is needed."""
    untrusted.remove(run.folder / FOLDER)


def named_answers(run: Run, attempt: str) -> Path:
    """The predictions of an attempt in a folder of their own, under the cases' own ids and in the order of the index.

    Masks, maps and `predictions.csv` are taken, from folders directly below too, and `reports.json`; anything else is
    left behind, and so are rows and reports of other cases, and a table or JSON that is none.

    Raises: DataError: there are none, or there is anything but plain files among them.
    """
    left, index = run.attempt(attempt, resume=True) / "predictions", run.load("index", Index)
    cases, named = opaque(index), run.attempt(f"{attempt}-answers")
    untrusted.refuse_odd(left)
    files = {}
    for name in untrusted.files(left):
        if (answer := _ANSWER.fullmatch(name)) and answer[2] in cases:
            files[f"{answer[1]}{cases[answer[2]].id}{answer[3]}"] = left / name
        elif _TABLE.fullmatch(name) and (table := _named_rows(untrusted.read(left, name, LARGEST_TABLE), cases, index)):
            (named / name).parent.mkdir(exist_ok=True)
            write_atomic(named / name, table)
        elif name == REPORTS and (written := _named_reports(untrusted.read(left, name, LARGEST_TABLE), cases, index)):
            write_atomic(named / name, written)
    for place, answer in files.items():  # a link would outlive a crash amid the removal of what was left
        (named / place).parent.mkdir(exist_ok=True)
        shutil.copyfile(answer, named / place)
    return named


def with_names(text: str, index: Index) -> str:
    """What a script said of test cases, with the cases' own ids: for a person, who has to find the file."""
    cases = opaque(index)
    return re.sub(r"test-\d{6}", lambda name: cases[name[0]].id if name[0] in cases else name[0], text)


def opaque(index: Index) -> dict[str, Item]:
    """The test cases by the ids that a script is given; a function of the index alone."""
    key = blake2b(_bytes(index)).digest()
    order = sorted(index.test, key=lambda item: blake2b(item.id.encode(), key=key).digest())
    return {f"test-{number:06d}": item for number, item in enumerate(order)}


def _bytes(index: Index) -> bytes:
    return index.model_dump_json().encode()


def _given(index: Index, *, as_it_lies: bool) -> Index:
    """The index with test cases that are called, and lie, as the script is told."""
    folder, hidden = _test_folder(index), []
    for name, item in opaque(index).items():
        image = item.image if as_it_lies else places(f"{folder}/{name}", item)
        hidden.append(item.model_copy(update={"id": name, "patient": name, "image": image}))
    return index.model_copy(update={"test": tuple(hidden)}).without_test_labels()


def _test_folder(index: Index) -> str:
    """Where the view has its test images: called as none of the dataset's own folders that it has, too."""
    taken, folder = {PurePosixPath(path).parts[0].casefold() for path in _learnt_from(index)}, "test"
    while folder in taken:
        folder += "_"
    return folder


def places(place: str, item: Item) -> str | tuple[str, ...]:
    """The paths of a test case's image in the view, without what its own may tell."""
    if isinstance(item.image, str):
        return f"{place}{_suffix(item.image)}"
    return tuple(f"{place}/{k:04d}{_suffix(path)}" for k, path in enumerate(item.image, start=1))


def _suffix(path: str) -> str:
    return next((suffix for suffix in sources.IMAGE_SUFFIXES if path.lower().endswith(suffix)), "")


def paths(image: str | tuple[str, ...]) -> tuple[str, ...]:
    return (image,) if isinstance(image, str) else image


def _learnt_from(index: Index) -> Iterator[str]:
    """The images and masks of training and validation."""
    for item in chain(index.training, index.validation):
        yield from paths(item.image)
        if index.task == "segmentation" and isinstance(item.label, str):
            yield item.label
        if item.mask:
            yield item.mask


# ------------------------------------------------------------------------------------------------ on the disk
def _made(view: Path, run: Run, index: Index, root: Path) -> str:
    """Fill the view aside and put it in its place; views of other indexes go. Returns: why it cannot be, or ""."""
    forget(run)
    unborn = run.attempt(FOLDER)
    learnt = dict(chain.from_iterable(whole(path, root / path) for path in _learnt_from(index)))
    hidden: dict[str, Path] = {}
    for item, given in zip(opaque(index).values(), _given(index, as_it_lies=False).test, strict=True):
        for place, path in zip(paths(given.image), paths(item.image), strict=True):
            hidden |= whole(place, root / path)
    tuning = {place: unborn / "tuning" / place for place in learnt}
    lacking = fill(unborn / "tuning", learnt) or fill(unborn / "all", tuning | hidden)
    if lacking:
        untrusted.remove(unborn)
        return lacking
    view.parent.mkdir(exist_ok=True)
    unborn.rename(view)
    return ""


def whole(place: str, source: Path) -> Iterator[tuple[str, Path]]:
    """An image's file, and the other half of one that is a pair."""
    yield place, source
    if source.suffix.lower() in _HALVES:
        for suffix in _OTHER_HALVES:
            for spelled in (suffix, suffix.upper()):
                if (half := source.with_name(f"{source.stem}{spelled}")).is_file():
                    yield f"{place[: -len(source.suffix)]}{spelled}", half


def link(source: Path, place: Path) -> None:
    """A hard link to the file that a path leads to; a copy where the file system has none."""
    try:
        os.link(source.resolve(), place)
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        shutil.copyfile(source, place)


def fill(folder: Path, files: Mapping[str, Path]) -> str:
    """Put files below a folder, as hard links, or as copies where they fit into half of the free space.

    Returns: what is lacking, as the end of a sentence; or "".
    """
    copies = {}
    for parent in {(folder / place).parent for place in files} | {folder}:
        parent.mkdir(parents=True, exist_ok=True)
    for place, source in files.items():
        source = source.resolve() if source.is_symlink() else source
        try:
            os.link(source, folder / place)
        except FileNotFoundError:
            raise DataError(f"{source} is in the index, and is no longer there. Put it back, or begin anew.") from None
        except OSError as error:
            if error.errno not in UNLINKABLE:
                raise
            copies[place] = source
    needed, free = sum(source.stat().st_size for source in copies.values()), shutil.disk_usage(folder).free
    if needed > free / 2:
        return f"copies take {needed / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} GB that are free there"
    for place, source in copies.items():
        shutil.copyfile(source, folder / place)
    return ""


def _named_rows(table: bytes, cases: Mapping[str, Item], index: Index) -> bytes:
    """A predictions.csv with the cases' own ids, in the order of the index; b"" where this is no table."""
    try:
        header, *rows = list(csv.reader(io.StringIO(table.decode(), newline="")))
    except (ValueError, csv.Error):
        return b""
    places = {item.id: place for place, item in enumerate(index.test)}
    known = [[cases[row[0]].id, *row[1:]] for row in rows if row and row[0] in cases]
    known.sort(key=lambda row: places[row[0]])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *known])
    return text.getvalue().encode()


def _named_reports(data: bytes, cases: Mapping[str, Item], index: Index) -> bytes:
    """A reports.json with the cases' own ids, in the order of the index; b"" where this is none."""
    try:
        found = untrusted.reports(data, REPORTS)
    except DataError:
        return b""
    named = {cases[name].id: report for name, report in found.items() if name in cases}
    ordered = {item.id: named[item.id] for item in index.test if item.id in named}
    return json.dumps(ordered, indent=1, ensure_ascii=False).encode()
