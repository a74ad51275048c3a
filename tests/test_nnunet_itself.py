"""The optional template that leaves the work to nnU-Net v2. What needs the package is left out where it is missing."""

import importlib
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import dspy
import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from test_nnunet import ABDOMEN, REQUEST, design
from test_rules import plan_for
from trained_runs import cases

from m3dspy import job
from m3dspy.errors import DataError, UsageError
from m3dspy.programs.module_architect import ModuleArchitect
from m3dspy.signatures.values import Design, Index, Machine, Request
from m3dspy.workspace import emit, exporting

ASKED = f"{REQUEST} with nnU-Net"
CHESTS = Index(task="segmentation", labels=("left lung", "right lung"), values=(1, 2))
needs_nnunet = pytest.mark.skipif(find_spec("nnunetv2") is None, reason="nnunetv2 is not installed")


def installed(monkeypatch, there: bool) -> None:
    for module in (emit, job):
        monkeypatch.setattr(module, "find_spec", lambda name: "here" if there else None)


def by_nnunet(**more) -> Design:
    chosen = {"template": "nnunet", "network": "nnunet", "dims": 3, "size": (64, 64, 64), "intensity": "percentile"}
    return Design(**(chosen | {"loss": "dice_ce", "lr": 1e-2, "batch": 2, "epochs": 2} | more))


