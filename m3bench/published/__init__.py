"""What others have published on the real datasets, to stand beside our numbers; never measured here."""

import csv
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "anomaly.csv"


@dataclass(frozen=True)
class Row:
    """One published result.

    shots: normal and as many abnormal images of the dataset that were learned from; 0: none of it.
    image_auroc, pixel_auroc: percent; pixel_auroc is None where the dataset has no masks.
    source: where the numbers stand.  note: what a reader has to know of them, "second hand".
    """

    method: str
    shots: int
    dataset: str
    image_auroc: float
    pixel_auroc: float | None
    source: str
    note: str


def rows(dataset: str) -> list[Row]:
    """What is published on a dataset of the benchmark, the fewest shots first; [] where nothing is.

    >>> [(row.shots, row.image_auroc, row.pixel_auroc) for row in rows("Liver") if row.method == "MVFA"][:2]
    [(0, 76.24, 97.85), (2, 81.08, 96.57)]
    """
    with FILE.open(newline="", encoding="utf-8") as file:
        found = [_row(cells) for cells in csv.DictReader(file) if cells["dataset"] == dataset]
    return sorted(found, key=lambda row: row.shots)


def _row(cells: dict[str, str]) -> Row:
    return Row(
        cells["method"],
        int(cells["shots"]),
        cells["dataset"],
        float(cells["image_auroc"]),
        float(cells["pixel_auroc"]) if cells["pixel_auroc"] else None,
        cells["source"],
        cells["note"],
    )
