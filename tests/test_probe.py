"""A linear probe of CLIP's tokens, and how the parts of a detector's score count by their worth."""

import pytest
import torch
from mvfa_micro import micro

from m3dspy.workspace import mvfa
from m3dspy.workspace.mvfa.detector import Batch
from m3dspy.workspace.mvfa.probe import Probe, features
from m3dspy.workspace.mvfa.trunk import embedded

SIZE = (70, 70)


def stripes(count: int, across: int, seed: int) -> torch.Tensor:
    """Noisy pictures of stripes: down, or (1) across."""
    random = torch.Generator().manual_seed(seed)
    wave = 0.5 + 0.4 * torch.sin(torch.arange(70.0) / 1.5 + 6 * torch.rand(count, 1, generator=random))
    image = wave[:, None, None].expand(-1, 3, 70, -1)
    return (image.transpose(2, 3) if across else image) + 0.05 * torch.randn(count, 3, *SIZE, generator=random)


def batch(model: mvfa.MVFA, count: int, seed: int) -> Batch:
    images = torch.cat([stripes(count, across, seed + across) for across in (0, 1)])
    labels = torch.tensor([0] * count + [1] * count)
    text = torch.nn.functional.normalize(torch.randn(model.visual.output_dim, 2), dim=0)
    return Batch(model.frozen(images), text, labels, [None] * len(labels))


@pytest.fixture(scope="module")
def detector() -> tuple[mvfa.Detector, Batch, mvfa.MVFA]:
    """Adapters that know nothing of stripes, a bank of upright ones, and four of each kind to learn from."""
    model = micro(residual=(1.0, 0.0, 0.0)).eval()
    few, validation, test = (batch(model, count, seed) for count, seed in ((4, 10), (8, 20), (8, 30)))
    how = mvfa.Scoring(SIZE, pixels=False)
    found = mvfa.Detector.fitted(model, model.adapters, few.text, how, [few.frozen[:, :4]], [validation], [few])
    return found, test, model


def test_a_probe_tells_a_direction_that_few_images_show(detector):
    found, test, _ = detector
    assert mvfa.auroc(test.labels, found.parts(test.frozen)["probe image"]) > 0.9


def test_parts_count_by_what_they_are_worth_on_the_validation_images(detector):
    found, test, _ = detector
    assert sum(found.shares.values()) == pytest.approx(1)
    names = {"text image", "text highest", "bank image", "bank highest", "probe image", "highest"}
    assert set(found.shares) == names
    parts = found.parts(test.frozen)
    worth = {name: mvfa.auroc(test.labels, numbers) for name, numbers in found.images(parts).items()}
    assert mvfa.auroc(test.labels, found.scores(parts).image) > min(worth.values())
    assert found.shares["probe image"] == max(found.shares.values())


def test_a_detector_is_the_same_after_it_was_kept(detector, tmp_path):
    found, test, model = detector
    found.save(tmp_path)
    again = mvfa.Detector.load(tmp_path, model, model.adapters)
    assert again.shares == found.shares
    for kept, own in zip(again.answers(again.parts(test.frozen)), found.answers(found.parts(test.frozen)), strict=True):
        assert torch.equal(kept, own)


def test_a_probe_is_the_solution_of_its_equations():
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 40, generator=random), torch.tensor([0, 1, 0, 1, 1, 0])
    probe = Probe.fitted(x, y)
    z = ((x - x.mean(0)) / (x.std(0, correction=0) + 1e-6)).double()
    known = torch.where(y.bool(), 1.0, -1.0).double()
    weight = torch.linalg.solve(z.T @ z / 40 + 0.1 * torch.eye(40), z.T @ known / 40)
    torch.testing.assert_close(probe(x), (z @ weight).float(), rtol=1e-4, atol=1e-4)


def test_features_are_of_the_patches_alone():
    tokens = torch.randn(2, 3, 5, 4)
    other = tokens.clone()
    other[:, :, 0] += 1  # the class token
    assert features(tokens).shape == (3, 16)
    assert torch.equal(features(tokens), features(other))


def test_tokens_of_a_random_tower_tell_bright_from_dark():
    tower = mvfa.clip_model("ViT-B-32", 64).visual
    flat = [torch.full((1, 3, 64, 64), value) for value in (0.4, 0.8)]

    def alike() -> float:
        with torch.no_grad():
            dark, bright = (embedded(tower, image)[0, 1] for image in flat)
        return float(torch.cosine_similarity(dark, bright, dim=0))

    assert alike() < 0.95
    tower.positional_embedding.data.zero_()
    assert alike() > 0.999
