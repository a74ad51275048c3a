"""The training scripts and their networks, on the data that they make up themselves."""

import csv
import doctest
import importlib
import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from language_models import tiny_gpt2
from PIL import Image

import m3dspy
from m3dspy.optimizers import tune

TEMPLATES = Path(m3dspy.__file__).resolve().parents[1] / "workspace" / "templates"
NETWORKS = sorted(path.stem for path in (TEMPLATES.parent / "networks").glob("[!_]*.py"))
CLIPS = [name for name in NETWORKS if name.startswith("clip_")]


@pytest.fixture(scope="module", autouse=True)
def beside_the_templates():
    """Scripts import their neighbours by plain names."""
    sys.path.insert(0, str(TEMPLATES))
    yield
    sys.path.remove(str(TEMPLATES))


def script(name: str):
    return importlib.import_module(name)


def train(module, folder: Path, out: Path, smoke: bool = False, resume: bool = False, weights=None, **settings) -> dict:
    """Train on made-up data in `folder`; the result."""
    more = {"weights": weights} if weights else {}
    folder.mkdir(exist_ok=True)
    size = (16,) * module.SETTINGS.dims
    small = {"size": size, "epochs": 2, "workers": 1}
    s = replace(module.SETTINGS, **(small | settings))
    module.train(module.made_up(folder), folder, out, s, smoke, resume, **more)
    return {} if smoke else json.loads((out / "result.json").read_text())


# ------------------------------------------------------------------------------------------------ the contract
def test_a_script_starts_without_what_monai_takes_along_and_may_import_it_later():
    names = {"mlflow", "monai", "pandas", "tensorboard", "torchvision", "transformers"}
    seen = f"print(sorted({names} & set(sys.modules)))"
    code = f"import sys, lean; {seen}; import torchvision, transformers; {seen}"
    said = subprocess.run([sys.executable, "-c", code], cwd=TEMPLATES, check=True, capture_output=True, text=True)
    assert said.stdout.splitlines() == ["['monai']", "['monai', 'torchvision', 'transformers']"]


@pytest.mark.parametrize("name", ["classify", "segment", "report"])
def test_one_json_line_an_epoch_is_printed_and_nothing_else(name, tmp_path, capsys):
    result = train(script(name), tmp_path / "data", tmp_path / "out")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines == result["history"]
    assert result["score"] == max(line["score"] for line in lines)
    assert result["failed"] == []


def test_every_test_case_gets_a_row_of_probabilities(tmp_path):
    module = script("classify")
    train(module, tmp_path / "data", tmp_path / "out")
    s = script("harness").saved_settings(tmp_path / "out", module.Settings)
    assert s.priors == (0.5, 0.5)  # of 14 training cases
    rows = list(csv.DictReader((tmp_path / "out/predictions/predictions.csv").open()))
    assert [row["id"] for row in rows] == ["case20", "case21", "case22", "case23"]
    for row in rows:
        chances = {"large": float(row["large"]), "small": float(row["small"])}
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert row["label"] == module.chosen(np.array(list(chances.values())), s)


def test_a_training_starts_from_the_weights_it_is_given(tmp_path):
    module, network = script("classify"), importlib.import_module("networks.medicalnet")
    slow = {"network": "medicalnet", "backbone": "medicalnet_resnet10", "lr": 1e-6, "epochs": 1}
    torch.manual_seed(5)
    given = network.network(replace(module.SETTINGS, backbone="medicalnet_resnet10")).state_dict()
    torch.save(given, tmp_path / "weights")
    train(module, tmp_path / "data", tmp_path / "out", weights=tmp_path / "weights", **slow)
    kept = safetensors.torch.load_file(tmp_path / "out/model.safetensors")
    torch.testing.assert_close(kept["layer4.0.conv1.weight"], given["layer4.0.conv1.weight"], atol=1e-4, rtol=0)
    (tmp_path / "weights").write_text("junk")
    with pytest.raises(script("harness").Problem, match="no checkpoint that can be read safely"):
        train(module, tmp_path / "data", tmp_path / "other", weights=tmp_path / "weights", **slow)


def test_every_test_mask_lies_on_the_grid_of_its_image(tmp_path):
    train(script("segment"), tmp_path / "data", tmp_path / "out", spacing=(1.3, 1.0, 0.9))
    for number in (7, 8):  # of which one is stored left, posterior, superior
        image = nibabel.load(tmp_path / f"data/image{number}.nii.gz")
        mask = nibabel.load(tmp_path / f"out/predictions/case{number}.nii.gz")
        assert mask.shape == image.shape
        assert np.array_equal(mask.affine, image.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2}


def test_segment_learns_where_the_ball_and_the_cube_are(tmp_path):
    result = train(script("segment"), tmp_path / "data", tmp_path / "out", epochs=6, crops=8)
    assert result["score"] > 0.5
    for number in (7, 8):
        mask = np.asarray(nibabel.load(tmp_path / f"out/predictions/case{number}.nii.gz").dataobj)
        truth = np.asarray(nibabel.load(tmp_path / f"data/mask{number}.nii.gz").dataobj)
        assert np.mean(script("segment").dice(mask, truth, script("segment").SETTINGS)) > 0.5


@pytest.mark.parametrize("name", ["classify", "segment", "report"])
def test_a_killed_training_resumes_to_the_very_same_weights(name, tmp_path, monkeypatch, capsys):
    module, harness = script(name), script("harness")
    train(module, tmp_path / "data", tmp_path / "straight", epochs=4)
    straight = capsys.readouterr().out

    say, said = harness.say, []

    def killed_after_two_epochs(**line):
        said.append(line)
        if len(said) > 2:
            raise KeyboardInterrupt
        say(**line)

    monkeypatch.setattr(harness, "say", killed_after_two_epochs)
    with pytest.raises(KeyboardInterrupt):
        train(module, tmp_path / "data", tmp_path / "resumed", epochs=4)
    assert not (tmp_path / "resumed/result.json").exists()
    monkeypatch.setattr(harness, "say", say)
    capsys.readouterr()
    train(module, tmp_path / "data", tmp_path / "resumed", epochs=4, resume=True)
    assert capsys.readouterr().out == straight
    for file in ("model.safetensors", "checkpoint.pt"):
        assert weights(tmp_path / "straight" / file) == weights(tmp_path / "resumed" / file)


def weights(path: Path) -> dict:
    loaded = safetensors.torch.load_file(path) if path.suffix == ".safetensors" else torch.load(path)["net"]
    return {name: weight.tolist() for name, weight in loaded.items()}


