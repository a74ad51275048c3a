"""MVFA computes what its authors' code computes, faster; and says in one line what it cannot take."""

import os
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from mvfa_micro import golden, images, micro, micro_clip, stack

from m3dspy.workspace import mvfa
from m3dspy.workspace.mvfa import scoring, trunk

GOLDEN = golden()
TEXT, SIZE = GOLDEN["text"], GOLDEN["meta"]["size"]
NAMES = list(GOLDEN["adapters_fp16"])


@pytest.fixture(scope="module")
def model():
    return micro()


@pytest.fixture(scope="module")
def normals(model):
    """Tokens of the eleven views of the normal image."""
    with torch.no_grad():
        return model(mvfa.augment(GOLDEN["normal_u8"].float() / 255)[0])


def loss_and_gradients(model, number, kind, **given):
    model.zero_grad(set_to_none=True)
    mask = GOLDEN["mask"][number] if kind == "pixel" else None
    found = mvfa.losses(model(images()[number : number + 1]), TEXT, mask, GOLDEN["label"][number], SIZE, **given)
    found[kind].backward()
    return found, {name: value.grad for name, value in model.named_parameters() if name in NAMES}


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


# ------------------------------------------------------------------------------------------------ the reference
@pytest.mark.parametrize("number", [0, 1])
def test_tokens_and_maps_are_the_references(model, number):
    wanted = GOLDEN["expected"][number]
    with torch.no_grad():
        output = model(images()[number : number + 1])
    found = {
        "pooled": output.pooled,
        "seg_tokens": stack(output.seg_tokens)[:, 0],
        "det_tokens": stack(output.det_tokens)[:, 0],
        "seg_prob": mvfa.anomaly_map(output.seg_tokens, TEXT, SIZE)[:, 0],
        "det_prob": mvfa.patch_probability(output.det_tokens, TEXT)[:, 0],
        "zero_map": mvfa.anomaly_map(output.seg_tokens, TEXT, SIZE).sum(0),
        "zero_score_det": mvfa.patch_probability(output.det_tokens, TEXT).mean(2).sum(),
    }
    for name, value in found.items():
        torch.testing.assert_close(
            value, wanted[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("number", [0, 1])
def test_distances_to_the_bank_are_the_references(model, normals, number):
    wanted = GOLDEN["expected"][number]
    with torch.no_grad():
        output = model(images()[number : number + 1])
    seg, det = mvfa.MemoryBank(normals.seg_tokens), mvfa.MemoryBank(normals.det_tokens)
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(seg.distance(output.seg_tokens), wanted["few_patch_seg"], **close)
    torch.testing.assert_close(det.distance(output.det_tokens), wanted["few_patch_det"], **close)
    torch.testing.assert_close(seg.map(output.seg_tokens, SIZE), wanted["few_map_seg"], **close)
    torch.testing.assert_close(det.map(output.det_tokens, SIZE).mean(), wanted["few_score_det"], **close)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("kind", ["pixel", "image"])
def test_losses_and_gradients_are_the_references_and_none_where_it_has_none(model, number, kind):
    wanted = GOLDEN["expected"][number]
    found, gradients = loss_and_gradients(model, number, kind)
    assert found[kind].item() == pytest.approx(wanted[f"loss_{kind}"].item(), rel=1e-6)
    torch.testing.assert_close(found["det"], wanted["det_bce"], rtol=1e-6, atol=0)
    if kind == "pixel":
        torch.testing.assert_close(found["dice"], wanted["dice"], rtol=1e-6, atol=0)
        torch.testing.assert_close(found["focal"], wanted["focal"], rtol=4e-6, atol=0)  # 2.8e-6 off in float64 itself
    assert set(gradients) == set(wanted[f"grads_{kind}"])
    for name, value in wanted[f"grads_{kind}"].items():
        assert (gradients[name] is None) == (value is None), name
        assert value is None or relative(gradients[name], value) <= 1e-3, name


LAST_BIT = """
import torch
from test_mvfa import GOLDEN, SIZE, TEXT, mvfa

for number, wanted in enumerate(GOLDEN["expected"]):
    output = mvfa.MVFAOutput(None, wanted["seg_tokens"], wanted["det_tokens"])
    found = mvfa.losses(output, TEXT, GOLDEN["mask"][number], GOLDEN["label"][number], SIZE)
    torch.testing.assert_close(found["focal"], wanted["focal"], rtol=2e-7, atol=0)
"""


def test_from_the_references_tokens_the_losses_are_the_same_to_the_last_bit():
    """With MKL's sums in the one order that every processor has, which it must be told before it is loaded."""
    paths = {
        **os.environ,
        "MKL_CBWR": "COMPATIBLE",
        "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), *sys.path)),
    }
    done = subprocess.run([sys.executable, "-c", LAST_BIT], env=paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------ fast and exact
def test_a_batch_gives_what_its_images_give_alone_and_the_mean_of_their_losses(model):
    output = model(images())
    alone = [model(image[None]) for image in images()]
    together = mvfa.losses(output, TEXT, GOLDEN["mask"], GOLDEN["label"], SIZE)
    apart = [
        mvfa.losses(one, TEXT, GOLDEN["mask"][number], GOLDEN["label"][number], SIZE)
        for number, one in enumerate(alone)
    ]
    torch.testing.assert_close(output.pooled, torch.cat([one.pooled for one in alone]), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        stack(output.seg_tokens), torch.cat([stack(one.seg_tokens) for one in alone], 1), rtol=0, atol=1e-5
    )
    for name, value in together.items():
        torch.testing.assert_close(value, (apart[0][name] + apart[1][name]) / 2, rtol=3e-6, atol=1e-6)


def test_every_image_of_a_batch_may_have_its_own_text(model):
    output = model(images())
    other = torch.nn.functional.normalize(TEXT + 0.1, dim=0)
    found = mvfa.anomaly_map(output.seg_tokens, torch.stack([TEXT, other]), SIZE)
    for number, text in enumerate((TEXT, other)):
        alone = mvfa.anomaly_map(output.seg_tokens, text, SIZE)[:, number]
        torch.testing.assert_close(found[:, number], alone, rtol=0, atol=1e-6)


def test_tokens_may_be_a_list_or_a_tensor_and_of_one_image_without_the_batch(model, normals):
    seg = model(images()[:1]).seg_tokens
    bank = mvfa.MemoryBank(stack(normals.seg_tokens))
    for form in (stack(seg), stack(seg)[:, 0], list(seg)):
        assert torch.equal(mvfa.anomaly_map(form, TEXT, SIZE), mvfa.anomaly_map(seg, TEXT, (SIZE, SIZE)))
        assert torch.equal(bank.distance(form), bank.distance(seg))


def test_own_block_is_open_clips_with_and_without_gradients(model):
    x = torch.randn(2, 26, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for layer in model.visual.transformer.resblocks[:3]:
        ours, theirs = trunk.block(layer, x), layer(x)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
        assert relative(*gradients) <= 1e-5


def test_large_weights_are_multiplied_alike_by_onednn():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 9, 256, requires_grad=True), torch.randn(512, 256), torch.randn(512)
    results = []
    for multiplied in (trunk.linear, torch.nn.functional.linear):
        answer = multiplied(x, weight, bias)
        (gradient,) = torch.autograd.grad(answer.square().sum(), x)
        results.append((answer.detach(), gradient))
    weight.requires_grad_()
    trunk.linear(x, weight, bias).sum().backward()
    assert weight.grad is not None  # weights that are trained go the usual way
    for one, other in zip(*results, strict=True):
        assert float((one - other).norm() / other.norm()) < 1e-6


def test_own_block_is_open_clips_where_weights_are_large():
    torch.manual_seed(0)
    layer = open_clip.transformer.ResidualAttentionBlock(256, 4).requires_grad_(False)
    x = torch.randn(2, 17, 256)
    assert layer.attn.in_proj_weight.numel() > trunk._LARGE
    assert float((trunk.block(layer, x) - layer(x)).detach().abs().max()) < 1e-5


def test_trunk_has_no_gradients_and_stays_in_evaluation():
    model = micro().train()
    loss_and_gradients(model, 0, "pixel")
    assert not model.visual.training
    assert not any(value.requires_grad or value.grad is not None for value in model.visual.parameters())
    assert model.adapters.seg_adapters is model.seg_adapters
    assert set(NAMES) == {name for name, value in model.named_parameters() if value.requires_grad}


def test_frozen_and_adapted_make_the_tokens_of_forward(model):
    output = model(images())
    rest = model.adapted(model.frozen(images()))
    assert model.frozen(images()).shape == (2, 26, 32)
    assert rest.pooled is None
    assert torch.equal(stack(rest.seg_tokens), stack(output.seg_tokens))
    assert torch.equal(stack(rest.det_tokens), stack(output.det_tokens))


def test_without_residual_all_levels_are_frozen_and_clip_itself_is_pooled():
    model = micro(residual=(1, 0, 0))
    taps, output = model.frozen(images()), model(images())
    assert model.all_frozen and taps.shape == (4, 2, 26, 32)
    plain = model.visual.forward_intermediates(images(), indices=[5, 11, 17, 23], output_fmt="NLC")
    for tap, wanted in zip(taps, plain["image_intermediates"], strict=True):
        torch.testing.assert_close(tap[:, 1:], wanted, rtol=0, atol=2e-5)
    torch.testing.assert_close(output.pooled, model.visual(images()), rtol=0, atol=1e-5)
    assert torch.equal(stack(model.adapted(taps).seg_tokens), stack(output.seg_tokens))
    injecting = micro(residual=(1, 1e-30, 1e-30))(images())  # the same numbers, the long way round
    torch.testing.assert_close(stack(injecting.det_tokens), stack(output.det_tokens), rtol=0, atol=1e-5)


def test_other_adapters_of_the_same_form_can_be_put_on_a_trunk(model):
    average = mvfa.Adapters(32, 24, 4)
    mvfa.load_adapters(average, {name: 2 * value for name, value in GOLDEN["adapters_fp16"].items()})
    found = model.adapted(model.frozen(images()), average)
    wanted = model.adapted(model.frozen(images()))
    torch.testing.assert_close(found.seg_tokens[0], 2 * wanted.seg_tokens[0])


def test_levels_may_end_before_the_last_block_and_other_shares_go_on():
    model = mvfa.MVFA(micro_clip(), (3, 10), residual=(0.7, 0.3, 0.0))
    output = model(images())
    assert output.pooled.shape == (2, 24)
    assert len(output.seg_tokens) == len(mvfa.patch_probability(output.det_tokens, TEXT)) == 2
    output.seg_tokens[-1].sum().backward()
    assert model.seg_adapters[0].fc2[0].weight.grad is not None
    assert model.det_adapters[0].fc2[0].weight.grad is None


def test_images_need_not_be_square():
    model = micro((70, 103))  # 5 x 7 patches; the last 5 columns are not seen
    wide = torch.nn.functional.interpolate(images(), (70, 103))
    output = model(wide)
    assert mvfa.MemoryBank(output.seg_tokens).distance(output.seg_tokens).shape == (4, 2, 5, 7)
    maps = mvfa.anomaly_map(output.seg_tokens, TEXT, (70, 103))
    assert torch.equal(maps, mvfa.anomaly_map(stack(output.seg_tokens), TEXT, (70, 103)))
    rows = mvfa.patch_probability(output.seg_tokens, TEXT)[:, :, -7:]  # the lowest row of patches ends in the corners
    torch.testing.assert_close(maps[:, :, -1, [0, -1]], rows[:, :, [0, -1]], rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="35 patches make no square grid"):
        mvfa.MemoryBank(stack(output.seg_tokens)).distance(stack(output.seg_tokens))


def test_float64_stays_float64():
    model = micro().double()
    found = mvfa.losses(model(images().double()), TEXT, GOLDEN["mask"], [0, 1], SIZE)
    assert found["pixel"].dtype == torch.float64


# ------------------------------------------------------------------------------------------------ losses
def test_log_odds_have_a_gradient_where_a_probability_taken_for_log_odds_has_almost_none():
    text = torch.eye(2)  # columns: normal is the first feature, abnormal the second
    norms = {}
    for detection in ("probability", "log-odds"):
        sure = torch.tensor([[1.0, 0.0], [0.9, 0.3], [0.95, 0.2]]).expand(1, 1, 3, 2).clone().requires_grad_()
        output = mvfa.MVFAOutput(None, sure, sure)
        loss = mvfa.losses(output, text, None, [1], 14, detection=detection)["image"]  # surely normal, and wrong
        (norms[detection],) = (value.norm().item() for value in torch.autograd.grad(loss, sure))
    assert norms["probability"] < 1e-10
    assert norms["log-odds"] > 1


def test_log_odds_are_those_of_the_mean_probability(model):
    det = model(images()).det_tokens
    odds = torch.logit(mvfa.patch_probability(det, TEXT).double().mean(2))
    wanted = torch.nn.functional.softplus(torch.stack([odds[:, 0], -odds[:, 1]])).mean(0)  # labels 0 and 1
    found = mvfa.losses(mvfa.MVFAOutput(None, det, det), TEXT, None, [0, 1], SIZE, detection="log-odds")
    assert set(found) == {"det", "image"}
    torch.testing.assert_close(found["det"].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "form", [lambda m: m, lambda m: m[:, 0], lambda m: m.to(torch.uint8) * 255, lambda m: m.float()]
)
def test_masks_may_come_in_any_form(model, form):
    output = model(images())
    wanted = mvfa.losses(output, TEXT, GOLDEN["mask"], GOLDEN["label"], SIZE)
    found = mvfa.losses(output, TEXT, form(GOLDEN["mask"]), GOLDEN["label"].tolist(), (SIZE, SIZE))
    assert torch.equal(found["pixel"], wanted["pixel"])


# ------------------------------------------------------------------------------------------------ scores
def test_bank_in_pieces_finds_the_same_and_may_leave_class_tokens_out(model, normals, monkeypatch):
    seg = model(images()).seg_tokens
    whole = mvfa.MemoryBank(normals.seg_tokens).distance(seg)
    monkeypatch.setattr(scoring, "_CELLS", 300)
    torch.testing.assert_close(mvfa.MemoryBank(normals.seg_tokens).distance(seg), whole, rtol=0, atol=1e-6)
    without = mvfa.MemoryBank(normals.seg_tokens, cls=False)
    assert [len(rows) for rows in without.rows] == [11 * 25] * 4
    assert (without.distance(seg) >= whole - 1e-6).all()
    torch.testing.assert_close(mvfa.MemoryBank.of_rows(without.rows).distance(seg), without.distance(seg))


def test_what_is_in_the_bank_is_at_no_distance(normals):
    far = mvfa.MemoryBank(normals.seg_tokens).distance(normals.seg_tokens)
    assert far.abs().max() < 1e-6


def test_one_interpolation_of_the_sum_is_the_sum_of_four(model, normals):
    bank, seg = mvfa.MemoryBank(normals.seg_tokens), model(images()).seg_tokens
    for corners in (True, False):
        four = mvfa.upsampled(bank.distance(seg), (70, 90), align_corners=corners).sum(0)
        torch.testing.assert_close(bank.map(seg, (70, 90), align_corners=corners), four, rtol=0, atol=1e-6)


def test_scale_of_a_reference_set_scores_one_image_alone():
    scale = mvfa.Scale.of(torch.tensor([1.0, 3.0]))
    assert scale == mvfa.Scale(2.0, 1.0)
    assert scale.apply(torch.tensor(4.0)) == 2
    assert mvfa.Scale.of(torch.ones(3)).apply(torch.tensor(1.0)) == 0


def test_fusion_by_minimum_and_maximum_is_the_papers():
    text, bank = torch.tensor([0.0, 2.0, 4.0]), torch.tensor([1.0, 1.5, 2.0])
    assert mvfa.fuse(mvfa.min_max(text), mvfa.min_max(bank), 0.5).tolist() == [0, 0.5, 1]
    assert mvfa.fuse(1.0, 3.0, 0.25) == 1.5


def test_auroc_is_sklearns_with_ties_and_exact():
    from sklearn.metrics import roc_auc_score

    made = torch.Generator().manual_seed(0)
    truth = torch.rand(40, 50, generator=made) < 0.2
    for score in (torch.rand(40, 50, generator=made), torch.randint(0, 5, (40, 50), generator=made)):
        assert mvfa.auroc(truth, score) == pytest.approx(roc_auc_score(truth.flatten(), score.flatten()), abs=1e-12)
    assert mvfa.auroc([0, 1, 1], [1, 1, 2]) == 0.75  # pairs: a tie and a win
    with pytest.raises(ValueError, match="AUROC needs normal and abnormal cases; given 0 normal and 2 abnormal"):
        mvfa.auroc([1, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="not a number"):
        mvfa.auroc([0, 1], [0.1, float("nan")])


# ------------------------------------------------------------------------------------------------ views
def test_views_are_the_references():
    views, masks = mvfa.augment(GOLDEN["normal_u8"].float() / 255)
    assert masks is None
    torch.testing.assert_close(views.double().sum((1, 2, 3)), GOLDEN["bank_imgs_checksum"], rtol=1e-7, atol=0)


def test_eleven_views_begin_with_all_images_as_they_are_and_end_mirrored():
    views, masks = mvfa.augment(images(), GOLDEN["mask"])
    assert views.shape == (22, 3, 70, 70) and masks.shape == (22, 1, 70, 70) and masks.dtype == torch.bool
    assert torch.equal(views[:2], images()) and torch.equal(masks[:2], GOLDEN["mask"])
    assert torch.equal(views[18:20], images().flip(-1)) and torch.equal(masks[20:], GOLDEN["mask"].flip(-2))
    assert mvfa.augment(images(), GOLDEN["mask"][:, 0])[1].shape == (22, 70, 70)
    assert len(mvfa.augment(images(), flips=("horizontal",))[0]) == 20


def test_images_move_by_a_tenth_of_half_their_size_and_masks_with_them():
    ramp = torch.arange(40.0).expand(1, 3, 20, 40) / 40
    views, masks = mvfa.augment(ramp, ramp[:, 0] >= 0.5)
    moved = views[5][0, 0]  # by (0.1, 0.1): what was 2 columns to the right, and 1 row below
    torch.testing.assert_close(moved[:38], ramp[0, 0, 0, 2:])
    assert masks[5][0].nonzero().min() == 18 and masks[0][0].nonzero().min() == 20


def test_turning_keeps_what_is_round_round_in_an_image_that_is_not_square():
    rows, columns = torch.meshgrid(torch.arange(40) - 19.5, torch.arange(80) - 39.5, indexing="ij")
    disc = (rows**2 + columns**2 < 15**2).float().expand(1, 3, 40, 80)
    views, _ = mvfa.augment(disc)
    for turned in views[1:5]:
        assert (turned - disc[0]).abs().mean() < 0.01


def test_strength_scales_angles_and_distances():
    views, _ = mvfa.augment(images(), strength=0.0)
    for start in range(0, 18, 2):
        torch.testing.assert_close(views[start : start + 2], images(), rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------ what it cannot take
def wide_clip():
    """A tower of 12 blocks."""
    tower = {"image_size": 28, "layers": 12, "width": 16, "head_width": 8, "patch_size": 14}
    return open_clip.CLIP(8, tower, {"layers": 1, "width": 8, "heads": 1})


def test_levels_beyond_the_backbone_are_named_with_its_quarters():
    clip = wide_clip()
    with pytest.raises(
        ValueError, match=r"Levels 6, 12, 18, 24 reach beyond this backbone's 12 blocks; .* 3, 6, 9, 12"
    ):
        mvfa.MVFA(clip)
    with pytest.raises(ValueError, match="block numbers from 1 on"):
        mvfa.MVFA(clip, (0, 3))
    with pytest.raises(ValueError, match="A bottleneck of 4 cannot be compared with this CLIP's texts of 8 features"):
        mvfa.MVFA(clip, (3, 6), bottleneck=4)
    with pytest.raises(ValueError, match=r"residual is \(0.8, 0.0, 0.0\)"):
        mvfa.MVFA(clip, (3, 6), residual=(0.8, 0, 0))
    assert mvfa.MVFA(clip, (3, 6), bottleneck=8).layers == (3, 6)


def test_a_tower_that_is_no_vision_transformer_is_named():
    tower = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}
    clip = open_clip.CLIP(8, tower, {"layers": 1, "width": 8, "heads": 1})
    with pytest.raises(ValueError, match="The image tower is a ModifiedResNet; MVFA needs a vision transformer"):
        mvfa.MVFA(clip)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(1, 3, 70, 70, dtype=torch.uint8), "The images are 8-bit integers; give floats from 0 to 1"),
        (torch.zeros(1, 3, 70, 70, dtype=torch.uint16), "The images are 16-bit integers; give floats from 0 to 1"),
        (torch.full((1, 3, 70, 70), 65535.0), "The images hold values up to 65535; give floats from 0 to 1"),
        (torch.full((1, 3, 70, 70), torch.nan), "give floats from 0 to 1, without gaps"),
        (torch.zeros(1, 1, 70, 70), r"give \(images, 3, rows, columns\), grey repeated 3 times"),
        (torch.zeros(1, 3, 70, 98), "The images have 70 x 98 pixels; this backbone was built for 5 x 5 patches of 14"),
    ],
)
def test_images_of_another_form_are_named(model, given, message):
    with pytest.raises(ValueError, match=message):
        model(given)


def test_masks_labels_and_texts_that_do_not_fit_are_named(model):
    output = model(images())
    with pytest.raises(ValueError, match="The masks are 2 x 64 x 64; 2 images of 70 x 70 pixels need 2 x 70 x 70"):
        mvfa.losses(output, TEXT, torch.zeros(2, 64, 64), [0, 1], SIZE)
    with pytest.raises(ValueError, match="There are 1 labels for 2 images"):
        mvfa.losses(output, TEXT, None, 1, SIZE)
    with pytest.raises(ValueError, match=r"Text features are \(2, 24\); these tokens need \(24, 2\)"):
        mvfa.patch_probability(output.seg_tokens, TEXT.T)
    with pytest.raises(ValueError, match="The bank holds 4 levels of 24 features; the tokens have 2 of 24"):
        mvfa.MemoryBank(output.seg_tokens).distance(output.seg_tokens[:2])
    with pytest.raises(ValueError, match=r"The masks are \(2, 64, 64\), for images of \(2, 3, 70, 70\)"):
        mvfa.augment(images(), torch.zeros(2, 64, 64))
    with pytest.raises(ValueError, match="The images are uint8"):
        mvfa.augment(GOLDEN["img_u8"])


# ------------------------------------------------------------------------------------------------ checkpoints
def test_a_checkpoint_in_the_authors_form_comes_back_as_it_went(model, tmp_path):
    mvfa.save_adapters(model, tmp_path / "few.pth")
    held = torch.load(tmp_path / "few.pth", weights_only=True)
    assert set(held) == {"seg_adapters", "det_adapters"}
    assert {f"seg_adapters.{name}" for name in held["seg_adapters"]} == {n for n in NAMES if n.startswith("seg")}
    assert held["det_adapters"]["3.fc1.0.weight"].shape == (24, 32)
    other = mvfa.MVFA(micro_clip())
    mvfa.load_adapters(other, tmp_path / "few.pth")
    assert torch.equal(stack(other(images()).seg_tokens), stack(model(images()).seg_tokens))
    third = mvfa.MVFA(micro_clip())
    third.seg_adapters.load_state_dict(held["seg_adapters"])
    assert torch.equal(third.adapters.seg_adapters[0].fc1[0].weight, model.seg_adapters[0].fc1[0].weight)


def test_checkpoints_that_do_not_fit_are_named(tmp_path):
    small = mvfa.MVFA(wide_clip(), (3, 6, 9, 12))
    with pytest.raises(
        ValueError, match=r"seg_adapters.0.fc1.0.weight is 24 x 32 in the checkpoint and 8 x 16 in the mod"
    ):
        mvfa.load_adapters(small, GOLDEN["adapters_fp16"])
    with pytest.raises(ValueError, match=r"lacks seg_adapters.2.fc1.0.weight and 7 more of 16 tensors"):
        mvfa.load_adapters(small, {name: value for name, value in GOLDEN["adapters_fp16"].items() if name[13] < "2"})
    (tmp_path / "bad.pth").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="is no checkpoint of adapters"):
        mvfa.load_adapters(small, tmp_path / "bad.pth")


def test_positions_that_were_put_in_by_hand_say_how_many_patches_there_are(model):
    by_hand = mvfa.MVFA(micro_clip(336))
    mvfa.load_adapters(by_hand, golden()["adapters_fp16"])
    by_hand.visual.positional_embedding = model.visual.positional_embedding
    for one, other in zip(by_hand(images()).seg_tokens, model(images()).seg_tokens, strict=True):
        assert torch.equal(one, other)
