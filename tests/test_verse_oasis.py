"""VerSe and OASIS: labels with gaps, patients who came twice, and the layouts of the real releases, file by file."""

import json
import shutil

import nibabel
import numpy as np
import pytest

from m3dspy.m3bench import exercise
from m3dspy.m3bench.annotator import agreement, traced
from m3dspy.m3bench.task import find, oracle
from m3dspy.m3bench.tasks import oasis, verse
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.signatures.values import SPLITS
from m3dspy.workspace import indexing as ix
from m3dspy.workspace.cards import cards
from m3dspy.workspace.look import look


@pytest.fixture(scope="module")
def made(exercises):
    """Both phantoms at their smallest size, by name."""
    for name in ("VerSe", "OASIS"):
        exercise.make(name, exercises)
    return {name: exercise.root(name, exercises) for name in ("VerSe", "OASIS")}


def read(path):
    return np.asarray(nibabel.load(path).dataobj)


def every(index):
    return [item for name in SPLITS for item in index.items(name)]


def splits_of(index):
    found = {}
    for name in SPLITS:
        for item in index.items(name):
            found.setdefault(item.patient, []).append(name)
    return found


# ------------------------------------------------------------------------------------------------ VerSe
def test_most_vertebrae_are_absent_from_most_masks_and_the_values_leave_a_gap(made):
    held = [set(np.unique(read(path)).tolist()) - {0} for path in made["VerSe"].glob("derivatives/*/*msk.nii.gz")]
    assert set.union(*held) == {*range(1, 26), 28}
    assert np.median([len(values) for values in held]) < 14
    assert all(28 not in values or 25 not in values for values in held)
    assert dict(zip(verse.VALUES, verse.LABELS, strict=True))[28] == "T13"


def test_vertebrae_follow_each_other_from_head_to_foot(made):
    order = [*verse.VALUES[:19], 28, *verse.VALUES[19:25]]
    for path in made["VerSe"].glob("derivatives/*/*msk.nii.gz"):
        mask = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
        heights = [np.argwhere(mask == value)[:, 2].mean() for value in order if (mask == value).sum() > 20]
        assert heights == sorted(heights, reverse=True)


def test_scans_run_along_other_axes_and_centroids_stand_in_the_file_s_own_grid(made):
    codes = set()
    for path in made["VerSe"].glob("derivatives/*/*msk.nii.gz"):
        image = nibabel.load(path)
        codes.add("".join(nibabel.aff2axcodes(image.affine)))
        beside = path.with_name(path.name.replace("vert_msk.nii.gz", "subreg_ctd.json"))
        direction, *found = json.loads(beside.read_text())
        assert direction["direction"] == list(nibabel.aff2axcodes(image.affine))
        first = found[0]
        middle = np.argwhere(np.asarray(image.dataobj) == first["label"]).mean(0)
        assert [first[axis] for axis in "XYZ"] == pytest.approx(middle, abs=0.051)
    assert "PIR" in codes
    assert len(codes) > 1


@pytest.mark.parametrize("name", ["VerSe", "OASIS"])
def test_a_patient_who_came_twice_stands_in_one_split(name, made):
    splits = splits_of(find(name).gold(made[name], 0))
    assert max(map(len, splits.values())) == 2
    assert all(len(set(names)) == 1 for names in splits.values())