def test_resuming_with_other_settings_is_refused(tmp_path):
    module = script("classify")
    train(module, tmp_path / "data", tmp_path / "out")
    with pytest.raises(script("harness").Problem, match="holds a training with other settings"):
        train(module, tmp_path / "data", tmp_path / "out", resume=True, lr=1e-4)


@pytest.mark.parametrize("name", ["classify", "segment", "report"])
def test_a_smoke_run_prints_its_loss_and_writes_nothing(name, tmp_path, capsys):
    train(script(name), tmp_path / "data", tmp_path / "out", smoke=True)
    line = json.loads(capsys.readouterr().out)
    assert line["smoke"] is True
    assert line["loss"] > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["classify", "segment", "report"])
def test_images_that_do_not_fit_in_memory_are_kept_in_files_and_give_the_same_result(name, tmp_path):
    roomy = train(script(name), tmp_path / "data", tmp_path / "roomy", epochs=1)
    tight = train(script(name), tmp_path / "data", tmp_path / "tight", epochs=1, cache_gb=0.0)
    assert roomy["history"] == tight["history"]
    assert not (tmp_path / "tight/cache").exists()


@pytest.mark.parametrize("name", ["classify", "segment", "report"])
def test_a_saved_model_predicts_what_it_predicted_after_training(name, tmp_path, monkeypatch):
    module, harness = script(name), script("harness")
    train(module, tmp_path / "data", tmp_path / "out", epochs=1)
    items = module.made_up(tmp_path / "data")["test"]
    (tmp_path / "items.json").write_text(json.dumps([{"id": i["id"], "image": i["image"]} for i in items]))
    words = ["--predict", tmp_path / "items.json", "--data", tmp_path / "data", "--model", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words), "--out", str(tmp_path / "again")])
    assert command_line(module, harness) == 0
    for path in (tmp_path / "out/predictions").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def command_line(module, harness) -> int:
    load = getattr(module, "saved_writer", harness.saved_model)
    return harness.command_line(
        module.SETTINGS, module.SPACE, module.LOSSES, module.train, module.predict, module.made_up, load
    )


def test_an_unreadable_image_costs_its_own_answer_and_no_other(tmp_path, monkeypatch, capsys):
    module, harness = script("classify"), script("harness")
    train(module, tmp_path / "data", tmp_path / "out", epochs=1)
    (tmp_path / "data/bad.npy").write_bytes(b"not an array")
    items = [{"id": "bad", "image": "bad.npy"}, {"id": "good", "image": "1.npy"}]
    (tmp_path / "items.json").write_text(json.dumps(items))
    words = ["--predict", tmp_path / "items.json", "--data", tmp_path / "data", "--model", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words), "--out", str(tmp_path / "again")])
    assert command_line(module, harness) == 1
    assert "error: case bad: bad.npy: cannot be read: " in capsys.readouterr().err
    assert [row["id"] for row in csv.DictReader((tmp_path / "again/predictions.csv").open())] == ["good"]


def test_the_space_is_printed_as_optuna_reads_it(monkeypatch, capsys):
    from optuna.distributions import json_to_distribution

    for name in ("classify", "segment", "report"):
        module = script(name)
        monkeypatch.setattr(sys, "argv", ["train.py", "--space"])
        assert command_line(module, script("harness")) == 0
        printed = json.loads(capsys.readouterr().out)
        space = printed["space"]
        assert {setting: json_to_distribution(text) for setting, text in space.items()} == module.SPACE
        assert all(module.SPACE[setting]._contains(asdict(module.SETTINGS)[setting]) for setting in ("lr", "augment"))
        assert printed["defaults"] == {setting: asdict(module.SETTINGS)[setting] for setting in space}


def test_settings_are_set_by_name_and_read_by_type():
    changed, settings = script("harness").changed, script("segment").SETTINGS
    words = ["lr=1", "shuffled=True", "size=[32, 32, 16]", "spacing=null", "loss=dice_focal", "epochs=7"]
    s = changed(settings, words)
    assert (s.lr, s.shuffled, s.size, s.spacing, s.loss, s.epochs) == (1.0, True, (32, 32, 16), None, "dice_focal", 7)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lrate=1", "No setting is called 'lrate'. Known: labels, "),
        ("lr=fast", "--set lr: expected a value such as 0.005, got 'fast'"),
        ("epochs=2.5", "--set epochs: expected int, got 2.5"),
        ("shuffled=1", "--set shuffled: expected bool, got 1"),
    ],
)
def test_a_wrong_setting_is_one_line(word, message):
    with pytest.raises(script("harness").Problem, match=message):
        script("harness").changed(script("segment").SETTINGS, [word])


# ------------------------------------------------------------------------------------------------ bad data
def test_a_mask_on_another_grid_is_named(tmp_path):
    module = script("segment")
    index = module.made_up(tmp_path)
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.eye(4)), tmp_path / "mask0.nii.gz")
    with pytest.raises(
        script("harness").Problem, match=r"mask0\.nii\.gz: not on the grid of image0\.nii\.gz: shapes \(9, 9, 9\)"
    ):
        module.load_case(index["training"][0], tmp_path, module.SETTINGS)


