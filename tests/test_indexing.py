"""The helpers of a prepare.py, on small datasets made here."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3dspy.errors import DataError
from m3dspy.signatures.values import Index
from m3dspy.workspace import indexing as ix


def put(root: Path, path: str, data: bytes = b"x") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)


def table(root: Path, header: str, *rows: str, name: str = "labels.csv") -> None:
    put(root, name, "\n".join([header, *rows]).encode())


def item(id: str, label: object = "a", patient: str | None = None, **more: object) -> dict:
    return {"id": id, "patient": patient or id, "image": f"{id}.png", "label": label, **more}


def ids(items: list[dict]) -> list[str]:
    return [item["id"] for item in items]


ADNI: dict[str, Any] = {"file_column": "Image Data ID", "label_column": "Group", "images": "ADNI_PT/*.pt",
        "labels": {"CN": "CN", "AD": "AD"}, "patient_column": "Subject"}  # fmt: skip


# ------------------------------------------------------------------------------------------------ tables
def test_a_table_names_its_images_by_stem_and_what_is_left_out_is_counted(tmp_path, capsys):
    for name in ("I1", "I2", "I10", "I99"):
        put(tmp_path, f"ADNI_PT/{name}.pt")
    table(tmp_path, "Image Data ID,Subject,Group", "I10,p1,CN", "I2,p1,CN", "I1,p2,AD", "I1,p2,AD",
          "I7,p3,AD", "I1,p2,SMC", name="ADNI1_2024.csv")  # fmt: skip
    found = ix.from_table(tmp_path, "ADNI1*.csv", **ADNI)
    assert found == [
        {"id": "I1", "patient": "p2", "image": "ADNI_PT/I1.pt", "label": "AD"},
        {"id": "I2", "patient": "p1", "image": "ADNI_PT/I2.pt", "label": "CN"},
        {"id": "I10", "patient": "p1", "image": "ADNI_PT/I10.pt", "label": "CN"},
    ]
    assert capsys.readouterr().out.splitlines() == [
        "left out: 1 rows that repeat an earlier one, e.g. row 5",
        "left out: 1 rows whose Group is not one of CN, AD, e.g. row 7",
        "left out: 1 rows whose image is not there, e.g. 'I7'",
        "left out: 1 images without a row, e.g. 'ADNI_PT/I99.pt'",
    ]


@pytest.mark.parametrize(
    "cell", ["img/s1/a.png", "s1/a.png", "a.png", "a", "img/s1/a", "/elsewhere/img/s1/a.png", "a.jpg"]
)
def test_a_cell_may_be_a_path_a_file_name_or_a_stem(tmp_path, cell):
    put(tmp_path, "img/s1/a.png")
    put(tmp_path, "img/s2/b.png")
    table(tmp_path, "file,y", f"{cell},1")
    found = ix.from_table(
        tmp_path, "labels.csv", file_column="file", label_column="y", images="img/**/*.png", labels={"1": "yes"}
    )
    assert [entry["image"] for entry in found] == ["img/s1/a.png"]


def test_a_cell_of_another_folder_names_no_image(tmp_path):
    put(tmp_path, "img/s1/a.png")
    table(tmp_path, "file,y", "s2/a.png,1")
    with pytest.raises(DataError, match=r"No labelled row of labels.csv names a file that matches 'img/\*\*/\*.png'"):
        ix.from_table(
            tmp_path, "labels.csv", file_column="file", label_column="y", images="img/**/*.png", labels={"1": "yes"}
        )


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (("I1,p1,CN", "I1,p1,AD"), r"rows 2 and 3 disagree on 'ADNI_PT/I1.pt': CN/p1 and AD/p1"),
        (("I1,p1,CN", "I2,p2,AD", "I1,p2,CN"), r"rows 2 and 4 disagree"),
        (("I1,p1,CN", "I2,p2,MCI"), r"No row of ADNI.csv has Group = 'AD'. The column holds 'CN' \(1\), 'MCI' \(1\)"),
        (("I1,p1,CN", "../I2,p2,AD"), r"ADNI.csv, row 3 gives '../I2', which leaves the dataset folder"),
    ],
)
def test_a_table_that_contradicts_itself_or_the_call_is_refused(tmp_path, rows, complaint):
    put(tmp_path, "ADNI_PT/I1.pt")
    put(tmp_path, "ADNI_PT/I2.pt")
    table(tmp_path, "Image Data ID,Subject,Group", *rows, name="ADNI.csv")
    with pytest.raises(DataError, match=complaint):
        ix.from_table(tmp_path, "ADNI.csv", **ADNI)


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path):
    put(tmp_path, "ADNI_PT/I1.pt")
    table(tmp_path, "Image Data ID,Subject,group", "I1,p1,CN", name="ADNI.csv")
    with pytest.raises(DataError, match=r"no column 'Group'. Did you mean 'group'"):
        ix.from_table(tmp_path, "ADNI.csv", **ADNI)


def test_a_cell_that_names_two_files_is_refused(tmp_path):
    put(tmp_path, "ADNI_PT/I1.pt")
    put(tmp_path, "old/I1.pt")
    table(tmp_path, "Image Data ID,Subject,Group", "I1,p1,CN", "I1,p1,AD", name="ADNI.csv")
    with pytest.raises(DataError, match=r"row 2: 'I1' names 2 files, 'ADNI_PT/I1.pt' and 'old/I1.pt'. Narrow `images`"):
        ix.from_table(tmp_path, "ADNI.csv", **{**ADNI, "images": "**/*.pt"})


def test_two_tables_for_one_pattern_are_refused(tmp_path):
    table(tmp_path, "a", name="x1.csv")
    table(tmp_path, "a", name="x2.csv")
    with pytest.raises(DataError, match=r"2 files match the table 'x\*.csv': x1.csv, x2.csv"):
        ix.from_table(tmp_path, "x*.csv", **ADNI)


# ------------------------------------------------------------------------------------------------ folders
def test_a_row_is_named_by_the_line_where_it_stands_in_the_file(tmp_path, capsys):
    put(tmp_path, "ADNI_PT/I1.pt")
    lines = ("", '"I1","p\n1",CN', "", "I1,p2,AD")  # line 3 to 4, and line 6
    table(tmp_path, "Image Data ID,Subject,Group", *lines, name="a.csv")
    with pytest.raises(DataError, match=r"a\.csv, rows 3 and 6 disagree on 'ADNI_PT/I1\.pt'"):
        ix.from_table(tmp_path, "a.csv", **ADNI)
    put(
        tmp_path,
        "a.json",
        json.dumps([{"Image Data ID": "I1", "Subject": "p", "Group": cell} for cell in ("CN", "x")]).encode(),
    )
    ix.from_table(tmp_path, "a.json", **ADNI | {"labels": {"CN": "CN"}})
    assert capsys.readouterr().out == "left out: 1 rows whose Group is not one of CN, e.g. row 2\n"


def test_a_pattern_stands_for_the_one_folder_that_holds_the_classes(tmp_path):
    for path in ("Zelda Abernathy/a/1.png", "Zelda Abernathy/b/2.png", "notes/a/3.png"):
        put(tmp_path, path)
    found = ix.from_folders(tmp_path, "*", labels={"a": "a", "b": "b"}, images="*.png")
    assert [item["image"] for item in found] == ["Zelda Abernathy/a/1.png", "Zelda Abernathy/b/2.png"]
    with pytest.raises(DataError, match=r"2 folders match '\*' and hold a: Zelda Abernathy, notes\. Name one\."):
        ix.from_folders(tmp_path, "*", labels={"a": "a"}, images="*.png")


def test_class_folders_give_items_in_natural_order_with_ids_safe_as_file_names(tmp_path, capsys):
    for name in ("Cyst/Cyst- (10).jpg", "Cyst/Cyst- (2).jpg", "Normal/1.jpg", "Stone/1.jpg", "Cyst/._Cyst- (2).jpg"):
        put(tmp_path, f"CT/data/{name}")
    found = ix.from_folders(tmp_path, "CT/data", labels={"Cyst": "cyst", "Normal": "normal"}, images="*.jpg")
    assert [(entry["id"], entry["label"]) for entry in found] == [
        ("Cyst-2", "cyst"),
        ("Cyst-10", "cyst"),
        ("1", "normal"),
    ]
    assert all(entry["patient"] == entry["id"] for entry in found)
    assert capsys.readouterr().out == "left out: 1 folders of 'CT/data' that `labels` does not name, e.g. 'Stone'\n"


def test_repeated_stems_are_told_apart_by_as_many_folders_as_it_takes(tmp_path):
    for name in ("x/p1/a/1.png", "x/p1/b/1.png", "x/p2/a/1.png", "x/p2/a/2.png"):
        put(tmp_path, name)
    found = ix.from_folders(tmp_path, "", labels={"x": "x"}, images="**/*.png", patient="folder")
    assert ids(found) == ["p1-a-1", "b-1", "p2-a-1", "2"]
    assert [entry["patient"] for entry in found] == ["p1", "p1", "p2", "p2"]


def test_names_that_differ_only_in_unsafe_characters_get_different_ids(tmp_path):
    for name in ("a b.png", "a-b.png", "A b.png"):
        put(tmp_path, f"x/{name}")
    found = ids(ix.from_folders(tmp_path, "", labels={"x": "x"}, images="*.png"))
    assert len({id.lower() for id in found}) == 3


def test_a_slice_folder_is_one_item_with_its_slices_in_order(tmp_path):
    for number in (10, 2, 1):
        put(tmp_path, f"NCP/7/scan1/{number}.png")
    put(tmp_path, "NCP/8/scan1/1.png")
    found = ix.from_folders(tmp_path, "", labels={"NCP": "NCP"}, images="**/*.png", patient="folder", slices=True)
    assert found[0] == {
        "id": "7-scan1",
        "patient": "7",
        "image": ["NCP/7/scan1/1.png", "NCP/7/scan1/2.png", "NCP/7/scan1/10.png"],
        "label": "NCP",
    }
    assert found[1]["patient"] == "8"


def test_a_regular_expression_tells_the_patient(tmp_path):
    put(tmp_path, "x/CNV-6668596-1.jpeg")
    put(tmp_path, "x/CNV-6668596-2.jpeg")
    found = ix.from_folders(tmp_path, "", labels={"x": "x"}, images="*.jpeg", patient=r"-(\d+)-")
    assert [entry["patient"] for entry in found] == ["6668596"] * 2
    with pytest.raises(DataError, match=r"finds no patient in 2 of 2 cases, e.g. 'x/CNV-6668596-1.jpeg'"):
        ix.from_folders(tmp_path, "", labels={"x": "x"}, images="*.jpeg", patient=r"^sub-(\d+)")
    with pytest.raises(DataError, match="needs exactly one group"):
        ix.from_folders(tmp_path, "", labels={"x": "x"}, images="*.jpeg", patient=r"\d+")


def test_a_missing_class_folder_is_answered_with_the_nearest(tmp_path):
    put(tmp_path, "data/Cyst/1.jpg")
    with pytest.raises(
        DataError, match=r"no folder 'data/Cists' in the dataset: 'Cists' is missing. Did you mean 'Cyst'"
    ):
        ix.from_folders(tmp_path, "data", labels={"Cists": "cyst"}, images="*.jpg")


def test_links_that_leave_the_dataset_are_passed_over(tmp_path):
    put(tmp_path, "outside/secret.png")
    root = tmp_path / "root"
    put(root, "x/a.png")
    (root / "x/inside.png").symlink_to("a.png")
    (root / "x/outside.png").symlink_to(tmp_path / "outside/secret.png")
    (root / "x/folder").symlink_to(tmp_path / "outside")
    found = ix.from_folders(root, "", labels={"x": "x"}, images="**/*.png")
    assert ids(found) == ["a", "inside"]
    (root / "y").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="'y' is a link that leaves the dataset folder"):
        ix.from_folders(root, "", labels={"y": "y"}, images="*.png")


def test_hash_signs_stand_for_numbers_and_braces_for_a_choice(tmp_path):
    for name in ("img1.png", "img22.jpg", "imgx.png", "img3.gif"):
        put(tmp_path, f"x/{name}")
    assert ids(ix.from_folders(tmp_path, "", labels={"x": "x"}, images="img##.{png,jpg}")) == ["img1", "img22"]


# ------------------------------------------------------------------------------------------------ pairs
@pytest.mark.parametrize(
    ("images", "image", "masks", "mask"),
    [
        ("img/img#.nii.gz", "img/img007.nii.gz", "label/label#.nii.gz", "label/label007.nii.gz"),
        ("img/*.nii.gz", "img/img007.nii.gz", "label/*.nii.gz", "label/label007.nii.gz"),
        ("images/*.nii.gz", "images/cor_007.nii.gz", "masks/*.nii.gz", "masks/cor_007.nii.gz"),
        ("imagesTr/*_0000.nii.gz", "imagesTr/p_007_0000.nii.gz", "labelsTr/*.nii.gz", "labelsTr/p_007.nii.gz"),
        ("raw/**/*_ct.nii.gz", "raw/v007/v007_ct.nii.gz", "seg/**/*.nii.gz", "seg/v007/v007_seg-vert_msk.nii.gz"),
        ("*/*.png", "all/007.png", "*/*_mask.png", "all/007_mask.png"),
        ("images/*.jpg", "images/org 7.jpg", "masks/*.png", "masks/007_seg.png"),
    ],
)
def test_masks_find_their_images_whatever_words_the_names_differ_in(tmp_path, images, image, masks, mask):
    for path in (image, mask):
        put(tmp_path, path)
        put(tmp_path, path.replace("007", "012").replace("org 7", "org 12"))
    found = ix.from_pairs(tmp_path, images=images, masks=masks)
    assert (found[0]["image"], found[0]["label"]) == (image, mask)
    assert len(found) == 2


def test_images_and_masks_that_stand_alone_are_counted(tmp_path, capsys):
    for name in ("images/a1.png", "images/a2.png", "masks/a2.png", "masks/a3.png"):
        put(tmp_path, name)
    assert ids(ix.from_pairs(tmp_path, images="images/*.png", masks="masks/*.png")) == ["a2"]
    assert capsys.readouterr().out.splitlines() == [
        "left out: 1 images without a mask, e.g. 'images/a1.png'",
        "left out: 1 masks without an image, e.g. 'masks/a3.png'",
    ]
    (tmp_path / "masks/a2.png").unlink()
    with pytest.raises(DataError, match=r"an image is 'images/a1.png', a mask 'masks/a3.png'"):
        ix.from_pairs(tmp_path, images="images/*.png", masks="masks/*.png")


def test_slice_folders_pair_with_mask_files_and_with_mask_folders(tmp_path):
    for case in ("c1", "c2"):
        for number in (1, 2):
            put(tmp_path, f"img/{case}/{number}.png")
            put(tmp_path, f"msk/{case}/{number}.png")
        put(tmp_path, f"whole/{case}.nii.gz")
    files = ix.from_pairs(tmp_path, images="img/*/*.png", masks="whole/*.nii.gz", slices=True)
    assert [entry["label"] for entry in files] == ["whole/c1.nii.gz", "whole/c2.nii.gz"]
    folders = ix.from_pairs(tmp_path, images="img/*/*.png", masks="msk/*/*.png", slices=True)
    assert folders[1]["image"] == ["img/c2/1.png", "img/c2/2.png"]
    assert folders[1]["label"] == ["msk/c2/1.png", "msk/c2/2.png"]


# ------------------------------------------------------------------------------------------------ anomalies
MVFA = {"masks": "**/anomaly_mask/*.png", "normal": "**/good/**/*.png", "abnormal": "**/Ungood/**/*.png"}
BMAD = {"masks": "**/label/*.png", "normal": "**/good/**/*.png", "abnormal": "**/Ungood/**/*.png"}


def bmad(root: Path, img: str, mask: str) -> None:
    for part, patients in (("valid", (1, 2)), ("test", (3,))):
        for patient in patients:
            put(root, f"{part}/good/{img}{patient}_10.png")
            put(root, f"{part}/Ungood/{img}{patient}_11.png")
            put(root, f"{part}/Ungood/{mask}/{patient}_11.png")


@pytest.mark.parametrize(("how", "img", "mask"), [(MVFA, "img/", "anomaly_mask"), (BMAD, "", "label")])
def test_anomalies_are_labelled_by_pattern_and_masked_by_stem_and_class_folder(tmp_path, how, img, mask):
    bmad(tmp_path, img, mask)
    found = ix.from_anomalies(tmp_path, **how, patient=r"^(\d+)_", test="test/**/*.png", about="liver CT")
    abnormal = [entry for entry in found if entry["label"] == "abnormal"]
    assert [(entry["image"], entry["mask"], entry["patient"]) for entry in abnormal] == [
        (f"test/Ungood/{img}3_11.png", f"test/Ungood/{mask}/3_11.png", "3"),
        (f"valid/Ungood/{img}1_11.png", f"valid/Ungood/{mask}/1_11.png", "1"),
        (f"valid/Ungood/{img}2_11.png", f"valid/Ungood/{mask}/2_11.png", "2"),
    ]
    normal = [entry for entry in found if entry["label"] == "normal"]
    assert len(found) == 6
    assert not any("mask" in entry for entry in normal)
    assert [entry.get("split") for entry in found] == ["test", "test", None, None, None, None]
    assert {entry["about"] for entry in found} == {"liver CT"}
    lists = ix.split(found, validation=0.5)
    assert {name: sorted(entry["label"] for entry in listed) for name, listed in lists.items()} == {
        name: ["abnormal", "normal"] for name in ("training", "validation", "test")
    }


def test_masks_whose_names_differ_are_paired_by_words_and_what_stands_alone_is_counted(tmp_path, capsys):
    for name in ("crack/000", "crack/001", "good/000"):
        put(tmp_path, f"test/{name}.png")
    put(tmp_path, "ground_truth/crack/000_mask.png")
    found = ix.from_anomalies(
        tmp_path, normal=["test/good/*.png"], abnormal="test/crack/*.png", masks="ground_truth/**/*.png"
    )
    assert [(entry["image"], entry["label"], entry.get("mask")) for entry in found] == [
        ("test/crack/000.png", "abnormal", "ground_truth/crack/000_mask.png"),
        ("test/good/000.png", "normal", None),
    ]
    assert capsys.readouterr().out == "left out: 1 abnormal images without a mask, e.g. 'test/crack/001.png'\n"


def test_what_the_images_show_is_written_with_the_index(tmp_path):
    lists = {name: [item(name, "normal")] for name in ("training", "validation", "test")}
    how: dict[str, Any] = {"task": "anomaly_detection", "labels": ["normal", "abnormal"], "splits": lists}
    ix.write_index(tmp_path, **how, about="liver CT")
    assert Index.model_validate_json((tmp_path / "index.json").read_text()).about == "liver CT"


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ({"normal": "**/*.png"}, r"`normal` and `abnormal` both match 'bad/b1.png'"),
        ({"masks": "other/*.png"}, r"No abnormal image has a mask; an image is 'bad/b1.png', a mask 'other/z.png'"),
    ],
)
def test_anomalies_that_cannot_be_told_apart_are_refused(tmp_path, how, complaint):
    for name in ("good/a1", "bad/b1", "bad/b2", "other/z"):
        put(tmp_path, f"{name}.png")
    with pytest.raises(DataError, match=complaint):
        ix.from_anomalies(tmp_path, **{"normal": "good/*.png", "abnormal": "bad/*.png"} | how)


# ------------------------------------------------------------------------------------------------ split and cap
def cohort(patients: int, images: int = 3, labels: str = "abc") -> list[dict]:
    return [
        item(f"{label}{patient}-{image}", label, f"{label}{patient}")
        for label in labels
        for patient in range(patients)
        for image in range(images)
    ]


def test_a_patient_never_stands_in_two_splits():
    splits = ix.split(cohort(20))
    people = [{entry["patient"] for entry in entries} for entries in splits.values()]
    assert not people[0] & people[1] and not people[0] & people[2] and not people[1] & people[2]
    assert sum(map(len, splits.values())) == 180


def test_every_class_gets_its_share_of_every_split():
    counts = {name: Counter(entry["label"] for entry in entries) for name, entries in ix.split(cohort(20)).items()}
    assert counts == {
        "training": dict.fromkeys("abc", 39),  # 13 of 20 patients, 3 images each
        "validation": dict.fromkeys("abc", 9),
        "test": dict.fromkeys("abc", 12),
    }


@pytest.mark.parametrize("seed", range(5))
def test_three_patients_of_a_class_are_one_a_split(seed):
    splits = ix.split(cohort(3, images=1) + cohort(50, labels="d"), seed=seed)
    assert all({entry["label"] for entry in entries} == set("abcd") for entries in splits.values())


def test_the_seed_decides_and_the_order_of_the_items_does_not():
    def members(items, seed):
        return {name: sorted(ids(entries)) for name, entries in ix.split(items, seed=seed).items()}

    assert members(cohort(10), 1) == members(cohort(10)[::-1], 1)
    assert members(cohort(10), 1) != members(cohort(10), 2)


def test_patients_who_changed_class_are_still_not_divided():
    converted = [item(f"{p}-{label}", label, f"p{p}") for p in range(12) for label in ("MCI", "AD" if p % 3 else "CN")]
    splits = ix.split(converted)
    assert sum(len({entry["patient"] for entry in entries}) for entries in splits.values()) == 12


def test_a_giant_patient_goes_to_training():
    giant = [item(f"g{n}", "a", "giant") for n in range(50)]
    for seed in range(5):
        assert "giant" in {entry["patient"] for entry in ix.split(giant + cohort(10, 1), seed=seed)["training"]}


def test_masks_are_split_by_patient_alone():
    masks = [item(f"c{n}", f"masks/c{n}.nii.gz") for n in range(20)]
    assert {name: len(entries) for name, entries in ix.split(masks).items()} == {
        "training": 13,
        "validation": 3,
        "test": 4,
    }


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        ([item("1"), item("2")], "2 patients cannot fill training and test and validation"),
        (cohort(5, 1) + [item("z", "zebra")] * 1, "Class 'zebra' has 1 patient"),
        (cohort(2, 4, "ab"), "4 patients leave validation empty; give every class at least 3 patients"),
    ],
)
def test_too_few_patients_are_said_in_one_line(items, complaint):
    with pytest.raises(DataError, match=complaint):
        ix.split(items)


def test_an_official_split_is_kept_and_validation_carved_from_its_training(tmp_path):
    for number in range(20):
        put(tmp_path, f"img/{number}.png")
    rows = [f"{n},{'ab'[n % 2]},{'test' if n < 6 else 'Train'}" for n in range(20)]
    table(tmp_path, "file,y,set", *rows)
    found = ix.from_table(tmp_path, "labels.csv", file_column="file", label_column="y", images="img/*.png",
                          labels={"a": "a", "b": "b"}, split_column="set")  # fmt: skip
    splits = ix.split(found)
    assert ids(splits["test"]) == ["0", "1", "2", "3", "4", "5"]
    assert "split" not in splits["test"][0]
    assert {name: len(entries) for name, entries in splits.items()} == {"training": 12, "validation": 2, "test": 6}


def test_an_official_split_that_divides_a_patient_is_said_and_not_used(capsys):
    items = [item(str(n), patient=f"p{n // 2}", split="test" if n % 4 == 1 else "training") for n in range(12)]
    lists = ix.split(items)
    assert "split is not used: it puts 3 of 6 patients into several lists" in capsys.readouterr().out
    people = [{entry["patient"] for entry in entries} for entries in lists.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 6


def test_an_official_split_whose_test_cases_lack_a_class_is_said_and_not_used(capsys):
    items = [item(str(n), "ab"[n % 2], patient=f"p{n}", split="training" if n % 4 else "test") for n in range(12)]
    lists = ix.split(items)
    assert "split is not used: its test cases hold no b" in capsys.readouterr().out
    assert {entry["label"] for entry in lists["test"]} == {"a", "b"}


def test_items_of_two_calls_with_the_same_ids_get_new_ones():
    two = [
        item(f"{n}", "a") | {"image": f"{folder}/{n}.png", "patient": f"{folder}{n}"}
        for folder in "xy"
        for n in range(5)
    ]
    splits = ix.split(two)
    assert sorted(id for entries in splits.values() for id in ids(entries))[:2] == ["x-0", "x-1"]


def test_a_cap_is_spread_over_classes_and_patients():
    splits = {"training": cohort(4) + cohort(1, 5, "d"), "validation": [], "test": cohort(2)}
    capped = ix.cap(splits, training=13, test=3, balanced=True)
    assert Counter(entry["label"] for entry in capped["training"]) == {"a": 4, "b": 3, "c": 3, "d": 3}
    assert len({entry["patient"] for entry in capped["training"]}) == 4 + 3 + 3 + 1
    assert Counter(entry["label"] for entry in capped["test"]) == {"a": 1, "b": 1, "c": 1}
    assert capped == ix.cap(splits, training=13, test=3, balanced=True)
    assert ix.cap(splits, training=100)["training"] == splits["training"]


# ------------------------------------------------------------------------------------------------ a table of patients
def test_a_table_tells_the_patients_of_images_whose_labels_come_from_elsewhere(tmp_path, capsys):
    table(tmp_path, "file,who", "a.png,P1", "b,P1", "c/c.png,P2", "d.png,n/a", "e.png,P3", name="who.csv")
    items = [item(name) | {"image": f"{name}/{name}.png"} for name in "abcd"] + [item("f", split="test")]
    found = ix.group_by_table(tmp_path, items, "who.csv", file_column="file", patient_column="who")
    assert [(entry["id"], entry["patient"]) for entry in found] == [("a", "P1"), ("b", "P1"), ("c", "P2"), ("f", "f")]
    assert capsys.readouterr().out == "left out: 1 images without a patient in who.csv, e.g. 'd/d.png'\n"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (("a,P1", "b,P2", "a.png,P2"), r"who.csv, rows 2 and 4 give two patients for 'a.png'"),
        (("x,P1",), r"No row of who.csv names the patient of an image: file is e.g. 'x', an image is 'a.png'"),
    ],
)
def test_a_table_that_cannot_tell_patients_is_refused(tmp_path, rows, complaint):
    table(tmp_path, "file,who", *rows, name="who.csv")
    with pytest.raises(DataError, match=complaint):
        ix.group_by_table(tmp_path, [item("a"), item("b")], "who.csv", file_column="file", patient_column="who")


# ------------------------------------------------------------------------------------------------ look-alikes
def test_near_copies_become_one_patient_and_others_stay_apart(tmp_path, capsys):
    random = np.random.default_rng(0)
    scenes = [random.integers(0, 255, (48, 64), np.uint8) for _ in range(3)]
    items = []
    for scene, picture in enumerate(scenes):
        for copy in range(3):
            noisy = np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
            name = f"s{scene}c{copy}.{('png', 'jpg', 'tif')[copy]}"
            Image.fromarray(noisy).save(tmp_path / name)
            items.append({"id": name, "patient": name, "image": name, "label": "a"})
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "flat.png")
    items.append({"id": "flat", "patient": "flat", "image": "flat.png", "label": "a"})
    grouped = ix.group_lookalikes(tmp_path, items)
    assert [entry["patient"] for entry in grouped] == ["s0c0.png"] * 3 + ["s1c0.png"] * 3 + ["s2c0.png"] * 3 + ["flat"]
    assert capsys.readouterr().out == "look-alikes: 10 images form 4 groups, the largest of 3\n"


def test_volumes_are_grouped_and_known_patients_stay_together(tmp_path):
    random = np.random.default_rng(0)
    items = []
    for number, seed in enumerate((1, 1, 2, 3)):
        np.save(
            tmp_path / f"v{number}.npy",
            np.random.default_rng(seed).random((20, 24, 28), np.float32) + random.random() * 0.01,
        )
        items.append(
            {
                "id": f"v{number}",
                "patient": "known" if number >= 2 else f"v{number}",
                "image": f"v{number}.npy",
                "label": "a",
            }
        )
    assert [entry["patient"] for entry in ix.group_lookalikes(tmp_path, items)] == ["v0", "v0", "known", "known"]


def test_look_alikes_of_different_official_splits_stay_apart(tmp_path):
    look = np.random.default_rng(0).integers(0, 255, (32, 32), np.uint8)
    for name in "abc":
        Image.fromarray(look).save(tmp_path / f"{name}.png")
    found = ix.group_lookalikes(tmp_path, [item("a"), item("b", split="test"), item("c")])
    assert [(entry["id"], entry["patient"]) for entry in found] == [("a", "a"), ("b", "b"), ("c", "a")]


def test_a_broken_image_is_named(tmp_path):
    put(tmp_path, "a/bad.jpg", b"\xff\xd8\xff rubbish")
    with pytest.raises(DataError, match=r"a/bad.jpg cannot be read"):
        ix.group_lookalikes(tmp_path, [item("bad") | {"image": "a/bad.jpg"}])


# ------------------------------------------------------------------------------------------------ index.json
def splits_of(items: list[dict]) -> dict[str, list[dict]]:
    return {"training": items[:-2], "validation": items[-2:-1], "test": items[-1:]}


def test_the_index_is_written_whole_and_counted(tmp_path, capsys):
    ix.write_index(tmp_path / "new", task="classification", labels=["a", "b"],
                   splits=splits_of([item(str(n), "ab"[n % 2], split="training") for n in range(6)]))  # fmt: skip
    index = Index.model_validate_json((tmp_path / "new/index.json").read_bytes())
    assert [case.id for case in index.training] == ["0", "1", "2", "3"]
    assert capsys.readouterr().out == (
        "index.json: training 4 cases of 4 patients, validation 1 cases of 1 patients, test 1 cases of 1 patients\n"
    )
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.json"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"splits": {"training": []}}, "splits has the keys"),
        ({"splits": splits_of([item("a/b"), item("b"), item("c")])}, r"wrong at training.0.id: .* got 'a/b'"),
        ({"values": [1]}, "classification of 1 labels needs 0 values, got 1"),
        ({"task": "segmentation"}, "segmentation of 1 labels needs 1 values, got 0"),
    ],
)
def test_a_malformed_index_is_refused_before_it_is_written(tmp_path, changes, complaint):
    arguments = {"task": "classification", "labels": ["a"], "splits": splits_of([item(x) for x in "abc"])}
    with pytest.raises(DataError, match=complaint):
        ix.write_index(tmp_path, **arguments | changes)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.slow
def test_monai_reads_the_index_as_it_stands(tmp_path):
    from monai.data import load_decathlon_datalist

    slices = [
        {"id": f"c{n}", "patient": f"p{n}", "image": [f"c{n}/1.png", f"c{n}/2.png"], "label": f"m/{n}.nii.gz"}
        for n in range(4)
    ]
    ix.write_index(tmp_path / "out", task="segmentation", labels=["x"], values=[1], splits=splits_of(slices))
    read = load_decathlon_datalist(tmp_path / "out/index.json", True, "training", tmp_path)
    assert read[0]["image"] == [str(tmp_path / "c0/1.png"), str(tmp_path / "c0/2.png")]
    assert read[0]["label"] == str(tmp_path / "m/0.nii.gz") and read[0]["patient"] == "p0"
    ix.write_index(tmp_path / "out", task="classification", labels=["a"], splits=splits_of([item(x) for x in "abcd"]))
    read = load_decathlon_datalist(tmp_path / "out/index.json", False, "test", tmp_path)
    assert read == [{"id": "d", "patient": "d", "image": str(tmp_path / "d.png"), "label": "a"}]


# ------------------------------------------------------------------------------------------------ JSON forms
def test_an_msd_list_is_read_with_its_hidden_test_left_out(tmp_path, capsys):
    for n in range(2):
        put(tmp_path, f"Task07/imagesTr/p_{n}.nii.gz")
        put(tmp_path, f"Task07/labelsTr/p_{n}.nii.gz")
    listed = [{"image": f"./imagesTr/p_{n}.nii.gz", "label": f"./labelsTr/p_{n}.nii.gz"} for n in range(3)]
    text = json.dumps({"labels": {"0": "background"}, "training": listed, "test": ["./imagesTs/p_9.nii.gz"]})
    put(tmp_path, "Task07/dataset.json", text.encode())
    found = ix.from_json(tmp_path, "Task07/dataset.json")
    assert found[1] == {"id": "p_1", "patient": "p_1", "image": "Task07/imagesTr/p_1.nii.gz",
                        "label": "Task07/labelsTr/p_1.nii.gz", "split": "training"}  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "left out: 1 cases of Task07/dataset.json without a label, e.g. './imagesTs/p_9.nii.gz'",
        "left out: 1 cases of Task07/dataset.json whose files are not there, e.g. './imagesTr/p_2.nii.gz'",
    ]


@pytest.mark.parametrize("column", ["patient", "patient_id", "Subject"])
def test_a_monai_list_of_classes_keeps_patients_and_names_numbers(column, tmp_path):
    put(tmp_path, "a.png")
    put(tmp_path, "b.png")
    training = [{"image": "a.png", "label": 0, column: 7, "fold": 1}]
    lists = {"training": training, "testing": [{"image": "b.png", "label": 1}], "labels": {"0": "ill", "1": "well"}}
    put(tmp_path, "list.json", json.dumps(lists).encode())
    found = ix.from_json(tmp_path, "list.json")
    assert [(e["patient"], e["label"], e["split"]) for e in found] == [("7", "ill", "training"), ("b", "well", "test")]


def test_an_nnunet_folder_is_read_without_a_list(tmp_path):
    put(tmp_path, "imagesTr/p_001_0000.nii.gz")
    put(tmp_path, "labelsTr/p_001.nii.gz")
    put(
        tmp_path,
        "dataset.json",
        b'{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}',
    )
    found = ix.from_json(tmp_path, "dataset.json")
    assert [(e["image"], e["label"], e["split"]) for e in found] == [
        ("imagesTr/p_001_0000.nii.gz", "labelsTr/p_001.nii.gz", "training")
    ]


def test_m3builders_own_examples_with_comments_are_read(tmp_path):
    for name in "mn":
        put(tmp_path, f"path/to/image{name}.png")
    put(tmp_path, "train.json", b"""// [This Line is Comment] "train.json": should be dictionaries
    {
        "/their/machine/path/to/imagem.png": ["brain tumor"], // Notice: the label name(str), "not the index"!
        "path/to/imagen.png": ["Alzheimer", "brain tumor"], ...
    }""")  # fmt: skip
    found = ix.from_json(tmp_path, "train.json")
    assert [(e["image"], e["label"], e["split"]) for e in found] == [
        ("path/to/imagem.png", ["brain tumor"], "training"),
        ("path/to/imagen.png", ["Alzheimer", "brain tumor"], "training"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"image_path": "a.png", "finding": "clear", "impressions": ""}]', "read it with from_reports"),
        ('{"ill": 0, "well": 1}', "numbers the classes and names no image"),
        ('{"a": {"b": 1}}', "no case list that is known"),
        ("[1, 2", "is not JSON"),
        ('{"training": [{"image": 7, "label": "a"}]}', "has a record without a readable image and label"),
        ('{"training": [{"image": "gone.png", "label": "a"}]}', "lists no labelled image of this dataset folder"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_json_without_usable_cases_is_refused_with_the_reason(tmp_path, text, complaint):
    put(tmp_path, "x.json", text.encode())
    with pytest.raises(DataError, match=complaint):
        ix.from_json(tmp_path, "x.json")


@pytest.mark.parametrize("task", ["classification", "multilabel", "segmentation", "slices"])
def test_an_index_survives_the_way_through_m3builders_forms(tmp_path, task):
    items = []
    for n in range(6):
        image = [f"img/c{n}/1.png", f"img/c{n}/2.png"] if task == "slices" else f"img/c{n}.png"
        label = {"multilabel": ["a", "b"][: n % 3], "segmentation": f"msk/c{n}.png"}.get(task, "ab"[n % 2])
        items.append({"id": f"c{n}", "patient": f"c{n}", "image": image, "label": label})
        for path in [*(image if isinstance(image, list) else [image]), f"msk/c{n}.png"]:
            put(tmp_path, path)
    kind = "segmentation" if task == "segmentation" else "classification"
    ix.write_index(tmp_path, task=kind, labels=["a", "b"], values=[1, 2] if kind == "segmentation" else [],
                   splits=splits_of(items), multilabel=task == "multilabel")  # fmt: skip
    files = ix.write_m3builder(Index.model_validate_json((tmp_path / "index.json").read_bytes()), tmp_path / "m3")
    assert [file.name for file in files] == [
        "train.json",
        "val.json",
        "test.json",
        *["label_dict.json"] * (kind != "segmentation"),
    ]
    back = [entry for name in ("train", "val", "test") for entry in ix.from_json(tmp_path, f"m3/{name}.json")]
    names = ["training"] * 4 + ["validation", "test"]
    want = [entry | {"split": name} for entry, name in zip(items, names, strict=True)]
    if task == "multilabel":  # a file whose images all have one label reads as single-label
        want = [
            entry | {"label": back[n]["label"] if isinstance(back[n]["label"], str) else entry["label"]}
            for n, entry in enumerate(want)
        ]
    assert back == want


# ------------------------------------------------------------------------------------------------ a prepare.py
def test_a_prepare_script_runs_from_the_command_line_without_torch(tmp_path):
    for label in ("CN", "AD"):
        for n in range(6):
            put(tmp_path / "data", f"{label}/{n}.png")
    script = tmp_path / "prepare.py"
    script.write_text("""
import sys
from m3dspy.workspace import indexing as ix
root, out = ix.arguments()
items = ix.from_folders(root, "", labels={"CN": "CN", "AD": "AD"}, images="*.png")
splits = ix.cap(ix.split(items, seed=0, validation=0.15, test=0.2), training=1000, test=200, balanced=True, seed=0)
ix.write_index(out, task="classification", labels=["CN", "AD"], splits=splits)
assert "torch" not in sys.modules and "monai" not in sys.modules
""")
    command = [sys.executable, str(script), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("index.json: training ")
    assert (tmp_path / "out/index.json").is_file()


def test_the_manual_shows_every_helper_in_under_7_kilobytes():
    manual = ix.manual()
    assert len(manual) < 7000
    for name in (
        "arguments",
        "from_table",
        "from_folders",
        "from_pairs",
        "from_anomalies",
        "from_json",
        "from_reports",
        "group_by_header",
        "group_by_table",
        "group_lookalikes",
        "split",
        "cap",
        "write_index",
    ):
        assert f"ix.{name}(" in manual
    assert manual.count("Example: ") == 13