def test_the_parts_of_the_challenge_are_kept_and_odd_files_change_nothing(made, tmp_path):
    folders = sorted((made["VerSe"] / "rawdata").iterdir())
    for number, folder in enumerate(folders):
        part = ("dataset-01training", "dataset-02validation", "dataset-03test")[min(2, number // 10)]
        for kind in ("rawdata", "derivatives"):
            shutil.copytree(made["VerSe"] / kind / folder.name, tmp_path / part / kind / folder.name)
    extra = tmp_path / "dataset-01training" / "rawdata" / "sub-gl003"
    for kind, ending in (("rawdata", "ct"), ("derivatives", "seg-vert_msk")):  # a scan of the second hospital
        known = next((made["VerSe"] / kind / folders[0].name).glob(f"*_{ending}.nii.gz"))
        copy = extra.parent.parent / kind / "sub-gl003" / f"sub-gl003_dir-ax_{ending}.nii.gz"
        copy.parent.mkdir()
        shutil.copy(known, copy)
    (tmp_path / "dataset-01training" / "rawdata" / "sub-gl003" / "._sub-gl003_dir-ax_ct.nii.gz").write_bytes(b"Mac")
    (tmp_path / "dataset-01training" / "dataset_description.json").write_text('{"Name": "VerSe", "BIDSVersion": "1.4"}')
    index = find("VerSe").gold(tmp_path, 0)
    assert [len({item.patient for item in index.items(name)}) for name in SPLITS] == [11, 10, len(folders) - 20]
    assert {item.image.partition("/")[0] for item in index.test} == {"dataset-03test"}
    assert "sub-gl003" in {item.patient for item in index.training}


def test_the_folders_of_m3builder_s_card_are_read_too(made, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    (tmp_path / "labels.json").write_text(json.dumps({str(value): name for value, name in verse.NAMES.items()}))
    for item in every(find("VerSe").gold(made["VerSe"], 0)):
        name = item.image.rpartition("/")[2].replace("_ct", "")
        shutil.copy(made["VerSe"] / item.image, tmp_path / "images" / name)
        shutil.copy(made["VerSe"] / item.label, tmp_path / "masks" / name)
    index = find("VerSe").gold(tmp_path, 0)
    assert len(every(index)) == find("VerSe").smallest
    assert all(len(set(names)) == 1 for names in splits_of(index).values())
    plan = make_plan("segment all vertebrae", look(tmp_path), cards(), "")["plan"]
    assert (plan.labels, plan.label_values) == (verse.LABELS, tuple(map(str, verse.VALUES)))


# ------------------------------------------------------------------------------------------------ OASIS
def test_the_cleaned_image_as_scanned_is_learned_from_and_no_other_of_its_folder(made):
    items = every(find("OASIS").gold(made["OASIS"], 0))
    assert {item.image.rpartition("/")[2] for item in items} == {"norm.nii.gz"}
    assert {str(item.label).rpartition("/")[2] for item in items} == {"seg35.nii.gz"}
    for path in made["OASIS"].glob("*/norm.nii.gz"):
        image = read(path)
        assert image.min() == 0
        assert 0.5 < image.max() <= 1


def test_left_structures_lie_on_the_left_and_mirror_the_right_ones(made):
    for path in made["OASIS"].glob("*/aligned_seg35.nii.gz"):
        mask = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
        for name in ("Cerebral-Cortex", "Putamen", "Hippocampus"):
            left, right = (
                np.argwhere(mask == oasis.LABELS.index(f"{side}-{name}") + 1)[:, 0].mean() for side in ("Left", "Right")
            )
            assert left < mask.shape[0] / 2 < right
            assert left + right == pytest.approx(mask.shape[0] - 1, abs=4)


def test_every_structure_is_in_every_training_mask_but_for_the_smallest(made):
    for path in made["OASIS"].glob("*/seg35.nii.gz"):
        missing = set(range(1, 36)) - set(np.unique(read(path)).tolist())
        assert {oasis.LABELS[value - 1].partition("-")[2] for value in missing} <= {"Vessel", "Choroid-Plexus"}


# ------------------------------------------------------------------------------------------------ plans
@pytest.mark.parametrize("name", ["VerSe", "OASIS"])
def test_each_request_is_planned_as_an_expert_would_and_each_impossible_one_refused(name, made):
    task, fingerprint = find(name), look(made[name])
    assert len(task.requests) == 5
    for request in task.requests:
        plan = make_plan(request, fingerprint, cards(), "")["plan"]
        assert (plan.card, plan.labels, plan.label_values) == (name, task.labels, task.facts.values)
        assert (plan.modality, plan.sided, plan.dims) == (task.facts.modality, task.facts.sided, 3)
        items = ix.from_pairs(made[name], images=plan.images, masks=plan.source.path)
        assert {item["image"] for item in items} == {item.image for item in every(task.gold(made[name], 0))}
    for request in task.impossible:
        answer = make_plan(request, fingerprint, cards(), "")
        assert answer["plan"] is None, request
        assert answer["refusal"]


def test_only_the_part_of_the_spine_that_is_asked_for_is_marked(made):
    plan = make_plan("segment the lumbar vertebrae on CT", look(made["VerSe"]), cards(), "")["plan"]
    assert plan.labels == ("L1", "L2", "L3", "L4", "L5", "L6")


# ------------------------------------------------------------------------------------------------ the best reader
def test_the_best_reader_is_below_1_by_what_the_drawing_hand_moved(made):
    for name in ("VerSe", "OASIS"):
        best = oracle(made[name], find(name).gold(made[name], 0))
        assert best is not None
        assert 0.5 < best < 0.98


def test_a_steady_hand_draws_what_is_there():
    cube = np.zeros((12, 12, 12), np.uint8)
    cube[3:9, 3:9, 3:9] = 7
    assert (traced(np.random.default_rng(0), cube, 0.0) == cube).all()
    assert agreement(cube, traced(np.random.default_rng(0), cube, 0.5), ("cube", "ball"), (7, 9)).keys() == {"cube"}
    moved = np.roll(cube, 1, 0)  # 180 of 216 voxels still agree
    assert agreement(cube, moved, ("cube",), (7,)) == {"cube": round(180 / 216, 4)}