def test_voxels_that_are_not_numbers_become_the_least_value(tmp_path, capsys):
    array = np.array([[1.0, np.nan], [5.0, np.inf]], np.float32)
    np.save(tmp_path / "a.npy", array)
    found, _ = script("images").read_image("a.npy", tmp_path, 2)
    assert found.tolist() == [[1, 1], [5, 1]]
    assert "a.npy: 2 voxels are not finite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((2, 2), np.nan), "holds no finite voxel"),
        (np.zeros((2, 3, 4, 5)), r"expected a 2D image, found an array of shape \(2, 3, 4, 5\)"),
    ],
)
def test_an_image_that_is_none_is_named(array, words, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(script("harness").Problem, match=f"^a.npy: {words}"):
        script("images").read_image("a.npy", tmp_path, 2)


def test_spacing_cannot_be_applied_to_a_file_that_tells_no_voxel_size(tmp_path):
    module = script("classify")
    item = module.made_up(tmp_path)["training"][0]
    with pytest.raises(script("harness").Problem, match="does not say its voxel size"):
        module.load(item, tmp_path, replace(module.SETTINGS, spacing=(1.0, 1.0, 1.0)))


# ------------------------------------------------------------------------------------------------ the control
def test_the_control_deals_each_patient_one_label_and_keeps_the_counts():
    items = [{"patient": f"p{i // 2}", "label": "a" if i < 12 else "b"} for i in range(20)]  # ten patients, two visits
    dealt = script("classify").dealt_out(items, seed=1)
    labels = {item["patient"]: item["label"] for item in dealt}
    assert [labels[item["patient"]] for item in items] == [item["label"] for item in dealt]
    assert sorted(labels.values()) == ["a"] * 6 + ["b"] * 4
    assert dealt != items


def test_the_control_leaves_no_relation_between_old_and_new_labels():
    items = [{"patient": f"p{i}", "label": "ab"[i % 2]} for i in range(40)]
    for seed in range(5):
        dealt = script("classify").dealt_out(items, seed)
        kept = sum(new["label"] == old["label"] for new, old in zip(dealt, items, strict=True))
        assert kept == 20  # half of each class of 20 keeps its label


def test_the_control_gives_every_image_the_mask_of_another_patient(tmp_path):
    items = [{"patient": f"p{i}", "label": f"m{i}"} for i in range(5)]
    exchanged = script("segment").exchanged(items, seed=0)
    assert sorted(item["label"] for item in exchanged) == ["m0", "m1", "m2", "m3", "m4"]
    assert all(item["label"][1:] != item["patient"][1:] for item in exchanged)
    assert "score" in train(script("segment"), tmp_path / "data", tmp_path / "out", epochs=1, shuffled=True)


# ------------------------------------------------------------------------------------------------ numbers
def test_auroc_counts_ties_half():
    auroc = script("classify").auroc
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8])
    assert auroc(truth, score) == 3.5 / 4  # of four pairs three are in order, one is a tie
    assert auroc(truth, -score) == 0.5 / 4
    assert np.isnan(auroc(np.ones(3), np.arange(3)))


def test_dice_is_twice_the_overlap_over_the_sum():
    truth, answer = np.array([1, 1, 1, 2, 0]), np.array([1, 1, 0, 0, 0])
    s = replace(script("segment").SETTINGS, labels=("a", "b", "c"), values=(1, 2, 3))
    found = script("segment").dice(answer, truth, s)
    assert found[:2] == [2 * 2 / (2 + 3), 0.0]
    assert np.isnan(found[2])  # the truth has no label 3


def test_the_temperature_makes_answers_as_sure_as_they_are_right():
    """Odds of 9 that hold three times in four: the temperature turns them into odds of 3."""
    import torch

    module = script("classify")
    s = replace(module.SETTINGS, labels=("a", "b"))
    logits = torch.log(torch.tensor([[[9.0, 1.0]] * 4]))
    truth, training = np.array([[1, 0]] * 3 + [[0, 1]]), np.array([[1, 0], [0, 1]])
    found = module.calibrated(logits, truth, training, s)
    assert found.temperature == pytest.approx(2, rel=0.06)  # 9 ** (1 / 2) is 3
    assert module.probabilities(logits, found)[0] == pytest.approx([0.75, 0.25], abs=0.02)


def test_answers_know_how_often_each_label_is_although_classes_are_drawn_equally_often():
    import torch

    module = script("classify")
    s = replace(module.SETTINGS, labels=("a", "b"), priors=(0.9, 0.1))
    assert module.probabilities(torch.zeros(1, 1, 2), s)[0] == pytest.approx([0.9, 0.1])
    assert module.probabilities(torch.zeros(1, 1, 2), replace(s, multilabel=True))[0] == pytest.approx([0.5, 0.5])


def test_a_label_is_given_from_where_sensitivity_and_specificity_are_best():
    module = script("classify")
    chances, truth = np.array([0.1, 0.2, 0.4, 0.8]), np.array([False, False, True, True])
    assert module.cut(chances, truth, 0.35) == 0.35  # right everywhere, and no better value is nearer
    assert module.cut(chances, truth, 0.9) == pytest.approx(0.3)  # the middle of 0.2 and 0.4
    assert module.cut(chances, ~truth & False, 0.1) == 0.1  # no case has it: nothing to choose from
    s = replace(module.SETTINGS, labels=("often", "rare"), cuts=(0.9, 0.1))
    assert [module.chosen(np.array(p), s) for p in ([0.95, 0.05], [0.8, 0.2])] == ["often", "rare"]
    several = replace(s, multilabel=True, cuts=(0.5, 0.25))
    assert [module.chosen(np.array(p), several) for p in ([0.6, 0.3], [0.1, 0.2])] == ["often;rare", ""]


def test_blended_images_have_blended_labels():
    import torch

    module = script("classify")
    x = torch.tensor([0.0, 1.0])[:, None, None, None]
    truth = torch.eye(2)
    assert module.mixed(x, truth, module.SETTINGS)[0] is x
    torch.manual_seed(1)
    while True:
        blended, labels = module.mixed(x, truth, replace(module.SETTINGS, mixup=1.0))
        if not torch.equal(blended, x):
            break
    assert torch.equal(blended.flatten(), labels[:, 1])
    assert torch.equal(labels.sum(1), torch.ones(2))


def test_weathered_images_are_a_few_of_the_batch_and_follow_the_seed():
    module = script("images")
    x = torch.rand(40, 1, 8, 8, 8)
    torch.manual_seed(0)
    found = module.weathered(x.clone(), 1.0)
    torch.manual_seed(0)
    assert torch.equal(found, module.weathered(x.clone(), 1.0))
    changed = (found != x).flatten(1).any(1).sum()
    assert 12 <= changed <= 36  # one way at least takes 64 % of them: 1 - 0.8 * 0.85 * 0.75 * 0.7
    assert torch.equal(module.weathered(x.clone(), 0.5), x)
    torch.manual_seed(0)
    few = module.weathered(x.clone(), 0.7)
    assert 0 < (few != x).flatten(1).any(1).sum() < changed


@pytest.mark.parametrize("name", ["classify", "segment"])
def test_a_fold_takes_as_many_steps_as_one_model_alone(name, tmp_path, monkeypatch):
    module, taken = script(name), []

    class Counted(module.Training):
        def step(self, loss):
            taken.append(loss)
            super().step(loss)

    monkeypatch.setattr(module, "Training", Counted)
    train(module, tmp_path / "data", tmp_path / "alone", epochs=1)
    alone = len(taken)
    train(module, tmp_path / "data", tmp_path / "folds", epochs=1, folds=2)
    assert len(taken) == 3 * alone > 3


