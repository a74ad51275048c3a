"""Case lists that others wrote as JSON, read as items; and an index in the JSON forms of M3Builder.

M3Builder (arXiv:2502.20301) has four: segmentation `[{"image_path", "label_path", "labels"}]`, diagnosis
`{image path: [class name]}` with a `label_dict.json` `{class name: number}`, and reports `[{"image_path", "findings",
"impression"}]`. Its own examples hold `//` comments and `...`, so those are read as well.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import commonpath, join, normpath
from typing import Any

from m3dspy.errors import DataError
from m3dspy.signatures.values import SPLITS, Index, Item
from m3dspy.workspace.indexes.cases import find, items, left_out, one_file, patients, stem
from m3dspy.workspace.indexes.gathering import from_pairs
from m3dspy.workspace.indexes.splitting import SPELLINGS
from m3dspy.workspace.looking.columns import names_person
from m3dspy.workspace.runs import write_atomic
from m3dspy.workspace.sources import IMAGE_SUFFIXES
from m3dspy.workspace.tables import cases_of, read_json

_FILES = {"training": "train.json", "validation": "val.json", "test": "test.json"}


def from_json(root: Path, path: str, *, patient: str | None = None) -> list[dict]:
    """Items from a case list in JSON: of MONAI, MSD, nnU-Net raw, or M3Builder.

    Its lists become the items' `split`, which split() obeys; cases without a label are left out. `patient`: as in
    from_folders, where the list names none.

    Example: items = ix.from_json(root, "dataset.json")
    """
    path = one_file(root, path, "list")
    data = read_json(root / path)
    base = path.rpartition("/")[0]
    if (cases := cases_of(data)) is not None:
        return _located(root, base, path, cases, patient)
    if isinstance(data, dict) and (root / base / "labelsTr").is_dir():
        return _from_nnunet(root, base, path, data)
    if isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        return _from_records(root, base, path, data)
    if isinstance(data, dict) and data and all(isinstance(value, int) for value in data.values()):
        raise DataError(f"{path} numbers the classes and names no image; read the list beside it, such as train.json.")
    if isinstance(data, dict) and data and all(isinstance(value, str | list) for value in data.values()):
        return _from_diagnoses(root, base, path, data)
    raise DataError(f"{path} is no case list that is known (MONAI, MSD, nnU-Net, M3Builder). Use another helper.")


def write_m3builder(index: Index, folder: Path) -> list[Path]:
    """Write an index as M3Builder's `train.json`, `val.json`, `test.json` (and `label_dict.json`, for classification).

    A volume of slices is named by its folder. Returns: the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    forms: dict[str, Any] = {}
    for name in SPLITS:
        if index.task == "segmentation":
            forms[_FILES[name]] = [
                {"image_path": _one_path(item.image), "label_path": _one_path(item.label or ""), "labels": index.labels}
                for item in index.items(name)
            ]
        elif index.task == "report_generation":
            forms[_FILES[name]] = [
                {"image_path": _one_path(i.image), "findings": i.findings or "", "impression": i.impression or ""}
                for i in index.items(name)
            ]
        else:
            forms[_FILES[name]] = {_one_path(item.image): _label_list(item) for item in index.items(name)}
    if index.task == "classification":
        forms["label_dict.json"] = {label: number for number, label in enumerate(index.labels)}
    for name, form in forms.items():
        write_atomic(folder / name, json.dumps(form, indent=1).encode())
    return [folder / name for name in forms]


def _one_path(paths: str | tuple[str, ...]) -> str:
    return paths if isinstance(paths, str) else paths[0].rpartition("/")[0]


def _label_list(item: Item) -> list[str]:
    return [item.label] if isinstance(item.label, str) else list(item.label or ())


def _from_nnunet(root: Path, base: str, path: str, data: Mapping[str, Any]) -> list[dict]:
    """nnU-Net raw: `imagesTr/CASE_0000.nii.gz` and `labelsTr/CASE.nii.gz`, the list itself left out of the JSON."""
    channels, ending = data.get("channel_names") or data.get("modality") or {}, data.get("file_ending", ".nii.gz")
    if len(channels) > 1:
        raise DataError(
            f"{path} has {len(channels)} files an image, one a channel; this version reads one file an image."
        )
    lead, made = f"{base}/" if base else "", []
    for part, name in (("Tr", "training"), ("Ts", "test")):
        if (root / base / f"labels{part}").is_dir():
            images, masks = f"{lead}images{part}/*_0000{ending}", f"{lead}labels{part}/*{ending}"
            made += [item | {"split": name} for item in from_pairs(root, images=images, masks=masks)]
    return made


