"""The reference recipe: what a careful engineer trains on a dataset without asking anybody, and what it scores.

    python -m m3dspy.m3bench.reference [NAME ...] [--root DIR] [--home DIR]

One plain recipe a kind of task, set by fixed rules from the images, with no agent, no tuning and three times the steps
that the built-in rules allow themselves. It learns from what an expert's index gives (`gold`, seed 0) and answers the
benchmark's own test cases; the score goes into `references.json`, for phantoms and for real data apart. S3 of the
benchmark asks for 90 % of it. Where others have published a score on the real data, that stands there with its source.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from m3dspy.errors import RunFailed
from m3dspy.m3bench.bench import REFERENCES, references
from m3dspy.m3bench.exercise import SHOTS, plan_of
from m3dspy.m3bench.grade import grade
from m3dspy.m3bench.task import BenchTask, find, make, tasks, truth
from m3dspy.signatures.values import Design, Group, Index, Plan
from m3dspy.workspace import emit
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import write_atomic

LOG = "log.txt"
MOST_VOXELS = {2: 128 * 128, 3: 80_000}  # of a whole image that a network sees at once


def recipe(plan: Plan, group: Group, cases: int) -> Design:
    """The recipe for an expert's plan. Args: group: of the images.  cases: for training."""
    hounsfield = plan.modality == "CT" and set(group.units) == {"HU"}
    common: dict[str, Any] = {
        "template": next(
            name for name, entry in emit.templates().items() if entry.task == plan.task and not entry.needs
        ),
        "dims": plan.dims,
        "channels": group.channels,
        "intensity": "window" if hounsfield else "zscore" if plan.modality == "MR" else "percentile",
        "window": (-1000.0, 400.0) if hounsfield else None,
        "augment": 0.3,
    }
    common["loss"] = emit.templates()[common["template"]].losses[0]
    common["network"] = next(
        name
        for name, entry in emit.networks().items()
        if entry.task == plan.task and plan.dims in entry.dims and entry.size == "small" and not entry.template
    )
    return Design.model_validate(common | _OF_TASK[plan.task](plan, group, cases))


def _whole_image(group: Group) -> tuple[int, ...]:
    """The median image, shrunk evenly to MOST_VOXELS and to multiples of 8."""
    shape = group.shape.median
    voxels = 1.0
    for n in shape:
        voxels *= n
    shrink = min(1.0, (MOST_VOXELS[group.dims] / voxels) ** (1 / group.dims))
    return tuple(max(16, round(n * shrink / 8) * 8) for n in shape)


def _classify(plan: Plan, group: Group, cases: int) -> dict[str, Any]:
    return {
        "size": _whole_image(group),
        "lr": 1e-3,
        "batch": 16,
        "epochs": max(12, round(2100 * 16 / cases)),
    }


def _segment(plan: Plan, group: Group, cases: int) -> dict[str, Any]:
    """Patches of three quarters of the median image, at its median spacing."""
    most = (48, 48, 32) if plan.dims == 3 else (128, 128)
    sides = [min(limit, 0.75 * n) for n, limit in zip(group.shape.median, most, strict=True)]
    size = tuple(max(16, int(side) // 16 * 16) for side in sides)
    spacing = group.spacing.median if group.spacing and plan.dims == 3 else None
    return {"size": size, "spacing": spacing, "lr": 5e-3, "batch": 2, "epochs": max(12, round(1500 * 2 / (4 * cases)))}


def _detect(plan: Plan, group: Group, cases: int) -> dict[str, Any]:
    """MVFA's adapters as we hold them to be right, not tuned."""
    unit = {"intensity": "unit", "window": None} if set(group.units) == {"8-bit"} else {}
    few = {"channels": 3, "size": (240, 240), "flips": (1,), "augment": 1.0, "shots": SHOTS}
    return {**few, **unit, "lr": 1e-3, "weight_decay": 0.0, "batch": 8, "epochs": 15}


def _report(plan: Plan, group: Group, cases: int) -> dict[str, Any]:
    return {"size": _whole_image(group), "lr": 1e-3, "batch": 16, "epochs": max(12, round(2100 * 16 / cases))}


_OF_TASK = {
    "classification": _classify,
    "segmentation": _segment,
    "anomaly_detection": _detect,
    "report_generation": _report,
}


def measure(task: BenchTask, root: Path, home: Path) -> dict[str, Any]:
    """Train the recipe on a dataset and grade it on the benchmark's test cases. Args: home: an empty folder.

    Raises: RunFailed: the training ended badly, or left cases without an answer.
    """
    index, began = task.gold(root, 0), time.monotonic()
    design = chosen(task, index, root)
    out = trained(design, index, root, home)
    found = grade(index, root, out / "predictions", checkpoint=out / "model.safetensors")
    if not found.s1:
        raise RunFailed(f"The reference of {task.name} left {len(found.missing)} cases without an answer.", home / LOG)
    return {
        "score": round(found.score.value, 4),
        "low": round(found.score.low, 4),
        "high": round(found.score.high, 4),
        "metric": found.metric,
        "recipe": design.model_dump(mode="json", exclude_defaults=True),
        "seconds": round(time.monotonic() - began),
    }


def chosen(task: BenchTask, index: Index, root: Path) -> Design:
    """The recipe for a dataset and an index of it."""
    fingerprint = look(root)
    plan = plan_of(index, task.facts, fingerprint, None, SHOTS)
    group = next(group for group in fingerprint.groups if group.pattern == plan.images)
    return recipe(plan, group, len(index.training))


def trained(design: Design, index: Index, root: Path, home: Path, **settings: object) -> Path:
    """Train a design to the end; the folder of its model and `predictions/`.

    Args:   home: an empty folder.  settings: of the script, over those of the design.
    Raises: RunFailed.
    """
    code, out = emit.emit(design, index, home / "code"), home / "out"
    (home / "index.json").write_text(index.without_test_labels().model_dump_json())
    given = ["--index", str(home / "index.json"), "--data", str(root.resolve()), "--out", str(out)]
    changed = [f"{name}={v if isinstance(v, str) else json.dumps(v)}" for name, v in settings.items()]
    command = [sys.executable, "train.py", *given, *(["--set", *changed] if changed else [])]
    with (home / LOG).open("w") as told:
        ended = subprocess.run(command, cwd=code, stdout=told, stderr=told)
    if ended.returncode:
        raise RunFailed(f"The training ended with status {ended.returncode}.", home / LOG)
    return out


def main(
    names: Annotated[list[str] | None, typer.Argument(help="datasets (default: all)")] = None,
    root: Annotated[Path | None, typer.Option(help="real data, a folder each (default: phantoms)")] = None,
    home: Annotated[Path | None, typer.Option(help="keep code, logs and predictions here")] = None,
) -> None:
    """Train the reference recipe on datasets of the benchmark and write what it scores."""
    for task in [find(name) for name in names] if names else tasks():
        with TemporaryDirectory(prefix="m3dspy-reference-") as scratch:
            work = (home or Path(scratch)) / task.name
            work.mkdir(parents=True)
            data = root / task.name if root else work / "data" / task.name
            if not root:
                make(task.name, data)
            kind = "real" if truth(data) is None else "phantom"
            found = measure(task, data, work)
        known = references()
        known.setdefault(task.name, {})[kind] = found
        write_atomic(REFERENCES, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())
        print(f"{task.name}: {found['metric']} {found['score']:.3f} in {found['seconds']} s")


if __name__ == "__main__":
    typer.run(main)
