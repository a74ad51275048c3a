"""CLIPs with weights from anywhere, texts, and what is kept of both."""

import json

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from mvfa_micro import images, micro, micro_clip

from m3dspy.workspace import mvfa
from m3dspy.workspace.mvfa import backbone, features, text

TOWER = {"image_size": 56, "layers": 4, "width": 16, "head_width": 8, "patch_size": 14}
WORDS = {"layers": 2, "width": 16, "heads": 2}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """The name of a tiny CLIP that open_clip knows."""
    file = tmp_path_factory.mktemp("configs") / "ViT-mvfa-test.json"
    file.write_text(json.dumps({"embed_dim": 8, "quick_gelu": True, "vision_cfg": TOWER, "text_cfg": WORDS}))
    open_clip.add_model_config(file)
    return file.stem


@pytest.fixture(scope="module")
def clip(network):
    return mvfa.clip_model(network, 56)


# ------------------------------------------------------------------------------------------------ building
def test_random_weights_are_always_the_same_and_the_generator_goes_on_as_if_nothing_were(network, clip):
    torch.manual_seed(7)
    other = mvfa.clip_model(network, 56)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert mvfa.fingerprint(other) == mvfa.fingerprint(clip)
    assert backbone.text_fingerprint(other) == backbone.text_fingerprint(clip)


def test_activation_goes_into_both_towers_and_the_fingerprint(network, clip):
    for activation, name in (("own", "QuickGELU"), ("gelu", "GELU"), ("quick_gelu", "QuickGELU")):
        made = mvfa.clip_model(network, 56, activation=activation)
        towers = (made.visual.transformer, made.transformer)
        assert {type(layer.mlp.gelu).__name__ for tower in towers for layer in tower.resblocks} == {name}
        assert (mvfa.fingerprint(made) == mvfa.fingerprint(clip)) == (name == "QuickGELU")


def test_unknown_networks_and_sizes_are_named(network):
    with pytest.raises(ValueError, match=r"open_clip has no network 'ViT-L14-336'. Did you mean 'ViT-L-14-336'\?"):
        mvfa.clip_model("ViT-L14-336", 240)
    with pytest.raises(ValueError, match="RN50 has no plain vision transformer"):
        mvfa.clip_model("RN50", 240)
    with pytest.raises(ValueError, match="ViT-B-16-SigLIP has no plain vision transformer"):
        mvfa.clip_model("ViT-B-16-SigLIP", 240)
    with pytest.raises(ValueError, match="roberta-ViT-B-32 reads texts in another way than CLIP"):
        mvfa.clip_model("roberta-ViT-B-32", 240)
    with pytest.raises(ValueError, match="Images of 10 x 56 pixels are smaller than a patch"):
        mvfa.clip_model(network, (10, 56))


# ------------------------------------------------------------------------------------------------ weights
def saved(clip, form, path):
    """The weights of a CLIP in one of the forms they are found in."""
    weights = clip.state_dict()
    if form == "safetensors":
        safetensors.torch.save_file({name: value.contiguous() for name, value in weights.items()}, path)
    elif form == "torchscript":
        given = torch.zeros(1, 3, 56, 56), torch.ones(1, 77, dtype=torch.long)
        torch.jit.trace(clip, given, check_trace=False).save(path)
    elif form == "authors":
        named = {f"clipmodel.{name}": value for name, value in weights.items()}
        named |= {f"image_encoder.{n[7:]}": value for n, value in weights.items() if n.startswith("visual.")}
        torch.save(named | {"seg_adapters.0.fc1.0.weight": torch.zeros(8, 16)}, path)
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, path)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", ["safetensors", "torchscript", "authors", "checkpoint"])
def test_weights_are_read_in_every_form_they_are_found_in(network, tmp_path, form):
    torch.manual_seed(1)
    other = open_clip.create_model(network).eval()
    path = tmp_path / "weights"  # what a file is, is told by its beginning
    saved(other, form, path)
    found = mvfa.clip_model(network, 56, path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in found.state_dict().items())


