"""A finished model in other forms: each answers as the model does, or nothing is written."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from trained_runs import SEGMENT, finished

from m3dspy.errors import RunFailed, UsageError
from m3dspy.signatures.values import Design, Index, Item, Request
from m3dspy.workspace import emit, exporting, training
from m3dspy.workspace.exporting import bundle
from m3dspy.workspace.runs import Run

TEMPLATES = Path(emit.__file__).parent / "templates"


def beside(name: str):
    """A script of exporting/beside as a module."""
    spec = importlib.util.spec_from_file_location(f"beside_{name}", exporting.BESIDE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of seconds: two epochs of a small U-Net."""
    return finished(tmp_path_factory.mktemp("run"), SEGMENT, width=4)


def export(run: Run, form: str, out: Path) -> str:
    return exporting.export(run, form, out, trusted=True, unsafe=False)


# ------------------------------------------------------------------------------------------------ one graph
@pytest.mark.slow
def test_onnx_runtime_answers_as_the_model_does(run, tmp_path):
    import onnxruntime

    said = export(run, "onnx", tmp_path / "out")
    assert said.startswith("2 held-out cases: equal to ")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "settings.json", "README.md"}
    session = onnxruntime.InferenceSession(tmp_path / "out/model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": np.zeros((5, 1, 16, 16, 16), np.float32)})
    assert logits.shape == (5, 3, 16, 16, 16)  # any number of patches at a time
    told = (tmp_path / "out/README.md").read_text()
    assert "(patches, 3, 16 x 16 x 16): background, ball, cube" in told
    assert "not for diagnosis" in told and "PHANTOM" in told


@pytest.mark.soak
def test_torchscript_answers_as_the_model_does(run, tmp_path):
    assert "2 held-out cases: equal to" in export(run, "torchscript", tmp_path / "out")
    assert torch.jit.load(tmp_path / "out/model.ts")(torch.zeros(3, 1, 16, 16, 16)).shape == (3, 3, 16, 16, 16)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", pytest.param("torchscript", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", [n for n, e in emit.networks().items() if e.task in exporting.GRAPHS])
def test_every_network_is_the_same_as_a_graph(name, form, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TEMPLATES))
    importlib.import_module("network")
    module, graph = importlib.import_module(f"networks.{name}"), beside("graph")
    template = importlib.import_module({"classification": "classify", "segmentation": "segment"}[module.TASK])
    dims = max(module.DIMS)
    size, mm = ((32, 32, 16), (1.0, 1.0, 4.0)) if dims == 3 else ((64, 64), None)
    s = replace(template.SETTINGS, dims=dims, size=size, spacing=mm, width=4, labels=("a", "b"))
    torch.manual_seed(0)
    net, x = module.network(s).eval(), torch.rand(3, 1, *size)
    write = {"onnx": graph.to_onnx, "torchscript": graph.to_torchscript}[form]
    with torch.no_grad():
        found = write(net, torch.rand(2, 1, *size), tmp_path)(x)
        wanted = net(x)
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())


@pytest.mark.slow
def test_an_export_that_answers_differently_is_not_handed_over(run, tmp_path, monkeypatch):
    changed = tmp_path / "beside"
    changed.mkdir()
    text = (exporting.BESIDE / "graph.py").read_text()
    (changed / "graph.py").write_text(text.replace("net(x), exported(x)", "net(x), exported(x) * 1.01"))
    monkeypatch.setattr(exporting, "BESIDE", changed)
    with pytest.raises(RunFailed, match=r"The torchscript answers differently from the model: by 0\.01"):
        export(run, "torchscript", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ a MONAI Bundle
@pytest.mark.slow
def test_monais_own_command_gives_the_files_that_predict_gives(run, tmp_path):
    said = export(run, "bundle", tmp_path / "out")
    assert said == "2 held-out cases by MONAI's own command: case6.nii.gz, case7.nii.gz the same to the byte"
    new = tmp_path / "new"
    (new / "deeper").mkdir(parents=True)
    source = Path(run.load("request", Request).data)
    (new / "a.nii.gz").write_bytes((source / "image0.nii.gz").read_bytes())
    (new / "deeper" / "b.nii.gz").write_bytes((source / "image1.nii.gz").read_bytes())
    (new / "notes.txt").write_text("no image")
    given = {"config_file": "configs/inference.json", "meta_file": "configs/metadata.json", "bundle_root": "."}
    given |= {"dataset_dir": str(new), "output_dir": str(tmp_path / "answers")}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "monai.bundle", "run", *words]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = [Item(id=id, patient=id, image=image) for id, image in (("a", "a.nii.gz"), ("deeper-b", "deeper/b.nii.gz"))]
    training.predict(run, cases, new, tmp_path / "native", trusted=True, unsafe=False)
    for name in ("a.nii.gz", "deeper-b.nii.gz"):
        assert (tmp_path / "answers" / name).read_bytes() == (tmp_path / "native" / name).read_bytes()


