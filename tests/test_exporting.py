"""A finished model in other forms: each answers as the model does, or nothing is written."""

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from trained_runs import CLASSIFY, SEGMENT, detecting, finished

from m3dspy.errors import RunFailed, UsageError
from m3dspy.signatures.values import SPLITS, Design, Index, Item, Request
from m3dspy.workspace import emit, exporting, training
from m3dspy.workspace.exporting import bundle
from m3dspy.workspace.runs import Run

TEMPLATES = Path(emit.__file__).parent / "templates"
GRAPHS = ("classification", "segmentation")  # of which a network alone is the graph
SCHEMA = Path(__file__).with_name("monai_metadata_schema.json")


def beside(name: str):
    """A script of exporting/beside as a module."""
    spec = importlib.util.spec_from_file_location(f"beside_{name}", exporting.BESIDE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of seconds: two epochs of a small U-Net."""
    return finished(tmp_path_factory.mktemp("run"), SEGMENT, width=4, precision="32-true")


def segmenter(home: Path, dims: int) -> Run:
    """A finished run that marks balls and cubes, in volumes or in pictures."""
    changed = {} if dims == 3 else {"dims": 2, "size": (32, 32), "spacing": None}
    return finished(home / "run", SEGMENT.model_copy(update=changed), width=4, precision="32-true")


def classifier(home: Path, dims: int) -> Run:
    """A finished run that tells balls apart; volumes resampled and cropped, or pictures fitted and mirrored."""
    changed = {"spacing": (1.5, 1.5, 1.5)} if dims == 3 else {"dims": 2, "size": (16, 12), "flips": (0,)}
    return finished(home / "run", CLASSIFY.model_copy(update=changed), width=4, precision="32-true")


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """A finished anomaly detection, and the CLIP that it was trained on."""
    return detecting(tmp_path_factory.mktemp("spots"))


def export(run: Run, form: str, out: Path) -> str:
    return exporting.export(run, form, out, trusted=True, unsafe=False)


# ------------------------------------------------------------------------------------------------ one graph
@pytest.fixture(scope="module")
def onnx(run, tmp_path_factory):
    """The run as ONNX, and how it was compared."""
    out = tmp_path_factory.mktemp("onnx") / "out"
    return out, export(run, "onnx", out)


@pytest.mark.slow
def test_onnx_runtime_answers_as_the_model_does(onnx):
    import onnxruntime

    out, said = onnx
    assert said.startswith("2 held-out cases: equal to ")
    assert {path.name for path in out.iterdir()} == {"model.onnx", "settings.json", "README.md", "example.py"}
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": np.zeros((5, 1, 16, 16, 16), np.float32)})
    assert logits.shape == (5, 3, 16, 16, 16)  # any number of patches at a time
    told = (out / "README.md").read_text()
    assert "(patches, 3, 16 x 16 x 16): background, ball, cube" in told
    assert "not for diagnosis" in told and "PHANTOM" in told


def alone(folder: Path, out: Path, *images: Path) -> None:
    """Run example.py where PyTorch, MONAI and m3dspy cannot be imported."""
    blocked = "".join(f"sys.modules[{name!r}] = None; " for name in ("torch", "monai", "m3dspy", "scipy", "sklearn"))
    words = f"sys.argv = {['example.py', str(out), *map(str, images)]!r}"
    door = f"import sys, runpy; {blocked}{words}; runpy.run_path({str(folder / 'example.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-c", door], capture_output=True, text=True, cwd=out.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_masks_of_onnx_runtime_alone_are_those_of_predict_in_each_images_own_grid(run, onnx, tmp_path):
    out, said = onnx
    assert "; example.py: probabilities equal to" in said
    root = Path(run.load("request", Request).data)
    items = [item for split in SPLITS for item in run.load("index", Index).items(split)]
    alone(out, tmp_path / "answers", *(root / item.image for item in items))
    training.predict(run, items, root, tmp_path / "native", trusted=True, unsafe=False)
    axes = set()
    for item in items:
        found = nibabel.load(tmp_path / "answers" / item.image)
        wanted = nibabel.load(tmp_path / "native" / f"{item.id}.nii.gz")
        assert np.array_equal(found.affine, wanted.affine)
        assert found.get_data_dtype() == wanted.get_data_dtype() == np.uint8
        assert (np.asarray(found.dataobj) != np.asarray(wanted.dataobj)).mean() <= 1e-4
        assert len(np.unique(wanted.dataobj)) > 1
        axes.add(nibabel.aff2axcodes(found.affine))
    assert axes == {("R", "A", "S"), ("L", "P", "S")}


def test_there_is_no_example_for_images_that_it_cannot_read(monkeypatch):
    monkeypatch.syspath_prepend(str(exporting.BESIDE))
    for image in ("a.dcm", ["scan/1.dcm", "scan/2.dcm"]):
        assert beside("graph").alone(None, [{"id": "a", "image": image}], None, None, None, None) is None


@pytest.mark.soak
@pytest.mark.parametrize("dims", [2, 3])
def test_probabilities_of_onnx_runtime_alone_are_those_of_predict(dims, tmp_path):
    run = classifier(tmp_path, dims)
    export(run, "onnx", tmp_path / "out")
    root = Path(run.load("request", Request).data)
    items = [item for split in SPLITS for item in run.load("index", Index).items(split)]
    alone(tmp_path / "out", tmp_path / "answers", *(root / item.image for item in items))
    training.predict(run, items, root, tmp_path / "native", trusted=True, unsafe=False)
    alike(tmp_path / "answers", tmp_path / "native", len(items))


def alike(answers: Path, native: Path, count: int) -> None:
    """The same labels, and probabilities equal to 1e-4."""
    tables = [(folder / "predictions.csv").read_text().splitlines() for folder in (answers, native)]
    found, wanted = ([line.split(",") for line in lines] for lines in tables)
    assert (found[0], len(found)) == (wanted[0], count + 1)
    assert [row[1] for row in found] == [row[1] for row in wanted]
    chances = [np.array([row[2:] for row in rows[1:]], float) for rows in (found, wanted)]
    assert np.abs(chances[0] - chances[1]).max() <= 1e-4


@pytest.mark.soak
@pytest.mark.parametrize("form", ["bundle", "onnx", "torchscript"])
def test_an_anomaly_detection_is_exported_with_the_clip_that_it_was_trained_on(form, spots, tmp_path):
    run, clip = spots
    said = exporting.export(run, form, tmp_path / "out", trusted=True, unsafe=False, clip=str(clip))
    if form == "bundle":
        assert said.startswith("2 held-out cases by MONAI's own command: case12.png, case13.png, overlays/case12.png,")
        assert (tmp_path / "out/models/clip").read_bytes() == clip.read_bytes()
        return
    assert said.startswith("2 held-out cases: equal to")
    if form == "torchscript":
        return
    items, root = run.load("index", Index).test, Path(run.load("request", Request).data)
    items = [item.model_copy(update={"id": Path(item.image).stem}) for item in items]
    alone(tmp_path / "out", tmp_path / "answers", *(root / item.image for item in items))
    training.predict(run, items, root, tmp_path / "native", trusted=True, unsafe=False, weights=str(clip))
    alike(tmp_path / "answers", tmp_path / "native", len(items))
    for item in items:
        maps = [np.asarray(Image.open(tmp_path / where / f"{item.id}.png"), int) for where in ("answers", "native")]
        assert maps[0].shape == maps[1].shape == (72, 80)
        assert np.abs(maps[0] - maps[1]).max() <= 1e-4 * 65535


@pytest.mark.soak
def test_another_clip_than_the_one_it_was_trained_on_is_refused(spots, tmp_path):
    run, _ = spots
    with pytest.raises(RunFailed, match="was trained on another CLIP"):
        exporting.export(run, "onnx", tmp_path / "out", trusted=True, unsafe=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.soak
def test_torchscript_answers_as_the_model_does(run, tmp_path):
    assert "2 held-out cases: equal to" in export(run, "torchscript", tmp_path / "out")
    assert torch.jit.load(tmp_path / "out/model.ts")(torch.zeros(3, 1, 16, 16, 16)).shape == (3, 3, 16, 16, 16)


QUICK = ("cnn", "unet")
NETWORKS = [n for n, e in emit.networks().items() if e.task in GRAPHS and not e.template]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", pytest.param("torchscript", marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.soak) for n in NETWORKS])
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
@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        ("exported(x) * 1.01", r"The torchscript answers differently from the model: by 0\.01"),
        ("exported(x) * float('nan')", r"The comparison with the model did not end with a number\."),
    ],
)
def test_an_export_that_answers_differently_is_not_handed_over(spoiled, words, run, tmp_path, monkeypatch):
    changed = tmp_path / "beside"
    shutil.copytree(exporting.BESIDE, changed)
    text = (exporting.BESIDE / "graph.py").read_text()
    (changed / "graph.py").write_text(text.replace("net(x), exported(x)", f"net(x), {spoiled}"))
    monkeypatch.setattr(exporting, "BESIDE", changed)
    with pytest.raises(RunFailed, match=words):
        export(run, "torchscript", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("found", "larger"), [(np.array([1.0, 3.0]), 3.0), (torch.zeros(2), 2.0), ([1.0, np.nan], np.nan)]
)
def test_what_is_no_number_is_never_close(found, larger):
    assert beside("graph").larger(2.0, found) == pytest.approx(larger, nan_ok=True)


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


def command(bundle: Path, *words: str) -> None:
    """A command of MONAI, in the folder of a bundle."""
    done = subprocess.run([sys.executable, "-m", "monai.bundle", *words], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_monais_commands_accept_every_bundle_and_answer_new_images_as_predict_does(task, dims, tmp_path):
    run = classifier(tmp_path, dims) if task == "classification" else segmenter(tmp_path, dims)
    export(run, "bundle", tmp_path / "out")
    meta = ["--meta_file", "configs/metadata.json"]
    command(tmp_path / "out", "verify_metadata", *meta, "--filepath", str(SCHEMA))  # is there: nothing is downloaded
    both = [*meta, "--config_file", "configs/inference.json", "--bundle_root", "."]
    command(tmp_path / "out", "verify_net_in_out", "--net_id", "network_def", *both)
    root, items = Path(run.load("request", Request).data), run.load("index", Index).training
    (tmp_path / "new").mkdir()
    for item in items:
        (tmp_path / "new" / f"{item.id}{''.join(Path(item.image).suffixes)}").write_bytes(
            (root / item.image).read_bytes()
        )
    command(
        tmp_path / "out", "run", *both, "--dataset_dir", str(tmp_path / "new"), "--output_dir", str(tmp_path / "here")
    )
    training.predict(run, items, root, tmp_path / "native", trusted=True, unsafe=False)
    native = {path.name: path.read_bytes() for path in (tmp_path / "native").iterdir() if path.name != training.JOURNAL}
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == native


def test_the_metadata_are_as_monais_specification_says(run):
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(bundle.metadata(run), schema)
    with pytest.raises(jsonschema.ValidationError, match="'task' is a required property"):
        jsonschema.validate({name: value for name, value in bundle.metadata(run).items() if name != "task"}, schema)


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


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_models_that_are_no_graph_are_refused_with_the_reason(form, run, tmp_path, monkeypatch):
    index = run.load("index", Index).model_copy(update={"task": "report_generation", "labels": ()})
    load = run.load
    monkeypatch.setattr(run, "load", lambda name, kind: index if name == "index" else load(name, kind))
    with pytest.raises(UsageError, match=r"writes word by word, which is no graph\. Use --to bundle\."):
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
