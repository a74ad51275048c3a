"""Helpers that a prepare.py calls to write `index.json`; `manual()` is what a language model gets to read of them.

    from m3dspy.workspace import indexing as ix

    root, out = ix.arguments()
    items = ix.from_folders(root, "CT/data", labels={"Cyst": "cyst", "Normal": "normal"}, images="*.jpg")
    items = ix.group_lookalikes(root, items)
    ix.write_index(out, task="classification", labels=["cyst", "normal"], splits=ix.split(items))

An item is a plain dict with the keys of `values.Item`, and `split` where the dataset has an official one.
What a helper leaves out it prints, one line a reason; what it cannot do is a DataError of one line.
"""

import argparse
import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Index, Task
from m3dspy.workspace.indexes import cases
from m3dspy.workspace.indexes.anomalies import from_anomalies
from m3dspy.workspace.indexes.checking import check_index, summary
from m3dspy.workspace.indexes.forms import from_json, write_m3builder
from m3dspy.workspace.indexes.gathering import from_folders, from_pairs, from_table
from m3dspy.workspace.indexes.headers import group_by_header
from m3dspy.workspace.indexes.lookalikes import group_lookalikes
from m3dspy.workspace.indexes.persons import group_by_table
from m3dspy.workspace.indexes.reports import from_reports
from m3dspy.workspace.indexes.splitting import cap, split
from m3dspy.workspace.runs import write_atomic

__all__ = [
    "arguments",
    "cap",
    "check_index",
    "from_anomalies",
    "from_folders",
    "from_json",
    "from_pairs",
    "from_reports",
    "from_table",
    "group_by_header",
    "group_by_table",
    "group_lookalikes",
    "manual",
    "split",
    "summary",
    "write_index",
    "write_m3builder",
]


def arguments() -> tuple[Path, Path]:
    """The dataset folder and the output folder, from `--data ROOT --out DIR`.

    Example: root, out = ix.arguments()
    """
    parser = argparse.ArgumentParser(description="Write index.json for a dataset.")
    parser.add_argument("--data", type=Path, required=True, help="the dataset folder; it is only read")
    parser.add_argument("--out", type=Path, required=True, help="where index.json goes")
    given = parser.parse_args()
    if not given.data.is_dir():
        raise DataError(f"--data {given.data} is not a folder.")
    damaged = Path(sys.argv[0]).parent / "unreadable.json"
    cases.UNREADABLE.update(json.loads(damaged.read_text()) if damaged.is_file() else ())
    return given.data, given.out


def write_index(
    out: Path,
    *,
    task: Task,
    labels: Sequence[str],
    splits: Mapping[str, Sequence[dict]],
    values: Sequence[int] = (),
    multilabel: bool = False,
    about: str = "",
) -> None:
    """Write `index.json` into `out`: the last call of a prepare.py.

    `labels`: in a fixed order, background left out; [] for reports.
    `values`: segmentation only, the voxel value of each label. `multilabel`: items hold lists of labels; in
    segmentation labels overlap, values are powers of two, and a voxel holds the sum of those on it.
    `about`: anomaly_detection only, what the images show ("liver CT"); its labels are normal, abnormal.

    Example: ix.write_index(out, task="segmentation", labels=["liver", "spleen"], values=[1, 2], splits=splits)
    """
    if set(splits) != set(SPLITS):
        raise DataError(f"splits has the keys {sorted(splits)}; they must be {', '.join(SPLITS)}.")
    expected = len(labels) if task == "segmentation" else 0
    if len(values) != expected:
        raise DataError(f"{task} of {len(labels)} labels needs {expected} values, got {len(values)}.")
    lists = {name: [{k: v for k, v in item.items() if k != "split"} for item in splits[name]] for name in SPLITS}
    try:
        index = Index(task=task, labels=labels, values=values, multilabel=multilabel, about=about, **lists)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        got = "" if where.endswith(("findings", "impression")) else f"; got {str(first['input'])[:80]!r}"
        raise DataError(f"The index is wrong at {where}: {first['msg']}{got}.") from None
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "index.json", index.model_dump_json(indent=1).encode())
    told = summary(index)
    counts = (f"{name} {told.cases[name]} cases of {told.patients[name]} patients" for name in SPLITS)
    print(f"index.json: {', '.join(counts)}")


def manual() -> str:
    """Signatures and docstrings of the helpers, as the manual for whoever writes a prepare.py."""
    gathering = (from_table, from_folders, from_pairs, from_anomalies, from_reports, from_json)
    helpers = (arguments, *gathering, group_by_header, group_by_table, group_lookalikes, split, cap, write_index)
    text = "\n\n".join(f"ix.{h.__name__}{inspect.signature(h)}\n{inspect.getdoc(h)}" for h in helpers)
    return re.sub(r"\b(pathlib|typing|collections\.abc)\.", "", text.replace(inspect.formatannotation(Task), "Task"))
