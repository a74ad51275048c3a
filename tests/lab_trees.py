"""Folders as labs keep them, one of each format: made up, the same every time, and learnable in seconds.

    cases = TREES["coco"].write(folder)

Pictures of class `bright` show a bright disc, those of `plain` none; volumes hold a box that is brighter than the rest,
and in it a smaller one.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])
CLASSES = ("plain", "bright")
MAC = b"\0\5\26\7\0\2\0\0Mac OS X"  # begins each of the files `._NAME` that macOS leaves


@dataclass(frozen=True)
class Tree:
    """`write`: fills a folder; returns the cases in training, validation and test if the format has a split, else all.

    request: what it can serve.  labels: in the order of the plan.  patients: how many, where that is not the cases.
    """

    write: Callable[[Path], tuple[int, ...]]
    request: str
    labels: tuple[str, ...]
    patients: int | None = None


TREES: dict[str, Tree] = {}


def tree(request: str, *labels: str, patients: int | None = None) -> Callable:
    def known(write: Callable[[Path], tuple[int, ...]]) -> Callable:
        TREES[write.__name__] = Tree(write, request, labels, patients)
        return write

    return known


# ------------------------------------------------------------------------------------------------ what they hold
def picture(number: int, bright: bool) -> np.ndarray:
    """(32, 32) uint8."""
    chance = np.random.default_rng(number)
    pixels = chance.normal(70, 12, (32, 32))
    if bright:
        pixels += 110 * disc(number)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def disc(number: int) -> np.ndarray:
    """Where the bright disc of a picture is: (32, 32) bool."""
    y, x = np.random.default_rng(1000 + number).integers(9, 23, 2)
    rows, columns = np.mgrid[:32, :32]
    return (rows - y) ** 2 + (columns - x) ** 2 <= 36


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def marks(number: int) -> np.ndarray:
    """1: a box, 2: a smaller one in its corner; (20, 20, 12) uint8."""
    x, y, z = np.random.default_rng(2000 + number).integers((2, 2, 2), (9, 9, 5))
    mask = np.zeros((20, 20, 12), np.uint8)
    mask[x : x + 8, y : y + 8, z : z + 5] = 1
    mask[x : x + 4, y : y + 4, z : z + 3] = 2
    return mask


def volume(number: int, value: int = 1, tone: int = 150) -> np.ndarray:
    """A volume in which marks of `value` and above are bright: (20, 20, 12) int16."""
    noise = np.random.default_rng(3000 + number).normal(100, 15, (20, 20, 12))
    return (noise + tone * (marks(number) >= value)).astype(np.int16)


def nifti(path: Path, array: np.ndarray) -> None:
    put(path, b"")
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), path)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def packed(path: Path, members: Mapping[str, bytes]) -> None:
    """A tar archive of files by name, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


# ------------------------------------------------------------------------------------------------ nnU-Net, MONAI, BIDS
@tree("Segment the oedema and the tumour in brain MR, as a quick try", "oedema", "tumour")
def nnunet(root: Path) -> tuple[int, ...]:
    """Version 2: two channels, test cases with masks."""
    base = root / "Dataset007_Brain"
    for part, numbers in (("Tr", range(10)), ("Ts", range(10, 13))):
        for number in numbers:
            for channel in (0, 1):
                image = volume(number, value=channel + 1)
                nifti(base / f"images{part}/case_{number:03d}_{channel:04d}.nii.gz", image)
            nifti(base / f"labels{part}/case_{number:03d}.nii.gz", marks(number))
    labels = {"background": 0, "oedema": 1, "tumour": 2}
    said = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "numTraining": 10, "file_ending": ".nii.gz"}
    put(base / "dataset.json", json.dumps(said))
    return 10, 3


@tree("Segment the tumour in CT of the liver, as a quick try", "tumour")
def nnunet_v1(root: Path) -> tuple[int, ...]:
    """Version 1: one channel, a list of the training cases, test cases without masks."""
    listed = []
    for number in range(10):
        nifti(root / f"imagesTr/liver_{number:03d}_0000.nii.gz", volume(number))
        nifti(root / f"labelsTr/liver_{number:03d}.nii.gz", (marks(number) > 0).astype(np.uint8))
        listed.append(
            {"image": f"./imagesTr/liver_{number:03d}.nii.gz", "label": f"./labelsTr/liver_{number:03d}.nii.gz"}
        )
    for number in range(10, 12):
        nifti(root / f"imagesTs/liver_{number:03d}_0000.nii.gz", volume(number))
    said = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "tumour"}, "training": listed, "test": []}
    put(root / "dataset.json", json.dumps(said))
    return (10,)


