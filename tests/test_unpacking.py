"""Unpackers: what they write is what the container holds, and a hostile container is one line and leaves nothing."""

import io
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from lab_trees import TREES, disc, marks, nifti, packed, picture, png, put, volume
from pyarrow import parquet

from m3dspy.errors import DataError
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.signatures.values import Request
from m3dspy.workspace import predicting, sources, unpack
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run
from m3dspy.workspace.unpacking import FORMATS, _plain
from m3dspy.workspace.unpacking._plain import Plain


def unpacked(name: str, root: Path, tmp_path: Path) -> Plain:
    """A folder unpacked here, outside of the sandbox; what is kept is in its place."""
    plain = Plain(tmp_path / "out")
    plain.out.mkdir()
    assert FORMATS[name].found(root)
    assert FORMATS[name].unpack(root, plain)
    plain.finish()
    for place, source in plain.kept.items():
        put(plain.out / place, (root / source).read_bytes())
    return plain


def pairs(plain: Plain, *splits: str):
    """Image and mask of each case, read."""
    said = json.loads((plain.out / "dataset.json").read_text())
    for case in (case for split in splits or ("training", "validation", "test") for case in said.get(split, ())):
        image = plain.out / case["image"]
        yield (
            sources.read(sorted(image.iterdir()) if image.is_dir() else image),
            sources.read(plain.out / case["label"]),
        )


@pytest.fixture
def tree(tmp_path):
    def written(name: str) -> Path:
        TREES[name].write(tmp_path / "data")
        return tmp_path / "data"

    return written


# ------------------------------------------------------------------------------------------------ what is written
def test_the_files_of_a_case_become_the_channels_of_one_image_on_the_same_grid(tree, tmp_path):
    plain = unpacked("nnunet", tree("nnunet"), tmp_path)
    (image, affine), (mask, _) = next(pairs(plain, "training"))
    assert np.array_equal(image, np.stack([volume(0), volume(0, value=2)], axis=-1))
    assert np.array_equal(affine, np.diag([1, 1, 3, 1]))
    assert np.array_equal(mask, marks(0))
    assert next(iter(plain.kept.values())) == "Dataset007_Brain/labelsTr/case_000.nii.gz"  # masks are not copied


def test_regions_that_overlap_keep_a_bit_each(tree, tmp_path):
    plain = unpacked("nnunet", tree("nnunet_regions"), tmp_path)
    _, (mask, _) = next(pairs(plain))
    assert np.array_equal(mask, np.select([marks(0) == 2, marks(0) == 1], [3, 1], 0))  # oedema 1, tumour 2
    assert json.loads((plain.out / "dataset.json").read_text())["labels"] == {"oedema": 1, "tumour": 2}


def test_images_without_a_mask_are_there_to_be_answered_and_are_no_cases(tree, tmp_path):
    plain = unpacked("nnunet", tree("nnunet_v1"), tmp_path)
    assert len(list(pairs(plain))) == 10
    assert sum(place.startswith("images/") for place in plain.kept) == 12
    assert "2 images have no mask: there is nothing to learn from them." in plain.how


@pytest.mark.parametrize(
    ("name", "tumour", "patients"), [("dicom_seg", 2, 5), ("dicom_labelmap", 1, 10), ("rtstruct", 0, 5)]
)
def test_dicom_objects_lie_on_the_voxels_that_they_mark(name, tumour, patients, tree, tmp_path):
    plain = unpacked("dicom_objects", tree(name), tmp_path)
    numbers = set()
    for (image, affine), (mask, mask_affine) in pairs(plain):
        number = next(n for n in range(10) if np.array_equal(image + 1000, volume(n)))
        assert np.array_equal(mask, (marks(number) > 0) + tumour * (marks(number) == 2))
        assert np.allclose(affine, mask_affine)
        numbers.add(number)
    assert numbers == set(range(10))
    text = (plain.out / "dataset.json").read_text()
    assert "MRN" not in text
    assert len({case.get("patient", case["image"]) for case in json.loads(text)["training"]}) == patients


def test_outlines_are_drawn_as_they_are_and_boxes_full_and_that_is_said(tree, tmp_path):
    plain = unpacked("coco", tree("coco_outlines"), tmp_path)
    _, (mask, _) = next(pairs(plain, "training"))
    both, either = (mask > 0) & disc(0), (mask > 0) | disc(0)
    assert both.sum() / either.sum() > 0.8
    assert (plain.boxes, plain.how) == (False, ["The outlines were drawn as masks."])