# ------------------------------------------------------------------------------------------------ who gets it
def test_a_request_for_it_where_it_is_missing_is_one_line_before_anything_is_done(tmp_path, monkeypatch):
    installed(monkeypatch, False)
    request = Request(text=ASKED, data=str(tmp_path))
    with pytest.raises(UsageError, match=r"^The request asks for nnU-Net, .*: pip install 'm3dspy\[nnunet\]'$"):
        job.start(request, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    job.start(request.model_copy(update={"text": f"{REQUEST}. The folder is an nnU-Net dataset."}), tmp_path / "runs")


def test_it_is_offered_only_where_it_is_installed(monkeypatch):
    installed(monkeypatch, False)
    found = emit.catalogue("segmentation")
    assert [entry.name for entry in found.templates] == ["segment"]
    assert "nnunet" not in [entry.name for entry in found.networks]
    installed(monkeypatch, True)
    found = emit.catalogue("segmentation")
    assert [(entry.name, entry.needs) for entry in found.templates] == [("nnunet", "nnunetv2"), ("segment", None)]
    assert [entry.name for entry in found.networks if entry.template == "nnunet"] == ["nnunet"]


def test_the_rules_take_it_only_if_asked_and_never_mirror_labels_with_sides(monkeypatch):
    installed(monkeypatch, True)
    assert {design(REQUEST, Machine(gigabytes=gb), ABDOMEN).template for gb in (0, 16)} == {"segment"}
    found = design(ASKED, Machine(gigabytes=16), ABDOMEN)
    assert (found.template, found.network, found.preset, found.epochs) == ("nnunet", "nnunet", "default", 250)
    assert (found.flips, found.space, found.intensity) == ((), {}, "window")
    assert design("segment the infection on chest CT with nnU-Net", Machine(), ABDOMEN).flips == (0, 1, 2)
    assert design(f"{ASKED}, as in the paper", Machine(gigabytes=80), ABDOMEN).epochs == 1000
    small = design(f"{ASKED}, as a quick try", Machine(), ABDOMEN)
    assert (small.preset, small.epochs) == ("small", 5)
    installed(monkeypatch, False)
    assert design(ASKED, Machine(), ABDOMEN).template == "segment"  # `job.start` has refused it by then


def test_a_language_model_that_chooses_what_is_not_installed_is_told_what_there_is(monkeypatch):
    installed(monkeypatch, False)
    architect = ModuleArchitect(max_repairs=0)
    architect.design_training = lambda **asked: dspy.Prediction(design=by_nnunet())
    given = {"plan": plan_for(REQUEST, ABDOMEN).plan, "index": CHESTS, "fingerprint": ABDOMEN, "machine": Machine()}
    with pytest.raises(DataError, match=r"The template must be one of: segment\."):
        architect(request=REQUEST, **given, catalogue=emit.catalogue("segmentation"))


@pytest.mark.parametrize(
    ("template", "network", "words"),
    [
        ("nnunet", "unet", "network unet does not serve template nnunet; use one of: nnunet"),
        ("segment", "nnunet", "network nnunet does not serve template segment; use one of: dynunet, "),
    ],
)
def test_template_and_network_belong_together(template, network, words):
    assert emit.check_design(by_nnunet(), CHESTS) == []
    assert any(words in line for line in emit.check_design(by_nnunet(template=template, network=network), CHESTS))


def test_a_model_that_nnunet_puts_together_is_no_graph(tmp_path):
    with pytest.raises(UsageError, match=r"A model of nnunetv2 is planned, .* Use --to bundle\."):
        exporting._check("onnx", CHESTS, tmp_path / "out", emit.templates()["nnunet"].needs)


# ------------------------------------------------------------------------------------------------ the script
@pytest.fixture
def script(monkeypatch):
    """The template, and the modules that lie beside it."""
    monkeypatch.syspath_prepend(str(emit.TEMPLATES))
    return importlib.import_module("nnunet")


def called(script, monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["train.py", *map(str, words)])
    given = (script.SETTINGS, script.SPACE, script.LOSSES, script.train, script.predict, script.made_up)
    return importlib.import_module("harness").command_line(*given, script.saved_network, script.PRESETS)


def test_the_emitted_folder_holds_all_that_it_imports_and_the_diff_shows_what_was_chosen(tmp_path):
    folder = emit.emit(by_nnunet(preset="small", epochs=3, flips=(0,)), CHESTS, tmp_path / "code")
    changes = emit.diff(folder)
    assert changes.startswith("--- templates/nnunet.py")
    for line in ("gigabytes=0.25", "steps=25", "epochs=3", "flips=(0,)", 'labels=("left lung", "right lung")'):
        assert f"\n+    {line},\n" in changes
    assert {"masks.py", "nnunet_trainer.py", "network.py"} <= {path.name for path in folder.iterdir()}


def test_without_the_package_it_says_its_space_and_how_to_install_it(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "find_spec", lambda name: None)
    assert called(script, monkeypatch, "--space") == 0
    assert json.loads(capsys.readouterr().out)["defaults"] == {"lr": 0.01}
    (tmp_path / "index.json").write_text(json.dumps(script.made_up(tmp_path)))
    words = ["--index", tmp_path / "index.json", "--data", tmp_path, "--out", tmp_path / "out"]
    assert called(script, monkeypatch, *words) == 1
    assert capsys.readouterr().err == "error: nnU-Net is not installed: pip install nnunetv2\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("shape", "turned"), [((2, 3, 4, 5), (2, 5, 4, 3)), ((3, 4, 5), (3, 1, 4, 5))])
def test_an_image_is_turned_as_nnunet_reads_it_and_its_mask_back(shape, turned, script):
    x = torch.arange(np.prod(shape)).reshape(shape)
    found, spacing = script.turned(x, [1.0, 2.0, 3.0][: x.ndim - 1])
    assert found.shape == turned
    assert spacing == ([3.0, 2.0, 1.0] if x.ndim == 4 else [999.0, 1.0, 2.0])
    assert np.array_equal(script.turned_back(found[0], x.ndim - 1), x[0].numpy())


def test_nnunet_reads_the_image_that_was_written(script, tmp_path):
    for scale in (1, 0.5, 1e4):  # whole numbers, others, and such as do not fit in 16 bits
        array = np.arange(24, dtype=np.float32).reshape(2, 3, 4) * scale
        script.write_nifti(array, [3.0, 2.0, 1.0], tmp_path / "x.nii.gz")
        stored = nibabel.load(tmp_path / "x.nii.gz")
        assert np.array_equal(stored.get_fdata().transpose(2, 1, 0), array)  # as its NibabelIO does
        assert stored.header.get_zooms() == (1.0, 2.0, 3.0)


def test_labels_that_overlap_are_nnunets_regions(script):
    s = replace(script.SETTINGS, labels=("whole", "core", "rim"), values=(1, 2, 4), multilabel=True, intensity="window")
    found = script.described(9, {1, 3, 4}, s)
    assert found["labels"] == {"background": 0, "whole": [1, 3, 1, 3], "core": [3, 3], "rim": [4, 4]}
    assert found["regions_class_order"] == [1, 2, 3]
    assert found["channel_names"] == {"0": "CT"}
    with pytest.raises(importlib.import_module("harness").Problem, match=r"no mask .* shows core, rim"):
        script.described(9, {1}, s)
    plain = script.described(9, {1, 2}, script.SETTINGS)
    assert plain["labels"] == {"background": 0, "ball": 1, "cube": 2}
    assert "regions_class_order" not in plain


# ------------------------------------------------------------------------------------------------ nnU-Net at work
def run(script, folder: Path, out: Path, index: dict | None = None, resume: bool = False, **settings) -> dict:
    """Train on made-up data in `folder`; the result."""
    folder.mkdir(exist_ok=True)
    s = replace(script.SETTINGS, **({"steps": 3, "workers": 1} | settings))
    script.train(index or script.made_up(folder), folder, out, s, False, resume)
    return json.loads((out / "result.json").read_text())


def dice(answer: np.ndarray, truth: np.ndarray) -> float:
    return 2 * np.count_nonzero(answer & truth) / (np.count_nonzero(answer) + np.count_nonzero(truth))


@pytest.mark.soak
@needs_nnunet
def test_it_learns_answers_in_the_images_own_grid_and_clears_up(script, tmp_path, monkeypatch, capsys):
    result = run(script, tmp_path / "data", tmp_path / "out", steps=20)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == result["history"]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert result["score"] == lines[-1]["score"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.safetensors",
        "settings.json",
        "predictions",
        "result.json",
    }
    for number in (7, 8):  # of which one is stored left, posterior, superior
        answer = nibabel.load(tmp_path / f"out/predictions/case{number}.nii.gz")
        truth = nibabel.load(tmp_path / f"data/mask{number}.nii.gz")
        assert np.array_equal(answer.affine, truth.affine)
        for value in (1, 2):
            assert dice(np.asarray(answer.dataobj) == value, np.asarray(truth.dataobj) == value) > 0.7

    items = script.made_up(tmp_path / "data")["test"]
    (tmp_path / "items.json").write_text(json.dumps([{"id": i["id"], "image": i["image"]} for i in items]))
    words = ["--predict", tmp_path / "items.json", "--data", tmp_path / "data", "--model", tmp_path / "out"]
    assert called(script, monkeypatch, *words, "--out", tmp_path / "again") == 0
    for path in (tmp_path / "out/predictions").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.soak
@needs_nnunet
def test_killed_it_goes_on_from_nnunets_checkpoint_to_the_very_same_weights(script, tmp_path, monkeypatch, capsys):
    run(script, tmp_path / "data", tmp_path / "straight", epochs=3)
    straight = capsys.readouterr().out
    trainer = importlib.import_module("nnunet_trainer")
    say, said = trainer.say, []

    def killed_after_two_epochs(**line):
        said.append(line)
        if len(said) > 2:
            raise KeyboardInterrupt
        say(**line)

    monkeypatch.setattr(trainer, "say", killed_after_two_epochs)
    with pytest.raises(KeyboardInterrupt):
        run(script, tmp_path / "data", tmp_path / "resumed", epochs=3)
    monkeypatch.setattr(trainer, "say", say)
    with pytest.raises(importlib.import_module("harness").Problem, match="holds a training with other settings"):
        run(script, tmp_path / "data", tmp_path / "resumed", epochs=3, resume=True, lr=1e-3)
    capsys.readouterr()
    run(script, tmp_path / "data", tmp_path / "resumed", epochs=3, resume=True)
    assert capsys.readouterr().out == straight
    a, b = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("straight", "resumed"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.soak
@needs_nnunet
def test_pictures_in_colour_with_labels_that_overlap_are_answered_in_bits(script, tmp_path):
    random, items = np.random.default_rng(0), []
    for i in range(6):
        mask = np.zeros((40, 52), np.uint8)
        mask[8:28, 10:36] = 1
        mask[14:24, 16:30] = 3
        noise = random.integers(0, 60, (*mask.shape, 3), np.uint8)
        Image.fromarray(np.stack([(mask > 0) * 120, (mask > 1) * 120, mask * 0], -1).astype(np.uint8) + noise).save(
            tmp_path / f"{i}.png"
        )
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
        items.append({"id": f"c{i}", "patient": f"p{i}", "image": f"{i}.png", "label": f"m{i}.png"})
    index = {"labels": ["whole", "core"], "training": items[:3], "validation": items[3:4], "test": items[4:]}
    how = {"labels": ("whole", "core"), "values": (1, 2), "multilabel": True, "dims": 2, "channels": 3, "flips": (0, 1)}
    run(script, tmp_path, tmp_path / "out", index, **how, steps=15)
    answer = np.asarray(Image.open(tmp_path / "out/predictions/c5.png"))
    assert answer.shape == mask.shape
    assert dice(answer & 1 > 0, mask & 1 > 0) > 0.7
    assert dice(answer & 2 > 0, mask & 2 > 0) > 0.7


@pytest.mark.soak
@needs_nnunet
def test_only_allowed_axes_of_the_image_are_mirrored(script):
    mirrored = importlib.import_module("nnunet_trainer").mirrored
    plans = {"transpose_forward": [1, 0, 2], "configurations": {"3d_fullres": {"patch_size": [8, 8, 8]}}}
    plans["configurations"]["2d"] = {"patch_size": [8, 8]}
    s = replace(script.SETTINGS, plans=plans, flips=(0,))  # x: the last of nnU-Net's axes
    assert mirrored(s) == (2,)
    assert mirrored(replace(s, flips=())) is None
    assert mirrored(replace(s, flips=(2,))) == (1,)  # z, which is turned to the second place
    assert mirrored(replace(s, configuration="2d")) == (1,)
    flat = {"transpose_forward": [0, 1, 2], "configurations": {"2d": {"patch_size": [8, 8]}}}
    assert mirrored(replace(s, plans=flat, dims=2, configuration="2d", flips=(1,))) == (1,)


@pytest.mark.soak
@needs_nnunet
def test_the_control_and_the_smoke_run_end_well(script, tmp_path, capsys):
    assert run(script, tmp_path / "data", tmp_path / "out", epochs=1, shuffled=True)["failed"] == []
    capsys.readouterr()
    index = script.made_up(tmp_path / "data")
    script.train(index, tmp_path / "data", tmp_path / "smoke", replace(script.SETTINGS, workers=1), True, False)
    assert json.loads(capsys.readouterr().out)["smoke"] is True
    assert not (tmp_path / "smoke").exists()


@pytest.mark.soak
@needs_nnunet
def test_in_the_sandbox_it_trains_in_a_worker_and_answers_new_images(tmp_path):
    """What a run does: a warm worker, its trial ended within a step, a training, and a prediction."""
    from contextlib import closing

    from m3dspy.workspace import training
    from m3dspy.workspace.runs import Run
    from m3dspy.workspace.workers import Worker

    index = cases(tmp_path / "data", "segmentation")
    chosen = by_nnunet(preset="small", epochs=2)
    made = Run.create(Request(text=ASKED, data=str(tmp_path / "data")), tmp_path / "runs")
    made.commit("index", index)
    made.commit("design", chosen)
    emit.emit(chosen, index, made.folder / "code")
    how = {"trusted": True, "unsafe": False}
    with closing(Worker(made, **how)) as worker:
        for name in ("trial-000", "trial-001"):
            with closing(worker.epochs(name, {"steps": 2, "epochs": 5}, resume=False)) as epochs:
                assert next(epochs)["epoch"] == 0
    result = training.fit(made, "final", {"steps": 2, "epochs": 1}, resume=True, **how)
    assert result["failed"] == []
    (made.folder / "attempts" / "final").rename(made.folder / "model")
    training.predict(made, index.test, tmp_path / "data", tmp_path / "answers", **how)
    assert sorted(path.name for path in (tmp_path / "answers").glob("*.nii.gz")) == ["case6.nii.gz", "case7.nii.gz"]
