"""Weights of a pretrained CLIP are named, or fit a network, or are refused in one line."""

import pytest
import torch
from safetensors.torch import save_file

from m3dspy.errors import UsageError
from m3dspy.workspace.emit import networks
from m3dspy.workspace.weights import check, file_of, fitting

OFFERED = tuple(entry for entry in networks().values() if entry.task == "anomaly_detection")


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
