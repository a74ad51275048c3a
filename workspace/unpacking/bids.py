"""BIDS: `sub-*/[ses-*/]anat/...` with what `participants.tsv` says of each person, and masks of `derivatives/`.

Images and masks stay as they are. labels.csv has one row an image: the columns of participants.tsv, and the session.
Persons are those of its column participant_id, else of its first. Time series and diffusion are left out.
"""

from pathlib import Path

from m3dspy.errors import DataError
from m3dspy.workspace.patterns import is_mask_name
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.tables import Row, read_table
from m3dspy.workspace.unpacking._plain import Plain, suffix_of, walk

HOLDS_IMAGES = True
_PEOPLE = "participants.tsv"
_LEFT_OUT = ("func", "dwi", "fmap", "eeg", "meg", "ieeg", "beh", "nirs", "motion", "perf")
_MASKS = ("mask", "dseg", "seg", "roi")


def found(root: Path) -> bool:
    return (root / _PEOPLE).is_file() and any(path.name.startswith("sub-") for path in root.iterdir() if path.is_dir())


def unpack(root: Path, plain: Plain) -> bool:
    columns, rows = read_table(root / _PEOPLE)
    key = "participant_id" if "participant_id" in columns else columns[0]
    people = {_subject(row[key]): row for row in rows}
    left_out = of_people = without = 0
    for path in walk(root):
        if not path.lower().endswith(IMAGE_SUFFIXES):
            continue
        parts = path.split("/")
        subject = next((part for part in parts if part.startswith("sub-")), "")
        if not subject or set(_LEFT_OUT).intersection(parts):
            left_out += 1
        elif parts[0] == "derivatives" or is_mask_name(_ending(path)):
            if _ending(path) in _MASKS:
                plain.keep(path, "masks")
        elif parts[0] == subject:
            person = people.get(subject)
            of_people += person is not None
            without += person is None
            plain.row(plain.keep(path), _cells(person, key, subject, parts))
    if not plain.kept:
        raise DataError(
            f"The folders sub-* beside {_PEOPLE} hold no image. Known formats: {', '.join(IMAGE_SUFFIXES)}."
        )
    if without and not of_people:
        raise DataError(
            f"No row of {_PEOPLE} is of a person who has images: its column {key!r} should hold the folders' names, "
            "such as sub-01."
        )
    names = [path for path in walk(root) if path.endswith("_dseg.tsv")]
    if names:
        plain.named = _values(root / names[0])
    plain.how.append(f"Each image was given the columns of {_PEOPLE}.")
    if left_out:
        plain.how.append(f"{left_out} time series, diffusion and other images are left out.")
    if without:
        plain.how.append(f"{without} images are of persons without a row.")
    return True


def _subject(cell: str) -> str:
    return cell.strip() if cell.strip().startswith("sub-") else f"sub-{cell.strip()}"


def _ending(path: str) -> str:
    """What the name calls itself: `mask` of `sub-01_desc-lesion_mask.nii.gz`."""
    name = path.rpartition("/")[2]
    return name[: len(name) - len(suffix_of(name))].rpartition("_")[2]


def _cells(person: Row | None, key: str, subject: str, parts: list[str]) -> dict[str, str]:
    session = next((part for part in parts[1:-1] if part.startswith("ses-")), "")
    told = {"participant_id": subject} | ({"session": session} if session else {})
    return told | {name: cell for name, cell in (person or {}).items() if name != key and cell != "n/a"}


def _values(table: Path) -> dict[str, int]:
    """Label -> voxel value, from the index and name of a `_dseg.tsv`."""
    columns, rows = read_table(table)
    if not {"index", "name"} <= set(columns):
        return {}
    return {row["name"]: int(row["index"]) for row in rows if row["index"].isdigit() and row["index"] != "0"}
