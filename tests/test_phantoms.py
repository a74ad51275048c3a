"""The phantoms: the same bytes every time, the quirks of the real datasets, and what beats them."""

import csv
import hashlib
import json
import pickle
from collections import Counter

import nibabel
import numpy as np
import pytest

from m3dspy.errors import DataError, UsageError
from m3dspy.m3bench import exercise, phantom
from m3dspy.m3bench.task import find, make, oracle, tasks, truth, truth_file
from m3dspy.workspace import sources
from m3dspy.workspace.cards import cards

NAMES = [task.name for task in tasks()]


def tree_hash(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def made(exercises):
    """Every phantom at its smallest size, by name, made by one worker."""
    for name in NAMES:
        exercise.make(name, exercises)
    return {name: exercise.root(name, exercises) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_is_the_same_whatever_the_number_of_workers_and_differs_by_seed(name, made, tmp_path, monkeypatch):
    smallest = find(name).smallest
    make(name, tmp_path / "other", size=smallest, seed=1)
    monkeypatch.setattr(phantom, "ALONE", 0)
    make(name, tmp_path / "again", size=smallest, workers=2)
    assert tree_hash(tmp_path / "again") == tree_hash(made[name])
    assert tree_hash(tmp_path / "other") != tree_hash(made[name])
    assert truth_file(tmp_path / "again").read_bytes() == truth_file(made[name]).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_gold_index_of_a_phantom_is_whole(name, made):
    from m3dspy.workspace.indexing import check_index

    task = find(name)
    index = task.gold(made[name], 0)
    assert check_index(index, made[name]) == []
    assert index.task == task.task
    assert index.labels == task.labels
    if task.task == "classification":
        patients = {label: {item.patient for item in index.training if item.label == label} for label in index.labels}
        assert min(map(len, patients.values())) >= 1
        assert {item.label for item in index.test} == set(index.labels)


@pytest.mark.parametrize("name", NAMES)
def test_every_dataset_has_a_card_of_its_name_whose_own_words_are_in_the_folder(name, made):
    card = next(card for card in cards() if card.name == name)
    assert find(name).name == name
    there = "\n".join(str(path.relative_to(made[name])) for path in made[name].rglob("*"))
    there += "".join(path.read_text() for pattern in ("*.csv", "*.json") for path in made[name].rglob(pattern))
    about = find(name).gold(made[name], 0).about
    own = [word for word in card.text.split("`")[1::2] if word != about]
    assert len(own) >= 5
    assert [word for word in own if word not in there] == []


def test_names_are_found_in_any_case_and_near_ones_are_suggested():
    assert find("CT-Kidney").name == "CT-kidney"
    with pytest.raises(UsageError, match="Did you mean 'BTCV'"):
        find("btvc")


def test_a_phantom_overwrites_nothing_and_leaves_nothing_when_it_cannot_be_made(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        make("BTCV", tmp_path / "there", size=8)
    with pytest.raises(UsageError, match="at least 8 training cases"):
        make("BTCV", tmp_path / "few", size=2)

    with pytest.raises(DataError, match="could not be written"):
        make("COVID19", tmp_path / "there" / "mine.txt" / "new", size=10)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_truth_lies_beside_the_dataset_and_marks_it_as_a_phantom(made, tmp_path):
    assert (truth(made["ADNI"]) or {})["phantom"] is True
    assert truth(tmp_path) is None
    assert oracle(tmp_path, find("ADNI").gold(made["ADNI"], 0)) is None
    assert not [path for folder in made.values() for path in folder.rglob("*") if "truth" in path.name]


def test_adni_has_visits_groups_and_rows_that_lead_a_careless_reader_astray(made):
    (table,) = made["ADNI"].glob("*.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = {path.stem for path in (made["ADNI"] / "ADNI_PT").iterdir()}
    named = [row["Image Data ID"] for row in rows]
    assert {"AD", "MCI", "CN"} < {row["Group"] for row in rows}
    assert max(Counter(row["Subject"] for row in rows).values()) > 1
    assert set(named) - files
    assert max(Counter(named).values()) > 1
    assert len(named) - 1 > len({row["Subject"] for row in rows})
    shapes = {sources.header(path).shape for path in (made["ADNI"] / "ADNI_PT").iterdir()}
    assert shapes == {(40, 48, 40)}


def test_a_tensor_written_without_torch_is_the_one_torch_reads(tmp_path):
    torch = pytest.importorskip("torch")
    from m3dspy.m3bench.phantom import save_tensor

    for array in (np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4), np.ones((2, 2), np.float16)):
        save_tensor(tmp_path / "x.pt", array)
        found = torch.load(tmp_path / "x.pt", weights_only=True)
        assert found.dtype == getattr(torch, array.dtype.name)
        assert (found.numpy() == array).all()


def test_ct_kidney_is_doubly_nested_and_its_neighbours_share_a_patient(made):
    (inner,) = made["CT-kidney"].glob("CT-KIDNEY*/CT-KIDNEY*")
    assert sorted(path.name for path in inner.iterdir()) == ["Cyst", "Normal", "Stone", "Tumor"]
    assert (inner / "Cyst" / "Cyst- (1).jpg").is_file()
    known = (truth(made["CT-kidney"]) or {})["cases"]
    found = find("CT-kidney").gold(made["CT-kidney"], 0)
    splits = {}
    for split in ("training", "validation", "test"):
        for item in found.items(split):
            splits.setdefault(known[item.image]["patient"], set()).add(split)
    assert all(len(where) == 1 for where in splits.values())


def test_covid19_mixes_hounsfield_units_with_windowed_bytes_and_orientations(made):
    images = [sources.read(path) for path in sorted((made["COVID19"] / "images").iterdir())]
    lowest = [int(array.min()) for array, _ in images]
    assert min(lowest) < -900
    assert sorted(lowest)[-1] >= 0
    assert len({nibabel.aff2axcodes(affine) for _, affine in images}) > 1
    for path in (made["COVID19"] / "segmentation_masks").iterdir():
        mask = nibabel.as_closest_canonical(nibabel.load(path))
        middle = mask.shape[0] // 2
        left, right = (np.argwhere(np.asarray(mask.dataobj) == value)[:, 0].mean() for value in (1, 2))
        assert left < middle < right  # RAS+: the first axis runs from the patient's left to the right


def test_btcv_leaves_out_numbers_and_testing_masks(tmp_path):
    make("BTCV", tmp_path / "BTCV", size=12)
    names = sorted(path.name for path in (tmp_path / "BTCV" / "Training" / "img").iterdir())
    assert names[-2:] == ["img0021.nii.gz", "img0022.nii.gz"]
    assert len(list((tmp_path / "BTCV" / "Testing" / "img").iterdir())) == 4
    assert not (tmp_path / "BTCV" / "Testing" / "label").exists()
    assert json.loads((tmp_path / "BTCV" / "labels.json").read_text())["6"] == "liver"


def test_the_oracle_of_adni_is_near_its_ceiling_and_falls_with_wrong_labels(tmp_path):
    from m3dspy.m3bench.tasks import adni
    from m3dspy.signatures.values import Index

    visits = [visit for visit in adni.cohort(900, 0) if visit.visit == 0 and visit.row["Group"] in adni.LABELS]
    known = {"cases": {visit.path: {"severity": visit.severity, "age": visit.age} for visit in visits}}
    groups = [str(visit.row["Group"]) for visit in visits]

    def best(labels):
        test = [
            {"id": f"c{i}", "patient": visit.subject, "image": visit.path, "label": label}
            for i, (visit, label) in enumerate(zip(visits, labels, strict=True))
        ]
        return adni.oracle(Index.model_validate({"task": "classification", "labels": adni.LABELS, "test": test}), known)

    assert best(groups) == pytest.approx(0.77, abs=0.02)  # 0.772 by integration over the three Gaussians
    assert best(np.random.default_rng(0).permutation(groups)) == pytest.approx(0.5, abs=0.04)


def test_instance22_has_thick_slices_some_empty_masks_and_images_without_one(made):
    root = made["Instance22"]
    masks = {path.name: sources.read(path)[0] for path in sorted((root / "train_2" / "label").iterdir())}
    assert [name for name, mask in masks.items() if not mask.any()] == ["010.nii.gz"]
    assert set(np.unique(np.concatenate([mask.ravel() for mask in masks.values()]))) == {0, 1}
    spacing = sources.header(root / "train_2" / "data" / "001.nii.gz").spacing
    assert max(spacing) > 4 * min(spacing)
    without = [path.name for path in (root / "val_2" / "data").iterdir()]
    assert without
    assert not set(without) & set(masks)
    listed = find("Instance22").gold(root, 0)
    assert len(listed.training + listed.validation + listed.test) == len(masks)


def test_a_head_without_blood_that_is_left_unmarked_costs_nothing_and_one_that_is_marked_scores_0(made, tmp_path):
    from m3dspy.m3bench import masks

    root = made["Instance22"]
    found = find("Instance22").gold(root, 0)
    every = found.training + found.validation + found.test
    empty = next(item for item in every if item.image.endswith("010.nii.gz"))
    other = next(item for item in every if item is not empty)
    index = found.model_copy(update={"test": (empty, other)})
    for item in index.test:
        (tmp_path / f"{item.id}.nii.gz").write_bytes((root / item.label).read_bytes())
    once = np.ones((1, 2))
    assert masks.examine(index, root, tmp_path).metric(once) == 1
    (tmp_path / f"{empty.id}.nii.gz").unlink()
    volume = nibabel.load(root / empty.label)
    nibabel.save(nibabel.Nifti1Image(np.ones(volume.shape, np.uint8), volume.affine), tmp_path / f"{empty.id}.nii.gz")
    assert masks.examine(index, root, tmp_path).metric(once) == 0.5


def test_msd_pancreas_is_read_past_what_a_mac_left_and_lists_paths_as_the_decathlon_does(made):
    from m3dspy.workspace.look import look

    root = made["MSD_Pancreas"]
    top = root / "Task07_Pancreas"
    left = list(top.rglob("._*"))
    assert len(left) == sum(1 for path in top.rglob("pancreas_*.nii.gz"))
    listed = json.loads((top / "dataset.json").read_text())
    assert listed["training"][0] == {
        "image": "./imagesTr/pancreas_001.nii.gz",
        "label": "./labelsTr/pancreas_001.nii.gz",
    }
    assert listed["labels"] == {"0": "background", "1": "pancreas", "2": "cancer"}
    found = find("MSD_Pancreas").gold(root, 0)
    cases = found.training + found.validation + found.test
    assert len(cases) == listed["numTraining"] == 10
    assert not [item for item in cases if "/._" in item.image or "/._" in item.label]
    seen = look(root)
    assert {group.folder.rpartition("/")[2]: group.count for group in seen.groups} == {
        "imagesTr": 10,
        "labelsTr": 10,
        "imagesTs": 3,
    }
    (pair,) = seen.pairs
    assert pair.matched == 10


@pytest.mark.parametrize("name", ["Instance22", "MSD_Pancreas"])
def test_a_copy_in_the_folders_images_and_masks_is_read_too(name, made, tmp_path):
    found = find(name).gold(made[name], 0)
    for item in found.training + found.validation + found.test:
        for part, path in (("images", item.image), ("masks", item.label)):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / path.rpartition("/")[2]).write_bytes((made[name] / path).read_bytes())
    copied = find(name).gold(tmp_path, 0)
    assert [item.id for item in copied.test] == [item.id for item in found.test]
    assert copied.test[0].image.startswith("images/")


def test_most_boxes_of_chestx_det10_overlap_and_a_fifth_of_its_films_show_nothing(made):
    root = made["ChestX-Det10"]
    lists = {name: json.loads((root / f"{name}.json").read_text()) for name in ("train", "test")}
    records = lists["train"] + lists["test"]

    def meet(one, other):
        return max(one[0], other[0]) < min(one[2], other[2]) and max(one[1], other[1]) < min(one[3], other[3])

    boxes = [list(zip(record["syms"], record["boxes"], strict=True)) for record in records]
    overlapped = [
        any(name != other and meet(box, around) for other, around in film) for film in boxes for name, box in film
    ]
    assert np.mean(overlapped) >= 0.5
    assert np.mean([not film for film in boxes]) == pytest.approx(0.2)
    found = find("ChestX-Det10").gold(root, 0)
    official = {record["file_name"] for record in lists["test"]}
    assert {item.image.removeprefix("images/") for item in found.test} <= official
    assert not {item.image.removeprefix("images/") for item in found.training + found.validation} & official


def test_a_release_of_boxes_is_arranged_into_masks_that_keep_every_finding(tmp_path):
    """As released: two lists, two folders of pictures; two boxes that overlap, and a film without any."""
    from PIL import Image

    from m3dspy.errors import DataError

    root, arrange = tmp_path / "release", find("ChestX-Det10").arrange
    for part in ("train", "test"):
        (root / f"{part}_data").mkdir(parents=True)
        number = {"train": 36199, "test": 37000}[part]
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(root / f"{part}_data" / f"{number}.png")
        record = {"file_name": f"{number}.png", "syms": [], "boxes": []}
        if part == "train":
            record |= {"syms": ["Effusion", "Pneumothorax"], "boxes": [[2, 4, 12, 20], [8, 0, 30, 10]]}
        (root / f"{part}.json").write_text(json.dumps([record]))
    arrange(root, tmp_path / "out")
    mask, _ = sources.read(tmp_path / "out" / "masks" / "36199.png")
    assert (mask[5, 5], mask[5, 10], mask[5, 20], mask[25, 5]) == (8, 8 + 512, 512, 0)
    assert ((mask & 8) > 0).sum() == 10 * 16
    assert ((mask & 512) > 0).sum() == 22 * 10
    assert not sources.read(tmp_path / "out" / "masks" / "37000.png")[0].any()
    assert (tmp_path / "out" / "images" / "37000.png").is_file()

    (root / "test_data" / "37000.png").unlink()
    with pytest.raises(DataError, match=r"37000\.png is not there; see test\.json"):
        arrange(root, tmp_path / "again")


def test_kneemri_is_what_python_2_pickled_and_only_its_table_tells_whose_a_volume_is(made):
    with (made["KneeMRI"] / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = sorted((made["KneeMRI"]).glob("vol*/*.pck"))
    assert sorted(row["volumeFilename"] for row in rows) == sorted(path.name for path in files)
    assert {path.parent.name for path in files} == {f"vol{number:02d}" for number in range(1, 11)}
    assert len({row["examId"] for row in rows}) == 48 < len(rows)
    grades = Counter({row["examId"]: row["aclDiagnosis"] for row in rows}.values())
    assert grades == {"0": 30, "1": 12, "2": 6}
    array, _ = sources.read(files[0])
    assert pickle.loads(files[0].read_bytes(), encoding="latin1").tolist() == array.tolist()
    assert array.dtype == np.uint16
    assert array.max() < 2**12


def test_cc_ccii_has_slice_folders_in_two_formats_one_of_them_empty_and_a_picture_cut_off(made):
    root = made["CC-CCII"]
    scans = [path for path in root.glob("*/*/*") if path.is_dir()]
    index = find("CC-CCII").gold(root, 0)
    used = [item for split in ("training", "validation", "test") for item in index.items(split)]
    assert [path.name for path in scans if not any(path.iterdir())] == ["4990"]
    assert len(used) == len(scans) - 2  # the empty one, and the one with the damaged picture
    assert {path.suffix for path in root.rglob("*.*")} == {".jpg", ".png"}
    assert len({item.patient for item in used}) < len(used)
    numbers = [int(path.rpartition("/")[2].partition(".")[0]) for path in used[0].image]
    assert numbers == list(range(len(numbers)))
