"""The examiner, with answers whose grade follows from the definitions."""

import csv
import json
import struct

import nibabel
import numpy as np
import pytest

from m3dspy.errors import DataError
from m3dspy.m3bench import metrics
from m3dspy.m3bench.grade import grade
from m3dspy.signatures.values import Index

LABELS = ("cat", "dog")


def classes_index(patients=10):
    """Two images a patient; every other patient is a cat."""
    test = [
        {"id": f"{p}-{k}", "patient": str(p), "image": f"{p}-{k}.png", "label": LABELS[p % 2]}
        for p in range(patients)
        for k in range(2)
    ]
    return Index.model_validate({"task": "classification", "labels": LABELS, "test": test})


def write_csv(folder, index, dog, header=None):
    """Predictions from one probability of "dog" a case; None leaves the case out."""
    folder.mkdir(exist_ok=True)
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header or ["id", "label", *LABELS])
        for item, p in zip(index.test, dog, strict=True):
            if p is not None:
                writer.writerow([item.id, LABELS[p > 0.5], 1 - p, p])
    return folder


def truth_of(index):
    return [float(item.label == "dog") for item in index.test]


def checkpoint(path, values=(1.0, 2.0)):
    from safetensors.numpy import save_file

    save_file({"weight": np.array(values, np.float32)}, path)
    return path


def graded(index, predictions, root, **more):
    more.setdefault("checkpoint", checkpoint(root / "model.safetensors"))
    return grade(index, root, predictions, **more)


def test_perfect_answers_score_1_and_constant_ones_a_half(tmp_path):
    index = classes_index()
    constant = write_csv(tmp_path / "constant", index, [0.5] * 20)
    found = graded(index, write_csv(tmp_path / "p", index, truth_of(index)), tmp_path, control=constant)
    assert found.control is not None
    assert (found.score.value, found.floor.value, found.control.value) == (1, 0.5, 0.5)
    assert (found.s1, found.s2) == (True, True)
    assert found.confusion == ((10, 0), (0, 10))
    assert (found.cases, found.patients) == (20, 10)
    assert found.others["balanced accuracy"].value == 1
    assert found.others["Brier"].value == found.others["calibration error"].value == 0

    dull = graded(index, constant, tmp_path, control=constant)
    assert dull.score.value == 0.5
    assert dull.s1
    assert not dull.s2
    assert dull.others["Brier"].value == pytest.approx(0.5)  # 2 x 0.5 squared


def test_what_tuning_added_is_the_difference_of_the_scores_on_the_same_patients(tmp_path):
    index = classes_index()
    right, constant = write_csv(tmp_path / "p", index, truth_of(index)), write_csv(tmp_path / "u", index, [0.5] * 20)
    gain = graded(index, right, tmp_path, untuned=constant).others["gain by tuning"]
    assert (gain.value, gain.low, gain.high) == (0.5, 0.5, 0.5)  # 1 less 0.5, whoever the patients are
    assert graded(index, constant, tmp_path, untuned=right).others["gain by tuning"].value == -0.5
    partly = write_csv(tmp_path / "m", index, [None, *truth_of(index)[1:]])
    assert "gain by tuning" not in graded(index, right, tmp_path, untuned=partly).others
    assert "gain by tuning" not in graded(index, right, tmp_path).others


def test_what_folds_added_is_not_counted_as_tuning(tmp_path):
    index = classes_index()
    right, constant = write_csv(tmp_path / "p", index, truth_of(index)), write_csv(tmp_path / "u", index, [0.5] * 20)
    found = graded(index, right, tmp_path, single=constant, untuned=constant).others
    assert (found["gain by folds"].value, found["gain by tuning"].value) == (0.5, 0)
    found = graded(index, right, tmp_path, single=right, untuned=constant).others
    assert (found["gain by folds"].value, found["gain by tuning"].value) == (0, 0.5)
    assert "gain by folds" not in graded(index, right, tmp_path, untuned=constant).others