def test_half_precision_becomes_float32_before_positions_are_resized(network, tmp_path):
    torch.manual_seed(1)
    other = open_clip.create_model(network).half()
    torch.save(other.state_dict(), tmp_path / "half.pt")
    found = mvfa.clip_model(network, (42, 70), tmp_path / "half.pt")
    wanted = other.visual.positional_embedding.float()[1:].reshape(1, 4, 4, 16).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.interpolate(wanted, (3, 5), mode="bicubic", antialias=True, align_corners=False)
    assert found.visual.positional_embedding.dtype == torch.float32
    torch.testing.assert_close(found.visual.positional_embedding[1:], wanted.flatten(2)[0].T)


def test_from_pretrained_puts_adapters_on_weights(network, clip, tmp_path):
    saved(clip, "checkpoint", tmp_path / "clip.pt")
    torch.manual_seed(2)
    trained = mvfa.MVFA(clip, (1, 2, 3, 4))
    mvfa.save_adapters(trained, tmp_path / "adapters.pth")
    found = mvfa.MVFA.from_pretrained(
        tmp_path / "clip.pt", tmp_path / "adapters.pth", network=network, size=56, layers=(1, 2, 3, 4)
    )
    x = torch.rand(1, 3, 56, 56)
    assert torch.equal(found(x).seg_tokens[3], trained(x).seg_tokens[3])


def test_weights_that_cannot_be_had_are_named(network, tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match="openai is neither a file nor weights that open_clip knows for ViT-mvfa-test: n"
    ):
        mvfa.clip_model(network, 56, "openai")

    def unplugged(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", unplugged)
    with pytest.raises(
        ValueError, match=r"'openai' of ViT-B-32 could not be downloaded \(OSError\); give the path of a f"
    ):
        backbone.weights_file("ViT-B-32", "openai")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"text.pt is no checkpoint that can be read safely"):
        mvfa.clip_model(network, 56, tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match=r"list.pt holds no tensors by name"):
        mvfa.clip_model(network, 56, tmp_path / "list.pt")


