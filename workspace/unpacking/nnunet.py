"""nnU-Net raw, versions 1 and 2: `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `imagesTs`, `labelsTs`.

The files of a case are channels of one image: they become one volume with a channel axis, so that an image is one file
everywhere else. A single channel is linked as it lies. Also read: a folder of two cases or more, each `CASE_0000` and
`CASE_0001` on, to predict on; of one such case nobody knows whether its files are channels or patients.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from m3dspy.errors import DataError
from m3dspy.signatures.values import Split
from m3dspy.workspace import sources
from m3dspy.workspace.tables import read_json
from m3dspy.workspace.unpacking._plain import MOST_CHANNELS, VOLUMES, Plain, bits, understood

HOLDS_IMAGES = True
_FILE = re.compile(r"(.+)_(\d{4})(\.nii\.gz|\.[A-Za-z0-9]+)")
_PARTS: dict[str, Split] = {"Tr": "training", "Ts": "test"}


def found(root: Path) -> bool:
    return _base(root) is not None or _are_channels(root)


def unpack(root: Path, plain: Plain) -> bool:
    base = _base(root)
    if base is None:
        for case, files in _cases(root, "").items():
            plain.merged(root, case, files)
        plain.how.append(_told(len(next(iter(_cases(root, "").values())))))
        return True
    lead, said = base.relative_to(root).as_posix(), read_json(base / "dataset.json")
    lead = "" if lead == "." else f"{lead}/"
    with understood(f"{lead}dataset.json"):
        values, regions, ignored = _labels(said)
        channels = len(said.get("channel_names") or said.get("modality") or ())
    plain.labels(values)
    trained = _cases(root, f"{lead}imagesTr")
    most = without = 0
    for part, split in _PARTS.items():
        masks = {path.name: path for path in _files(base / f"labels{part}")}
        for case, files in _cases(root, f"{lead}images{part}").items():
            if channels and len(files) != channels:
                raise DataError(
                    f"{lead}images{part}: {case} has {len(files)} files, one a channel; dataset.json names {channels}."
                )
            most = max(most, len(files))
            ending = files[0][len(f"{lead}images{part}/{case}_0000") :]
            mask = masks.get(f"{case}{ending}")
            name = f"{case}-test" if split == "test" and case in trained else case
            image = plain.merged(root, name, files)
            if mask is None:
                without += 1
                continue
            plain.pair(image, _mask(root, mask, name, regions, plain), split)
    if most > 1:
        plain.how.append(_told(most))
    if regions:
        plain.how.append("Regions that overlap are written as one bit each.")
    if ignored:
        plain.how.append("Voxels to be ignored count as background.")
    if without:
        plain.how.append(f"{without} images have no mask: there is nothing to learn from them.")
    return True


def _told(channels: int) -> str:
    return f"The {channels} files of each case are the channels of one image."


def _base(root: Path) -> Path | None:
    """The folder of dataset.json and imagesTr: the dataset itself, or the one folder in it.

    Masks are called as cases are, without a channel; where they are not, the files are cases, numbered from 0000 on.
    """
    for folder in (root, *_folders(root)):
        masks = {path.name for path in _files(folder / "labelsTr")}
        hits = [hit for path in _files(folder / "imagesTr") if (hit := _FILE.fullmatch(path.name)) and hit[2] == "0000"]
        named = any(hit[1] + hit[3] in masks for hit in hits) or not masks
        if hits and named and (folder / "dataset.json").is_file():
            return folder
    return None


def _folders(root: Path) -> list[Path]:
    inside = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return inside if len(inside) == 1 and not inside[0].is_symlink() else []


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _are_channels(folder: Path) -> bool:
    """Whether a folder holds nothing but volumes of two cases or more, each in the same few files from 0000 on."""
    hits = [_FILE.fullmatch(path.name) for path in _files(folder)]
    channels: dict[str, list[int]] = defaultdict(list)
    for hit in hits:
        if hit is None or hit[3].lower() not in VOLUMES:
            return False
        channels[hit[1]].append(int(hit[2]))
    counts = {len(numbers) for numbers in channels.values()}
    whole = all(sorted(numbers) == list(range(len(numbers))) for numbers in channels.values())
    return len(channels) > 1 and len(counts) == 1 and 1 < counts.pop() <= MOST_CHANNELS and whole


def _cases(root: Path, folder: str) -> dict[str, list[str]]:
    """Case -> its files by channel, relative to the dataset.

    Raises: DataError: a case lacks a channel.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for path in _files(root / folder):
        if hit := _FILE.fullmatch(path.name):
            cases[hit[1]].append(f"{folder}/{path.name}".lstrip("/"))
    most = max(map(len, cases.values()), default=0)
    for case, files in cases.items():
        if len(files) != most:
            raise DataError(f"{case} has {len(files)} files, other cases have {most}: every case needs every channel.")
    return dict(cases)


def _mask(root: Path, mask: Path, case: str, regions: Mapping[int, list[int]], plain: Plain) -> str:
    if not regions:
        return plain.keep(mask.relative_to(root).as_posix(), "masks", case)
    marked, affine = sources.read(mask)
    overlapping = np.zeros(marked.shape, np.uint16)
    for bit, values in regions.items():
        overlapping[np.isin(marked, values)] |= bit
    if affine is None:
        return plain.array(case, overlapping, "masks")
    return plain.volume(case, overlapping, affine, "masks")


def _labels(said: Any) -> tuple[dict[str, int], dict[int, list[int]], bool]:
    """Label -> value in the masks written; bit -> values, where labels are regions; whether some are ignored.

    Raises: DataError: dataset.json lists no labels.
    """
    listed = said.get("labels") if isinstance(said, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise DataError("dataset.json has no labels; nnU-Net's has, such as {'background': 0, 'tumour': 1}.")
    named = _oriented(listed)
    ignored = any(name == "ignore" for name, _ in named)
    wanted = [(name, value) for name, value in named if name not in ("ignore", "background") and value != 0]
    if not any(isinstance(value, list) for _, value in wanted):
        return {name: value for name, value in wanted if isinstance(value, int)}, {}, ignored
    order = bits([name for name, _ in wanted])
    return order, {order[name]: value if isinstance(value, list) else [value] for name, value in wanted}, ignored


def _oriented(listed: Mapping[Any, Any]) -> list[tuple[str, int | list[int]]]:
    """Name and value of each label, which version 1 writes as {"1": name} and version 2 as {name: 1}."""
    found: list[tuple[str, int | list[int]]] = []
    for one, other in listed.items():
        if str(one).isdigit():
            found.append((str(other), int(one)))
            continue
        values = other if isinstance(other, list) else [other]
        if not all(isinstance(value, int | str) and str(value).isdigit() for value in values):
            raise ValueError(f"label {one!r} is {other!r}, which is no number and no list of numbers")
        found.append((str(one), [int(value) for value in values] if isinstance(other, list) else int(other)))
    return found