def test_folds_check_every_patient_once_and_never_on_what_was_learnt():
    folds = script("harness").folds
    items = [{"id": str(i), "patient": f"p{i // 2}"} for i in range(24)]  # two images a patient
    kinds = ["ab"[i // 2 % 2] for i in range(24)]
    s = replace(script("classify").SETTINGS, folds=3)
    parts = folds(items[:18], items[18:], kinds, s)
    assert sorted(row for _, checked in parts for row in checked) == list(range(24))
    for learnt, checked in parts:
        assert not {items[row]["patient"] for row in learnt} & {items[row]["patient"] for row in checked}
        assert sorted(kinds[row] for row in checked) == ["a"] * 4 + ["b"] * 4
    assert folds(items[:18], items[18:], kinds, replace(s, folds=1)) == [(list(range(18)), list(range(18, 24)))]
    with pytest.raises(script("harness").Problem, match="13 folds need as many patients; there are 12: lower folds"):
        folds(items[:18], items[18:], kinds, replace(s, folds=13))
    alone = [str(i // 2) for i in range(24)]  # kinds too rare to be spread
    assert len(folds(items[:18], items[18:], alone, replace(s, folds=5))) == 5


@pytest.mark.parametrize(("name", "words"), [("segment", "no mask holds any"), ("classify", "the same label")])
def test_folds_that_could_not_be_scored_are_refused_before_the_first_is_trained(name, words, tmp_path, capsys):
    module, folder = script(name), tmp_path / "data"
    folder.mkdir()
    index = module.made_up(folder)
    rare = index["training"][0]
    for item in (*index["training"][1:], *index["validation"]):
        if name == "segment":
            item["label"] = "empty.nii.gz"
            nibabel.save(nibabel.Nifti1Image(np.zeros((32, 28, 24), np.uint8), np.eye(4)), folder / item["label"])
            same = nibabel.load(folder / item["image"])
            nibabel.save(nibabel.Nifti1Image(np.asarray(same.dataobj), np.eye(4)), folder / item["image"])
        else:
            item["label"] = next(label for label in index["labels"] if label != rare["label"])
    s = replace(module.SETTINGS, size=(16, 16, 16), workers=1, folds=3)
    with pytest.raises(script("harness").Problem, match=rf"^fold \d of 3: .*{words}.*; lower folds$"):
        module.train(index, folder, tmp_path / "out", s, False, False)
    assert capsys.readouterr().out == ""
    with pytest.raises(script("harness").Problem, match=rf"^validation: .*{words}"):
        module.train(index, folder, tmp_path / "out", replace(s, folds=1), False, False)


def test_gradients_are_clipped_together_to_the_norm_that_is_told(tmp_path):
    harness = script("harness")
    s = replace(script("classify").SETTINGS, precision="32-true")
    net = torch.nn.Linear(100, 1, bias=False)
    run = harness.Training(s, 1, tmp_path, False, harness.constant, net)
    zero, norms = run.optimizer.zero_grad, []
    run.optimizer.zero_grad = lambda: (norms.append(float(net.weight.grad.norm())), zero())
    for scale in (1e3, 1e-3):
        run.step(run.net(torch.full((1, 100), scale)).sum())
    assert norms == pytest.approx([harness.Habits().norm, 1e-2], rel=1e-3)


@pytest.mark.parametrize("multilabel", [False, True])
def test_an_ensemble_answers_with_the_mean_probability(multilabel):
    import torch

    members = [torch.nn.Linear(4, 3) for _ in range(3)]
    x = torch.randn(5, 4)
    chances = torch.nn.Sigmoid() if multilabel else torch.nn.Softmax(1)
    found = chances(script("harness").Ensemble(members, multilabel)(x))
    assert torch.allclose(found, torch.stack([chances(member(x)) for member in members]).mean(0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["classify", "segment"])
def test_a_training_of_folds_that_is_killed_ends_with_the_same_model_and_answers_every_case(
    name, tmp_path, monkeypatch
):
    module, harness = script(name), script("harness")
    train(module, tmp_path / "data", tmp_path / "a", folds=2)
    say, said = harness.say, []

    def killed_in_the_second_fold(**line):
        said.append(line)
        if len(said) > 3:
            raise KeyboardInterrupt
        say(**line)

    monkeypatch.setattr(harness, "say", killed_in_the_second_fold)
    with pytest.raises(KeyboardInterrupt):
        train(module, tmp_path / "data", tmp_path / "b", folds=2)
    monkeypatch.setattr(harness, "say", say)
    train(module, tmp_path / "data", tmp_path / "b", resume=True, folds=2)
    a, b = (weights(tmp_path / part / "model.safetensors") for part in "ab")
    assert a == b
    assert {key.split(".")[1] for key in a} == {"0", "1"}
    assert not list((tmp_path / "a").glob("fold-*"))
    index = module.made_up(tmp_path / "data")
    learnt = {item["id"] for item in (*index["training"], *index["validation"])}
    answers = tmp_path / "a" / "validation"
    if name == "segment":
        assert {path.name.removesuffix(".nii.gz") for path in answers.iterdir()} == learnt
    else:
        assert {row["id"] for row in csv.DictReader((answers / "predictions.csv").open())} == learnt
    result = json.loads((tmp_path / "a/result.json").read_text())
    assert [line["epoch"] for line in result["history"]] == [0, 1, 2, 3]
    assert [epoch // 2 for epoch in result["kept"]] == [0, 1]
    kept = [result["history"][epoch]["score"] for epoch in result["kept"]]
    assert result["score"] == pytest.approx(sum(kept) / 2)
    assert result["history"][result["epoch"]]["score"] == max(kept)


def test_one_lucky_epoch_is_not_kept(tmp_path, monkeypatch):
    harness = script("harness")
    monkeypatch.setattr(harness, "say", lambda **line: None)
    s = replace(script("classify").SETTINGS, epochs=9, precision="32-true", weight_decay=0.0)
    habits = harness.Habits(averaged=False)
    run = harness.Training(s, 1, tmp_path, False, harness.constant, torch.nn.Linear(1, 1), habits=habits)
    scores = [0.5, 0.9, 0.6, 0.7, 0.75, 0.8, 0.8, 0.6, 0.8]
    for epoch, score in zip(run.epochs(), scores, strict=True):
        run.plain.weight.data.fill_(epoch)
        run.step(run.net(torch.ones(1, 1)).sum() * 0)
        run.record(epoch, score)
    run.finish([])
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["epoch"], result["kept"], result["score"]) == (6, [6], 0.8)
    assert run.best_model().weight.item() == 6
    assert max(harness.steady(scores)) == pytest.approx(tune._best(scores)) == pytest.approx(2.35 / 3)


def test_focal_loss_is_the_cross_entropy_times_the_squared_doubt():
    import torch

    module = script("classify")
    s = replace(module.SETTINGS, smoothing=0.0)
    logits, truth = torch.log(torch.tensor([[0.25, 0.75]])), torch.tensor([[1.0, 0.0]])
    assert module.loss_of(logits, truth, s).item() == pytest.approx(np.log(4))
    assert module.loss_of(logits, truth, replace(s, loss="focal")).item() == pytest.approx(0.75**2 * np.log(4))
    both = replace(s, multilabel=True)
    assert module.loss_of(torch.zeros(1, 2), truth, both).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA"])
def test_a_mask_turned_upright_and_back_is_itself(codes):
    images = script("images")
    affine = nibabel.orientations.inv_ornt_aff(nibabel.orientations.axcodes2ornt(codes), (3, 4, 5)) @ np.diag(
        [1, 2, 3, 1]
    )
    mask = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    turned, mm = images.upright(mask, affine, 3)
    assert sorted(mm) == [1, 2, 3]
    assert np.array_equal(images.as_stored(turned[0].numpy(), affine), mask)


def test_an_image_is_cropped_or_padded_evenly_with_its_least_value():
    import torch

    x = torch.tensor([[[5.0, 6, 7], [8, 9, 4]]])
    found = script("images").fitted(x, (4, 1))
    assert found.tolist() == [[[4], [6], [9], [4]]]
    assert torch.equal(script("images").fitted(found, (4, 1)), found)


def test_around_a_mask_without_background_there_is_background(tmp_path):
    module, folder = script("segment"), tmp_path
    item = module.made_up(folder)["training"][0]
    shape, affine = nibabel.load(folder / item["label"]).shape, nibabel.load(folder / item["label"]).affine
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), affine), folder / item["label"])
    mask = module.load_case(item, folder, replace(module.SETTINGS, size=(48, 48, 48))).mask
    assert mask.sum() == math.prod(shape)


def test_at_low_resolution_a_patch_covers_more_and_the_answer_is_on_the_images_own_grid(tmp_path):
    from lightning_fabric import Fabric

    module = script("segment")
    item = module.made_up(tmp_path)["training"][0]
    s = replace(module.SETTINGS, coarser=2.0, size=(16, 16, 16))
    assert module.load_case(item, tmp_path, s).image.shape == (1, 16, 16, 16)
    assert module.load_image(item, tmp_path, s)[0].shape == (1, 16, 14, 12)
    net = importlib.import_module("networks.unet").network(s).eval()
    assert module.mask_of(item, tmp_path, s, net, Fabric(accelerator="cpu"))[0].shape == (32, 28, 24)


@pytest.mark.parametrize(
    ("intensity", "values"),
    [
        ("window", [-1, -1, 0, 1]),
        ("percentile", [-1, -0.6, 0.2, 1]),
        ("zscore", [difference / 1475**0.5 for difference in (-45, -25, 15, 55)]),  # of the mean, 45
    ],
)
def test_intensities_are_scaled_after_outliers_are_cut_off(intensity, values):
    import torch

    x = torch.tensor([0.0, 20, 60, 100]).repeat_interleave(100)
    x[0], x[-1] = -9999, 9999  # 0.25 % each
    s = replace(script("segment").SETTINGS, intensity=intensity, window=(20.0, 100.0))
    found = script("images").normalised(x.reshape(1, 20, 20), s).flatten()[50::100]
    assert found.tolist() == pytest.approx(values, abs=1e-3)


@pytest.mark.parametrize("intensity", ["percentile", "zscore"])
def test_sequences_of_a_volume_are_scaled_each_by_itself_and_colours_together(intensity):
    torch.manual_seed(0)
    normalised, s = script("images").normalised, replace(script("segment").SETTINGS, intensity=intensity)
    x = torch.randn(3, 8, 8, 8) * torch.tensor([1.0, 30.0, 1000.0]).view(3, 1, 1, 1) + 50
    found = normalised(x, s)
    for channel, alone in zip(found, x, strict=True):
        assert torch.equal(channel, normalised(alone[None], s)[0])
    flat = normalised(x.reshape(3, 16, 32), s)
    assert flat[0].std() < 0.01 < 0.2 < flat[2].std()


@pytest.mark.parametrize(("held", "read"), [(2, 1), (1, 2), (4, 2), (12, 1), (2, 3)])
def test_an_image_with_other_channels_than_the_model_reads_is_no_image_of_its_kind(held, read):
    with pytest.raises(script("harness").Problem, match=f"^scan7: has {held} channels, the model reads {read}$"):
        script("images").with_channels(torch.zeros(held, 4, 4, 4), read, "scan7")


def test_an_image_of_one_value_but_for_a_few_voxels_stays_within_float16():
    import torch

    x = torch.zeros(1, 10, 100)
    x[0, 0, 0] = 1e6
    for intensity in ("percentile", "zscore"):
        found = script("images").normalised(x, replace(script("segment").SETTINGS, intensity=intensity))
        assert found.abs().max() <= 1


@pytest.mark.parametrize("shape", [(20, 30), (33, 9), (40, 40)])
def test_an_image_smaller_than_a_patch_is_marked_on_its_own_grid(shape):
    import torch
    from lightning_fabric import Fabric

    module = script("segment")
    x = torch.randn(1, *shape)
    s = replace(module.SETTINGS, dims=2, size=(32, 32))
    found = module.marked(lambda patch: torch.cat([patch, -patch], 1), x, s, Fabric(accelerator="cpu"), 0.5)
    assert torch.allclose(found, torch.cat([x, -x]).softmax(0), atol=1e-5)


def test_logits_that_would_fill_a_gpu_are_put_together_in_main_memory(monkeypatch):
    module = script("segment")
    for name, held in (("mem_get_info", (8e9, 16e9)), ("memory_reserved", 2e9), ("memory_allocated", 1e9)):
        monkeypatch.setattr(torch.cuda, name, lambda device, held=held: held)
    s = replace(module.SETTINGS, labels=tuple("abcdefghijklm"))
    scans = [torch.empty(1, *shape, device="meta") for shape in ((64, 64, 64), (512, 512, 600))]
    assert [module.where_it_fits(x, s, torch.device("cuda:0")).type for x in scans] == ["cuda", "cpu"]
    assert module.where_it_fits(scans[1], s, torch.device("cpu")).type == "cpu"


def test_only_allowed_axes_are_mirrored():
    import torch

    module = script("images")
    x = torch.arange(24.0).reshape(1, 1, 2, 3, 4)
    s = replace(script("classify").SETTINGS, augment=0.0, flips=(1,))
    torch.manual_seed(0)
    seen, _ = module.augmented(x.repeat(20, 1, 1, 1, 1), s)
    kinds = [[torch.allclose(y, z[0], atol=1e-4) for z in (x, x.flip(3))] for y in seen]
    assert all(sum(kind) == 1 for kind in kinds)
    assert 0 < sum(kind[1] for kind in kinds) < 20


def test_masks_follow_their_images_through_the_augmentation():
    import torch

    x = torch.zeros(1, 1, 16, 16)
    x[..., 3:9, 5:12] = 1
    s = replace(script("segment").SETTINGS, dims=2, augment=0.0, flips=(0, 1))
    torch.manual_seed(3)
    for _ in range(5):
        image, mask = script("images").augmented(x, s, x)
        assert torch.allclose(image, mask, atol=1e-4)


def test_crops_are_drawn_from_every_class_alike():
    import torch

    module = script("segment")
    mask = np.zeros((32, 32), np.uint8)
    mask[2, 3] = 1
    places = [np.argwhere(mask == 0), np.argwhere(mask == 1)]
    case = module.Case(np.zeros((1, 32, 32), np.float16), mask, places)
    s = replace(module.SETTINGS, dims=2, size=(8, 8))
    torch.manual_seed(0)
    holding = sum(module.patch_of(case, s)[1].any() for _ in range(200))
    assert 90 < holding < 130  # half of them, and a few by chance; of all places only 1 in 12 would do


# ------------------------------------------------------------------------------------------------ 2D and networks
def test_pictures_are_segmented_into_png_masks_of_their_own_size(tmp_path):
    module, random = script("segment"), np.random.default_rng(0)
    items = []
    for i in range(4):
        mask = np.zeros((40, 52), np.uint8)
        mask[10:25, 15:30] = 255
        picture = np.stack([mask // 2 + random.integers(0, 60, mask.shape, np.uint8)] * 3, -1)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
        items.append({"id": f"c{i}", "patient": f"p{i}", "image": f"{i}.png", "label": f"m{i}.png"})
    index = {"labels": ["square"], "training": items[:2], "validation": items[2:3], "test": items[3:]}
    settings = {"labels": ("square",), "values": (255,), "dims": 2, "channels": 3, "size": (32, 32), "spacing": None}
    s = replace(module.SETTINGS, **settings, intensity="percentile", window=None, epochs=1, batch=4, width=4)
    module.train(index, tmp_path, tmp_path / "out", s, False, False)
    answer = np.asarray(Image.open(tmp_path / "out/predictions/c3.png"))
    assert answer.shape == (40, 52)
    assert set(np.unique(answer)) <= {0, 255}


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in (*CLIPS, "nnunet")])
def test_every_network_answers_in_the_shape_of_its_contract_and_learns(name):
    import torch

    script("network")  # puts the source tree's networks on the path
    module = importlib.import_module(f"networks.{name}")
    kind = script({"classification": "classify", "segmentation": "segment", "report_generation": "report"}[module.TASK])
    for dims in module.DIMS:
        size = (32, 32, 16)[:dims] if dims == 3 else (32, 48)
        spacing = (1.0, 1.0, 4.0) if dims == 3 else None
        s = replace(kind.SETTINGS, dims=dims, channels=2, size=size, spacing=spacing, width=4)
        s = s if module.TASK == "report_generation" else replace(s, labels=("a", "b", "c"))
        net = module.network(s)
        answer = net(torch.randn(2, 2, *size))
        wanted = (2, 3) if module.TASK == "classification" else (2, 4, *size)
        if module.TASK == "report_generation":  # features on a grid that is coarser along every axis
            wanted = tuple(answer.shape)
            assert wanted[0] == 2 and all(0 < n < whole for n, whole in zip(wanted[2:], size, strict=True))
        finest, *coarser = answer if isinstance(answer, list) else [answer]
        assert finest.shape == wanted
        for part in coarser:  # of deep supervision
            assert part.shape[:2] == wanted[:2]
            assert all(whole % n == 0 for n, whole in zip(part.shape[2:], size, strict=True))
        sum(part.square().mean() for part in (answer if isinstance(answer, list) else [answer])).backward()
        assert all(weight.grad is not None for weight in net.parameters())
        assert net.eval()(torch.randn(1, 2, *size)).shape == (1, *wanted[1:])


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_is_of_the_width_and_the_patch_that_its_file_names(name):
    import open_clip

    script("network")
    module = importlib.import_module(f"networks.{name}")
    form = open_clip.get_model_config(module.OPEN_CLIP)["vision_cfg"]
    assert (module.TASK, module.DIMS) == ("anomaly_detection", (2,))
    assert (form["width"], form["patch_size"]) == (module.WIDTH, module.PATCH)


def test_a_random_clip_is_the_same_everywhere_and_frozen_by_mvfa():
    import torch

    detect = script("detect")
    s = replace(detect.SETTINGS, size=(32, 48))
    clips = [importlib.import_module("networks.clip_vit_b16").network(s) for _ in range(2)]
    assert torch.equal(clips[0].visual.proj, clips[1].visual.proj)
    assert tuple(clips[0].visual.grid_size) == (2, 3)
    model = detect.MVFA(clips[0], (3, 6, 9, 12))
    assert not any(weight.requires_grad for weight in model.visual.parameters())


def test_thick_slices_are_not_halved_until_the_other_axes_have_caught_up():
    script("network")
    levels = importlib.import_module("networks.dynunet").levels
    strides, kernels = levels((64, 64, 16), (1.0, 1.0, 5.0))
    assert strides == [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 2]]
    assert kernels == [[3, 3, 1], [3, 3, 1], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert levels((32, 32), (1.0, 1.0))[0] == [[1, 1], [2, 2], [2, 2], [2, 2]]
    assert levels((36, 30), (1.0, 1.0))[0] == [[1, 1], [2, 2], [2, 1]]  # 15 is odd, 9 are odd


@pytest.mark.parametrize(("size", "across"), [((32, 32, 16), 2), ((16, 32, 32), 0)])
def test_slicewise_no_slice_knows_of_another(size, across):
    script("network")
    s = replace(script("segment").SETTINGS, size=size, spacing=(1.0, 1.0, 1.0), width=4, slicewise=True)
    net = importlib.import_module("networks.dynunet").network(s)
    seen = [1 if axis == across else 3 for axis in range(3)]
    layers = [layer for layer in net.modules() if isinstance(layer, torch.nn.Conv3d | torch.nn.ConvTranspose3d)]
    assert all(layer.kernel_size[across] == 1 == layer.stride[across] for layer in layers)
    assert list(layers[0].kernel_size) == seen


def test_a_residual_encoder_has_a_skip_a_level():
    from monai.networks.blocks.dynunet_block import UnetResBlock

    script("network")
    module = importlib.import_module("networks.dynunet")
    s = replace(script("segment").SETTINGS, size=(32, 32, 16), width=4)
    skips = [
        sum(isinstance(block, UnetResBlock) for block in module.network(replace(s, residual=residual)).modules())
        for residual in (False, True)
    ]
    assert skips == [0, len(module.levels(s.size, s.spacing)[0])]
    net = module.network(replace(s, residual=True)).eval()
    assert net(torch.randn(1, 1, *s.size)).shape == (1, 3, *s.size)


@pytest.mark.parametrize("name", ["dynunet", "segresnet"])
def test_a_convolution_across_thick_slices_sees_one_at_first(name):
    import torch

    script("network")
    s = replace(script("segment").SETTINGS, size=(32, 32, 16), spacing=(1.0, 1.0, 6.0), width=4)
    net = importlib.import_module(f"networks.{name}").network(s)
    kernels = [layer.kernel_size for layer in net.modules() if isinstance(layer, torch.nn.Conv3d)]
    assert kernels[0] == (3, 3, 1)
    assert (3, 3, 3) in kernels


def test_labels_that_overlap_are_learned_and_answered_as_bits(tmp_path):
    """A bright square, bit 4, and a dark one, bit 16, that lie over each other; the third case shows nothing."""
    module, random = script("segment"), np.random.default_rng(0)
    items = []
    for i in range(5):
        mask, picture = np.zeros((32, 32), np.uint16), np.full((32, 32), 100.0)
        if i != 2:
            mask[4:20, 4:20] |= 4
            mask[12:28, 12:28] |= 16
        picture += 90 * (mask & 4 > 0) - 60 * (mask & 16 > 0) + random.normal(0, 4, mask.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
        items.append({"id": f"c{i}", "patient": f"p{i}", "image": f"{i}.png", "label": f"m{i}.png"})
    index = {"labels": ["bright", "dark"], "training": items[:3], "validation": items[3:4], "test": items[4:]}
    settings = {"labels": ("bright", "dark"), "values": (4, 16), "multilabel": True, "dims": 2, "size": (32, 32)}
    s = replace(module.SETTINGS, **settings, spacing=None, intensity="percentile", window=None, epochs=25, batch=3)
    case = module.load_case(items[0], tmp_path, s)
    assert set(np.unique(case.mask)) == {0, 1, 2, 3}
    assert [len(places) for places in case.places] == [32 * 32 - 2 * 256 + 64, 256, 256]
    module.train(index, tmp_path, tmp_path / "out", s, False, False)
    answer, truth = (
        np.asarray(Image.open(path)) for path in (tmp_path / "out/predictions/c4.png", tmp_path / "m4.png")
    )
    assert not (answer & ~np.uint16(20)).any()
    assert (answer == 20).any()
    for bit in (4, 16):
        one, other = answer & bit > 0, truth & bit > 0
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.8


@pytest.mark.parametrize("loss", ["dice_ce", "dice_focal"])
def test_the_loss_of_overlapping_labels_is_least_at_the_truth(loss):
    import torch

    module = script("segment")
    s = replace(module.SETTINGS, labels=("a", "b"), values=(1, 2), multilabel=True, dims=2, loss=loss)
    truth = torch.tensor([[0.0, 1.0], [2.0, 3.0]])[None, None]
    bits = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]]])
    right = torch.cat([torch.zeros(1, 2, 2), 40 * bits - 20])[None]
    assert module.loss_for(s)(right, truth) == pytest.approx(0, abs=1e-4)
    assert module.loss_for(s)(-right, truth) > 1


