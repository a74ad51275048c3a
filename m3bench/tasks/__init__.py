"""The datasets of the benchmark, one file each; and all exercises as a table for others to use."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets

    from m3dspy.m3bench.partition import Part

_NESTED = ("cards", "fingerprint", "plan", "index", "capped")


def as_dataset(part: "Part | None" = None, count: int = 24, home: Path = Path("runs/exercises")) -> "datasets.Dataset":
    """So many exercises of a part, or of each, as a Hugging Face dataset, one row each; their folders are in `home`.

    Plain columns: name, part, layout, seed, request, card, refused, official_split, task, modality and dims (None where
    the request is refused). Columns `cards`, `fingerprint`, `plan`, `index`, `capped` hold JSON, or None.
    Raises: UsageError: as partition.names.
    """
    import datasets

    from m3dspy.m3bench import exercise, partition

    texts = ("name", "part", "layout", "request", "card", "task", "modality", *_NESTED)
    kinds = dict.fromkeys(texts, "string") | dict.fromkeys(("seed", "dims"), "int64")
    kinds |= dict.fromkeys(("refused", "official_split"), "bool")
    rows = []
    parts: tuple[Part, ...] = (part,) if part else ("train", "validation", "held-out")
    for name in [name for part in parts for name in partition.names(part, count)]:
        made = exercise.make(name, home).model_dump(mode="json")
        told = {key: (made["plan"] or {}).get(key) for key in ("task", "modality", "dims")}
        rows.append(made | told | {key: json.dumps(made[key]) for key in _NESTED if made[key] is not None})
    return datasets.Dataset.from_list(
        rows, features=datasets.Features({k: datasets.Value(v) for k, v in kinds.items()})
    )
