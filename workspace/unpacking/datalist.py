"""A MONAI datalist whose cases have several files an image, its channels: they become one volume named as the first.

Lists with one file an image are read as they lie (`tables.cases_of`).
"""

import re
from pathlib import Path
from posixpath import normpath
from typing import Any

from m3dspy.errors import DataError
from m3dspy.workspace.patterns import clean
from m3dspy.workspace.tables import cases_of, read_json
from m3dspy.workspace.unpacking._plain import VOLUMES, Plain, person_of, suffix_of

HOLDS_IMAGES = True
_NAMED = re.compile(r"data|fold|split|task", re.IGNORECASE)


def found(root: Path) -> bool:
    return bool(_lists(root))


def unpack(root: Path, plain: Plain) -> bool:
    for path in _lists(root):
        data = read_json(path)
        cases = cases_of(data) or []
        several = [case for case in cases if _are_channels(case.get("image"))]
        if not several:
            continue
        if len(several) < len(cases):
            raise DataError(
                f"{path.name} has {len(several)} of {len(cases)} images in several files; all or none have."
            )
        for case in cases:
            files = [_file(root, spelled, path) for spelled in case["image"]]
            name = files[0].removesuffix(suffix_of(files[0]))
            image = plain.merged(root, name, files)
            if not isinstance(case["label"], str):
                continue
            person = person_of(case)
            if case["label"].lower().endswith(VOLUMES):
                mask = plain.keep(_file(root, case["label"], path), "masks", name)
                plain.pair(image, mask, case["split"], person)
            else:
                cells = {"label": case["label"]} | ({"patient": person} if person else {})
                plain.row(image, cells, case["split"])
        plain.labels(_values(data))
        plain.how.append(f"The {len(several[0]['image'])} files of each case are the channels of one image.")
        return True
    return False


def _lists(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("[!.]*.json") if _NAMED.search(path.stem) and path.is_file())


def _are_channels(image: Any) -> bool:
    """Whether these are several whole volumes: slices of one are pictures or DICOM files."""
    return isinstance(image, list) and len(image) > 1 and all(str(file).lower().endswith(VOLUMES) for file in image)


def _file(root: Path, spelled: str, path: Path) -> str:
    name = normpath(spelled)
    if name.startswith(("/", "..")) or not (root / name).is_file():
        raise DataError(f"{path.name} names {clean(spelled, 80)!r}, which is no file of this dataset folder.")
    return name


def _values(data: Any) -> dict[str, int]:
    """Label -> voxel value, as the list says it in either direction."""
    listed = data.get("labels") if isinstance(data, dict) else None
    pairs = listed.items() if isinstance(listed, dict) else ()
    turned = [(other, one) if str(one).isdigit() else (one, other) for one, other in pairs]
    return {str(name): int(value) for name, value in turned if str(value).isdigit() and int(value)}