# ------------------------------------------------------------------------------------------------ reports
@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Made-up pictures, a model that learnt to report them, its texts, and the index with all reports."""
    folder, module = tmp_path_factory.mktemp("reports"), script("report")
    train(module, folder / "data", folder / "out", size=(32, 32), epochs=25)
    return folder, json.loads((folder / "out/predictions/reports.json").read_text())


def side_of(report: dict[str, str]) -> str:
    return next((side for side in ("left", "right") if side in report["findings"]), "none")


def test_reports_say_what_is_to_be_seen_and_on_which_side(written):
    _, reports = written
    assert list(reports) == [f"case{i}" for i in range(39, 48)]
    right = [side_of(report) == ("left", "right", "none")[i % 3] for i, report in enumerate(reports.values())]
    assert sum(right) >= 8  # of 9
    assert all(report["findings"].endswith("No effusion.") for report in reports.values())


def test_reports_follow_the_image_not_the_case(written, tmp_path):
    folder, reports = written
    module = script("report")
    s, net, fabric = module.saved_writer(folder / "out", module.Settings)
    swapped = [{"id": f"case{i}", "image": f"{j}.npy"} for i, j in ((39, 40), (40, 39))]
    assert module.predict(swapped, folder / "data", tmp_path, s, net, fabric) == []
    found = json.loads((tmp_path / "reports.json").read_text())
    assert reports["case39"] != reports["case40"]
    assert (found["case39"], found["case40"]) == (reports["case40"], reports["case39"])


def test_a_writer_trained_on_shuffled_reports_scores_lower(written, tmp_path):
    folder, _ = written
    score = json.loads((folder / "out/result.json").read_text())["score"]
    control = train(script("report"), tmp_path / "data", tmp_path / "out", size=(32, 32), epochs=25, shuffled=True)
    assert score > 0.9
    assert control["history"][-1]["score"] < score - 0.3


def test_the_control_gives_every_patient_the_report_of_another():
    items = [{"patient": f"p{i // 2}", "findings": f"of p{i // 2}", "impression": ""} for i in range(10)]
    exchanged = script("report").exchanged(items, seed=0)
    assert all(item["findings"] != f"of {item['patient']}" for item in exchanged)
    assert sorted(item["findings"] for item in exchanged) == sorted(item["findings"] for item in items)
    assert all(a["findings"] == b["findings"] for a, b in zip(exchanged[::2], exchanged[1::2], strict=True))


def test_the_validation_score_of_reports_counts_telling_words_that_nobody_denies():
    module = script("report")
    assert doctest.testmod(module) == (0, 1)
    texts = [("Small 2.5 cm left effusion. No nodule", "Effusion"), ("Nodule.", "")]
    said = [module.affirmed({"findings": findings, "impression": impression}) for findings, impression in texts]
    assert said == [{"small", "cm", "left", "effusion"}, {"nodule"}]
    written = [{"small", "effusion"}, {"left"}]
    assert module.agreement(written, said) == 2 * 2 / (3 + 5)
    assert module.telling_words([{"a", "b"}, {"b", "c"}, {"b", "c"}, {"b"}, {"b"}]) == ("c",)


def test_rare_words_weigh_more_in_the_loss():
    module = script("report")
    s = replace(module.SETTINGS, rarity=0.5)
    often, rare = {"findings": "often", "impression": ""}, {"findings": "often rare", "impression": "rare"}
    words = module.Words(module.learnt_tokens([rare] + [often] * 9, 5000))
    texts = [words.numbered(**report) for report in [rare] + [often] * 9]
    begin, *tokens = texts[0]
    assert [words.tokenizer.decode([token]) for token in tokens] == [" often", " rare", "", " rare", ""]
    weights = module.token_weights(texts, words, s).tolist()
    assert weights[begin] == 1
    assert [weights[token] for token in tokens] == pytest.approx([1, 2, 1, 2, 1])  # (0.1 / 0.4) ** -0.5
    assert set(module.token_weights(texts, words, replace(s, loss="ce")).tolist()) == {1}


def test_a_text_taken_apart_and_put_together_is_itself():
    module = script("report")
    texts = {
        "findings": "There is a 2.5 cm x-xxxx nodule (left), stable. No <end>; see CT above.",
        "impression": "T₂ ↑",
    }
    words = module.Words(module.learnt_tokens([texts, {"findings": "There\n is  no nodule.", "impression": ""}], 5000))
    assert words.texts(words.numbered(**texts)) == texts
    assert words.texts(words.numbered("There\n is  no nodule.", "")) == {
        "findings": "There is no nodule.",
        "impression": "",
    }
    assert module.learnt_tokens([texts], 20) == module.learnt_tokens([texts], 20)


@pytest.mark.parametrize(("beams", "size"), [(1, (32, 32)), (3, (32, 32)), (3, (16, 16, 24))])
def test_the_search_finds_the_text_that_the_decoder_gives_when_it_is_fed_with_it(beams, size):
    """Keys and values that are kept from word to word change nothing; three beams are at least as probable as one."""
    import torch

    module = script("report")
    reports = [{"findings": "a b c d e f g h a b", "impression": "b c"}] * 2
    s = replace(module.SETTINGS, longest=9, width=4, dims=len(size), size=size)
    s, net = module.begun(s, reports, None)
    net.eval()
    torch.nn.init.normal_(net.decoder.get_input_embeddings().weight, std=1.0)
    x = torch.randn(3, 1, *s.size)
    words, never = net.words, [net.words.pad, net.words.begin]

    def chances(text: list[int], row: int) -> torch.Tensor:
        with torch.no_grad():
            logits, _ = net(x[row : row + 1], torch.tensor([text[:-1]]))
        logits[..., never] = -torch.inf
        return logits[0].log_softmax(-1)

    def mean_log_probability(text: list[int], row: int) -> float:
        return float(chances(text, row)[torch.arange(len(text) - 1), text[1:]].mean())

    seen, _ = net.look(x)
    found, greedy = ([ended(text, words) for text in net.write(seen, count)] for count in (beams, 1))
    for row, (text, first) in enumerate(zip(found, greedy, strict=True)):
        assert text[0] == words.begin and 1 < len(text) <= s.longest
        assert words.end in text or len(text) == s.longest
        if beams == 1:  # every token is the most probable one
            assert chances(text, row).argmax(-1).tolist() == text[1:]
        assert mean_log_probability(text, row) >= mean_log_probability(first, row) - 1e-5


def ended(text: list[int], words) -> list[int]:
    """Without what fills up a text that is shorter than others."""
    return text[: text.index(words.end) + 1] if words.end in text else text


@pytest.fixture
def language_model(tmp_path):
    return tiny_gpt2(tmp_path / "gpt2")


def test_a_decoder_starts_from_a_language_model_and_is_saved_whole(tmp_path, language_model):
    module = script("report")
    kept = {"size": (32, 32), "lr": 1e-6, "epochs": 1}
    train(module, tmp_path / "data", tmp_path / "out", weights=language_model, **kept)
    given = safetensors.torch.load_file(language_model / "model.safetensors")
    learnt = safetensors.torch.load_file(tmp_path / "out/model.safetensors")
    for name in ("transformer.h.1.attn.c_attn.weight", "transformer.wpe.weight"):
        torch.testing.assert_close(learnt[f"decoder.{name}"], given[name], atol=1e-4, rtol=0)
    size = len(given["transformer.wte.weight"])
    assert len(learnt["decoder.transformer.wte.weight"]) == size + 4  # and the marks
    assert "decoder.transformer.h.0.crossattention.q_attn.weight" in learnt

    shutil.rmtree(language_model)
    s, net, fabric = module.saved_writer(tmp_path / "out", module.Settings)
    items = module.made_up(tmp_path / "data")["test"]
    assert module.predict(items, tmp_path / "data", tmp_path / "again", s, net, fabric) == []
    again, first = (tmp_path / folder / "reports.json" for folder in ("again", "out/predictions"))
    assert again.read_bytes() == first.read_bytes()


def test_a_folder_without_a_language_model_that_can_see_is_refused_in_one_line(tmp_path, language_model):
    module, problem = script("report"), script("harness").Problem

    def refused(line: str) -> None:
        with pytest.raises(problem, match=line) as raised:
            train(module, tmp_path / "data", tmp_path / "out", weights=language_model)
        assert "\n" not in str(raised.value)

    config = json.loads((language_model / "config.json").read_text())
    weights = safetensors.torch.load_file(language_model / "model.safetensors")
    lacking = {name: tensor for name, tensor in weights.items() if name != "transformer.h.0.attn.c_attn.weight"}
    safetensors.torch.save_file(lacking, language_model / "model.safetensors", {"format": "pt"})
    refused(r"the weights are a gpt2 whose weights lack transformer\.h\.0\.attn\.c_attn\.weight and 0 more tensors")
    (language_model / "model.safetensors").unlink()
    torch.save(weights, language_model / "pytorch_model.bin")
    refused("the weights are a gpt2 whose weights cannot be read safely")
    (language_model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    refused("the weights are a llama; what can be made to attend to an image: gpt2, bert")
    ran = language_model / "ran"
    (language_model / "own.py").write_text(f"open({str(ran)!r}, 'w')")
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (language_model / "config.json").write_text(json.dumps(own))
    refused("the weights are no language model of transformers")
    assert not ran.exists()
    (language_model / "config.json").write_text(json.dumps(config))
    (language_model / "tokenizer.json").write_text("junk")
    refused("the weights are no language model of transformers")