def test_swapped_labels_score_0(tmp_path):
    index = classes_index()
    found = graded(index, write_csv(tmp_path / "p", index, [1 - t for t in truth_of(index)]), tmp_path)
    assert found.score.value == 0
    assert found.confusion == ((0, 10), (10, 0))


def test_a_missing_case_ranks_last_for_its_class_and_first_for_the_others(tmp_path):
    index = classes_index()
    answers = [None, *truth_of(index)[1:]]  # one of ten cats
    found = graded(index, write_csv(tmp_path / "p", index, answers), tmp_path)
    assert found.missing == ("0-0",)
    assert found.worst[0] == "0-0"
    assert found.score.value == pytest.approx(0.9)  # its ten pairs of a hundred are lost, for either label
    assert not found.s1
    assert not found.s2


def test_auroc_counts_a_tie_as_half():
    # positives 0.8 and 0.5, negatives 0.5 and 0.1: 1 + 1 + 0.5 + 1 of 4 pairs
    area = metrics.auroc(np.array([True, True, False, False]), np.array([0.8, 0.5, 0.5, 0.1]), np.ones((1, 4)))
    assert area == pytest.approx(3.5 / 4)


def test_weighted_auroc_is_the_auroc_of_repeated_cases():
    random = np.random.default_rng(0)
    positive, answer = random.random(30) > 0.5, random.integers(0, 6, 30) / 5
    times = random.integers(0, 4, 30)
    repeated = metrics.auroc(np.repeat(positive, times), np.repeat(answer, times), np.ones((1, times.sum())))
    assert metrics.auroc(positive, answer, times[None].astype(float)) == pytest.approx(repeated)


@pytest.mark.parametrize(
    "row",
    [
        "0-0,cat,nan,0.5",
        "0-0,cat,inf,0",
        "0-0,cat,1.2,-0.2",
        "0-0,cat,0.9,0.9",
        "0-0,bird,0.5,0.5",
        "0-0,cat,high,low",
        "0-0,cat,1",
        "0-0,cat,1,0\n0-0,cat,1,0",
    ],
)
def test_a_malformed_row_is_no_answer(tmp_path, row):
    index = classes_index()
    folder = write_csv(tmp_path / "p", index, [None, *truth_of(index)[1:]])
    with (folder / "predictions.csv").open("a") as file:
        file.write(row + "\n")
    assert graded(index, folder, tmp_path).missing == ("0-0",)


def test_other_columns_than_asked_for_are_no_answer_at_all(tmp_path):
    index = classes_index()
    folder = write_csv(tmp_path / "p", index, truth_of(index), header=["id", "label", "dog", "cat"])
    assert len(graded(index, folder, tmp_path).missing) == 20


def test_a_link_is_no_answer(tmp_path):
    index = classes_index()
    real = write_csv(tmp_path / "real", index, truth_of(index))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "predictions.csv").symlink_to(real / "predictions.csv")
    (tmp_path / "q").symlink_to(real)
    assert len(graded(index, tmp_path / "p", tmp_path).missing) == 20
    assert len(graded(index, tmp_path / "q", tmp_path).missing) == 20


def test_a_checkpoint_must_hold_finite_tensors(tmp_path):
    index = classes_index()
    answers = write_csv(tmp_path / "p", index, truth_of(index))
    nan = checkpoint(tmp_path / "nan.safetensors", (1.0, float("nan")))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint(tmp_path / "whole.safetensors").read_bytes()[:-2])
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(struct.pack("<Q", 2) + b"{}")
    for bad in (nan, cut, huge, empty, tmp_path / "absent"):
        assert not graded(index, answers, tmp_path, checkpoint=bad).s1
    assert graded(index, answers, tmp_path).s1
    assert graded(index, answers, tmp_path, checkpoint=None).s1  # there is none to be had: the answers are judged


def test_without_a_whole_control_nothing_is_proved(tmp_path):
    index = classes_index()
    answers = write_csv(tmp_path / "p", index, truth_of(index))
    part = write_csv(tmp_path / "c", index, [None] + [0.5] * 19)
    assert not graded(index, answers, tmp_path).s2
    found = graded(index, answers, tmp_path, control=part)
    assert found.control is None
    assert not found.s2