def test_no_code_in_a_checkpoint_is_run(network, tmp_path):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").mkdir, ())

    torch.save({"visual.proj": torch.zeros(1), "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="is no checkpoint that can be read safely"):
        mvfa.clip_model(network, 56, tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_named(network, clip):
    weights = clip.state_dict()
    with pytest.raises(ValueError, match=r"visual.proj is 16 x 4 in the weights and 16 x 8 in the network"):
        mvfa.clip_model(network, 56, weights | {"visual.proj": torch.zeros(16, 4)})
    lacking = {name: value for name, value in weights.items() if name.startswith("visual.")}
    with pytest.raises(ValueError, match=r"The weights lack positional_embedding and \d+ more of \d+ tensors"):
        mvfa.clip_model(network, 56, lacking)


# ------------------------------------------------------------------------------------------------ texts
def test_paper_prompts_are_245_normal_and_175_abnormal():
    normal, abnormal = mvfa.PAPER_STATES.prompts("Brain")
    assert (len(normal), len(abnormal), len(set(normal + abnormal))) == (245, 175, 420)
    assert normal[0] == "a bad photo of a Brain." and "a photo of my unblemished Brain." in normal
    assert abnormal[-1] == "this is one Brain with damage in the scene."


def test_texts_end_where_the_longest_prompt_does_and_change_nothing():
    clip = micro_clip()
    tokens = open_clip.tokenize(["a photo of a liver CT.", "this is one damaged histopathological image in the scene."])
    with torch.no_grad():
        torch.testing.assert_close(text.encoded(clip, tokens), clip.encode_text(tokens), rtol=0, atol=1e-6)


def test_text_features_are_means_of_unit_features_of_all_prompts(clip):
    with torch.no_grad():
        sides = [torch.nn.functional.normalize(clip.encode_text(open_clip.tokenize(prompts)), dim=-1).mean(0)
                 for prompts in mvfa.MEDICAL_STATES.prompts("liver CT")]  # fmt: skip
    wanted = torch.stack([side / side.norm() for side in sides], 1)
    torch.testing.assert_close(mvfa.text_features(clip, "liver CT"), wanted, rtol=0, atol=1e-6)


def test_text_features_are_kept_by_words_and_weights(network, clip, tmp_path, monkeypatch):
    first = mvfa.text_features(clip, "liver CT", cache=tmp_path)
    mvfa.text_features(clip, "brain MR", cache=tmp_path)
    mvfa.text_features(clip, "liver CT", mvfa.PAPER_STATES, cache=tmp_path)
    mvfa.text_features(mvfa.clip_model(network, 56, activation="gelu"), "liver CT", cache=tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 4
    monkeypatch.setattr(text, "encoded", None)  # nothing is computed again
    assert torch.equal(mvfa.text_features(clip, "liver CT", cache=tmp_path), first)
    assert torch.equal(mvfa.text_features(clip, "liver CT", folders=[tmp_path]), first)


# ------------------------------------------------------------------------------------------------ features
@pytest.fixture
def counted():
    """MVFA's `frozen`, and how many images it was given."""
    model, seen = micro(), []

    def compute(some):
        seen.append(len(some))
        return model.frozen(some)

    return compute, seen


def test_features_are_computed_once_and_come_back_bit_by_bit(counted, tmp_path):
    compute, seen = counted
    batch = images()[[0, 1, 0]]
    cache = mvfa.FeatureCache("k", write=tmp_path)
    arrays = cache.of(batch, compute)
    assert seen == [2] and len(arrays) == 3
    assert torch.equal(torch.from_numpy(np.stack(arrays[1::-1])), compute(images()[[1, 0]]))
    cache.of(batch, compute)
    again = mvfa.FeatureCache("k", folders=[tmp_path]).of(batch, compute)
    assert seen == [2, 2]
    assert all(np.array_equal(one, two) for one, two in zip(arrays, again, strict=True))
    assert {len(file.stem) for file in tmp_path.iterdir()} == {32}


def test_another_key_or_another_image_is_computed_anew(counted, tmp_path):
    compute, seen = counted
    mvfa.FeatureCache("k", write=tmp_path).of(images()[:1], compute)
    mvfa.FeatureCache("other", write=tmp_path).of(images()[:1], compute)
    mvfa.FeatureCache("k", write=tmp_path).of(images()[:1].nextafter(torch.tensor(1.0)), compute)
    assert seen == [1, 1, 1] and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("writes", [True, False])
def test_what_memory_does_not_hold_is_mapped_from_files(counted, tmp_path, writes):
    compute, _ = counted
    one = 26 * 32 * 4 / 1e9
    cache = mvfa.FeatureCache("k", write=tmp_path if writes else None, gigabytes=1.5 * one)
    first, second = cache.of(images(), compute)
    assert [isinstance(array, np.memmap) for array in (first, second)] == [False, True]
    assert torch.equal(torch.from_numpy(np.stack([first, second])), compute(images()))
    assert len(list(tmp_path.iterdir())) == 2 * writes


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:200], lambda data: data[:-99] + bytes(99)]
)
def test_a_damaged_file_is_not_trusted(counted, tmp_path, damage):
    compute, seen = counted
    (wanted,) = mvfa.FeatureCache("k", write=tmp_path).of(images()[:1], compute)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    (found,) = mvfa.FeatureCache("k", write=tmp_path).of(images()[:1], compute)
    assert seen == [1, 1] and np.array_equal(found, wanted)
    assert file.read_bytes() == whole  # written anew


def test_a_damaged_file_in_a_folder_that_is_only_read_is_not_mapped_either(counted, tmp_path):
    compute, _ = counted
    old, new = tmp_path / "old", tmp_path / "new"
    (wanted,) = mvfa.FeatureCache("k", write=old).of(images()[:1], compute)
    (file,) = old.iterdir()
    file.write_bytes(file.read_bytes()[:-99] + bytes(99))
    (found,) = mvfa.FeatureCache("k", [old], new, gigabytes=0).of(images()[:1], compute)
    assert isinstance(found, np.memmap) and np.array_equal(found, wanted)


def test_many_images_are_computed_a_few_at_a_time(counted):
    compute, seen = counted
    many = images()[:1] * torch.linspace(0.1, 1, 40)[:, None, None, None]
    assert len(mvfa.FeatureCache("k").of(many, compute)) == 40
    assert seen == [16, 16, 8]


def test_an_array_is_written_at_once_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(features.Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        features.write_array(tmp_path, "0" * 32, np.zeros(3))
    assert features.read_array([tmp_path], "0" * 32) is None