@pytest.mark.parametrize("name", ["coco", "yolo"])
def test_boxes_are_drawn_full_and_that_is_said(name, tree, tmp_path):
    plain = unpacked(name, tree("coco_boxes" if name == "coco" else "yolo"), tmp_path)
    _, (mask, _) = list(pairs(plain, "training"))[1]
    rows, columns = np.nonzero(disc(1))
    box = np.zeros((32, 32), bool)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert np.array_equal(mask, box)
    assert plain.boxes
    assert "not its outline, area or volume" in plain.how[0]


def test_pixels_of_medmnist_are_those_of_the_file(tree, tmp_path):
    plain = unpacked("medmnist", tree("medmnist"), tmp_path)
    assert np.array_equal(sources.read(plain.out / "images/image-000047.png")[0], picture(47, True))
    assert (plain.out / "labels.csv").read_text().splitlines()[48] == "images/image-000047.png,class 1,validation"


def test_classes_of_medmnists_own_files_have_names(tmp_path):
    images, labels = np.zeros((2, 28, 28), np.uint8), np.array([[0], [1]])
    put(tmp_path / "data/pneumoniamnist_28.npz", b"")
    np.savez(tmp_path / "data/pneumoniamnist_28.npz", train_images=images, train_labels=labels)
    unpacked("medmnist", tmp_path / "data", tmp_path)
    rows = (tmp_path / "out/labels.csv").read_text().splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == ["normal", "pneumonia"]


def test_boxes_are_refused_where_a_request_needs_outlines(tree):
    with unpack.aside(tree("coco_boxes")) as (root, how):
        fingerprint = look(root).model_copy(update={"unpacked": how})
    assert (
        "masks are boxes" in make_plan("Segment the nodules and measure their volume", fingerprint, [], "")["refusal"]
    )
    plan = make_plan("Mark the nodules", fingerprint, [], "")["plan"]
    assert plan.goal == "Mark the boxes around nodule."


# ------------------------------------------------------------------------------------------------ once a run
def test_a_run_unpacks_once_and_a_half_done_one_begins_anew(tree, tmp_path):
    data = tree("medmnist")
    run = Run.create(Request(text="tell", data=str(data)), tmp_path / "runs")
    put(run.attempt("unpacked") / "data/images/half.png", b"")  # what a crash left
    root, how = unpack.of_run(run)
    assert (how.format, len(list((root / "images").iterdir()))) == ("medmnist", 60)
    assert not (root / "images/half.png").exists()
    (data / "spots.npz").unlink()
    assert unpack.of_run(run) == (root, how)


def test_a_folder_of_plain_files_is_used_as_it_lies(tmp_path):
    put(tmp_path / "data/a.png", png(picture(0, True)))
    run = Run.create(Request(text="tell", data=str(tmp_path / "data")), tmp_path / "runs")
    assert unpack.of_run(run) == (tmp_path / "data", None)
    assert not (run.folder / "unpacked").exists()


def coco_of_one_picture(root: Path) -> None:
    for number in range(5):
        put(root / f"{number}.png", png(picture(number, True)))
    said = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": [], "categories": [{"id": 1, "name": "spot"}]}
    put(root / "annotations.json", json.dumps(said))


def dicom_with_one_segmentation(root: Path) -> None:
    TREES["dicom_seg"].write(root)
    for number in range(1, 10):
        (root / f"study{number:02d}/seg.dcm").unlink()


def dicom_with_one_segmentation_of_nothing(root: Path) -> None:
    dicom_with_one_segmentation(root)
    shutil.rmtree(root / "study00/ct")


def table_in_parquet(path: Path, **columns) -> None:
    put(path, b"")
    parquet.write_table(pyarrow.table(columns), path)


def shards(root: Path, **members: dict[str, bytes]) -> None:
    for name, held in members.items():
        packed(root / f"{name}.tar", held)


def configurations(root: Path) -> None:
    for name in ("default", "size_28"):
        table_in_parquet(root / name / "train-0.parquet", image=[{"bytes": PNG}], label=["a"])


def lost_shard(root: Path) -> None:
    TREES["hugging_face"].write(root)
    (root / "train/data-00000-of-00001.arrow").unlink()


def coco(root: Path, file: str, *numbers: int, spots: bool = True, size: int = 32, **change: object) -> None:
    """A list of pictures with a spot each; `change`: of what each of its entries says, None for nothing."""
    said: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "spot"}]}
    for n in numbers:
        put(root / f"pictures/{n}.png", png(picture(n, True)))
        said["images"].append({"id": n, "file_name": f"{n}.png", "width": size, "height": size})
        said["annotations"] += [{"id": n, "image_id": n, "category_id": 1, "bbox": [9, 9, 9, 9]}] * spots
    for entry in (entry for listed in said.values() for entry in listed):
        entry.update((key, value) for key, value in change.items() if key in entry)
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]
    put(root / f"{file}.json", json.dumps(said))


