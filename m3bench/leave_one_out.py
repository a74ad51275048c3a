"""Zero-shot anomaly detection: what is learned on all other sets of a benchmark, tried on the one that is left out.

MVFA's authors train on the test images of the other sets and choose the epoch on those of the target. Here training
and validation take every labelled image of the others, and no image of the target is seen before the grade.
"""

from collections.abc import Mapping
from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.m3bench.task import BenchTask, find
from m3dspy.signatures.values import ANOMALY_LABELS, SPLITS, Index, Item

VALIDATION = 0.15  # of the patients of the other sets


def index(target: str, folders: Mapping[str, str], root: Path, seed: int, cap: int | None = None) -> Index:
    """The official test cases of the target; all labelled images of the other sets, dealt by patient.

    Args:
        folders: name of a dataset -> its folder below root, MVFA's data folder; the target's among them.
        cap: at most so many images of each other set, half of them normal where there are enough; None: all.
    Raises: DataError: a set that is not one of anomaly detection, or no other set.
    """
    from m3dspy.workspace import indexing as ix

    known = {find(name): folder for name, folder in folders.items()}
    left_out = find(target)
    for task in (left_out, *known):
        if task.task != "anomaly_detection":
            raise DataError(f"{task.name} is a dataset of {task.task}. Leave it out of an anomaly detection.")
    others = [task for task in known if task != left_out]
    if left_out not in known or not others:
        raise DataError(f"{target} and at least one other dataset are needed; given: {', '.join(folders)}.")

    own = left_out.gold(root / known[left_out], seed)
    items = [_item(item, left_out, known[left_out], None) | {"split": "test"} for item in own.test]
    for task in others:
        learned = task.gold(root / known[task], seed)
        cases = [_item(item, task, known[task], learned.about) for split in SPLITS for item in learned.items(split)]
        items += ix.cap({"training": cases}, training=cap, balanced=True, seed=seed)["training"]
    splits = ix.split(items, validation=VALIDATION, seed=seed)
    return Index.model_validate({"task": "anomaly_detection", "labels": ANOMALY_LABELS, "about": own.about, **splits})


def _item(item: Item, task: BenchTask, folder: str, about: str | None) -> dict:
    """The item seen from the folder that holds all sets; ids and patients of one set differ from another's."""
    return {
        "id": f"{task.name}-{item.id}",
        "patient": f"{task.name}-{item.patient}",
        "image": f"{folder}/{item.image}",
        "label": item.label,
        "mask": f"{folder}/{item.mask}" if item.mask else None,
        "about": about,
    }
