"""The patient of DICOM images, by their headers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from m3dspy.workspace.sources import dicom

THREADS = 8


def group_by_header(root: Path, items: Sequence[dict]) -> list[dict]:
    """The items with `patient` a number for the PatientID of their DICOM headers; no id is kept.

    Example: items = ix.group_by_header(root, items)
    """

    def person(item: dict) -> str:
        return dicom.patient(root / (item["image"] if isinstance(item["image"], str) else item["image"][0]))

    with ThreadPoolExecutor(THREADS) as pool:
        people = list(pool.map(person, items))
    numbers = {one: f"patient-{number:04d}" for number, one in enumerate(sorted({*people} - {""}), start=1)}
    return [item | {"patient": numbers.get(one, item["patient"])} for item, one in zip(items, people, strict=True)]
