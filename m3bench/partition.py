"""Which exercises prompts are compiled on, and which they never see: the only place that says so.

Datasets and layouts that are not named here are held out, so a new file of either kind is. Training and validation
share layouts, not seeds.
"""

import re
from typing import Literal

from m3dspy.errors import UsageError
from m3dspy.m3bench.forge import LAYOUTS
from m3dspy.m3bench.task import tasks

Part = Literal["train", "validation", "held-out"]

DATASETS: dict[str, Part] = {"COVID19": "train", "CT-kidney": "validation"}
COMPILED = (  # in this order, so that any few in a row differ in much
    "table-words",
    "mask-folders",
    "class-folders",
    "official-split",
    "mask-pictures",
    "table-codes",
    "class-patients",
    "json-records",
    "case-folders",
    "lookalikes",
    "dicom-series",
    "normal-abnormal",
    "report-table",
)
_FIRST_SEED: dict[Part, int] = {"train": 0, "validation": 500_000, "held-out": 0}
_SEEDS, _ROUNDS = 500_000, 1000  # of a part; of one `seed` of names()
_NAME = re.compile(r"forge-([a-z0-9-]+)-(\d{6})")


def names(part: Part, count: int, seed: int = 0) -> list[str]:
    """So many exercises of a part: made-up folders, going round the layouts, then the part's datasets, a third at most.

    Args: seed: another one gives other folders.
    Raises: UsageError: an unknown part, or more than the part's seeds allow.
    """
    if part not in _FIRST_SEED:
        raise UsageError(f"No part is called {part!r}. Known: {', '.join(_FIRST_SEED)}.")
    layouts = layouts_of(part)
    datasets = [task.name for task in tasks() if DATASETS.get(task.name, "held-out") == part][: max(1, count // 3)]
    forged = max(0, count - len(datasets))
    if not (0 <= seed < _SEEDS // _ROUNDS and forged <= _ROUNDS * len(layouts)):
        raise UsageError(
            f"{count} exercises with seed {seed}: a seed is 0 to {_SEEDS // _ROUNDS - 1} and gives at most "
            f"{_ROUNDS * len(layouts)} exercises of {part}."
        )
    first = _FIRST_SEED[part] + seed * _ROUNDS
    made_up = [f"forge-{layouts[i % len(layouts)]}-{first + i // len(layouts):06d}" for i in range(forged)]
    return [*made_up, *datasets][:count]


def layouts_of(part: Part) -> list[str]:
    """The layouts of a part, in the order in which they take turns."""
    return [name for name in _spelled() if name not in COMPILED] if part == "held-out" else list(COMPILED)


def taken_apart(name: str) -> tuple[str, int] | None:
    """Layout and seed of a made-up exercise; None for the name of a dataset.

    >>> taken_apart("forge-table-words-000017"), taken_apart("COVID19")
    (('table-words', 17), None)

    Raises: UsageError: no exercise is called so.
    """
    found = _NAME.fullmatch(name)
    if found and found[1] in _spelled():
        return found[1], int(found[2])
    known = [task.name for task in tasks()]
    if name in known:
        return None
    raise UsageError(
        f"No exercise is called {name!r}. Give a dataset ({', '.join(known)}) or forge-LAYOUT-SEED with a seed of six "
        f"digits and a layout of: {', '.join(_spelled())}."
    )


def layout_of(name: str) -> str:
    """The layout of an exercise, or its dataset."""
    found = _NAME.fullmatch(name)
    return found[1] if found else name


def part_of(name: str) -> Part:
    """The part of an exercise. Layouts that prompts are compiled on are never held out, whatever the seed.

    Raises: UsageError: no exercise is called so.
    """
    if not (forged := taken_apart(name)):
        return DATASETS.get(name, "held-out")
    layout, seed = forged
    if layout not in COMPILED:
        return "held-out"
    return "train" if seed < _FIRST_SEED["validation"] else "validation"


def _spelled() -> list[str]:
    return [name.replace("_", "-") for name in LAYOUTS]