@tree("Segment the oedema and the tumour in brain MR, as a quick try", "oedema", "tumour")
def nnunet_regions(root: Path) -> tuple[int, ...]:
    """Regions that overlap, and voxels to be ignored."""
    for number in range(10):
        nifti(root / f"imagesTr/case_{number:03d}_0000.nii.gz", volume(number))
        nifti(root / f"labelsTr/case_{number:03d}.nii.gz", marks(number))
    labels = {"background": 0, "oedema": [1, 2], "tumour": [2], "ignore": 3}
    put(root / "dataset.json", json.dumps({"channel_names": {"0": "T1"}, "labels": labels, "file_ending": ".nii.gz"}))
    return (10,)


@tree("Segment the oedema and the tumour in brain MR, as a quick try", "oedema", "tumour")
def decathlon(root: Path) -> tuple[int, ...]:
    """Medical Segmentation Decathlon, with a channel axis."""
    listed = []
    for number in range(10):
        both = np.stack([volume(number), volume(number, value=2)], axis=-1)
        nifti(root / f"imagesTr/BRATS_{number:03d}.nii.gz", both)
        nifti(root / f"labelsTr/BRATS_{number:03d}.nii.gz", marks(number))
        listed.append(
            {"image": f"./imagesTr/BRATS_{number:03d}.nii.gz", "label": f"./labelsTr/BRATS_{number:03d}.nii.gz"}
        )
    labels = {"0": "background", "1": "oedema", "2": "tumour"}
    put(root / "dataset.json", json.dumps({"labels": labels, "training": listed, "test": []}))
    return (10,)


@tree("Segment the box in CT, as a quick try", "box")
def datalist(root: Path) -> tuple[int, ...]:
    """MONAI: folds, and test cases with masks."""
    lists: dict[str, list] = {"training": [], "testing": []}
    for number in range(13):
        nifti(root / f"scans/scan_{number:02d}.nii.gz", volume(number))
        nifti(root / f"truth/scan_{number:02d}.nii.gz", (marks(number) > 0).astype(np.uint8))
        case: dict = {"image": f"scans/scan_{number:02d}.nii.gz", "label": f"truth/scan_{number:02d}.nii.gz"}
        lists["training" if number < 10 else "testing"].append(case | ({"fold": number % 5} if number < 10 else {}))
    put(root / "datalist.json", json.dumps({"labels": {"0": "background", "1": "box"}, **lists}))
    return 8, 2, 3


@tree("Segment the box in brain MR, as a quick try", "box", patients=5)
def datalist_channels(root: Path) -> tuple[int, ...]:
    """MONAI: an image is a list of files, its channels; two images a subject. A Mac left a file of its own."""
    listed = []
    for number in range(10):
        files = [f"case{number:02d}/{name}.nii.gz" for name in ("t1", "t2")]
        for channel, file in enumerate(files):
            nifti(root / file, volume(number, value=channel + 1))
        nifti(root / f"case{number:02d}/seg.nii.gz", (marks(number) > 0).astype(np.uint8))
        of_whom = {"subject": f"S{number // 2}", "fold": number // 2}
        listed.append({"image": files, "label": f"case{number:02d}/seg.nii.gz", **of_whom})
    put(root / "._dataset.json", MAC)
    put(root / "dataset.json", json.dumps({"labels": {"box": 1, "background": 0}, "training": listed}))
    return 8, 2


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES)
def datalist_classes(root: Path) -> tuple[int, ...]:
    """MONAI: labels are numbers, in a list now and then, which the list of cases names."""
    lists: dict[str, list] = {"training": [], "validation": [], "testing": []}
    for number in range(60):
        put(root / f"pictures/{number:03d}.png", png(picture(number, number % 2 == 1)))
        split = "training" if number < 40 else "validation" if number < 48 else "testing"
        lists[split].append(
            {"image": f"pictures/{number:03d}.png", "label": [number % 2] if number % 3 else number % 2}
        )
    put(root / "data.json", json.dumps({"labels": {"0": "plain", "1": "bright"}, **lists}))
    return 40, 8, 12