def test_a_score_above_the_oracle_is_a_leak(tmp_path):
    index = classes_index()
    answers = write_csv(tmp_path / "p", index, truth_of(index))
    assert graded(index, answers, tmp_path, oracle=0.9).above_oracle
    assert not graded(index, answers, tmp_path, oracle=1.0).above_oracle
    assert not graded(index, answers, tmp_path).above_oracle


def test_several_labels_a_case_are_judged_one_by_one(tmp_path):
    test = [
        {"id": "a", "patient": "a", "image": "a", "label": ("cat", "dog")},
        {"id": "b", "patient": "b", "image": "b", "label": ("cat",)},
        {"id": "c", "patient": "c", "image": "c", "label": ()},
    ]
    index = Index.model_validate({"task": "classification", "labels": LABELS, "multilabel": True, "test": test})
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "predictions.csv").write_text("id,label,cat,dog\na,cat;dog,0.9,0.8\nb,cat,0.2,0.1\nc,,0.5,0.4\n")
    found = graded(index, tmp_path / "p", tmp_path)
    assert found.missing == ()
    assert found.per_label["cat"].value == 0.5  # 0.9 beats 0.5, 0.2 does not
    assert found.per_label["dog"].value == 1
    assert found.confusion == ()


# ------------------------------------------------------------------------------------------------ masks
SIDE = 10
AFFINE = np.diag([-1.0, 1, 2, 1])


def block(length, value=1):
    """A mask with 4 x 4 x `length` voxels of one value."""
    mask = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    mask[2:6, 2:6, :length] = value
    return mask


def save(path, mask, affine=AFFINE):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask, affine), path)


def masks_index(root, masks, labels=("liver",), training=None):
    for name, mask in (masks | {"train": block(4) if training is None else training}).items():
        save(root / "masks" / f"{name}.nii.gz", mask)
    item = {
        name: {"id": name, "patient": name, "image": f"{name}.nii.gz", "label": f"masks/{name}.nii.gz"}
        for name in [*masks, "train"]
    }
    return Index.model_validate(
        {
            "task": "segmentation",
            "labels": labels,
            "values": tuple(range(1, len(labels) + 1)),
            "training": [item.pop("train")],
            "test": list(item.values()),
        }
    )


def test_dice_of_two_blocks_follows_from_their_lengths(tmp_path):
    index = masks_index(tmp_path, {"a": block(4), "b": block(4)})
    save(tmp_path / "p" / "a.nii.gz", block(4))
    save(tmp_path / "p" / "b.nii.gz", block(2))
    found = graded(index, tmp_path / "p", tmp_path)
    assert found.score.value == pytest.approx((1 + 2 * 2 / (4 + 2)) / 2)
    assert found.worst == ("b", "a")
    assert found.s1
    assert found.floor.value == 1  # the training mask is the very same block
    assert found.others["lift over atlas"].value == pytest.approx(found.score.value - 1)


def test_a_missing_mask_scores_0(tmp_path):
    index = masks_index(tmp_path, {"a": block(4), "b": block(4)})
    save(tmp_path / "p" / "a.nii.gz", block(4))
    found = graded(index, tmp_path / "p", tmp_path)
    assert found.score.value == 0.5
    assert found.missing == ("b",)
    assert not found.s1


def test_a_structure_that_is_absent_counts_only_where_it_was_marked(tmp_path):
    index = masks_index(tmp_path, {"a": block(4), "b": block(4)}, labels=("liver", "spleen"))
    extra = block(4)
    extra[8, 8, 8] = 2
    save(tmp_path / "p" / "a.nii.gz", block(4))
    save(tmp_path / "p" / "b.nii.gz", extra)
    found = graded(index, tmp_path / "p", tmp_path)
    assert found.score.value == pytest.approx((1 + (1 + 0) / 2) / 2)
    assert found.per_label["spleen"].value == found.surfaces["spleen"].value == 0
    assert found.surfaces["liver"].value == 1


