"""The training script of anomaly detections, on the pictures that it makes up and a CLIP of a few thousand weights."""

import csv
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import mvfa_micro
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

import m3dspy

TEMPLATES = Path(m3dspy.__file__).resolve().parents[1] / "workspace" / "templates"


@pytest.fixture(scope="module", autouse=True)
def beside_the_templates():
    """Scripts import their neighbours by plain names."""
    sys.path.insert(0, str(TEMPLATES))
    yield
    sys.path.remove(str(TEMPLATES))


@pytest.fixture
def detect(monkeypatch):
    """The script on a micro CLIP, or on another one for any --weights."""
    module = importlib.import_module("detect")

    def network(s, weights=None):
        clip = mvfa_micro.micro_clip(s.size)
        if weights:
            clip.visual.proj.data.mul_(2)
        return clip

    monkeypatch.setattr(module, "network", network)
    return module


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return folder, importlib.import_module("detect").made_up(folder)


def train(module, data, out: Path, smoke: bool = False, resume: bool = False, index=None, files=None, **settings):
    folder, known = data
    s = replace(module.SETTINGS, **({"size": (70, 70), "epochs": 2, "workers": 1, "lr": 1e-2} | settings))
    module.train(index or known, folder, out, s, smoke, resume, **(files or {}))
    return {} if smoke else json.loads((out / "result.json").read_text())


def rows(out: Path, below: str = "") -> dict[str, float]:
    with (out / "predictions" / below / "predictions.csv").open() as file:
        return {row["id"]: float(row["abnormal"]) for row in csv.DictReader(file)}


def image_auroc(data, answers: dict[str, float]) -> float:
    truth = {item["id"]: item["label"] == "abnormal" for item in data[1]["test"]}
    return float(roc_auc_score([truth[name] for name in answers], list(answers.values())))


# ------------------------------------------------------------------------------------------------ the contract
def test_a_few_images_teach_it_to_find_the_spots(detect, data, tmp_path, capsys):
    result = train(detect, data, tmp_path, epochs=4)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == result["history"]
    for line in lines:
        assert line["score"] == pytest.approx((line["image"] + line["pixel"]) / 2)
    assert result["failed"] == []
    assert image_auroc(data, rows(tmp_path)) > 0.8


def test_every_test_image_gets_a_score_and_a_map_on_its_own_grid_from_all_three_judges(detect, data, tmp_path):
    train(detect, data, tmp_path)
    for judge in ("", "clip", "bank"):
        assert list(rows(tmp_path, judge)) == [item["id"] for item in data[1]["test"]]
        for item in data[1]["test"]:
            scores = np.asarray(Image.open(tmp_path / "predictions" / judge / f"{item['id']}.png"))
            assert (scores.shape, scores.dtype) == ((72, 80), np.uint16)