def coco_in_two_splits(root: Path) -> None:
    coco(root, "annotations_train", 0, 1)
    coco(root, "annotations_test", 1, 2)


def coco_without_pictures(root: Path) -> None:
    coco(root, "annotations", 0, 1)
    shutil.rmtree(root / "pictures")


def yolo_on_a_volume(root: Path) -> None:
    put(root / "images/a.npy", b"")
    np.save(root / "images/a.npy", volume(0))
    put(root / "labels/a.txt", "0 0.5 0.5 0.1 0.1")


def yolo_with_letters_for_classes(root: Path) -> None:
    TREES["yolo"].write(root)
    put(root / "data.yaml", "names:\n  a: nodule\n")


def nnunet(root: Path, **change: object) -> None:
    TREES["nnunet"].write(root)
    path = root / "Dataset007_Brain/dataset.json"
    put(path, json.dumps(json.loads(path.read_text()) | change))


def bids_of_others(root: Path) -> None:
    TREES["bids_masks"].write(root)
    put(root / "participants.tsv", "person\tage\nA\t61\n")


def medmnist_of_scores(root: Path) -> None:
    root.mkdir()
    np.savez(root / "x.npz", train_images=np.zeros((2, 9, 9), np.uint8), train_labels=np.array([[0.5], [1.0]]))


def parquet_with_odd_notes(root: Path) -> None:
    noted = pyarrow.table({"image": [{"bytes": PNG}]}).replace_schema_metadata({b"huggingface": b'{"info": []}'})
    put(root / "a.parquet", b"")
    parquet.write_table(noted, root / "a.parquet")


