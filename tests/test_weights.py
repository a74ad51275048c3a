"""Pretrained weights are named, or fit a network, or are refused in one line."""

import json
from types import SimpleNamespace

import pytest
import timm
import torch
from language_models import tiny_gpt2
from monai.networks.nets import resnet
from safetensors.torch import save_file

from m3dspy.errors import UsageError
from m3dspy.job import Candidate
from m3dspy.m3bench.candidate import Assignment
from m3dspy.signatures.values import Request
from m3dspy.workspace import weights
from m3dspy.workspace.emit import networks
from m3dspy.workspace.networks import medicalnet, timm_backbone
from m3dspy.workspace.weights import check, file_of

OFFERED = tuple(entry for entry in networks().values() if entry.task == "anomaly_detection")
DIAGNOSIS = tuple(entry for entry in networks().values() if entry.task == "classification")
REPORTS = tuple(entry for entry in networks().values() if entry.task == "report_generation")
TINY = "test_resnet"  # of timm, 0.5 million weights


def fitting(given, offered, dims=2, channels=1):
    return weights.fitting(given, offered, dims, channels)


def clip(folder, width, patch):
    """A file with the one tensor that says what CLIP it is of."""
    path = folder / "clip.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(width, 3, patch, patch)}, path)
    return str(path)


@pytest.mark.parametrize(("width", "patch", "name"), [(768, 16, "clip_vit_b16"), (1024, 14, "clip_vit_l14_336")])
def test_a_file_fits_the_network_of_its_width_and_patch(tmp_path, width, patch, name):
    path = clip(tmp_path, width, patch)
    check(path)
    assert [entry.name for entry in fitting(path, OFFERED)] == [name]
    assert str(file_of(path, name)) == path


def test_a_name_fits_every_network_that_open_clip_has_it_for():
    check("openai")
    assert fitting("openai", OFFERED) == OFFERED
    assert [entry.name for entry in fitting("dfn2b", OFFERED)] == ["clip_vit_b16"]


def test_what_is_neither_file_nor_name_is_refused_with_the_names():
    with pytest.raises(UsageError, match=r"^There are no weights 'openay'\. Give the file of a CLIP, .*openai"):
        check("openay")
    with pytest.raises(UsageError, match=r"^There are no weights 'models/clip\.pt'\. Give the file of a CLIP"):
        check("models/clip.pt")
    with pytest.raises(UsageError, match=r"^dfn2b is neither a file nor weights that open_clip knows for ViT-L-14-336"):
        file_of("dfn2b", "clip_vit_l14_336")


def test_a_file_of_another_clip_or_of_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"768 wide with patches of 32 pixels, which no network here is: clip_vit_b16"):
        fitting(clip(tmp_path, 768, 32), OFFERED)
    save_file({"w": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="is no CLIP with a vision transformer"):
        fitting(str(tmp_path / "other.safetensors"), OFFERED)
    (tmp_path / "junk.pt").write_text("junk")
    with pytest.raises(UsageError, match=r"junk\.pt holds no weights that can be read safely"):
        fitting(str(tmp_path / "junk.pt"), OFFERED)


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch):
    def fail(config):
        raise OSError("no route")

    monkeypatch.setattr("open_clip.download_pretrained", fail)
    with pytest.raises(UsageError, match=r"^The weights 'openai' of ViT-B-16-quickgelu could not be downloaded"):
        file_of("openai", "clip_vit_b16")


# ------------------------------------------------------------------------------------------------ diagnosis
def settings(backbone, size, channels=1, labels=3):
    return SimpleNamespace(backbone=backbone, size=size, channels=channels, labels=("l",) * labels, dropout=0.0)


def learnt(folder, form):
    """A file of a network of timm in one of the forms they are found in, and the network."""
    torch.manual_seed(7)
    net, path = timm.create_model(TINY), folder / f"weights.{form}"
    if form == "safetensors":
        save_file(net.state_dict(), path)
    else:
        held = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
        torch.save({"state_dict": held} if form == "pth" else net.state_dict(), path)
    return path, net.eval()