def test_the_metadata_say_what_the_model_is_and_is_not(run):
    found = bundle.metadata(run)
    assert found["phantom"] is True
    assert "timm" not in found["required_packages_version"]
    assert "not for diagnosis" in found["intended_use"] and "PHANTOM" in found["intended_use"]
    assert found["eval_metrics"] == {"score": 0.5, "score, 95 % interval": [0.4, 0.6], "cases": 2}
    channels = found["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert channels == {"0": "background", "1": "ball", "2": "cube"}
    other = run.load("index", Index)
    first, *rest = other.training
    moved = other.model_copy(update={"training": tuple(rest), "validation": (*other.validation, first)})
    assert bundle.split_hash(moved) != found["split_sha256"] == bundle.split_hash(other)
    text = json.dumps(found)
    assert not any(item.id in text or item.image in text for item in other.test)


@pytest.mark.parametrize(("network", "package"), [("timm_backbone", "timm"), ("report_cnn", "transformers")])
def test_a_bundle_names_the_packages_that_only_some_networks_need(network, package, run, monkeypatch):
    design, load = run.load("design", Design).model_copy(update={"network": network}), run.load
    monkeypatch.setattr(run, "load", lambda name, kind: design if name == "design" else load(name, kind))
    assert package in bundle.needed(run)


# ------------------------------------------------------------------------------------------------ what cannot be
def test_what_cannot_be_exported_is_one_line(run, tmp_path):
    with pytest.raises(UsageError, match=r"No form is called 'onx'\. Did you mean 'onnx'\?"):
        export(run, "onx", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UsageError, match=r"full is there and not empty\. Give a new folder with --out\."):
        export(run, "onnx", tmp_path / "full")


@pytest.mark.parametrize(
    ("task", "form", "words"),
    [
        ("anomaly_detection", "bundle", "its backbone is CLIP's. Use m3dspy predict."),
        ("report_generation", "onnx", "which is no graph. Use --to bundle."),
    ],
)
def test_models_that_are_no_graph_are_refused_with_the_reason(task, form, words, run, tmp_path, monkeypatch):
    labels = ("normal", "abnormal") if task == "anomaly_detection" else ()
    index = run.load("index", Index).model_copy(update={"task": task, "labels": labels})
    load = run.load
    monkeypatch.setattr(run, "load", lambda name, kind: index if name == "index" else load(name, kind))
    with pytest.raises(UsageError, match=words):
        export(run, form, tmp_path / "out")


def test_a_missing_package_is_named_with_what_installs_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(exporting.FORMS, "onnx", ("onnxscript", "no_such_package"))
    with pytest.raises(UsageError, match=r"--to onnx needs no_such_package: pip install 'm3dspy\[export\]'"):
        export(run, "onnx", tmp_path / "out")


def test_without_the_held_out_images_nothing_is_exported(run, tmp_path, monkeypatch):
    gone = run.load("request", Request).model_copy(update={"data": str(tmp_path)})
    load = run.load
    monkeypatch.setattr(run, "load", lambda name, kind: gone if name == "request" else load(name, kind))
    with pytest.raises(UsageError, match=r"The held-out images, .* If the dataset was moved: m3dspy resume"):
        export(run, "onnx", tmp_path / "out")