PNG = png(picture(0, True))
WRONG = {
    "no row of anybody": (
        bids_of_others,
        "No row of participants.tsv is of a person who has images: its column 'person' should hold the folders' names",
    ),
    "half a class": (medmnist_of_scores, "x.npz gives the label 0.5; a class is a whole number."),
    "odd notes": (parquet_with_odd_notes, "The dataset is hugging_face, but not as that is built: AttributeError"),
    "label without a value": (
        lambda root: nnunet(root, labels={"background": 0, "tumour": None}),
        "dataset.json is not built as its format says: label 'tumour' is None, which is no number",
    ),
    "region of a region": (
        lambda root: nnunet(root, labels={"background": 0, "tumour": [[2]]}),
        "dataset.json is not built as its format says: label 'tumour' is [[2]], which is no number",
    ),
    "channel without a name": (
        lambda root: nnunet(root, channel_names={"0": "T1"}),
        "case_000 has 2 files, one a channel; dataset.json names 1.",
    ),
    "pictures of another size": (
        lambda root: coco(root, "annotations", 0, size=16),
        "pictures/0.png is 32 x 32 pixels, annotations.json says 16 x 16",
    ),
    "picture in two splits": (
        coco_in_two_splits,
        "pictures/1.png is training in annotations_train.json and test in annotations_test.json. Keep it in one.",
    ),
    "no pictures": (coco_without_pictures, "None of the 2 images that annotations.json names is there."),
    "category without a name": (
        lambda root: coco(root, "annotations", 0, name=None),
        "annotations.json has an entry without 'name'",
    ),
    "image without a file": (
        lambda root: coco(root, "annotations", 0, file_name=None),
        "annotations.json has an entry without 'file_name'",
    ),
    "annotation of no image": (
        lambda root: coco(root, "annotations", 0, image_id=None),
        "annotations.json has an entry without 'image_id'",
    ),
    "annotation of no category": (
        lambda root: coco(root, "annotations", 0, category_id=5),
        "annotations.json is not built as its format says: annotation 0 is of a category that is not listed",
    ),
    "letters for classes": (
        yolo_with_letters_for_classes,
        "data.yaml is not built as its format says: invalid literal for int() with base 10: 'a'. Correct it.",
    ),
    "boxes on a volume": (yolo_on_a_volume, "images/a.npy is a volume; boxes and outlines are drawn on pictures"),
    "configurations": (configurations, "The folders 'default' and 'size_28' hold a dataset each"),
    "lost shard": (lost_shard, "train/state.json lists train/data-00000-of-00001.arrow, which is not there"),
    "unsorted shard": (
        lambda root: shards(root, a={"1.png": PNG, "2.png": PNG, "1.cls": b"0", "2.cls": b"1"}),
        "a.tar holds the files of '1' in two places",
    ),
    "label elsewhere": (
        lambda root: shards(root, a={"1.png": PNG}, b={"1.json": b"{}"}),
        "b.tar holds '1.json' without its image",
    ),
    "label of nothing": (
        lambda root: shards(root, a={"1.png": PNG, "1.cls": b"0", "2.cls": b"1"}),
        "a.tar holds '2.cls' without its image",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_told_for_sure_is_one_line_that_names_the_file(name, tmp_path):
    write, message = WRONG[name]
    write(tmp_path / "data")
    with pytest.raises(DataError, match=re.escape(message)), unpack.aside(tmp_path / "data"):
        pass


def test_a_picture_of_several_lists_is_taken_once_in_the_split_that_some_list_says(tmp_path):
    coco(tmp_path / "data", "annotations", 0, 1, 2, 3)
    coco(tmp_path / "data", "annotations_train", 0, 1)
    coco(tmp_path / "data", "annotations_test", 2)
    unpacked("coco", tmp_path / "data", tmp_path)
    said = json.loads((tmp_path / "out/dataset.json").read_text())
    assert [Path(case["image"]).stem for case in said["training"]] == ["0", "1", "3"]
    assert [Path(case["image"]).stem for case in said["test"]] == ["2"]


def test_cases_that_are_numbered_as_channels_are_stay_cases_where_masks_have_their_names(tmp_path):
    for number in range(12):
        nifti(tmp_path / f"imagesTr/scan_{number:04d}.nii.gz", volume(number))
        nifti(tmp_path / f"labelsTr/scan_{number:04d}.nii.gz", marks(number))
    put(tmp_path / "dataset.json", json.dumps({"labels": {"0": "background", "1": "box"}}))
    assert not FORMATS["nnunet"].found(tmp_path)


def test_folders_with_names_beyond_ascii_stay_apart(tmp_path):
    plain = Plain(tmp_path)
    assert [plain.keep(f"{folder}/1.png") for folder in ("甲", "乙", "a b")] == [
        "images/u7532/1.png",
        "images/u4e59/1.png",
        "images/a-b/1.png",
    ]


def test_a_word_in_the_name_of_a_picture_makes_no_split(tmp_path):
    for name in ("stress-test_1", "rest_2"):
        put(tmp_path / f"data/images/{name}.png", PNG)
        put(tmp_path / f"data/labels/{name}.txt", "0 0.5 0.5 0.1 0.1")
    unpacked("yolo", tmp_path / "data", tmp_path)
    assert len(json.loads((tmp_path / "out/dataset.json").read_text())["training"]) == 2


def coco_with_a_hidden_test(root: Path) -> None:
    coco(root, "annotations_train", 0, 1)
    coco(root, "annotations_test", 2, 3, 4, spots=False)


@pytest.mark.parametrize(
    ("write", "how"),
    [
        (coco_with_a_hidden_test, "3 images of test have no annotations: left out."),
        (
            lambda root: table_in_parquet(root / "a.parquet", image=[{"bytes": PNG}], kind=["a"], found=[["b"]]),
            "Columns of lists or records are left out: found.",
        ),
        (
            lambda root: shards(root, a={"1.png": PNG, "1.json": b'{"found": ["b"]}'}),
            "Columns of lists or records are left out: found.",
        ),
    ],
)
def test_what_is_left_out_is_said(write, how, tmp_path):
    write(tmp_path / "data")
    with unpack.aside(tmp_path / "data") as (_, unpacked):
        assert how in unpacked.how


def numbered(root: Path) -> None:
    for number in range(5):
        nifti(root / f"scan_{number:04d}.nii.gz", volume(number))


@pytest.mark.parametrize(
    ("write", "dims", "ids"),
    [
        (numbered, 3, [f"scan_{number:04d}" for number in range(5)]),
        (coco_of_one_picture, 2, ["0", "1", "2", "3", "4"]),
        (dicom_with_one_segmentation, 3, [f"study{number:02d}-ct" for number in range(10)]),
        (dicom_with_one_segmentation_of_nothing, 3, [f"study{number:02d}-ct" for number in range(1, 10)]),
        (TREES["datalist_channels"].write, 3, [f"case{number:02d}-t1" for number in range(10)]),
        (TREES["bids_masks"].write, 3, [f"sub-{number:02d}_FLAIR" for number in range(1, 11)]),
    ],
)
def test_new_images_are_all_there_under_their_own_names_whatever_annotates_some_of_them(write, dims, ids, tmp_path):
    write(tmp_path / "new")
    with unpack.aside(tmp_path / "new", annotated=False) as (root, how):
        _, items = predicting.cases(root / "images" if how else root, dims, False, print)
        assert [item.id for item in items] == ids


# ------------------------------------------------------------------------------------------------ hostile containers
def shard(root: Path, *members: tuple[str, bytes], link: str = "") -> Path:
    root.mkdir()
    with tarfile.open(root / "train-0.tar.gz", "w:gz") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
            member.size = 0 if link else len(data)
            archive.addfile(member, io.BytesIO(data))
    return root


@pytest.mark.parametrize("name", ["../up.png", "a/../../up.png", "/tmp/up.png"])
def test_a_path_that_leads_out_of_an_archive_is_refused(name, tmp_path):
    root = shard(tmp_path / "data", (name, png(picture(0, True))))
    with pytest.raises(DataError, match="a path that leads out of it"), unpack.aside(root):
        pass


def test_a_link_in_an_archive_is_refused(tmp_path):
    root = shard(tmp_path / "data", ("a.png", b""), link="/etc/passwd")
    with pytest.raises(DataError, match="a link or a device"), unpack.aside(root):
        pass


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(_plain, "LEAST_TOTAL", 1 << 20)
    root = shard(tmp_path / "data", ("a.npy", bytes(64 << 20)))
    assert (root / "train-0.tar.gz").stat().st_size < 100_000
    with pytest.raises(DataError, match="more than any sound container of its size"):
        unpacked("webdataset", root, tmp_path)
    assert not list((tmp_path / "out").rglob("*.npy"))


def test_an_array_that_claims_more_than_it_holds_is_cut_short_and_takes_no_memory(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    with zipfile.ZipFile(root / "x.npz", "w") as archive:
        header = io.BytesIO()
        claim = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 20_000, 20_000)}
        np.lib.format.write_array_header_1_0(header, claim)
        archive.writestr("train_images.npy", header.getvalue())
    with pytest.raises(DataError, match="train_images is cut short"):
        unpacked("medmnist", root, tmp_path)


def test_pickled_objects_in_an_archive_of_arrays_are_refused(tmp_path):
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/x.npz", train_images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="Python objects, which are never read"), unpack.aside(tmp_path / "data"):
        pass


@pytest.mark.parametrize("name", ["medmnist", "hugging_face_parquet", "webdataset"])
def test_a_container_that_is_cut_short_is_one_line_that_names_it(name, tree, tmp_path):
    root = tree(name)
    path = max((path for path in root.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=f"{path.name} is damaged"), unpack.aside(root):
        pass


def test_a_damaged_segmentation_is_one_line_that_names_it(tree):
    root = tree("rtstruct")
    path = root / "study00/structures.dcm"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match=r"structures.dcm cannot be laid on its series"), unpack.aside(root):
        pass


def test_annotations_reach_no_file_outside_of_the_dataset(tree, tmp_path):
    put(tmp_path / "secret.png", png(picture(0, True)))
    root = tree("coco_boxes")
    said = json.loads((root / "train/_annotations.coco.json").read_text())
    said["images"][0]["file_name"] = "../../secret.png"
    put(root / "train/_annotations.coco.json", json.dumps(said))
    plain = unpacked("coco", root, tmp_path)
    assert "1 images that the annotations name are not there." in plain.how
    assert all((root / source).resolve().is_relative_to(root) for source in plain.kept.values())


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("images/a.png", "../secret.png"),
        ("../a.png", "b.png"),
        ("images/a.png", "link.png"),
        ("images/a.png", "/etc/x"),
    ],
)
def test_what_a_hostile_unpacker_asks_to_be_linked_is_checked(place, source, tmp_path):
    put(tmp_path / "secret.png", b"secret")
    put(tmp_path / "data/b.png", b"picture")
    (tmp_path / "data/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="is no file of the dataset"):
        unpack._checked(tmp_path / "data", {place: source})


def test_an_outline_beyond_all_bounds_is_drawn_at_the_edge(tree, tmp_path):
    root = tree("coco_outlines")
    said = json.loads((root / "train/_annotations.coco.json").read_text())
    said["annotations"][0]["segmentation"] = [[-1e300, -1e300, 1e300, -1e300, 1e300, 1e300, -1e300, 1e300]]
    put(root / "train/_annotations.coco.json", json.dumps(said))
    _, (mask, _) = next(pairs(unpacked("coco", root, tmp_path), "training"))
    assert mask.all()
