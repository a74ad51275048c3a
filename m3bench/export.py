"""A dataset as a task folder in MLE-bench's layout, so that other agents' harnesses run it as it is.

    config.yaml description.md leaderboard.csv checksums.yaml    as MLE-bench has them (arXiv:2410.07095)
    prepare.py      prepare(raw, public, private): the dataset's folder in; what an agent sees, and the answers, out
    grade.py        grade(submission, answers) -> the score that decides
    splits.json     patients of every split      baselines.json   what dummy, blind and oracle score
    license.md      of the data, and how to get it

MLE-bench's grader is given one table and no folder. So a submission is one CSV: a row for every case, with the class
and its probabilities, or the findings and the impression, or the mask: the very file that m3bench asks for, as base64.
Unlike run lengths that keeps the geometry, so that a mask in another grid is found out. Maps of anomalies are not asked
for: they do not decide.
"""

import base64
import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from m3dspy.errors import DataError
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.candidate import Assignment
from m3dspy.m3bench.candidates import CANDIDATES
from m3dspy.m3bench.grade import TASKS
from m3dspy.m3bench.release import FORM, Release, graded, release
from m3dspy.m3bench.task import BenchTask
from m3dspy.signatures.values import SPLITS, Index
from m3dspy.workspace.runs import write_atomic

if TYPE_CHECKING:
    import pandas as pd

BASELINES = ("oracle", "dummy", "blind")
CHECKED = (".csv", ".json")  # files of which MLE-bench wants checksums

PREPARE = Template('''"""Release $name: `python prepare.py RAW PUBLIC PRIVATE`, or called by MLE-bench. Needs m3dspy."""

import sys
from pathlib import Path

from m3dspy.m3bench import export


def prepare(raw: Path, public: Path, private: Path) -> None:
    """raw: the dataset's own folder.  public: what an agent sees.  private: the answers."""
    export.prepare("$name", raw, public, private)


if __name__ == "__main__":
    prepare(*map(Path, sys.argv[1:]))
''')

GRADE = Template('''"""Grade for $name: `python grade.py SUBMISSION ANSWERS`, or called by MLE-bench. Needs m3dspy."""

import sys

import pandas as pd

from m3dspy.errors import DataError
from m3dspy.m3bench import export

try:
    from mlebench.grade_helpers import InvalidSubmissionError
except ImportError:
    InvalidSubmissionError = DataError


def grade(submission: pd.DataFrame, answers: pd.DataFrame) -> float:
    """$metric, higher is better; a case without a well-formed answer scores 0."""
    try:
        return export.score(submission, answers)
    except DataError as error:
        raise InvalidSubmissionError(str(error)) from None


if __name__ == "__main__":
    print(grade(*map(pd.read_csv, sys.argv[1:])))
''')

CONFIG = Template("""id: $id
name: $title
competition_type: simple
awards_medals: false
prizes: null
description: mlebench/competitions/$id/description.md

dataset:
  answers: $id/prepared/private/answers.csv
  sample_submission: $id/prepared/public/sample_submission.csv

grader:
  name: $metric
  grade_fn: mlebench.competitions.$id.grade:grade

preparer: mlebench.competitions.$id.prepare:prepare
""")

DESCRIPTION = Template("""# $title

$request

$data

## Files

- `train/`: the dataset in its own layout, without the test cases
- `test/` and `test.json`: the images of the test cases, and their ids
- `task.json`: the task, the labels in the order of the answers, and the voxel value of each in a mask
- `sample_submission.csv`: a submission that is well formed, and worth nothing; `sample/`: what it holds, as files

## Submission

One CSV with a row for every case of `test.json`. $columns

## Evaluation

$metric on the hidden answers; higher is better. A case without a well-formed answer scores 0.
""")

