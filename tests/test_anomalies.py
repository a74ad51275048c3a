"""The examiner of anomaly detection: metrics that follow by hand from tiny maps, and answers that are none."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from m3dspy.errors import DataError
from m3dspy.m3bench import metrics, pixels, random_bank
from m3dspy.m3bench.grade import grade
from m3dspy.screen import verdict
from m3dspy.signatures.values import ANOMALY_LABELS, Index, Outcome

SIDE = 8
TOP = 65535


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path.name


def truth_of(number):
    """Case 1, 3, ... are abnormal: a square of 4 x 4 in the corner."""
    truth = np.zeros((SIDE, SIDE), bool)
    truth[:4, :4] = number % 2 == 1
    return truth


def anomalies_index(root, cases=12, masks=True, training=4):
    """An image a patient, every other one abnormal and brighter in its square; the last ones are for training."""
    random, items = np.random.default_rng(0), []
    for number in range(cases + training):
        image = random.integers(90, 110, (SIDE, SIDE)) + 60 * truth_of(number)
        item = {"id": f"c{number}", "patient": f"p{number}", "label": ANOMALY_LABELS[number % 2]}
        item["image"] = picture(root / f"{number}.png", image.astype(np.uint8))
        if masks and number % 2:
            item["mask"] = picture(root / f"mask{number}.png", truth_of(number).astype(np.uint8) * 200)
        items.append(item)
    return Index.model_validate(
        {
            "task": "anomaly_detection", "labels": ANOMALY_LABELS, "about": "made-up picture",
            "training": items[cases:], "test": items[:cases],
        }
    )  # fmt: skip


def write(folder, index, chances=None, maps=True, skip=()):
    """Answers, perfect by default; ids in `skip` get none at all."""
    folder.mkdir(parents=True, exist_ok=True)
    chances = [float(item.label == "abnormal") for item in index.test] if chances is None else chances
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", *ANOMALY_LABELS])
        for number, (item, chance) in enumerate(zip(index.test, chances, strict=True)):
            if item.id in skip:
                continue
            writer.writerow([item.id, ANOMALY_LABELS[chance > 0.5], 1 - chance, chance])
            if maps:
                picture(folder / f"{item.id}.png", truth_of(number).astype(np.uint16) * TOP)
    return folder


def checkpoint(root):
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(2, np.float32)}, root / "model.safetensors")
    return root / "model.safetensors"


def graded(index, predictions, root, **more):
    return grade(index, root, predictions, checkpoint=checkpoint(root), **more)


# ------------------------------------------------------------------------------------------------ metrics
def test_precision_and_f1_follow_from_four_answers():
    # 0.9 abnormal, 0.8 normal, 0.7 abnormal, 0.1 normal: precision 1 and 2/3 where recall grows
    positive, answer = np.array([True, False, True, False]), np.array([0.9, 0.8, 0.7, 0.1])
    counts = metrics.tally(positive, answer, np.ones((1, 4)))
    assert metrics.average_precision(*counts) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.best_f1(*counts) == pytest.approx(4 / 5)  # from 0.7 up: 2 hits, 1 false alarm, nothing missed
    assert metrics.area_under_roc(*counts) == pytest.approx(3 / 4)
    assert np.isnan(metrics.average_precision(*metrics.tally(~positive & positive, answer, np.ones((1, 4)))))


def test_region_overlap_weighs_a_small_region_as_a_large_one():
    # From the top: a region of one pixel found whole, then a tenth of the normal pixels, then one region of 9, then the
    # rest. Overlap is 1/2 up to a false-positive rate of 0.1, and 1 from there to the limit of 0.3.
    regions, normal = np.array([[0, 1.0, 0, 1.0]]), np.array([[9.0, 0, 1, 0]])
    assert metrics.region_overlap(regions, normal) == pytest.approx((0.1 * 0.5 + 0.2 * 1) / 0.3)
    # Found evenly with the normal pixels: the curve is the diagonal up to 0.3
    assert metrics.region_overlap(np.array([[1.0, 1]]), np.array([[5.0, 5]])) == pytest.approx(0.15)
    assert np.isnan(metrics.region_overlap(np.zeros((1, 2)), np.ones((1, 2))))


def test_pixel_values_are_those_of_scikit_learn_on_all_pixels_and_bins_change_little(tmp_path):
    from sklearn.metrics import average_precision_score, roc_auc_score

    random, index = np.random.default_rng(1), anomalies_index(tmp_path, cases=6)
    truths, maps = [], []
    for number, item in enumerate(index.test):
        truth = truth_of(number)
        scores = (random.normal(0.4 + 0.15 * truth, 0.1).clip(0, 1) * TOP).round().astype(np.uint16)
        picture(tmp_path / "p" / f"{item.id}.png", scores)
        truths.append(truth.ravel())
        maps.append(scores.ravel())
    truth, scores = np.concatenate(truths), np.concatenate(maps)
    found = pixels.judge(index, tmp_path, tmp_path / "p", [item.id for item in index.test])
    assert found is not None
    measured = found.measured(np.ones((1, 6)))
    assert measured["pixel AUROC"].value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert measured["pixel AP"].value == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    for value, spread in measured.values():
        assert spread == pytest.approx(value, abs=2e-3)


def test_regions_that_touch_by_a_corner_are_one(tmp_path):
    index = anomalies_index(tmp_path, cases=2)
    truth, scores = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.uint16)
    truth[:3, :3] = truth[3, 3] = truth[7, 7] = 1  # one region of 10 pixels, and one of a single pixel
    scores[7, 7] = TOP
    picture(tmp_path / "mask1.png", truth)
    for item in index.test:
        picture(tmp_path / "p" / f"{item.id}.png", scores * (item.label == "abnormal"))
    found = pixels.judge(index, tmp_path, tmp_path / "p", ["c0", "c1"])
    assert found is not None
    # Half of the regions is found at once, the other half with all normal pixels: from 1/2 to 1 over all rates
    assert found.measured(np.ones((1, 2)))["PRO"].value == pytest.approx((0.5 + 0.65) / 2)
    assert found.dice[1] == pytest.approx(2 * 1 / (1 + 11))
    assert np.isnan(found.dice[0])


def test_weights_repeat_whole_images(tmp_path):
    index = anomalies_index(tmp_path, cases=4)
    maps = {"c0": 10, "c1": 20, "c2": 30, "c3": 40}  # one score an image
    for name, score in maps.items():
        picture(tmp_path / "p" / f"{name}.png", np.full((SIDE, SIDE), score, np.uint16))
    found = pixels.judge(index, tmp_path, tmp_path / "p", list(maps))
    assert found is not None
    # Of c1 alone, abnormal and normal pixels tie; of c0 and c3 alone all abnormal pixels are above c0's 64 normal ones
    # and tie with c3's own 48.
    spread = found.measured(np.array([[0, 1.0, 0, 0], [2, 0, 0, 2]]))["pixel AUROC"].spread
    assert spread == pytest.approx([0.5, (64 + 48 / 2) / (64 + 48)])


# ------------------------------------------------------------------------------------------------ grades
def test_perfect_answers_score_1_everywhere(tmp_path):
    index = anomalies_index(tmp_path)
    control = write(tmp_path / "c", index, [0.5] * 12)
    found = graded(index, write(tmp_path / "p", index), tmp_path, control=control)
    assert found.metric == "image AUROC"
    assert found.score.value == 1
    assert {name: score.value for name, score in found.others.items()} == dict.fromkeys(
        ("pixel AUROC", "pixel AP", "PRO", "Dice", "image AP", "F1-max", "sensitivity", "specificity"), 1
    )
    assert found.confusion == ((6, 0), (0, 6))
    assert found.s1
    assert found.control is not None
    assert found.control.value == 0.5
    assert found.notes == ()
    line = verdict(Outcome(status="done", grade=found))
    assert line.startswith("image AUROC 1.000 [1.00, 1.00], pixel AUROC 1.000 [1.00, 1.00] on 12 held-out cases of 12")
    assert "NaN" not in json.dumps(found.model_dump())


def test_a_model_must_beat_the_random_bank_and_the_control(tmp_path):
    index = anomalies_index(tmp_path)
    dull = write(tmp_path / "dull", index, [0.5] * 12)
    perfect = write(tmp_path / "p", index)
    easy = graded(index, perfect, tmp_path, control=dull)
    assert easy.floor.value == 1  # bright squares are odd to any filter
    assert not easy.s2
    for item in index.test:  # now the images show nothing
        picture(tmp_path / str(item.image), np.full((SIDE, SIDE), 100, np.uint8))
    assert graded(index, perfect, tmp_path, control=dull).floor.value == 0.5
    assert graded(index, perfect, tmp_path, control=dull).s2
    assert not graded(index, perfect, tmp_path, control=perfect).s2
    assert not graded(index, perfect, tmp_path).s2


def test_a_missing_case_ranks_last_if_abnormal_and_first_if_normal(tmp_path):
    index = anomalies_index(tmp_path)
    found = graded(index, write(tmp_path / "p", index, skip=("c0", "c1")), tmp_path)
    assert found.missing == ("c0", "c1")
    assert not found.s1
    assert found.score.value == pytest.approx(25 / 36)  # of 6 x 6 pairs those without either case are won
    assert found.others["sensitivity"].value == found.others["specificity"].value == pytest.approx(5 / 6)
    assert found.others["Dice"].value == pytest.approx(5 / 6)
    normal = 6 * 64 + 6 * 48  # pixels; 64 are missing in c0, and 48 of c1's with its 16 abnormal ones
    won = (normal - 64 - 48) * (6 - 1) * 16
    assert found.others["pixel AUROC"].value == pytest.approx(won / (normal * 6 * 16))
    assert set(found.worst[:2]) == {"c0", "c1"}


def odd_maps(folder):
    """A map that is not what was asked for, by the name of what is wrong."""
    half = np.full((SIDE, SIDE), TOP // 2, np.uint16)
    good = picture(folder.parent / "elsewhere" / "good.png", half)
    for name, array in {
        "c0": half.astype(np.uint8),
        "c1": half[:-1],
        "c2": np.dstack([half.astype(np.uint8)] * 3),
        "c3": half.astype(np.float32),
    }.items():
        (folder / f"{name}.png").unlink()
        Image.fromarray(array).save(folder / f"{name}.png", format="TIFF" if array.dtype == np.float32 else "PNG")
    (folder / "c4.png").unlink()
    (folder / "c4.png").symlink_to(folder.parent / "elsewhere" / good)
    whole = (folder / "c5.png").read_bytes()
    (folder / "c5.png").write_bytes(whole[: len(whole) // 2])
    (folder / "c6.png").write_text("a map, honestly")
    (folder / "c7.png").unlink()
    return [f"c{number}" for number in range(8)]


def test_a_map_of_8_bits_of_another_size_a_link_or_half_a_file_is_no_answer(tmp_path):
    index = anomalies_index(tmp_path)
    folder = write(tmp_path / "p", index)
    wrong = odd_maps(folder)
    assert graded(index, folder, tmp_path).missing == tuple(wrong)


def test_without_masks_no_map_is_asked_for_and_no_pixel_is_judged(tmp_path):
    index = anomalies_index(tmp_path, masks=False)
    found = graded(index, write(tmp_path / "p", index, maps=False), tmp_path)
    assert found.s1
    assert set(found.others) == {"image AP", "F1-max", "sensitivity", "specificity"}


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path):
    index = anomalies_index(tmp_path)
    picture(tmp_path / "mask3.png", np.ones((SIDE, SIDE + 1), np.uint8))
    with pytest.raises(DataError, match=r"mask of case c3 has 8 x 9 pixels, its image 8 x 8. Mend mask3.png"):
        graded(index, write(tmp_path / "p", index), tmp_path)


def test_baselines_untuned_settings_and_draws_stand_beside_the_score(tmp_path):
    index = anomalies_index(tmp_path)
    folder = write(tmp_path / "p", index)
    write(folder / "clip", index, [0.5] * 12)
    write(folder / "bank", index, maps=False)
    swapped = write(tmp_path / "swapped", index, [float(item.label == "normal") for item in index.test])
    found = graded(index, folder, tmp_path, draws=(swapped, tmp_path / "none"), untuned=swapped)
    value = {name: score.value for name, score in found.others.items()}
    assert value["plain CLIP image AUROC"] == 0.5
    assert value["plain CLIP pixel AUROC"] == 1
    assert value["untuned image AUROC"] == 0
    assert (value["image AUROC of draw 0"], value["image AUROC of draw 1"]) == (1, 0)
    assert found.others["image AUROC over 2 draws"].model_dump() == {"value": 0.5, "low": 0, "high": 1}
    assert "bank image AUROC" not in value
    assert found.notes == (
        "bank did not answer every test case",
        "draw 2 did not answer every test case",
    )


# ------------------------------------------------------------------------------------------------ floor
def test_the_random_bank_finds_an_odd_image_whatever_its_size_and_colours(tmp_path):
    index = anomalies_index(tmp_path, cases=8)
    random = np.random.default_rng(0)
    for number, item in enumerate((*index.test, *index.training)):
        image = random.integers(90, 110, (40 + number, 90, 3))
        image[10:20, 10:20] += 80 * (item.label == "abnormal")
        picture(tmp_path / str(item.image), image.astype(np.uint8))
    odd = random_bank.oddness(index, tmp_path)
    assert odd[:, 1::2].min() > odd[:, ::2].max()
    assert (random_bank.oddness(index, tmp_path) == odd).all()


def test_a_small_picture_keeps_the_mean_of_what_it_covers(tmp_path):
    index = anomalies_index(tmp_path, cases=2)
    image = np.random.default_rng(0).integers(0, 255, (100, 37)).astype(np.uint8)
    picture(tmp_path / "0.png", image)
    assert random_bank.small_picture(index.test[0], tmp_path).mean() == pytest.approx(image.mean(), rel=1e-5)


def test_without_normal_training_images_there_is_no_floor(tmp_path):
    index = anomalies_index(tmp_path)
    index = index.model_copy(update={"training": tuple(i for i in index.training if i.label == "abnormal")})
    with pytest.raises(DataError, match="no normal training case"):
        graded(index, write(tmp_path / "p", index), tmp_path)
