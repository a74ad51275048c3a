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
def made(tmp_path_factory):
    """Every phantom at its smallest size, by name."""
    root = tmp_path_factory.mktemp("phantoms")
    for name in NAMES:
        make(name, root / name, size=find(name).smallest)
    return {name: root / name for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_phantom_is_the_same_whatever_the_number_of_workers_and_differs_by_seed(name, made, tmp_path):
    smallest = find(name).smallest
    make(name, tmp_path / "again", size=smallest, workers=1)
    make(name, tmp_path / "other", size=smallest, seed=1)
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
    there += "".join(path.read_text() for pattern in ("*.csv", "*.json") for path in made[name].glob(pattern))
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
