"""A dataset as a candidate gets it, and the answers apart from it.

    HOME/public/train/      the dataset's own layout, without anything that tells of a test case
    HOME/public/test/       the images of the test cases under numbers, in an order that tells nothing
    HOME/public/test.json   a list of {"id", "image"}
    HOME/public/task.json   the task, its labels and their voxel values
    HOME/public/sample/     a well-formed submission that is worth nothing
    HOME/private/index.json every case with its answer; paths relative to HOME
    HOME/private/own.json   the same with the dataset's own ids and paths
    HOME/private/masks/     of the test cases, under their numbers
    HOME/private/truth.json what only the generator of a phantom knows

The files of `train/` are hard links where the file system has them, and never to be written to. Those of `test/` are
copies, made in the order of their numbers: a link would keep the time and the place of the original.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from m3dspy.errors import DataError
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.answers import read_answer_map, read_answer_mask, read_probabilities, read_reports
from m3dspy.m3bench.grade import grade
from m3dspy.m3bench.task import BenchTask
from m3dspy.m3bench.withholding import Marks, withheld
from m3dspy.signatures.values import Grade, Index, Item
from m3dspy.workspace import public, sources
from m3dspy.workspace.runs import write_atomic

FORM = {"task", "labels", "values", "multilabel", "about"}  # of an index, without its cases


@dataclass(frozen=True)
class Release:
    """A released dataset. home: has the folders public/ and private/."""

    home: Path

    @property
    def public(self) -> Path:
        return self.home / "public"

    @property
    def private(self) -> Path:
        return self.home / "private"

    def given(self) -> Index:
        """The test cases as a candidate is given them, without answers; paths relative to `public`."""
        cases = json.loads((self.public / "test.json").read_text())
        form = json.loads((self.public / "task.json").read_text())
        return Index.model_validate({**form, "test": [{**case, "patient": case["id"]} for case in cases]})

    def index(self) -> Index:
        """Every case with its answer; the test cases under their numbers; paths relative to `home`."""
        return Index.model_validate_json((self.private / "index.json").read_text())

    def own(self) -> Index:
        """The same with the dataset's own ids and paths, in the same order."""
        return Index.model_validate_json((self.private / "own.json").read_text())

    def truth(self) -> dict | None:
        """What only the generator of a phantom knows; None: the data is real."""
        file = self.private / "truth.json"
        return json.loads(file.read_text()) if file.is_file() else None

    def oracle(self, index: Index | None = None) -> float | None:
        """The best score that the phantom allows on the test cases, or on those of an index of `train/`."""
        known = self.truth()
        return datasets.find(known["dataset"]).oracle(index or self.own(), known) if known else None


def release(task: BenchTask, data: Path, home: Path, seed: int = 0) -> Release:
    """Release a dataset, real or phantom; one that is there already is kept. `data` is never written to.

    The same bytes for the same dataset and seed. The folder appears when all of it is written.
    Raises: DataError: `home` is there and no release; the dataset has no test case; it cannot be read or written.
    """
    home = home.absolute()
    if (home / "private" / "own.json").is_file():
        return Release(home)
    if home.exists() and any(home.iterdir()):
        raise DataError(f"{home} is there and holds no release. Give the name of a new folder.")
    own = task.gold(data, seed)
    if not own.test:
        raise DataError(f"{task.name} in {data} has no test case, so there is nothing to release.")
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{home.name}-", dir=home.parent) as temporary:
            unborn = Release(Path(temporary) / "home")
            for folder in (unborn.public / "train", unborn.private):
                folder.mkdir(parents=True)
            _fill(unborn, task, data, own)
            if home.exists():
                home.rmdir()
            unborn.home.rename(home)
    except OSError as error:
        raise DataError(f"{task.name} could not be released to {home}: {error.strerror or error}.") from None
    return Release(home)