@tree(
    "Tell persons of group control from those of group patient in MR of the head, as a quick try",
    "control",
    "patient",
    patients=30,
)
def bids(root: Path) -> tuple[int, ...]:
    """Thirty persons, two of whom came twice; who a row is about stands in its second column."""
    rows = ["age\tparticipant_id\tgroup"]
    cases = 0
    for number in range(30):
        subject, sick = f"sub-{number + 1:02d}", number % 2 == 1
        rows.append(f"{40 + number}\t{subject}\t{'patient' if sick else 'control'}")
        for session in ("01", "02") if number < 2 else ("01",):
            tone = 150 if sick else 0
            name = f"{subject}/ses-{session}/anat/{subject}_ses-{session}_T1w"
            nifti(root / f"{name}.nii.gz", volume(number + 40 * int(session), tone=tone))
            put(root / f"{name}.json", "{}")
            nifti(root / f"{subject}/ses-{session}/func/{subject}_ses-{session}_bold.nii.gz", volume(number))
            cases += 1
    put(root / "participants.tsv", "\n".join(rows) + "\n")
    put(root / "dataset_description.json", json.dumps({"Name": "Heads", "BIDSVersion": "1.8.0"}))
    return (cases,)


@tree("Segment the lesion in MR of the head, as a quick try", "lesion")
def bids_masks(root: Path) -> tuple[int, ...]:
    """Masks among the derivatives, their label in a table."""
    rows = ["participant_id\tsex"]
    for number in range(10):
        subject = f"sub-{number + 1:02d}"
        rows.append(f"{subject}\t{'FM'[number % 2]}")
        nifti(root / f"{subject}/anat/{subject}_FLAIR.nii.gz", volume(number))
        mask = root / f"derivatives/manual/{subject}/anat/{subject}_space-orig_dseg.nii.gz"
        nifti(mask, (marks(number) > 0).astype(np.uint8))
    put(root / "participants.tsv", "\n".join(rows) + "\n")
    put(root / "derivatives/manual/space-orig_dseg.tsv", "index\tname\n1\tlesion\n")
    put(root / "dataset_description.json", json.dumps({"Name": "Lesions", "BIDSVersion": "1.8.0"}))
    return (10,)