def _from_records(root: Path, base: str, path: str, data: Sequence[Mapping[str, Any]]) -> list[dict]:
    """M3Builder's segmentation list, or a plain list of `{"image", "label"}`."""
    if any(key in data[0] for key in ("findings", "finding", "impression", "impressions")):
        raise DataError(f"{path} holds reports: read it with from_reports.")
    names = {"image_path": "image", "label_path": "mask"}
    return _located(root, base, path, [{names.get(key, key): record[key] for key in record} for record in data])


def _from_diagnoses(root: Path, base: str, path: str, data: Mapping[str, Any]) -> list[dict]:
    """M3Builder's diagnosis form; single labels unless some image has none or several."""
    listed = {image: [names] if isinstance(names, str) else names for image, names in data.items()}
    single = all(len(names) == 1 for names in listed.values())
    records = [{"image": image, "label": names[0] if single else names} for image, names in listed.items()]
    return _located(root, base, path, records)


def _located(
    root: Path, base: str, path: str, records: Sequence[Mapping[str, Any]], rule: str | None = None
) -> list[dict]:
    """Items of the records whose image, and mask if that is what the label is, are files of the dataset."""
    by_name = SPELLINGS.get(path.rpartition("/")[2].removesuffix(".json").lower())
    made, unlabelled, fileless = [], [], []
    for record in records:
        image, label = record.get("image"), record.get("mask", record.get("label"))
        if not isinstance(image, str | list) or not isinstance(label, str | list | None):
            raise DataError(f"{path} has a record without a readable image and label: {str(dict(record))[:120]}.")
        if label is None:
            unlabelled.append(repr(image))
            continue
        found = _locate(root, base, image)
        known = _locate(root, base, label) if "mask" in record or _is_image(label) else label
        if found is None or known is None:
            fileless.append(repr(image))
        else:
            person = next((value for key, value in record.items() if names_person(key) and value is not None), None)
            made.append((found, known, person, record.get("split", by_name)))
    left_out(unlabelled, f"cases of {path} without a label")
    left_out(fileless, f"cases of {path} whose files are not there")
    if not made:
        raise DataError(
            f"{path} lists no labelled image of this dataset folder; its paths are read from the folder on."
        )
    slices = not isinstance(made[0][0], str)
    named = [found if isinstance(found, str) else found[0].rpartition("/")[0] for found, *_ in made]
    told = patients(named, commonpath([name.rpartition("/")[0] for name in named]), rule, slices)
    built = items(
        [(name, found) for name, (found, *_) in zip(named, made, strict=True)],
        [label for _, label, *_ in made],
        [other if patient is None else str(patient) for (*_, patient, _), other in zip(made, told, strict=True)],
        slices=slices,
    )
    split_of = {str(found): given for found, *_, given in made}
    return [item | ({"split": given} if (given := split_of[str(item["image"])]) else {}) for item in built]


def _is_image(label: str | list) -> bool:
    first = label if isinstance(label, str) else (label or [""])[0]
    return isinstance(first, str) and first.lower().endswith(IMAGE_SUFFIXES)


def _locate(root: Path, base: str, spelled: str | list[str]) -> str | list[str] | None:
    """The path of a listed image, relative to the dataset: as written, from the JSON's folder, or by its tail.

    A folder stands for its slices; nnU-Net's lists leave out the channel number `_0000`. None where nothing is there.
    """
    if isinstance(spelled, list):
        paths = [_locate(root, base, part) for part in spelled]
        return [path for path in paths if isinstance(path, str)] if all(isinstance(p, str) for p in paths) else None
    parts = [part for part in normpath(spelled.replace("\\", "/")).split("/") if part not in ("", "..", ".")]
    tails = ["/".join(parts[at:]) for at in range(len(parts))]
    for path in (normpath(join(base, spelled)), *tails):
        if path.startswith(("/", "..")):
            continue
        if (root / path).is_dir():
            files = find(root, "*", path)
            return [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)] or files
        folder, _, name = path.rpartition("/")
        for file in (name, f"{stem(name)}_0000{name.removeprefix(stem(name))}"):
            if (root / folder / file).is_file():
                return f"{folder}/{file}".lstrip("/")
    return None
