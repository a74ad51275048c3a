"""How long the examiner takes for a round of every dataset, and how much memory.

    python benchmarks/grading.py [FOLDER] [--processes 2]

Makes the phantoms and their releases in FOLDER once (default: a temporary one), writes answers of middling quality with
a control beside them, and grades those as the benchmark does: floor, control, dealt control and every further metric.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.release import Release, graded, release
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import sources


def made(name: str, home: Path) -> Release:
    """The release of a dataset's phantom, with answers and a control beside it."""
    task, data = datasets.find(name), home / "data" / name
    if not data.is_dir():
        datasets.make(name, data)
    found = release(task, data, home / "released" / name)
    for part, seed in (("answers", 0), ("control", 1)):
        folder = home / part / name
        if not folder.is_dir():
            answer(found, folder, np.random.default_rng(seed), right=part == "answers")
    return found


def answer(found: Release, folder: Path, random: np.random.Generator, right: bool) -> None:
    """Answers in the form of the sample: noise, and half of the truth if they are to be right."""
    shutil.copytree(found.public / "sample", folder)
    index = found.index()
    if index.task == "report_generation":
        reports = [{"findings": i.findings or "", "impression": i.impression or ""} for i in index.test]
        order = range(len(reports)) if right else random.permutation(len(reports))
        said = {item.id: reports[place] for item, place in zip(index.test, order, strict=True)}
        (folder / "reports.json").write_text(json.dumps(said))
        return
    for item in index.test:
        if index.task == "segmentation":
            write_mask(found.home / str(item.label), next(folder.glob(f"{item.id}.*")), random, right)
        for path in folder.glob(f"{item.id}.png") if index.task == "anomaly_detection" else ():
            write_map(found, item, path, random, right)
    if (folder / "predictions.csv").is_file():
        write_rows(index, folder / "predictions.csv", random, right)


def write_rows(index: Index, path: Path, random: np.random.Generator, right: bool) -> None:
    lines = [",".join(("id", "label", *index.labels))]
    for item in index.test:
        held = item.label if isinstance(item.label, tuple) else (item.label,)
        chances = random.random(len(index.labels)) + right * np.array([label in held for label in index.labels])
        chances /= chances.sum()
        lines.append(",".join((item.id, index.labels[int(chances.argmax())], *(f"{chance:.6f}" for chance in chances))))
    path.write_text("\n".join(lines) + "\n")


def write_mask(truth: Path, path: Path, random: np.random.Generator, right: bool) -> None:
    import nibabel
    from PIL import Image

    mask, affine = sources.read(truth)
    mask = np.roll(mask, 1 if right else mask.shape[0] // 3, axis=0)
    mask = np.where(random.random(mask.shape) < 0.02, 0, mask).astype(np.uint8)
    if path.suffix == ".png":
        Image.fromarray(mask).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4) if affine is None else affine), path)


def write_map(found: Release, item: Item, path: Path, random: np.random.Generator, right: bool) -> None:
    from PIL import Image

    rows, columns = sources.header(path).shape[:2]
    scores = random.random((rows, columns))
    if right and item.mask:
        truth, _ = sources.read(found.home / item.mask)
        scores += truth.reshape(rows, columns, -1)[..., 0] > 0
    Image.fromarray((scores / 2 * 65535).astype(np.uint16)).save(path)


def graded_once(name: str, home: Path) -> tuple[str, float, float, float]:
    """The dataset's name, its score, the seconds the grade took, and the most memory this process held so far (GB)."""
    found, begun = Release(home / "released" / name), time.perf_counter()
    grade = graded(found, home / "answers" / name, control=home / "control" / name)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return name, grade.score.value, time.perf_counter() - begun, memory


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()) / "m3dspy-grading")
    given.add_argument("--processes", type=int, default=2)
    options = given.parse_args()
    names = [task.name for task in datasets.tasks()]
    with ProcessPoolExecutor(options.processes) as pool:
        list(pool.map(partial(made, home=options.folder), names))
    begun = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        found = list(pool.map(partial(graded_once, home=options.folder), names))
    whole = time.perf_counter() - begun
    for name, score, seconds, _ in found:
        print(f"{name:<14}{score:.3f}{seconds:8.1f} s")
    memory = max(memory for *_, memory in found)
    print(f"{len(found)} datasets: {whole:.1f} s with {options.processes} processes, at most {memory:.2f} GB each")


if __name__ == "__main__":
    main()