def _fill(unborn: Release, task: BenchTask, data: Path, own: Index) -> None:
    own = own.model_copy(update={"test": tuple(public.opaque(own).values())})
    index = _numbered(own)
    _write_train(unborn.public / "train", task, data, own)
    for place, item in zip(index.test, own.test, strict=True):
        _copy(data, item, place, unborn.home)
    cases = [
        {"id": item.id, "image": _below(item.image, "public/"), **({"about": item.about} if item.about else {})}
        for item in index.test
    ]
    write_atomic(unborn.public / "test.json", json.dumps(cases, indent=1).encode())
    write_atomic(unborn.public / "task.json", index.model_dump_json(indent=1, include=FORM).encode())
    write_atomic(unborn.private / "index.json", index.model_dump_json(indent=1).encode())
    if known := datasets.truth(data):
        write_atomic(unborn.private / "truth.json", json.dumps(known).encode())
    _write_sample(unborn, index)
    write_atomic(unborn.private / "own.json", own.model_dump_json(indent=1).encode())


def _numbered(own: Index) -> Index:
    """The index as it lies in a release, relative to its home."""
    learnt = {
        split: tuple(_moved(item, own, "public/train/") for item in own.items(split))
        for split in ("training", "validation")
    }
    return own.model_copy(update={**learnt, "test": tuple(_hidden(n, item, own) for n, item in enumerate(own.test))})


def _moved(item: Item, index: Index, folder: str) -> Item:
    """The case with its files below a folder."""
    changed = {"image": tuple(folder + path for path in item.image) if _many(item) else f"{folder}{item.image}"}
    if index.task == "segmentation":
        changed["label"] = f"{folder}{item.label}"
    if item.mask:
        changed["mask"] = f"{folder}{item.mask}"
    return item.model_copy(update=changed)


def _hidden(number: int, item: Item, index: Index) -> Item:
    name = f"test-{number:06d}"
    changed: dict[str, object] = {"id": name, "image": public.places(f"public/test/{name}", item)}
    if index.task == "segmentation":
        changed["label"] = public.places(f"private/masks/{name}", _of(item.label))
    if item.mask:
        changed["mask"] = public.places(f"private/masks/{name}", _of(item.mask))
    return item.model_copy(update=changed)


def _of(path: object) -> Item:
    return Item(id="mask", patient="mask", image=str(path))


def _many(item: Item) -> bool:
    return isinstance(item.image, tuple)


def _below(image: str | tuple[str, ...], folder: str) -> str | list[str]:
    return image.removeprefix(folder) if isinstance(image, str) else [path.removeprefix(folder) for path in image]


def _copy(data: Path, item: Item, place: Item, home: Path) -> None:
    """Copy the files of a test case to where a release has them."""
    pairs = list(zip(public.paths(place.image), public.paths(item.image), strict=True))
    pairs += [
        (str(there), str(here))
        for there, here in ((place.label, item.label), (place.mask, item.mask))
        if isinstance(there, str) and there.startswith("private/masks/")
    ]
    for there, here in pairs:
        for name, source in public.whole(there, data / here):
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, home / name)


def _write_train(train: Path, task: BenchTask, data: Path, own: Index) -> None:
    """The dataset's own layout without the test cases."""
    columns = (task.facts.source.file_column, task.facts.patient)
    caps = task.facts.caps
    capped = any(most and len(items) >= most for items, most in ((own.training, caps.training), (own.test, caps.test)))
    instead = withheld(data, own, Marks.of(own, [name for name in columns if name]), capped=capped)
    for path in sorted(data.rglob("*")):
        name = path.relative_to(data).as_posix()
        if not path.is_file() or (name in instead and instead[name] is None):
            continue
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        if (content := instead.get(name)) is not None:
            (train / name).write_bytes(content)
        else:
            public.link(path, train / name)