# ------------------------------------------------------------------------------------------------ containers
@tree("Tell the images of class 0 from those of class 1, as a quick try", "class 0", "class 1")
def medmnist(root: Path) -> tuple[int, ...]:
    parts, start = {}, 0
    for part, count in (("train", 40), ("val", 8), ("test", 12)):
        numbers = range(start, start + count)
        parts[f"{part}_images"] = np.stack([picture(number, number % 2 == 1) for number in numbers])
        parts[f"{part}_labels"] = np.array([[number % 2] for number in numbers], np.uint8)
        start += count
    root.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(root / "spots.npz", **parts)
    return 40, 8, 12


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES)
def hugging_face(root: Path) -> tuple[int, ...]:
    """A DatasetDict as `save_to_disk` and `map` leave it, with class names, and no list for validation."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features
    from datasets import Image as Picture

    features = Features({"image": Picture(), "label": ClassLabel(names=list(CLASSES))})
    parts, start = {}, 0
    for part, count in (("train", 48), ("test", 12)):
        numbers = range(start, start + count)
        rows = [{"image": {"bytes": png(picture(n, n % 2 == 1)), "path": None}, "label": n % 2} for n in numbers]
        parts[part] = Dataset.from_list(rows, features=features)
        start += count
    DatasetDict(parts).save_to_disk(root)
    shutil.copy(root / "train/data-00000-of-00001.arrow", root / "train/cache-0123456789abcdef.arrow")
    return 48, 12


@tree("Segment the spot, as a quick try", "structure 1", patients=8)
def hugging_face_parquet(root: Path) -> tuple[int, ...]:
    """Parquet shards as on the hub, with masks as a second column of pictures, two pictures a patient, and no split."""
    import pyarrow
    from pyarrow import parquet

    rows = [
        {"image": {"bytes": png(picture(n, True))}, "mask": {"bytes": png(disc(n) * np.uint8(1))}, "patient_id": n // 2}
        for n in range(16)
    ]
    put(root / "data/train-00000-of-00001.parquet", b"")
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "data/train-00000-of-00001.parquet")
    return (16,)


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES)
def webdataset(root: Path) -> tuple[int, ...]:
    """As a Mac packs it."""
    start = 0
    for name, count in (("train-000000", 20), ("train-000001", 20), ("val-000000", 8), ("test-000000", 12)):
        members = {}
        for number in range(start, start + count):
            members |= {f"._{number:06d}.png": MAC, f"{number:06d}.png": png(picture(number, number % 2 == 1))}
            told = json.dumps({"kind": CLASSES[number % 2], "box": [1, 2]}).encode()
            members |= {f"._{number:06d}.json": MAC, f"{number:06d}.json": told}
        packed(root / f"spots-{name}.tar", members)
        start += count
    return 40, 8, 12


@tree("Segment the spot, as a quick try", "structure 1", patients=8)
def webdataset_masks(root: Path) -> tuple[int, ...]:
    """Two pictures a patient, and no split."""
    members = {}
    for number in range(16):
        members[f"{number:06d}.png"] = png(picture(number, True))
        members[f"{number:06d}.mask.png"] = png(disc(number) * np.uint8(1))
        members[f"{number:06d}.json"] = json.dumps({"patient": f"P{number // 2}"}).encode()
    packed(root / "spots.tar.gz", members)
    return (16,)


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES, patients=20)
def parquet_table(root: Path) -> tuple[int, ...]:
    """Pictures in a folder, and a Parquet table of them."""
    import pyarrow
    from pyarrow import parquet

    rows = []
    for number in range(60):
        put(root / f"pictures/{number:03d}.png", png(picture(number, number // 3 % 2 == 1)))
        rows.append({"file": f"{number:03d}.png", "patient": f"P{number // 3:03d}", "kind": CLASSES[number // 3 % 2]})
    parquet.write_table(pyarrow.Table.from_pylist(rows), root / "cases.parquet")
    return (60,)


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES)
def hugging_face_shards(root: Path) -> tuple[int, ...]:
    """Parquet shards of two splits as on the hub, whose schema names the classes, and a column called as ours."""
    import pyarrow
    from pyarrow import parquet

    noted = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    features = {b"huggingface": json.dumps({"info": {"features": noted}}).encode()}
    start = 0
    for name, count in (("train-00000-of-00002", 24), ("train-00001-of-00002", 24), ("test-00000-of-00001", 12)):
        numbers = range(start, start + count)
        rows = [{"image": {"bytes": png(picture(n, n % 2 == 1)), "path": f"{n}.png"}, "label": n % 2} for n in numbers]
        rows = [row | {"file": f"{place:03d}.dcm"} for place, row in enumerate(rows)]
        table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(features)
        put(root / f"data/{name}.parquet", b"")
        parquet.write_table(table, root / f"data/{name}.parquet")
        start += count
    return 48, 12


# ------------------------------------------------------------------------------------------------ pictures and tables
@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES, patients=30)
def class_folders(root: Path) -> tuple[int, ...]:
    """A folder a class; two pictures a patient."""
    for number in range(60):
        patient = number // 2
        kind = patient % 2
        put(root / f"{CLASSES[kind]}/P{patient:03d}_{number % 2 + 1}.png", png(picture(number, kind == 1)))
    return (60,)


def _table(root: Path) -> list[dict[str, str]]:
    """Pictures in a folder; a row each, of twenty patients."""
    rows = []
    for number in range(60):
        patient = number // 3
        put(root / f"pictures/{number:03d}.png", png(picture(number, patient % 2 == 1)))
        rows.append({"file": f"{number:03d}.png", "patient": f"P{patient:03d}", "kind": CLASSES[patient % 2]})
    return rows


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES, patients=20)
def csv_table(root: Path) -> tuple[int, ...]:
    """The archive that the pictures came in lies beside them, and one of something else."""
    rows = _table(root)
    packed(root / "pictures.tar", {f"pictures/{name}.png": png(picture(0, True)) for name in ("000", "001")})
    packed(root / "code.tar.gz", {"train.py": b"print(1)"})
    put(root / "cases.csv", "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n")
    return (60,)


@tree("Tell the images of class plain from those of class bright, as a quick try", *CLASSES, patients=20)
def xlsx_table(root: Path) -> tuple[int, ...]:
    from openpyxl import Workbook

    rows, book = _table(root), Workbook(write_only=True)
    sheet = book.create_sheet("cases")
    for cells in (list(rows[0]), *(list(row.values()) for row in rows)):
        sheet.append(cells)
    book.save(root / "cases.xlsx")
    return (60,)


@tree("Segment the spot, as a quick try", "spot")
def mask_folders(root: Path) -> tuple[int, ...]:
    """Pictures, and beside them masks that are black and white."""
    for number in range(20):
        put(root / f"images/{number:03d}.png", png(picture(number, True)))
        put(root / f"masks/spot/{number:03d}.png", png(disc(number) * np.uint8(255)))
    return (20,)


@tree("Segment the spot, as a quick try", "spot", patients=4)
def mask_folders_table(root: Path) -> tuple[int, ...]:
    """The same, of four patients: a table says whose a picture is, and nothing else."""
    mask_folders(root)
    rows = [f"{number:03d}.png,P{number // 5}" for number in range(20)]
    put(root / "who.csv", "\n".join(["file,patient", *rows]) + "\n")
    return (20,)


# ------------------------------------------------------------------------------------------------ boxes and outlines
def _coco(root: Path, outline: bool) -> tuple[int, ...]:
    counts = {"train": 20, "val": 4, "test": 6}
    start = 0
    for part, count in counts.items():
        images, annotations = [], []
        for number in range(start, start + count):
            put(root / f"{part}/{number:04d}.png", png(picture(number, True)))
            images.append({"id": number, "file_name": f"{number:04d}.png", "width": 32, "height": 32})
            rows, columns = np.nonzero(disc(number))
            left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            about = {"id": number, "image_id": number, "category_id": 7, "iscrowd": 0}
            about["bbox"] = [int(left), int(top), int(right - left), int(bottom - top)]
            if outline:
                turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
                middle = (left + right) / 2, (top + bottom) / 2
                points = np.column_stack([middle[0] + 6 * np.cos(turns), middle[1] + 6 * np.sin(turns)])
                about["segmentation"] = [points.ravel().tolist()]
            annotations.append(about)
        said = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "nodule"}]}
        put(root / f"{part}/_annotations.coco.json", json.dumps(said))
        start += count
    return tuple(counts.values())


@tree("Mark the nodules, as a quick try", "nodule")
def coco_boxes(root: Path) -> tuple[int, ...]:
    return _coco(root, outline=False)


@tree("Outline the nodules, as a quick try", "nodule")
def coco_outlines(root: Path) -> tuple[int, ...]:
    return _coco(root, outline=True)


@tree("Segment the nodule and its core, as a quick try", "nodule", "core")
def coco_instances(root: Path) -> tuple[int, ...]:
    """As COCO itself lies on disk: outlines of instances, run lengths of a label that lies over another one."""
    start = 0
    for part, count in (("train2017", 20), ("val2017", 5)):
        images, annotations = [], []
        for number in range(start, start + count):
            pixels, where = picture(number, True), disc(number)
            rows, columns = np.nonzero(where)
            left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            y, x = (top + bottom) // 2, (left + right) // 2
            core = np.zeros((32, 32), bool)
            core[y - 3 : y + 3, x - 3 : x + 3] = True
            put(root / f"{part}/{number:012d}.png", png(np.where(core, 255, pixels).astype(np.uint8)))
            images.append({"id": number, "file_name": f"{number:012d}.png", "width": 32, "height": 32})
            turns = np.linspace(-np.pi / 2, np.pi / 2, 13)
            for half in (turns, turns + np.pi):  # two instances make the disc
                points = np.column_stack([x + 6.5 * np.cos(half), y + 6.5 * np.sin(half)])
                outline = {"segmentation": [points.ravel().tolist()], "category_id": 3, "iscrowd": 0}
                annotations.append({"id": len(annotations), "image_id": number, "bbox": [0, 0, 1, 1], **outline})
            ends = np.flatnonzero(np.diff(np.concatenate([[False], core.ravel("F"), [False]])))
            counts = np.diff(np.concatenate([[0], ends, [core.size]])).tolist()
            runs = {"segmentation": {"size": [32, 32], "counts": counts}, "category_id": 5, "iscrowd": 1}
            annotations.append({"id": len(annotations), "image_id": number, "bbox": [0, 0, 1, 1], **runs})
        kinds = [{"id": 3, "name": "nodule"}, {"id": 5, "name": "core"}]
        said = {"images": images, "annotations": annotations, "categories": kinds}
        put(root / f"annotations/instances_{part}.json", json.dumps(said))
        start += count
    return 20, 5


@tree("Outline the nodules, as a quick try", "nodule")
def yolo_outlines(root: Path) -> tuple[int, ...]:
    """As YOLO's segmentation lies on disk: a folder a split, which holds images and labels."""
    counts = {"train": 20, "valid": 5, "test": 5}
    start = 0
    for part, count in counts.items():
        for number in range(start, start + count):
            put(root / f"{part}/images/{number:04d}.png", png(picture(number, True)))
            rows, columns = np.nonzero(disc(number))
            middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
            turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            points = np.column_stack([middle[0] + 6.5 * np.cos(turns), middle[1] + 6.5 * np.sin(turns)]) / 32
            put(
                root / f"{part}/labels/{number:04d}.txt", " ".join(["0", *(f"{share:.5f}" for share in points.ravel())])
            )
        start += count
    put(root / "data.yaml", "train: train/images\nval: valid/images\nnc: 1\nnames: ['nodule']\n")
    return tuple(counts.values())


