"""The six sets of BMAD: both forms of the folder, phantoms that can be learned from, what others have published."""

import numpy as np
import pytest
from PIL import Image

from m3dspy.errors import DataError
from m3dspy.m3bench import leave_one_out, published
from m3dspy.m3bench.task import find, make, tasks, truth
from m3dspy.signatures.values import SPLITS, Index
from m3dspy.workspace.look import look

SETS = [task.name for task in tasks() if task.task == "anomaly_detection"]
WITH_MASKS = ["Brain", "Liver", "RESC"]
NOISY = ["Chest", "HIS", "OCT17"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with all six, as MVFA's data folder."""
    home = tmp_path_factory.mktemp("sets")
    for name in SETS:
        make(name, home / f"{name}_AD", size=20, workers=1)
    return home


def folder(home, name):
    return home / f"{name}_AD"


def as_released_by_bmad(root, flat):
    """Rearrange MVFA's form: masks in `label`, a folder `train`, images without `img` if `flat`."""
    for masks in list(root.glob("*/Ungood/anomaly_mask")):
        masks.rename(masks.with_name("label"))
    if flat:
        for images in list(root.glob("*/*/img")):
            for image in list(images.iterdir()):
                image.rename(images.parent / image.name)
            images.rmdir()
    image = next((root / "valid" / "good").glob("**/*.*"))
    (root / "train" / "good").mkdir(parents=True)
    (root / "train" / "good" / f"extra{image.suffix}").write_bytes(image.read_bytes())


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("flat", [True, False])
def test_both_forms_of_the_folder_give_the_same_index(name, flat, home, tmp_path):
    task = make(name, tmp_path / name, size=20, workers=1)
    as_released_by_bmad(tmp_path / name, flat)

    def said(root):
        index = task.gold(root, 0)
        return {
            (split, item.id.removeprefix("img-"), item.patient, item.label, item.mask and item.mask.rpartition("/")[2])
            for split in SPLITS
            for item in index.items(split)
        }

    assert said(tmp_path / name) == said(folder(home, name))


@pytest.mark.parametrize("name", SETS)
def test_no_patient_is_in_two_splits_and_four_shots_can_be_drawn(name, home):
    root = folder(home, name)
    index, known = find(name).gold(root, 0), (truth(root) or {})["cases"]
    hidden = [{known[item.image]["patient"] for item in index.items(split)} for split in ("test", "training")]
    stated = [{item.patient for item in index.items(split)} for split in SPLITS]
    assert not hidden[0] & hidden[1]
    assert sum(map(len, stated)) == len(set.union(*stated))
    for split, least in (("training", 4), ("validation", 3), ("test", 10)):
        labels = [item.label for item in index.items(split)]
        assert min(labels.count("normal"), labels.count("abnormal")) >= least


def test_patients_are_read_from_the_file_names(home):
    patients = {name: {item.patient for item in find(name).gold(folder(home, name), 0).test} for name in SETS}
    assert {"00128", "00129"} < patients["Brain"]
    assert {"4", "5"} < patients["Liver"]
    assert all(len(patient) == 7 and patient.isdigit() for patient in patients["OCT17"])
    assert len(patients["Brain"]) == 5  # with two normal and two abnormal slices each


def test_the_jpegs_of_oct17_are_found(home):
    index = find("OCT17").gold(folder(home, "OCT17"), 0)
    assert len(index.test) == 20
    assert {item.image.rpartition(".")[2] for item in index.test} == {"jpeg"}


@pytest.mark.parametrize("name", WITH_MASKS)
def test_a_mask_is_as_large_as_its_image_and_marks_a_part_of_it(name, home):
    root = folder(home, name)
    index = find(name).gold(root, 0)
    for split in SPLITS:
        for item in index.items(split):
            assert (item.mask is not None) == (item.label == "abnormal")
            if item.mask:
                mask = np.asarray(Image.open(root / item.mask))
                assert mask.shape == np.asarray(Image.open(root / item.image)).shape
                assert 0 < (mask > 0).mean() < 0.25


def test_a_mask_and_an_image_that_stand_alone_are_named(tmp_path):
    task = make("Liver", tmp_path / "Liver", size=20, workers=1)
    place = tmp_path / "Liver" / "test" / "Ungood"
    first = min((place / "img").iterdir())
    hidden = (place / "anomaly_mask" / first.name).read_bytes()
    (place / "anomaly_mask" / first.name).unlink()
    with pytest.raises(DataError, match=rf"test/Ungood holds 1 image\(s\) without mask, e\.g\. '{first.stem}'"):
        task.gold(tmp_path / "Liver", 0)
    (place / "anomaly_mask" / first.name).write_bytes(hidden)
    (place / "anomaly_mask" / "lost.png").write_bytes(hidden)
    with pytest.raises(DataError, match=r"test/Ungood holds 1 mask\(s\) without image, e\.g\. 'lost'"):
        task.gold(tmp_path / "Liver", 0)


@pytest.mark.parametrize("name", NOISY)
def test_the_oracle_errs_where_the_folders_do(name):
    task = find(name)
    slices = task.build.__self__.cohort(120, 0)
    test = [
        {"id": f"c{i}", "patient": "p", "image": s.path, "label": "normal" if s.kind == "good" else "abnormal"}
        for i, s in enumerate(slices)
        if s.split == "test"
    ]
    index = Index.model_validate({"task": task.task, "labels": task.labels, "about": "x", "test": test})
    # of 60 abnormal images 6 % (4) show nothing, of 60 normal ones 3 % (2) show the sign
    best = task.oracle(index, {"cases": {s.path: {"shows": s.shows} for s in slices}})
    assert 0.95 < best < 0.985  # a guess that goes wrong half of the time ends at 0.95
    assert task.oracle(index, {"cases": {s.path: {"shows": s.kind != "good"} for s in slices}}) == 1


@pytest.mark.parametrize("name", SETS)
def test_a_look_finds_the_class_folders_of_pool_and_test(name, home):
    found = look(folder(home, name))
    assert [folders.parent for folders in found.class_folders] == ["test", "valid"]
    assert all(set(folders.classes) == {"good", "Ungood"} for folders in found.class_folders)
    assert bool(found.pairs) == (name in WITH_MASKS)
    assert [key.where for key in found.patients] == ([] if name in ("Chest", "HIS") else ["file name"])


def test_the_dataset_left_out_is_never_learned_from(home):
    folders = {name: f"{name}_AD" for name in SETS}
    index = leave_one_out.index("Liver", folders, home, 0, cap=8)
    learned = [*index.training, *index.validation]
    assert {item.image.partition("/")[0] for item in index.test} == {"Liver_AD"}
    assert {item.image.partition("/")[0] for item in learned} == set(folders.values()) - {"Liver_AD"}
    assert len(learned) == 5 * 8
    assert index.about == "liver CT"
    assert {item.about for item in learned if item.image.startswith("Brain_AD/")} == {"brain MR"}
    people = [{item.patient for item in index.items(split)} for split in SPLITS]
    assert sum(map(len, people)) == len(set.union(*people))
    assert all((home / item.image).is_file() for item in learned)
    assert all((home / item.mask).is_file() for item in [*learned, *index.test] if item.mask)
    assert len({item.id for item in [*learned, *index.test]}) == len(learned) + len(index.test)


def test_leaving_one_out_needs_another_dataset_of_the_same_kind(home):
    with pytest.raises(DataError, match="at least one other dataset"):
        leave_one_out.index("Liver", {"Liver": "Liver_AD"}, home, 0)
    with pytest.raises(DataError, match="CT-kidney is a dataset of classification"):
        leave_one_out.index("Liver", {"Liver": "Liver_AD", "CT-kidney": "kidney"}, home, 0)


def test_published_numbers_stand_with_their_source():
    (paper,) = [row for row in published.rows("Liver") if (row.method, row.shots) == ("MVFA", 4)]
    assert (paper.image_auroc, paper.pixel_auroc) == (81.18, 99.73)
    for name in SETS:
        rows = published.rows(name)
        assert len(rows) >= 8
        assert all(row.source and row.note and 50 < row.image_auroc <= 100 for row in rows)
        assert any(row.pixel_auroc for row in rows) == (name in WITH_MASKS)
    averages = [
        row.image_auroc for name in SETS for row in published.rows(name) if (row.method, row.shots) == ("MVFA", 4)
    ]
    assert np.mean(averages) == pytest.approx(88.97, abs=0.01)  # as the authors give it
    assert published.rows("ADNI") == []