# ------------------------------------------------------------------------------------------------ the form of answers
def _write_sample(unborn: Release, index: Index) -> None:
    """The same answer for every case: every class alike, nothing marked, nothing reported."""
    from PIL import Image

    sample = unborn.public / "sample"
    sample.mkdir()
    if index.task in ("classification", "anomaly_detection"):
        share = 1 / len(index.labels)
        row = ",".join(["{}", index.labels[0], *[f"{share:.6g}"] * len(index.labels)])
        rows = [",".join(("id", "label", *index.labels)), *(row.format(item.id) for item in index.test)]
        (sample / "predictions.csv").write_text("\n".join(rows) + "\n")
    if index.task == "report_generation":
        reports = {item.id: {"findings": "Nothing is reported.", "impression": ""} for item in index.test}
        (sample / "reports.json").write_text(json.dumps(reports, indent=1) + "\n")
    if index.task == "segmentation":
        for item in index.test:
            _write_empty(unborn.home / str(item.label), sample / item.id)
    if _with_maps(index):
        for item in index.test:
            shape = sources.header(unborn.home / str(item.image)).shape[:2]
            Image.fromarray(np.zeros(shape, np.uint16)).save(sample / f"{item.id}.png")


def _write_empty(mask: Path, place: Path) -> None:
    """A mask of the same grid with nothing in it."""
    import nibabel
    from PIL import Image

    voxels, affine = sources.read(mask)
    empty = np.zeros(voxels.shape, np.uint8)
    if affine is None and voxels.ndim == 2:
        Image.fromarray(empty).save(f"{place}.png")
    else:
        nibabel.save(nibabel.Nifti1Image(empty, np.eye(4) if affine is None else affine), f"{place}.nii.gz")


def _with_maps(index: Index) -> bool:
    return index.task == "anomaly_detection" and any(item.mask for item in index.training)


def validate(released: Release, predictions: Path) -> list[str]:
    """What is not well-formed about a submission, from the public files alone; []: nothing. It never tells a score."""
    index, sample = released.given(), released.public / "sample"
    if not predictions.is_dir():
        return [f"there is no folder {predictions}"]
    if index.task == "segmentation":
        good = {item.id for item in index.test if _fits_sample(item, index, sample, predictions)}
        what = "mask in the grid of its sample and with no other values than task.json names"
    elif index.task == "report_generation":
        good = set(read_reports(predictions, index))
        what = 'report {"findings": text, "impression": text} in reports.json'
    else:
        answers = read_probabilities(predictions, index)
        good, what = set(answers), "row in predictions.csv, whose header is that of the sample"
        if (sample / f"{index.test[0].id}.png").is_file():
            good = {item.id for item in index.test if item.id in answers and _mapped(item, sample, predictions)}
            what += ", and 16-bit map of its image's size"
    lacking = [item.id for item in index.test if item.id not in good]
    return [f"{name} has no well-formed {what}" for name in lacking]


def _fits_sample(item: Item, index: Index, sample: Path, predictions: Path) -> bool:
    path = next(path for suffix in (".nii.gz", ".png") if (path := sample / f"{item.id}{suffix}").is_file())
    empty, affine = sources.read(path)
    affine = affine if path.suffix == ".gz" else None
    return read_answer_mask(predictions, item, index.values, empty.shape, affine) is not None


def _mapped(item: Item, sample: Path, predictions: Path) -> bool:
    rows, columns = sources.header(sample / f"{item.id}.png").shape[:2]
    return read_answer_map(predictions, item, (rows, columns)) is not None


def graded(
    released: Release,
    predictions: Path,
    *,
    checkpoint: Path | None = None,
    control: Path | None = None,
    seed: int = 0,
) -> Grade:
    """Grade a submission against the private answers; see m3bench.grade.

    Args: checkpoint: None: the candidate says it has none, and is judged by its answers alone.
    """
    return grade(
        released.index(),
        released.home,
        predictions,
        checkpoint=checkpoint,
        control=control,
        oracle=released.oracle(),
        dealt=True,
        seed=seed,
    )