def test_a_mask_of_another_grid_or_value_is_no_answer(tmp_path):
    index = masks_index(tmp_path, {"shape": block(4), "value": block(4), "place": block(4), "text": block(4)})
    save(tmp_path / "p" / "shape.nii.gz", block(4)[:, :, :-1])
    save(tmp_path / "p" / "value.nii.gz", block(4, value=7))
    save(tmp_path / "p" / "place.nii.gz", block(4), np.eye(4))
    (tmp_path / "p" / "text.nii.gz").write_text("a mask, honestly")
    assert set(graded(index, tmp_path / "p", tmp_path).missing) == {"shape", "value", "place", "text"}


def test_the_mean_mask_follows_the_patient_through_other_orientations_and_grids(tmp_path):
    turned = np.ascontiguousarray(block(4)[::-1].transpose(2, 0, 1))  # the same block, stored along other axes
    index = masks_index(tmp_path, {"a": turned})
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1.0]])
    save(tmp_path / "masks" / "a.nii.gz", turned, affine)
    save(tmp_path / "p" / "a.nii.gz", turned, affine)
    assert graded(index, tmp_path / "p", tmp_path).floor.value == 1


def test_surface_dice_forgives_a_shift_within_the_tolerance():
    one, other = np.zeros((2, 12, 12, 12), bool)
    one[3:8, 3:8, 3:8] = True
    other[4:9, 3:8, 3:8] = True
    assert metrics.surface_dice(one, other, (1, 1, 1), 1.0) == 1
    # At tolerance 0 each surface of 98 voxels shares the 4 side walls of the overlap: 4 slabs of 16 voxels
    assert metrics.surface_dice(one, other, (1, 1, 1), 0.0) == pytest.approx(2 * 4 * 16 / (2 * 98))
    assert metrics.surface_dice(one, np.zeros_like(one), (1, 1, 1), 1.0) == 0
    assert metrics.surface_dice(np.zeros_like(one), np.zeros_like(one), (1, 1, 1), 1.0) is None


def test_an_index_without_test_labels_cannot_be_graded(tmp_path):
    with pytest.raises(DataError, match="no labelled test cases"):
        grade(classes_index().without_test_labels(), tmp_path, tmp_path, checkpoint=None)


def test_a_grade_can_be_written_as_json(tmp_path):
    index = masks_index(tmp_path, {"a": block(4)}, labels=("liver", "spleen"))
    save(tmp_path / "p" / "a.nii.gz", block(4))
    found = graded(index, tmp_path / "p", tmp_path)
    assert "spleen" not in found.per_label
    assert "NaN" not in json.dumps(found.model_dump())


def overlapping(tmp_path):
    """Three films of 8 x 8 pixels: label 1 in the left half, label 4 in the upper half: a quarter shows both."""
    from PIL import Image

    mask = np.zeros((8, 8), np.uint16)
    mask[:, :4] |= 1
    mask[:4] |= 4
    items = []
    for name in ("a", "b", "c"):
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        items.append({"id": name, "patient": name, "image": f"{name}.png", "label": f"{name}.png"})
    lists = {"training": items[:2], "test": items[2:]}
    index = {"task": "segmentation", "labels": ("left", "upper"), "values": (1, 4), "multilabel": True, **lists}
    return Index.model_validate(index), mask


def test_findings_that_overlap_are_graded_each_by_its_own_bit(tmp_path):
    from PIL import Image

    index, mask = overlapping(tmp_path)
    answers = {"same": mask, "left only": mask & 1, "no bit": mask * 2}
    found = {}
    for name, answer in answers.items():
        (tmp_path / name).mkdir()
        Image.fromarray(answer.astype(np.uint16)).save(tmp_path / name / "c.png")
        found[name] = graded(index, tmp_path / name, tmp_path)
    assert found["same"].score.value == 1
    assert {label: score.value for label, score in found["left only"].per_label.items()} == {"left": 1, "upper": 0}
    assert found["no bit"].missing == ("c",)


def test_the_mean_mask_keeps_what_overlaps(tmp_path):
    from m3dspy.m3bench.masks import mean_masks

    index, mask = overlapping(tmp_path)
    assert (mean_masks(index, tmp_path) == mask).all()
