"""The dealt control: a candidate's own answers, each given to another patient's case.

Whatever an answer says that holds for any patient (how often a label is, where an organ usually lies, what reports tend
to say) is as good after dealing; what was read from the image is not. It needs nothing of the candidate but answers.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np

from m3dspy.errors import DataError
from m3dspy.m3bench import masks
from m3dspy.m3bench.answers import MAX_TABLE, plain_file
from m3dspy.m3bench.metrics import known_mean
from m3dspy.m3bench.stats import Metric, mean_of
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import untrusted

DEALS = 5  # of answers in tables: the mean over several deals depends less on luck


def deal(patients: Sequence[str], seed: int, number: int = 0) -> list[int] | None:
    """For every case the place of the case whose answer it is given: one of another patient.

    Patients sit at a round table, in an order that the seed decides, and pass their answers on, 1 + `number` seats.
    Args: patients: of every case.  Returns: None: there are too few patients for that many deals.

    >>> deal(["a", "a", "b"], seed=0)
    [2, 2, 0]
    """
    names = sorted(set(patients))
    table = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    if number + 1 >= len(table):
        return None
    cases = {name: [place for place, patient in enumerate(patients) if patient == name] for name in names}
    giver = {name: cases[table[seat - 1 - number]] for seat, name in enumerate(table)}
    return [giver[patient][cases[patient].index(place) % len(giver[patient])] for place, patient in enumerate(patients)]


def dealt(index: Index, root: Path, predictions: Path, task: ModuleType, seed: int) -> Metric | None:
    """The deciding metric of the answers after dealing; None where all cases are of one patient.

    Args: task: the module that grades the task.
    """
    patients = [item.patient for item in index.test]
    deals = [found for number in range(DEALS) if (found := deal(patients, seed, number))]
    if not deals:
        return None
    if index.task == "segmentation":
        return mean_of(known_mean(masks.dealt_overlaps(index, root, predictions, deals[0])))
    metrics = [_examined(index, root, predictions, task, found) for found in deals]
    return lambda weights: np.mean([metric(weights) for metric in metrics], axis=0)


def _examined(index: Index, root: Path, predictions: Path, task: ModuleType, places: Sequence[int]) -> Metric:
    """The metric after one deal of the answers in tables; maps stay, since they decide nothing."""
    giver = {item.id: index.test[place].id for item, place in zip(index.test, places, strict=True)}
    with TemporaryDirectory(prefix="m3dspy-dealt-") as temporary:
        folder = Path(temporary)
        _deal_rows(predictions, folder, giver)
        _deal_reports(predictions, folder, giver)
        return task.examine(index.model_copy(update={"training": _without_masks(index)}), root, folder).metric


def _without_masks(index: Index) -> tuple[Item, ...]:
    return tuple(item.model_copy(update={"mask": None}) for item in index.training)


def _deal_rows(predictions: Path, folder: Path, giver: dict[str, str]) -> None:
    if not (path := plain_file(predictions, "predictions.csv", MAX_TABLE)):
        return
    try:
        header, *rows = csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
    except (OSError, ValueError, csv.Error):
        return
    known = {row[0]: row[1:] for row in rows if row}
    with (folder / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [header, *([name, *known[other]] for name, other in giver.items() if other in known)]
        )


def _deal_reports(predictions: Path, folder: Path, giver: dict[str, str]) -> None:
    try:
        said = untrusted.strict_json(untrusted.read(predictions, "reports.json", MAX_TABLE), "reports.json")
    except DataError:
        return
    if isinstance(said, dict):
        dealt_out = {name: said[other] for name, other in giver.items() if other in said}
        (folder / "reports.json").write_text(json.dumps(dealt_out))
