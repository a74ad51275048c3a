"""What a dataset of the benchmark is, and how its phantom gets onto the disk.

A phantom is a made-up dataset with the layout, the quirks and the difficulty of the real one. What its generator knows
and no model may see (the true severity of a disease, which slices share a patient) lies beside the dataset in
`<folder>.truth.json`; that file is also what marks the folder as a phantom.
"""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from m3dspy.errors import DataError, UsageError, unknown
from m3dspy.registry import Registry
from m3dspy.signatures.values import Caps, Index, Source, Task
from m3dspy.workspace.runs import write_atomic

TASKS = Registry("dataset", "m3dspy.m3bench.tasks")


@dataclass(frozen=True)
class Facts:
    """What an expert's plan says that neither the index nor a look at the folder tells.

    modality: as in Plan.  source: where labels stand; the `path` of masks is left open, it follows from the index.
    patient: "folder", "file name", or the name of a column of the source's table; None where nothing names the patient.
    values: how the data writes each label, () if as in the index.
    """

    modality: str
    source: Source
    patient: str | None = None
    values: tuple[str, ...] = ()
    caps: Caps = field(default_factory=Caps)
    sided: bool = False


@dataclass(frozen=True)
class Part:
    """Files that a download of the real data holds: `images/*.nii.gz`, so many as published, None where that varies."""

    pattern: str
    count: int | None = None


@dataclass(frozen=True)
class BenchTask:
    """One dataset of the benchmark.

    name: as published; also the name of its card.
    requests: what users would type, in five styles: terse, clinical, verbose with constraints, in the wrong words, and
        with another dataset in mind; round r of a benchmark takes the one at r modulo 5.
    impossible: requests that this folder cannot serve, and that must be refused.
    source, licence: of the real data.  access: how to get it, in a sentence or two.
    layout: what a download of the real data holds.  metric: the one that decides.
    size: of the phantom unless asked otherwise, counted in `unit`; with `smallest` a model can still be trained; with
        `demo` it learns enough in seconds.
    build: (folder, size, seed, workers) -> what only the generator knows, as JSON; called with an empty folder.
    gold: (root, seed) -> the index an expert would write, of the real dataset or its phantom.
    facts: what the expert's plan says beside that index.
    oracle: (index, truth) -> the best score that the phantom allows on the index's test cases; None where not known.
    arrange: (download, folder) -> lays the real data out as `gold` reads it; None where a download is so already.
    """

    name: str
    task: Task
    requests: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    source: str
    licence: str
    size: int
    smallest: int
    demo: int
    unit: str
    build: Callable[[Path, int, int, int], dict[str, Any]]
    gold: Callable[[Path, int], Index]
    facts: Facts
    oracle: Callable[[Index, dict[str, Any]], float | None]
    impossible: tuple[str, ...] = ()
    access: str = ""
    layout: tuple[Part, ...] = ()
    arrange: Callable[[Path, Path], None] | None = None


def tasks() -> list[BenchTask]:
    """Every dataset of the benchmark, by name."""
    return [module.TASK for module in TASKS.values()]


def find(name: str) -> BenchTask:
    """The dataset of that name, in any case: `find("ct-kidney").name == "CT-kidney"`.

    Raises: UsageError: there is none; names the nearest.
    """
    for task in tasks():
        if task.name.lower() == name.lower():
            return task
    raise unknown("dataset", name, [task.name for task in tasks()])


def make(name: str, folder: Path, *, size: int | None = None, seed: int = 0, workers: int = 2) -> BenchTask:
    """Make the phantom of a dataset: the same bytes for the same size and seed, whatever the number of workers.

    The folder appears when all of it is written.
    Raises: UsageError: an unknown name, or a size that is too small.  DataError: the folder is there and not empty.
    """
    task = find(name)
    size = task.size if size is None else size
    if size < task.smallest:
        raise UsageError(f"{task.name} needs at least {task.smallest} {task.unit} to be of use; {size} were asked for.")
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there and not empty. Give the name of a new folder.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            data = Path(temporary) / "data"
            data.mkdir()
            latent = task.build(data, size, seed, workers)
            known = {"phantom": True, "dataset": task.name, "size": size, "seed": seed, **latent}
            write_atomic(truth_file(folder), json.dumps(known).encode())
            if folder.exists():
                folder.rmdir()
            data.rename(folder)
    except OSError as error:
        raise DataError(f"{task.name} could not be written to {folder}: {error.strerror or error}.") from None
    return task


def make_all(folder: Path, *, seed: int = 0, workers: int = 2) -> list[BenchTask]:
    """Make the phantom of every dataset that is not there yet, in `folder/NAME`; so many at a time.

    Raises: DataError: one could not be written; those that were begun are finished.
    """
    todo = [task for task in tasks() if truth(folder / task.name) is None or not (folder / task.name).is_dir()]
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        made = [pool.submit(_make_one, task.name, folder / task.name, seed) for task in todo]
        for done in made:
            done.result()
    return todo


def _make_one(name: str, folder: Path, seed: int) -> None:
    make(name, folder, seed=seed, workers=1)


def truth_file(folder: Path) -> Path:
    """Where a phantom's truth lies: beside the dataset, never in it."""
    return folder.with_name(folder.name + ".truth.json")


def truth(folder: Path) -> dict[str, Any] | None:
    """What the generator of a phantom knows; None for a folder that is not a phantom of ours."""
    file = truth_file(folder.absolute())
    if not file.is_file():
        return None
    try:
        known = json.loads(file.read_text())
    except ValueError:
        raise DataError(f"{file} is not JSON. Make the phantom anew, or remove that file.") from None
    return known if isinstance(known, dict) and known.get("phantom") is True else None


def is_phantom(folder: Path) -> bool:
    """Whether a folder is a phantom of ours, or holds some."""
    return any(truth(place) is not None for place in (folder, *(path for path in folder.iterdir() if path.is_dir())))


def oracle(folder: Path, index: Index) -> float | None:
    """The best score that the phantom in this folder allows on the test cases; None for real data or if not known."""
    known = truth(folder)
    return find(known["dataset"]).oracle(index, known) if known else None
