"""Each rule of the index, broken once on a dataset that is right in everything else."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from m3dspy.signatures.values import Caps, Index
from m3dspy.workspace.indexes.reading import unreadable
from m3dspy.workspace.indexing import check_index, summary


def picture(root: Path, name: str) -> str:
    Image.frombytes("L", (6, 4), name.encode().ljust(24)).save(root / name)
    return name


def volume(
    root: Path, name: str, values: Any = 0, shape=(4, 5, 6), spacing=(1.0, 1.0, 2.0), dtype: Any = np.uint8
) -> str:
    array = np.zeros(shape, dtype)
    array.ravel()[: np.size(values)] = values
    nibabel.save(nibabel.Nifti1Image(array, np.diag([*spacing, 1.0])), root / name)
    return name


def classes(root: Path) -> dict[str, Any]:
    """Classes a and b, five patients each: three to train on, one to validate, one to test."""
    lists = {"training": "012", "validation": "3", "test": "4"}
    return {"task": "classification", "labels": ["a", "b"]} | {
        name: [
            {"id": f"{label}{n}", "patient": f"{label}{n}", "image": picture(root, f"{label}{n}.png"), "label": label}
            for label in "ab"
            for n in numbers
        ]
        for name, numbers in lists.items()
    }


def masks(root: Path) -> dict[str, Any]:
    """Five volumes whose masks hold a liver of value 1 and a spleen of value 2."""
    items = [
        {
            "id": f"c{n}",
            "patient": f"p{n}",
            "image": volume(root, f"c{n}.nii.gz", n + 1),
            "label": volume(root, f"m{n}.nii.gz", [1, 2]),
        }
        for n in range(5)
    ]
    return {"task": "segmentation", "labels": ["liver", "spleen"], "values": [1, 2],
            "training": items[:3], "validation": items[3:4], "test": items[4:]}  # fmt: skip


def complaints(root: Path, index: dict, caps: Caps | None = None) -> list[str]:
    return check_index(Index.model_validate(index), root, caps or Caps())


def test_a_right_index_has_no_complaint(tmp_path):
    assert complaints(tmp_path, classes(tmp_path), Caps(training=6, test=2)) == []
    assert complaints(tmp_path, masks(tmp_path)) == []


def test_a_patient_in_two_splits_is_named(tmp_path):
    index = classes(tmp_path)
    index["test"][0]["patient"] = "a0"
    assert complaints(tmp_path, index) == ["Patient 'a0' is in training and test: split by patient, with split()."]


def test_an_id_that_repeats_is_named(tmp_path):
    index = classes(tmp_path)
    index["training"][1]["id"] = "a0"
    assert complaints(tmp_path, index) == ["The id 'a0' is given to 2 cases: give each its own."]


def test_an_image_in_two_splits_is_named(tmp_path):
    index = classes(tmp_path)
    index["test"][0]["image"] = "a0.png"
    assert complaints(tmp_path, index) == ["The image 'a0.png' is listed 2 times, in training and test: keep it once."]


def copied(root: Path, path: str) -> str:
    (root / f"again-{path}").write_bytes((root / path).read_bytes())
    return f"again-{path}"


def test_the_same_bytes_in_two_splits_are_named_and_in_one_split_are_not(tmp_path):
    index = classes(tmp_path)
    index["training"][1]["image"] = copied(tmp_path, index["training"][0]["image"])
    assert complaints(tmp_path, index) == []
    index["validation"][0]["image"] = copied(tmp_path, index["test"][0]["image"])
    assert complaints(tmp_path, index) == [
        "a3 in validation and a4 in test are the same image, byte for byte: leave one of them out, or keep them in one "
        "split, with group_lookalikes()."
    ]


def test_slices_are_the_same_where_all_of_them_are(tmp_path):
    index = classes(tmp_path)
    index["training"][0]["image"] = [picture(tmp_path, f"s{n}.png") for n in range(3)]
    index["test"][0]["image"] = [copied(tmp_path, f"s{n}.png") for n in range(3)]
    assert [line.partition(":")[0] for line in complaints(tmp_path, index)] == [
        "a0 in training and a4 in test are the same image, byte for byte"
    ]
    picture(tmp_path, "again-s2.png")
    assert complaints(tmp_path, index) == []


def test_of_images_that_are_the_same_that_of_the_test_is_kept(tmp_path):
    index = classes(tmp_path)
    for name, number in (("training", 0), ("training", 1), ("validation", 0)):
        index[name][number]["image"] = f"{name}{number}.png"
        (tmp_path / f"{name}{number}.png").write_bytes((tmp_path / index["test"][0]["image"]).read_bytes())
    left_out = unreadable(Index.model_validate(index), tmp_path)
    assert left_out == {"the same image as a case of another split": ["a0", "a1", "a3"]}


def test_an_empty_split_is_named(tmp_path):
    index: dict[str, Any] = classes(tmp_path) | {"validation": []}
    assert complaints(tmp_path, index) == ["The list 'validation' is empty: give it at least one case, by split()."]


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        ("c", "a0 has the label 'c', which is not in labels ['a', 'b']: map or drop it."),
        (["a"], "The label of a0 in training is ('a',), not one class name."),
        (None, "The label of a0 in training is None, not one class name."),
    ],
)
def test_a_label_that_is_unknown_or_of_the_wrong_kind_is_named(tmp_path, label, complaint):
    index = classes(tmp_path)
    index["training"][0]["label"] = label
    assert complaints(tmp_path, index) == [complaint]


def test_multilabel_items_hold_lists(tmp_path):
    index: dict[str, Any] = classes(tmp_path) | {"multilabel": True}
    assert (
        complaints(tmp_path, index)[0] == "The label of a0 in training is 'a', not a list of class names (multilabel)."
    )
    for name in ("training", "validation", "test"):
        for item in index[name]:
            item["label"] = ["a", "b"]
    index["training"][0]["label"] = []
    assert complaints(tmp_path, index) == []


def test_a_class_that_training_or_test_lacks_is_named(tmp_path):
    index = classes(tmp_path)
    index["training"] = [item for item in index["training"] if item["label"] == "a"]
    assert complaints(tmp_path, index) == ["Class 'b' is missing from training: split by label, with split()."]
    index = classes(tmp_path)
    index["test"] = index["test"][:1]
    assert complaints(tmp_path, index) == ["Class 'b' is missing from test: split by label, with split()."]


def test_a_class_with_fewer_than_two_patients_is_named(tmp_path):
    index: dict[str, Any] = classes(tmp_path) | {"labels": ["a", "b", "c"]}
    index["training"][0]["label"] = "c"
    assert complaints(tmp_path, index) == [
        "Class 'c' has 1 patients, at least 2 are needed: correct its mapping or leave it out."
    ]


def test_one_class_alone_is_refused(tmp_path):
    index: dict[str, Any] = classes(tmp_path) | {"labels": ["a"]}
    for name in ("training", "validation", "test"):
        index[name] = [item for item in index[name] if item["label"] == "a"]
    assert complaints(tmp_path, index) == [
        "'a' is the only class: nothing can be told apart. Give at least two labels."
    ]


def test_a_cap_that_was_exceeded_is_named(tmp_path):
    assert complaints(tmp_path, classes(tmp_path), Caps(training=5)) == [
        "training holds 6 cases, the cap is 5: call cap() before write_index()."
    ]


@pytest.mark.parametrize("path", ["../a0.png", "/etc/hostname", "link.png", "linked/a0.png"])
def test_a_path_that_leaves_the_dataset_is_named(tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    index = classes(root)
    picture(tmp_path, "a0.png")
    (root / "link.png").symlink_to(tmp_path / "a0.png")
    (root / "linked").symlink_to(tmp_path)
    index["training"][0]["image"] = path
    assert complaints(root, index) == [f"a0: {path!r} leaves the dataset folder; paths are relative to it."]


def test_missing_and_unreadable_files_are_named(tmp_path):
    index = classes(tmp_path)
    (tmp_path / "a0.png").unlink()
    (tmp_path / "a1.png").write_bytes(b"")
    first, second = complaints(tmp_path, index)
    assert first == "a0: 'a0.png' is not there; leave the case out or correct the path."
    assert second.startswith("a1 cannot be read: a1.png: ")


def test_every_slice_of_a_volume_must_be_there(tmp_path):
    index = classes(tmp_path)
    index["training"][0]["image"] = ["a0.png", picture(tmp_path, "s2.png"), "s3.png"]
    assert complaints(tmp_path, index) == ["a0: 's3.png' is not there; leave the case out or correct the path."]


@pytest.mark.parametrize(
    ("mask", "complaint"),
    [
        ({"shape": (4, 5, 7)}, "c0: the image has shape (4, 5, 6), its mask (4, 5, 7)."),
        ({"spacing": (1, 1, 2.1)}, "c0: the image has spacing (1.0, 1.0, 2.0), its mask (1.0, 1.0, 2.1)."),
        ({"spacing": (-1, 1, 2)}, "c0: the image has orientation RAS, its mask LAS."),
    ],
)
def test_a_mask_on_another_grid_than_its_image_is_named(tmp_path, mask, complaint):
    index = masks(tmp_path)
    volume(tmp_path, "m0.nii.gz", [1, 2], **mask)
    assert complaints(tmp_path, index) == [f"{complaint} Pair it with its own mask or leave it out."]


def test_a_spacing_that_differs_by_rounding_is_accepted(tmp_path):
    index = masks(tmp_path)
    volume(tmp_path, "m0.nii.gz", [1, 2], spacing=(1.001, 1, 2))
    assert complaints(tmp_path, index) == []


def test_values_that_no_mask_of_training_holds_are_named(tmp_path):
    assert complaints(tmp_path, masks(tmp_path) | {"values": [1, 255]}) == [
        "No mask of training holds 'spleen' (voxel value 255); masks hold 0, 1, 2. Correct values."
    ]


def test_a_mask_with_fractions_is_no_label_map(tmp_path):
    index = masks(tmp_path)
    volume(tmp_path, "m4.nii.gz", [1, 2, 0.25, 0.5], dtype=np.float32)
    assert complaints(tmp_path, index) == [
        "c4: its mask holds 2 values that are not in values [1, 2], such as 0.25 and 0.5; it is no label map. "
        "Leave it out."
    ]


def test_some_of_the_structures_in_the_masks_may_be_asked_for(tmp_path):
    index: dict[str, Any] = masks(tmp_path) | {"labels": ["spleen"], "values": [2]}
    assert complaints(tmp_path, index) == []


def test_a_label_is_looked_for_beyond_the_sampled_masks(tmp_path):
    index = masks(tmp_path)
    item = index["training"][0]
    volume(tmp_path, "only1.nii.gz", [1])
    index["training"] = [
        item | {"id": f"x{n}", "image": volume(tmp_path, f"x{n}.nii.gz"), "label": "only1.nii.gz"} for n in range(40)
    ]
    index["training"][1]["label"] = "m0.nii.gz"
    assert complaints(tmp_path, index) == []


def test_values_must_number_the_labels(tmp_path):
    index = masks(tmp_path)
    for values in ([1], [1, 1], [0, 1]):
        assert complaints(tmp_path, index | {"values": values})[0] == (
            f"values {values} must give each of 2 labels its own value, never 0."
        )


def test_many_complaints_are_cut_and_none_drowns_the_others(tmp_path):
    index: dict[str, Any] = classes(tmp_path) | {"validation": []}
    index["training"] += [{"id": f"g{n}", "patient": "a4", "image": f"g{n}.png", "label": "a"} for n in range(30)]
    lines = complaints(tmp_path, index)
    assert len(lines) == 21 and lines[-1] == "and 12 more"  # 30 files, an empty list, a patient: 32 in all
    assert any("validation" in line for line in lines) and any("Patient 'a4'" in line for line in lines)


def test_the_summary_counts_cases_patients_and_classes_without_naming_any(tmp_path):
    index = classes(tmp_path)
    index["training"][1]["patient"] = "a0"
    told = summary(Index.model_validate(index))
    assert told.cases == {"training": 6, "validation": 2, "test": 2}
    assert told.patients == {"training": 5, "validation": 2, "test": 2}
    assert told.cases_per_label == {"a": 3, "b": 3}
    assert "a0" not in told.model_dump_json()
    assert summary(Index.model_validate(masks(tmp_path))).cases_per_label == {}


# ------------------------------------------------------------------------------------------------ anomalies
def anomalies(root: Path) -> dict[str, Any]:
    """One normal and one abnormal image of a patient of their own in each list; the abnormal ones are marked."""
    lists = {}
    for number, name in enumerate(("training", "validation", "test")):
        items = []
        for kind in ("normal", "abnormal"):
            id = f"{kind}{number}"
            items.append({"id": id, "patient": f"p{number}", "image": picture(root, f"{id}.png"), "label": kind})
        items[1]["mask"] = mark(root, f"mask{number}.png")
        lists[name] = items
    return {"task": "anomaly_detection", "labels": ["normal", "abnormal"], "about": "liver CT", **lists}


def mark(root: Path, name: str, shape: tuple[int, int] = (4, 6), value: int = 255) -> str:
    mask = np.zeros(shape, np.uint8)
    mask[2:4, 2:4] = value
    Image.fromarray(mask).save(root / name)
    return name


def test_a_right_index_of_anomalies_has_no_complaint_and_is_counted(tmp_path):
    index = anomalies(tmp_path)
    assert complaints(tmp_path, index) == []
    counted = summary(Index.model_validate(index))
    assert counted.cases_per_label == {"normal": 1, "abnormal": 1}
    assert counted.with_mask == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"labels": ["abnormal", "normal"]}, "labels are abnormal, normal; those of an anomaly detection are normal"),
        ({"about": " "}, "about is empty: tell write_index what the images show"),
    ],
)
def test_what_an_index_of_anomalies_must_say_is_asked_for(tmp_path, change, complaint):
    (line,) = complaints(tmp_path, anomalies(tmp_path) | change)
    assert complaint in line


def test_a_list_without_a_normal_or_an_abnormal_image_is_named(tmp_path):
    index = anomalies(tmp_path)
    index["validation"] = index["validation"][:1]
    (line,) = complaints(tmp_path, index)
    assert line.startswith("validation holds no abnormal image")


def test_masks_of_another_size_that_mark_nothing_or_of_a_normal_image_are_named(tmp_path):
    index = anomalies(tmp_path)
    index["training"][1]["mask"] = mark(tmp_path, "large.png", shape=(8, 8))
    index["validation"][0]["mask"] = mark(tmp_path, "of_normal.png")
    index["test"][1]["mask"] = mark(tmp_path, "empty.png", value=0)
    size, normal, empty = complaints(tmp_path, index)
    assert size.startswith("abnormal0: the image has 4 x 6 pixels, its mask 8 x 8.")
    assert normal.startswith("normal1 is normal and has the mask 'of_normal.png'")
    assert empty.startswith("abnormal2 is abnormal and its mask marks nothing")


def test_a_volume_has_no_place_among_images_with_anomalies(tmp_path):
    index = anomalies(tmp_path)
    index["training"][0]["image"] = volume(tmp_path, "v.nii.gz")
    (line,) = complaints(tmp_path, index)
    assert line == "normal0 is 3D; anomalies are found in 2D images only: give its slices as images."


def test_masks_of_overlapping_labels_are_read_bit_by_bit(tmp_path):
    from PIL import Image

    items = []
    for i in range(3):
        Image.fromarray(np.full((4, 6), 5, np.uint16)).save(tmp_path / "mask.png")
        items.append({"id": f"c{i}", "patient": f"p{i}", "image": picture(tmp_path, f"{i}.png"), "label": "mask.png"})

    def said(values):
        lists = {"training": items[:1], "validation": items[1:2], "test": items[2:]}
        index = {"task": "segmentation", "labels": ("a", "b"), "values": values, "multilabel": True, **lists}
        return check_index(Index.model_validate(index), tmp_path)

    assert said((1, 4)) == []
    assert "No mask of training holds 'b' (voxel value 2); masks hold 1, 4" in said((1, 2))[0]
    assert "powers of two" in said((1, 3))[0]