def test_the_label_says_on_which_side_of_the_threshold_a_score_is(detect, data, tmp_path):
    train(detect, data, tmp_path)
    with (tmp_path / "predictions/predictions.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["label"] == ("abnormal" if float(row["abnormal"]) > 0.5 else "normal")
            assert float(row["normal"]) + float(row["abnormal"]) == pytest.approx(1)


@pytest.mark.parametrize("residual", [0.0, 0.2])
def test_a_killed_training_resumes_to_the_very_same_adapters(detect, data, tmp_path, monkeypatch, residual):
    harness = importlib.import_module("harness")
    train(detect, data, tmp_path / "straight", epochs=3, residual=residual)
    say, said = harness.say, []

    def killed_after_an_epoch(**line):
        said.append(line)
        if len(said) > 1:
            raise KeyboardInterrupt
        say(**line)

    monkeypatch.setattr(harness, "say", killed_after_an_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(detect, data, tmp_path / "resumed", epochs=3, residual=residual)
    monkeypatch.setattr(harness, "say", say)
    train(detect, data, tmp_path / "resumed", epochs=3, residual=residual, resume=True)
    weights = [torch.load(tmp_path / name / "adapters.pth") for name in ("straight", "resumed")]
    for kind in ("seg_adapters", "det_adapters"):
        for name, value in weights[0][kind].items():
            assert torch.equal(value, weights[1][kind][name])


def test_a_smoke_run_prints_its_loss_and_writes_nothing(detect, data, tmp_path, capsys):
    train(detect, data, tmp_path / "out", smoke=True)
    assert json.loads(capsys.readouterr().out)["loss"] > 0
    assert not (tmp_path / "out").exists()


def test_tokens_of_an_earlier_run_are_used_and_change_nothing(detect, data, tmp_path, monkeypatch):
    first = train(detect, data, tmp_path / "first")
    mvfa = importlib.import_module("mvfa")
    monkeypatch.setattr(mvfa.MVFA, "frozen", lambda *given: pytest.fail("tokens were computed again"))
    again = train(detect, data, tmp_path / "again", files={"cache": tmp_path / "first" / "cache"})
    assert again["history"] == first["history"]
    assert rows(tmp_path / "again") == rows(tmp_path / "first")
    assert not (tmp_path / "again" / "cache").exists()


def test_a_saved_model_answers_new_images_one_at_a_time_as_it_did_all_together(detect, data, tmp_path):
    train(detect, data, tmp_path)
    s, model, fabric = detect.load_model(tmp_path, detect.Settings)
    for item in data[1]["test"][:2]:
        assert detect.predict([{**item, "label": None}], data[0], tmp_path / item["id"], s, model, fabric) == []
        with (tmp_path / item["id"] / "predictions.csv").open() as file:
            assert float(next(csv.DictReader(file))["abnormal"]) == pytest.approx(rows(tmp_path)[item["id"]], abs=1e-5)
        laid_over = np.asarray(Image.open(tmp_path / item["id"] / "overlays" / f"{item['id']}.png"))
        assert laid_over.shape == (72, 80, 3)


def test_a_model_is_not_used_on_another_clip(detect, data, tmp_path):
    train(detect, data, tmp_path)
    with pytest.raises(
        importlib.import_module("harness").Problem, match="was trained on another CLIP: give the --weig"
    ):
        detect.load_model(tmp_path, detect.Settings, weights=Path("other"))


def test_the_papers_preset_trains_as_the_paper_and_scores_on_the_whole_test_set(detect, data, tmp_path):
    result = train(detect, data, tmp_path, **(detect.PRESETS["paper"] | {"epochs": 2, "shots": 2}))
    assert result["epoch"] == 1  # the last one
    values = [np.asarray(Image.open(path)) for path in (tmp_path / "predictions").glob("*.png")]
    assert min(map(np.min, values)) >= 65535 / 6 - 1  # minimum and maximum of the test set are 0 and 1: two widths away
    assert max(map(np.max, values)) <= 65535 * 5 / 6 + 1


def test_zero_shot_learns_from_all_images_of_other_subjects_and_keeps_no_bank(detect, data, tmp_path):
    _, index = data
    others = {
        name: [{**item, "about": about} for item in index[name]]
        for name, about in (("training", "striped cloth"), ("validation", "wood"))
    }
    train(detect, data, tmp_path / "smoke", index={**index, **others}, shots=0, smoke=True)
    train(detect, data, tmp_path, index={**index, **others}, shots=0, augment=0.0)
    assert not (tmp_path / "predictions" / "bank").exists()
    assert (tmp_path / "predictions" / "clip" / "predictions.csv").is_file()
    assert set(rows(tmp_path)) == {item["id"] for item in index["test"]}


def test_images_without_masks_are_learnt_from_by_their_labels_alone(detect, data, tmp_path):
    _, index = data
    bare = {name: [{**item, "mask": None} for item in index[name]] for name in ("training", "validation", "test")}
    result = train(detect, data, tmp_path, index={**index, **bare}, epochs=4)
    assert "pixel" not in result["history"][0]
    before = torch.load(tmp_path / "adapters.pth")["seg_adapters"]
    torch.manual_seed(0)
    untouched = importlib.import_module("mvfa").MVFA(mvfa_micro.micro_clip(70)).seg_adapters.state_dict()
    assert all(torch.equal(before[name], value) for name, value in untouched.items())
    assert image_auroc(data, rows(tmp_path)) > 0.6


# ------------------------------------------------------------------------------------------------ the shots
def cases(normal: int, abnormal: int, patients: int = 100) -> list[dict]:
    labels = ["normal"] * normal + ["abnormal"] * abnormal
    return [{"id": f"i{k}", "patient": f"p{k % patients}", "label": label} for k, label in enumerate(labels)]


def test_fewer_shots_are_among_more_and_another_draw_takes_others(detect):
    few_shot, s = importlib.import_module("few_shot"), detect.SETTINGS
    draws = {
        k: [item["id"] for item in few_shot.drawn(cases(20, 20), replace(s, shots=k, draw=d))]
        for k, d in ((2, 0), (8, 0), (9, 1))
    }
    assert set(draws[2]) < set(draws[8])
    assert len(draws[8]) == 16
    assert set(draws[9]) - set(draws[8])


def test_no_patient_gives_a_second_image_before_all_gave_one(detect):
    few_shot = importlib.import_module("few_shot")
    chosen = few_shot.drawn(cases(20, 20, patients=4), replace(detect.SETTINGS, shots=4))
    for label in ("normal", "abnormal"):
        assert len({item["patient"] for item in chosen if item["label"] == label}) == 4


def test_the_control_gives_half_of_either_kind_label_and_mask_of_the_other(detect):
    few_shot = importlib.import_module("few_shot")
    truth, mask = cases(4, 4), torch.ones(2, 2, dtype=torch.bool)
    seen = [few_shot.Case(torch.zeros(3, 2, 2), mask if i["label"] == "abnormal" else None, (9, 9)) for i in truth]
    mixed, masks = few_shot.exchanged(truth, seen, detect.SETTINGS)
    for label in ("normal", "abnormal"):
        kept = [new["label"] == label for old, new in zip(truth, mixed, strict=True) if old["label"] == label]
        assert kept.count(True) == kept.count(False) == 2
    assert [item["label"] == "abnormal" for item in mixed] == [case.mask is not None for case in masks]
    assert truth == cases(4, 4)


def test_in_the_control_every_validation_image_is_normal_and_abnormal_with_the_mask_of_another(detect):
    few_shot, mvfa = importlib.import_module("few_shot"), importlib.import_module("mvfa")
    none, left, right = torch.tensor([[[False, False]], [[True, False]], [[False, True]]])
    masks = [none, left, right, None]
    batch = mvfa.Batch(torch.zeros(4), torch.zeros(1), torch.tensor([0, 1, 1, 0]), masks)
    as_normal, as_abnormal = few_shot.undecided([batch], masks)
    assert as_normal.labels.tolist() == [0] * 4
    assert as_abnormal.labels.tolist() == [1] * 4
    assert [mask is None or mask.any().item() for mask in as_normal.masks] == [False, False, False, True]
    assert as_abnormal.masks[0] is not none
    assert as_abnormal.masks[1] is right
    assert as_abnormal.masks[2] is left
    assert as_abnormal.masks[3] is None


def test_in_the_control_no_part_of_a_score_is_worth_more_than_another(detect, data, tmp_path):
    result = train(detect, data, tmp_path, epochs=3, shuffled=True)
    assert {line["image"] for line in result["history"]} == {0.5}
    assert result["kept"] == [2]
    shares = json.loads((tmp_path / "detector.json").read_text())["shares"]
    assert set(shares.values()) == {1 / len(shares)}


# ------------------------------------------------------------------------------------------------ bad input
def test_too_few_images_of_a_kind_are_counted(detect, data, tmp_path):
    with pytest.raises(importlib.import_module("harness").Problem, match=r"9 normal images were asked for, .* holds 5"):
        train(detect, data, tmp_path, shots=9)


def test_no_abnormal_image_is_one_line(detect, data, tmp_path):
    _, index = data
    normal = [item for item in index["training"] if item["label"] == "normal"]
    with pytest.raises(
        importlib.import_module("harness").Problem, match=r"4 abnormal images were asked for, .* holds 0"
    ):
        train(detect, data, tmp_path, index={**index, "training": normal})


def test_a_mask_of_another_size_is_named_with_both_sizes(detect, data, tmp_path):
    few_shot, folder = importlib.import_module("few_shot"), data[0]
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(folder / "small.png")
    message = r"small.png: a mask of 10 x 20 pixels for an image of 72 x 80"
    with pytest.raises(importlib.import_module("harness").Problem, match=message):
        few_shot.load({"id": "a", "image": "0.png", "mask": "small.png"}, folder, detect.SETTINGS)


def test_a_16_bit_picture_is_not_taken_for_an_8_bit_one(detect, data, tmp_path):
    few_shot, folder = importlib.import_module("few_shot"), data[0]
    deep = (np.arange(72 * 80).reshape(72, 80) * 10).astype(np.uint16)
    Image.fromarray(deep).save(folder / "deep.png")
    item = {"id": "a", "image": "deep.png"}
    with pytest.raises(
        importlib.import_module("harness").Problem, match=r"deep.png: values from 0 to 57590 are not those"
    ):
        few_shot.load(item, folder, detect.SETTINGS)
    image = few_shot.load(item, folder, replace(detect.SETTINGS, intensity="percentile")).image
    assert image.min() == pytest.approx(0, abs=0.01)
    assert image.max() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"levels": "1/4 5/4"}, "levels: expected parts of CLIP's depth such as '1/4 1/2 3/4 1', got '5/4'"),
        ({"schedule": "linear"}, "schedule: expected one of cosine, constant, got 'linear'"),
        ({"residual": 1.5}, "residual: expected 0 to 1, got 1.5"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(detect, data, tmp_path, settings, message):
    with pytest.raises(importlib.import_module("harness").Problem) as problem:
        train(detect, data, tmp_path, **settings)
    assert str(problem.value) == message