COLUMNS = {
    "classification": "Columns: `id`, `label`, and the probability of every label of `task.json`.",
    "anomaly_detection": "Columns: `id`, `label`, and the probability of every label of `task.json`.",
    "report_generation": "Columns: `id`, `findings`, `impression`.",
    "segmentation": "Columns: `id` and `mask`: a file in the grid of the image, NIfTI or PNG as in `sample/`, "
    "with the voxel values of `task.json`, as base64: `base64.b64encode(open(file, 'rb').read()).decode()`.",
}


def export(task: BenchTask, data: Path, out: Path) -> Path:
    """Write the task folder of a dataset below `out`; it appears when all of it is written.

    Args:   data: the real dataset or its phantom; the checksums are those of what it is prepared to.
    Raises: DataError: the folder is there.
    """
    name = f"m3bench-{task.name.lower().replace('_', '-')}"
    folder = out.absolute() / name
    if folder.exists():
        raise DataError(f"{folder} is there. Remove it, or give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".m3bench-", dir=folder.parent) as temporary:
        home, whole = Path(temporary) / "home", Path(temporary) / "task"
        whole.mkdir()
        prepare(task.name, data, home / "public", home / "private")
        released = Release(home)
        _write(whole, task, name, released)
        whole.rename(folder)
    return folder


def _write(folder: Path, task: BenchTask, name: str, released: Release) -> None:
    phantom = released.truth() is not None
    words = {
        "id": name,
        "name": task.name,
        "title": f"M3Bench {task.name}{' (phantom)' if phantom else ''}",
        "metric": task.metric,
        "request": task.requests[0],
        "columns": COLUMNS[task.task],
        "data": "The data is made up, in the layout of the real dataset: scores say nothing about patients."
        if phantom
        else f"Data: {task.source}. Licence: {task.licence}.",
    }
    for file, text in (("prepare.py", PREPARE), ("grade.py", GRADE), ("config.yaml", CONFIG)):
        (folder / file).write_text(text.substitute(words))
    (folder / "description.md").write_text(DESCRIPTION.substitute(words))
    (folder / "license.md").write_text(f"{task.licence}\n\nSource: {task.source}\n\n{task.access}\n")
    own = released.own()
    patients = {split: sorted({item.patient for item in own.items(split)}) for split in SPLITS}
    (folder / "splits.json").write_text(json.dumps(patients, indent=1))
    baselines = {known: _baseline(known, released) for known in BASELINES}
    (folder / "baselines.json").write_text(
        json.dumps({"phantom": phantom, "metric": task.metric, **baselines}, indent=1)
    )
    board = sorted(((found["value"], known) for known, found in baselines.items()), reverse=True)
    (folder / "leaderboard.csv").write_text("teamName,score\n" + "".join(f"{who},{value}\n" for value, who in board))
    (folder / "checksums.yaml").write_text("".join(_checksums(released)))


def _baseline(name: str, released: Release) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as out:
        CANDIDATES[name].candidate(Assignment(request="-", data=released.public, out=Path(out)))
        return graded(released, Path(out) / "predictions").score.model_dump()


def _checksums(released: Release) -> list[str]:
    lines = []
    for part in (released.private, released.public):
        lines.append(f"{part.name}:\n")
        for path in sorted(path for path in part.iterdir() if path.suffix in CHECKED):
            lines.append(f"  {path.name}: {hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}\n")
    return lines


# ------------------------------------------------------------------------------------------------ prepare
def prepare(name: str, raw: Path, public: Path, private: Path) -> None:
    """Release a dataset into two folders, which are new or empty."""
    with tempfile.TemporaryDirectory(prefix=".m3bench-", dir=_parent(public)) as temporary:
        released = release(datasets.find(name), raw, Path(temporary) / "home")
        _write_table(released.public / "sample_submission.csv", _rows(released, released.public / "sample"))
        _write_table(released.private / "answers.csv", _answers(released))
        for source, folder in ((released.public, public), (released.private, private)):
            folder.mkdir(parents=True, exist_ok=True)
            for path in source.iterdir():
                shutil.move(path, folder / path.name)


def _parent(folder: Path) -> Path:
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _rows(released: Release, predictions: Path) -> list[dict[str, str]]:
    """A folder of predictions as rows."""
    index = released.given()
    if index.task == "segmentation":
        return [{"id": item.id, "mask": _encoded(next(predictions.glob(f"{item.id}.*")))} for item in index.test]
    if index.task == "report_generation":
        return [{"id": case, **told} for case, told in json.loads((predictions / "reports.json").read_text()).items()]
    with (predictions / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _answers(released: Release) -> list[dict[str, str]]:
    """What `score` needs, so that no other file is asked for: the form of the answers, and each case with its own."""
    index = released.index()
    form = index.model_dump_json(include=FORM)
    return [
        {
            "id": item.id,
            "patient": item.patient,
            "form": form,
            "case": item.model_dump_json(),
            "mask": _encoded(released.home / str(item.label)) if index.task == "segmentation" else "",
        }
        for item in index.test
    ]


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


# ------------------------------------------------------------------------------------------------ grade
def score(submission: "pd.DataFrame", answers: "pd.DataFrame") -> float:
    """The score that decides, of a submission against `answers.csv`.

    Raises: DataError: the submission lacks a column, or answers a case twice or one that there is not.
    """
    told, known = _texts(submission), _texts(answers)
    form = json.loads(known[0]["form"])
    index = Index.model_validate({**form, "test": [json.loads(row["case"]) for row in known]})
    columns = _columns(index)
    if missing := [name for name in columns if name not in submission.columns]:
        raise DataError(f"The submission has no column {', '.join(missing)}. Its columns must be {', '.join(columns)}.")
    ids = [row["id"] for row in told]
    wrong = sorted({case for case in ids if ids.count(case) > 1 or case not in {row["id"] for row in known}})
    if wrong:
        raise DataError(f"The submission answers {', '.join(wrong[:3])} twice, or there is no such case.")
    with tempfile.TemporaryDirectory() as temporary:
        root, predictions = Path(temporary) / "root", Path(temporary) / "predictions"
        predictions.mkdir()
        for row, item in zip(known, index.test, strict=True):
            if row["mask"]:
                _decode(row["mask"], root / str(item.label))
        _WRITERS.get(index.task, _write_chances)(index, told, predictions)
        found = TASKS[index.task].examine(index, root, predictions)
        return float(found.metric(np.ones((1, len(index.test))))[0])


def _texts(table: "pd.DataFrame") -> list[dict[str, str]]:
    return table.astype(object).where(table.notna(), "").astype(str).to_dict("records")  # pyright: ignore


def _columns(index: Index) -> list[str]:
    kinds = {"segmentation": ["mask"], "report_generation": ["findings", "impression"]}
    return ["id", *kinds.get(index.task, ["label", *index.labels])]


def _write_chances(index: Index, rows: list[dict[str, str]], predictions: Path) -> None:
    columns = _columns(index)
    _write_table(predictions / "predictions.csv", [{name: row[name] for name in columns} for row in rows])


def _write_reports(index: Index, rows: list[dict[str, str]], predictions: Path) -> None:
    reports = {row["id"]: {"findings": row["findings"], "impression": row["impression"]} for row in rows}
    (predictions / "reports.json").write_text(json.dumps(reports))


def _write_masks(index: Index, rows: list[dict[str, str]], predictions: Path) -> None:
    suffixes = {item.id: ".png" if str(item.label).endswith(".png") else ".nii.gz" for item in index.test}
    for row in rows:
        _decode(row["mask"], predictions / f"{row['id']}{suffixes[row['id']]}")


_WRITERS: dict[str, Callable[[Index, list[dict[str, str]], Path], None]] = {
    "segmentation": _write_masks,
    "report_generation": _write_reports,
}


def _decode(text: str, path: Path) -> None:
    """Write the file; none where the text is no base64, so that the case counts as missing."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content)