@tree("Mark the nodules, as a quick try", "nodule")
def yolo(root: Path) -> tuple[int, ...]:
    """Boxes; every fifth picture shows nothing."""
    counts = {"train": 20, "val": 5, "test": 5}
    start = 0
    for part, count in counts.items():
        for number in range(start, start + count):
            shows = number % 5 != 0
            put(root / f"images/{part}/{number:04d}.png", png(picture(number, shows)))
            rows, columns = np.nonzero(disc(number))
            left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            shares = ((left + right) / 64, (top + bottom) / 64, (right - left) / 32, (bottom - top) / 32)
            if shows:
                put(root / f"labels/{part}/{number:04d}.txt", " ".join(["0", *(f"{share:.5f}" for share in shares)]))
        start += count
    put(root / "data.yaml", "train: images/train\nval: images/val\nnames:\n  0: nodule\n")
    return tuple(counts.values())


# ------------------------------------------------------------------------------------------------ DICOM
def series(folder: Path, number: int, tone: int = 150, patient: str | None = None) -> list:
    """A CT of twelve slices, one file each; the datasets written. `patient`: its id; else two scans share one."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    slices = []
    voxels = volume(number, tone=tone)
    for place in range(voxels.shape[2]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = f"1.2.826.0.1.{number + 1}.3.{place + 1}"
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.826.0.1.{number + 1}.1", f"1.2.826.0.1.{number + 1}.2"
        one.FrameOfReferenceUID = f"1.2.826.0.1.{number + 1}.4"
        one.PatientID = f"MRN{700000 + number // 2}" if patient is None else patient
        one.PatientName, one.Modality = f"Doe^Jane{number // 2}", "CT"
        one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = one.AccessionNumber = one.StudyID = ""
        one.SeriesNumber, one.InstanceNumber, one.SliceThickness = 1, place + 1, 3
        one.ImagePositionPatient, one.ImageOrientationPatient = [-10, -20, 5 + 3 * place], [1, 0, 0, 0, 1, 0]
        one.PixelSpacing, one.Rows, one.Columns = [1, 1], voxels.shape[1], voxels.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, -1000
        one.PixelData = np.ascontiguousarray(voxels[:, :, place].T).tobytes()
        one.save_as(folder / f"IM{place + 1:04d}.dcm", enforce_file_format=True)
        slices.append(one)
    return slices


@tree("Tell the scans of class plain from those of class bright in CT, as a quick try", *CLASSES, patients=8)
def dicom_series(root: Path) -> tuple[int, ...]:
    """Sixteen series of eight patients, a folder a scan, and a table that names the folders."""
    rows = ["scan,kind"]
    for number in range(16):
        kind = number // 2 % 2
        series(root / f"scans/scan{number:02d}", number, tone=150 * kind)
        rows.append(f"scan{number:02d},{CLASSES[kind]}")
    put(root / "scans.csv", "\n".join(rows) + "\n")
    return (16,)


def _segmented(root: Path, kind: str, shown: Callable, patient: str | None = None) -> tuple[int, ...]:
    """Ten series, each with a segmentation. `shown`: its pixels, of marks as (slices, rows, columns)."""
    import highdicom
    from pydicom.sr.codedict import codes

    for number in range(10):
        slices = series(root / f"study{number:02d}/ct", number, patient=patient)
        described = [
            highdicom.seg.SegmentDescription(
                segment_number=place,
                segment_label=label,
                segmented_property_category=codes.SCT.AnatomicalStructure,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
            for place, label in enumerate(("liver", "tumour"), start=1)
        ]
        highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=shown(marks(number).transpose(2, 1, 0)),
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=f"1.2.826.0.1.{number + 1}.8",
            series_number=2,
            sop_instance_uid=f"1.2.826.0.1.{number + 1}.9",
            instance_number=1,
            manufacturer="none",
            manufacturer_model_name="none",
            software_versions="1",
            device_serial_number="1",
        ).save_as(root / f"study{number:02d}/seg.dcm")
    return (10,)


@tree("Segment the liver and the tumour in CT, as a quick try", "liver", "tumour", patients=5)
def dicom_seg(root: Path) -> tuple[int, ...]:
    """Of five patients; one frame a slice and segment that is not empty."""
    return _segmented(root, "BINARY", lambda mask: np.stack([mask > 0, mask == 2], axis=-1).astype(np.uint8))


@tree("Segment the liver and the tumour in CT, as a quick try", "liver", "tumour")
def dicom_labelmap(root: Path) -> tuple[int, ...]:
    """Of nobody, for the ids were blanked; a number a segment."""
    return _segmented(root, "LABELMAP", np.ascontiguousarray, patient="")


@tree("Segment the liver in CT, as a quick try", "liver", patients=5)
def rtstruct(root: Path) -> tuple[int, ...]:
    """Ten series of five patients, each with contours of the liver, one of which spells it otherwise."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

    def of(**elements: object) -> Dataset:
        made = Dataset()
        for name, value in elements.items():
            setattr(made, name, value)
        return made

    for number in range(10):
        slices = series(root / f"study{number:02d}", number)
        contours = []
        for place in range(12):
            x, y = np.nonzero(marks(number)[:, :, place])
            if len(x):
                corners = [(x.min() - 0.5, y.min() - 0.5), (x.max() + 0.5, y.min() - 0.5)]
                corners += [(x.max() + 0.5, y.max() + 0.5), (x.min() - 0.5, y.max() + 0.5)]
                data = [round(float(n), 3) for i, j in corners for n in (-10 + i, -20 + j, 5 + 3 * place)]
                kind = {"ContourGeometricType": "CLOSED_PLANAR", "NumberOfContourPoints": 4}
                contours.append(of(**kind, ContourData=data))
        plan = of(SOPClassUID=RTStructureSetStorage, SOPInstanceUID=f"1.2.826.0.1.{number + 1}.7", Modality="RTSTRUCT")
        plan.PatientID, plan.PatientName = slices[0].PatientID, slices[0].PatientName
        plan.StudyInstanceUID, plan.SeriesInstanceUID = slices[0].StudyInstanceUID, f"1.2.826.0.1.{number + 1}.6"
        referred = of(SeriesInstanceUID=slices[0].SeriesInstanceUID)
        plan.ReferencedFrameOfReferenceSequence = [
            of(RTReferencedStudySequence=[of(RTReferencedSeriesSequence=[referred])])
        ]
        name = "Liver" if number == 3 else "liver"  # as another hand wrote it
        plan.StructureSetROISequence = [of(ROINumber=1, ROIName=name)]
        plan.ROIContourSequence = [of(ReferencedROINumber=1, ContourSequence=contours)]
        plan.file_meta = FileMetaDataset()
        plan.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
        plan.file_meta.MediaStorageSOPInstanceUID = plan.SOPInstanceUID
        plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        plan.save_as(root / f"study{number:02d}/structures.dcm", enforce_file_format=True)
    return (10,)