@pytest.mark.parametrize("form", ["safetensors", "pth", "pt"])
def test_a_network_of_timm_starts_from_a_file_whatever_it_is_called(tmp_path, form):
    path, net = learnt(tmp_path, form)
    path = path.rename(tmp_path / "weights")  # as it is mounted in the sandbox
    found = timm_backbone.network(settings(TINY, (64, 64), channels=3), path).eval()
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(found.forward_features(x), net.forward_features(x))
    assert found(x).shape == (2, 3)


def test_the_first_layer_is_fitted_to_the_channels_and_the_last_follows_the_seed(tmp_path):
    path, net = learnt(tmp_path, "pt")
    grey = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        grey.append(timm_backbone.network(settings(TINY, (64, 64)), path).eval())
    x = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(
        grey[0].forward_features(x), net.forward_features(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(grey[0](x), grey[1](x)) and not torch.equal(grey[0](x), grey[2](x))


def test_a_transformer_takes_images_of_another_size(tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "vit")
    found = timm_backbone.network(settings("test_vit", (64, 96)), tmp_path / "vit")
    assert found(torch.rand(2, 1, 64, 96)).shape == (2, 3)


@pytest.mark.parametrize("depth", [10, 18])  # with and without weights in their shortcuts
def test_medicalnets_file_fits_any_number_of_channels(tmp_path, depth):
    torch.manual_seed(3)
    bias, shortcut = resnet.get_medicalnet_pretrained_resnet_args(depth)
    form = {"spatial_dims": 3, "n_input_channels": 1, "feed_forward": False, "conv1_t_stride": 2}
    net = getattr(resnet, f"resnet{depth}")(**form, shortcut_type=shortcut, bias_downsample=bias).eval()
    held = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({"state_dict": held}, tmp_path / "file.pth")
    name = f"medicalnet_resnet{depth}"
    given = f"{name}={tmp_path / 'file.pth'}"
    check(given)
    assert [entry.name for entry in fitting(given, DIAGNOSIS, dims=3)] == ["medicalnet"]
    found = medicalnet.network(settings(name, (32,) * 3, channels=2), tmp_path / "file.pth").eval()
    found.fc = torch.nn.Identity()
    x = torch.rand(1, 1, 32, 32, 32)
    torch.testing.assert_close(found(x.expand(-1, 2, -1, -1, -1)), net(x), atol=1e-4, rtol=1e-4)


def test_weights_choose_the_network_of_a_diagnosis(tmp_path):
    path, _ = learnt(tmp_path, "pt")
    given = f"{TINY}={path}"
    check(given)
    assert [entry.name for entry in fitting(given, DIAGNOSIS)] == ["timm_backbone"]
    assert weights.backbone(given, "timm_backbone") == TINY
    assert weights.backbone(given, "cnn") == weights.backbone("openai", "clip_vit_b16") == ""
    assert file_of(given, "timm_backbone") == path
    assert weights.file_in(given) == str(path) and weights.file_in("resnet50.a1_in1k") == "FILE"


@pytest.mark.parametrize("task", ["anomaly_detection", "classification", "segmentation"])
def test_a_benchmark_of_all_tasks_gives_weights_to_those_they_are_for(tmp_path, task):
    (tmp_path / "task.json").write_text(json.dumps({"task": task}))
    given = Assignment(request="r", data=tmp_path, out=tmp_path)
    clip_file = clip(tmp_path, 768, 16)
    for named, wanted in (("openai", "anomaly"), (clip_file, "anomaly"), ("resnet50.a1_in1k", "class")):
        asked = Candidate(Request(text="-", data=".", weights=named), force=False).asked(given, "r", tmp_path)
        assert asked.weights == (named if task.startswith(wanted) else None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("resnet50=nowhere.pt", r"^There is no file nowhere\.pt\. Give --weights resnet50=FILE\.$"),
        ("resnet51={path}", r"^No network is called 'resnet51'\. In NAME=FILE the name is one of timm's"),
        ("resnet50.nobody", r"^There are no weights 'resnet50\.nobody'\. .* resnet50=FILE; .* gpt2=FOLDER\.$"),
    ],
)
def test_what_names_no_weights_of_a_diagnosis_is_refused_at_once(tmp_path, given, said):
    path, _ = learnt(tmp_path, "pt")
    with pytest.raises(UsageError, match=said):
        check(given.format(path=path))


@pytest.mark.parametrize(
    ("given", "dims", "said"),
    [
        ("{path}", 2, r"does not say of which network it is\. Give --weights NAME=FILE, such as resnet50="),
        ("resnet18={path}", 2, r"does not fit resnet18: "),
        ("test_vit={path}", 2, r"does not fit test_vit: "),
        ("medicalnet_resnet10={path}", 3, r"does not fit medicalnet_resnet10: The weights lack "),
        ("resnet18={junk}", 2, r"does not fit resnet18: this is no checkpoint that can be read safely"),
        ("resnet18={path}", 3, r"resnet18 does not read 3D images; medicalnet_resnet10, "),
        ("medicalnet_resnet18", 2, r"medicalnet_resnet18 does not read 2D images; timm's networks are for these"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, given, dims, said):
    path, _ = learnt(tmp_path, "pt")
    (tmp_path / "junk").write_text("junk")
    with pytest.raises(UsageError, match=said):
        fitting(given.format(path=path, junk=tmp_path / "junk"), DIAGNOSIS, dims)


def test_names_of_a_hub_that_cannot_be_reached_are_one_line(monkeypatch):
    def fail(repository, file):
        raise OSError(f"no route to {repository}/{file}")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    for name in ("resnet50.a1_in1k", "medicalnet_resnet18"):
        check(name)
        network = "timm_backbone" if "medical" not in name else "medicalnet"
        with pytest.raises(UsageError, match=rf"could not be downloaded \(OSError\)\. .*--weights {name}=FILE\.$"):
            file_of(name, network)


# ------------------------------------------------------------------------------------------------ reports
def test_a_language_model_of_a_folder_is_what_reports_start_from(tmp_path):
    folder = tiny_gpt2(tmp_path / "my model")
    for given in (str(folder), f"gpt2={folder}"):
        check(given)
        assert weights.task_of(given) == "report_generation"
        assert weights.full(given) == given  # the whole path
        found = fitting(given, REPORTS)
        assert [entry.name for entry in found] == ["report_cnn", "report_resnet"]
        assert all(entry.pretrained for entry in found)  # so that they learn slowly
        assert (weights.backbone(given, "report_cnn"), file_of(given, "report_cnn")) == ("gpt2", folder)


def test_a_folder_that_is_no_language_model_of_its_name_is_refused(tmp_path):
    folder = tiny_gpt2(tmp_path / "gpt2")
    with pytest.raises(UsageError, match=r"gpt2 holds a gpt2, not bert\. Give --weights"):
        check(f"bert={folder}")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UsageError, match=r"gpt2 lacks \*\.safetensors: a language model's folder holds config\.json"):
        check(str(folder))
    (folder / "model.safetensors").write_text("junk")
    with pytest.raises(UsageError, match="gpt2 holds a gpt2 whose weights cannot be read safely"):
        fitting(str(folder), REPORTS)
    with pytest.raises(UsageError, match=r"^openai is no language model, and a report generation reads nothing else"):
        fitting("openai", REPORTS)


def test_a_language_model_of_the_hub_is_fetched_as_files_without_pickles(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, local_dir, allow_patterns):
        asked.append((name, local_dir.name, allow_patterns))
        return str(tiny_gpt2(tmp_path / local_dir.name))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for name in ("distilgpt2", "openai-community/gpt2"):
        check(name)
        assert weights.task_of(name) == "report_generation"
        assert weights.backbone(name, "report_cnn") == name
        assert len(fitting(name, REPORTS)) == 2
    kinds = ["config.json", "tokenizer.json", "*.safetensors"]
    folders = ("distilgpt2", "openai-community--gpt2")
    assert asked == [(name, folder, kinds) for name, folder in zip(("distilgpt2", name), folders, strict=True)]


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))  # nothing was fetched before
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UsageError, match=r"^The language model 'nobody/gpt2' could not be downloaded \(") as refused:
        file_of("nobody/gpt2", "report_cnn")
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("Give its folder: --weights gpt2=FOLDER.")
