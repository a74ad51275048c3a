"""Pipelines broken the way real ones are: the grade must tell each of them from the sound one, on two seeds."""

import shutil
from collections.abc import Callable
from copy import copy
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from m3dspy.m3bench import reference, task
from m3dspy.m3bench.grade import grade
from m3dspy.signatures.values import Design, Grade, Index

pytestmark = pytest.mark.soak
SEEDS = (0, 1)


class Bench:
    """A phantom, an expert's index and a recipe short enough for a test."""

    def __init__(self, name: str, home: Path, size: int | None = None, **short: object):
        self.task, self.home, self.root = task.find(name), home, home / name
        task.make(name, self.root, size=size)
        self.index = self.task.gold(self.root, 0)
        self.design = reference.chosen(self.task, self.index, self.root).model_copy(update=short)

    def elsewhere(self, home: Path) -> "Bench":
        """The same on other images, which are yet to be written."""
        other = copy(self)
        other.home, other.root = home, home / "images"
        return other

    def predictions(
        self, kind: str, seed: int, design: Design | None = None, index: Index | None = None, **how
    ) -> Path:
        """What the recipe answers; trained once a kind and seed."""
        home = self.home / f"{kind}-{seed}"
        if not home.is_dir():
            home.mkdir()
            reference.trained(design or self.design, index or self.index, self.root, home, seed=seed, **how)
        return home / "out" / "predictions"

    def graded(self, predictions: Path, index: Index | None = None, control: Path | None = None) -> Grade:
        index = index or self.index
        return grade(
            index,
            self.root,
            predictions,
            checkpoint=predictions.parent / "model.safetensors",
            control=control,
            oracle=task.oracle(self.root, index),
        )


@pytest.fixture(scope="module")
def lungs(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Sided organs in volumes of different orientation."""
    return Bench("COVID19", tmp_path_factory.mktemp("lungs"), 40, epochs=14)


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Patients with several images each."""
    return Bench("ADNI", tmp_path_factory.mktemp("visits"))


@pytest.fixture(scope="module")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Radiographs with reports."""
    return Bench("IU-Xray", tmp_path_factory.mktemp("chests"), 240)


@pytest.mark.parametrize("seed", SEEDS)
def test_shuffled_labels_do_no_better_than_the_trivial_answer(lungs: Bench, visits: Bench, seed: int):
    for bench in (lungs, visits):
        sound, broken = bench.predictions("sound", seed), bench.predictions("shuffled", seed, shuffled=True)
        assert bench.graded(sound, control=broken).s2
        assert not bench.graded(broken, control=broken).s2
        assert bench.graded(broken).score.value < bench.graded(sound).score.low


@pytest.mark.parametrize("seed", SEEDS)
def test_swapped_label_names_cost_the_score(lungs: Bench, visits: Bench, seed: int, tmp_path: Path):
    sound = lungs.predictions("sound", seed)
    swapped = _rewritten(sound, tmp_path, lambda mask: np.choose(mask, (0, 2, 1, 3)))
    assert lungs.graded(swapped).score.high < lungs.graded(sound).score.low

    table = (visits.predictions("sound", seed) / "predictions.csv").read_text().splitlines()
    other = tmp_path / "names"
    other.mkdir()
    rows = [line.split(",") for line in table]
    first, last = 2, len(rows[0]) - 1
    for row in rows[1:]:
        row[first], row[last] = row[last], row[first]
    (other / "predictions.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    assert visits.graded(other).score.value < 0.5 < visits.graded(visits.predictions("sound", seed)).score.low


@pytest.mark.parametrize("seed", SEEDS)
def test_ignored_orientation_costs_the_score(lungs: Bench, seed: int, tmp_path: Path):
    blind = lungs.elsewhere(tmp_path)
    for path in sorted(lungs.root.rglob("*.nii.gz")):
        image = nibabel.load(path)
        flat = blind.root / path.relative_to(lungs.root)
        flat.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(image.dataobj), np.eye(4)), flat)
    told = blind.predictions("blind", seed, lungs.design.model_copy(update={"spacing": (1.0, 1.0, 1.0)}))
    masks = {item.id: nibabel.load(lungs.root / str(item.label)).affine for item in lungs.index.test}
    for path in told.glob("*.nii.gz"):
        affine = masks[path.name.removesuffix(".nii.gz")]
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), affine), path)
    assert lungs.graded(lungs.predictions("sound", seed), control=told).s2


@pytest.mark.parametrize("seed", SEEDS)
def test_mirrored_training_images_cost_sided_labels(lungs: Bench, seed: int):
    mirrored = lungs.predictions("mirrored", seed, lungs.design.model_copy(update={"flips": (0,)}))
    assert lungs.graded(lungs.predictions("sound", seed), control=mirrored).s2


@pytest.mark.parametrize("seed", SEEDS)
def test_reports_written_without_a_look_at_the_image_are_told(chests: Bench, seed: int, tmp_path: Path):
    blind = chests.elsewhere(tmp_path)
    shutil.copytree(chests.root, blind.root)
    for path in blind.root.rglob("*.png"):
        Image.new("L", Image.open(path).size, 128).save(path)
    told = blind.predictions("blind", seed)
    assert chests.graded(chests.predictions("sound", seed), control=told).s2
    assert not chests.graded(told).s2


def test_a_patient_in_two_splits_scores_above_the_oracle(visits: Bench):
    leaks = [_leaky(visits.index, seed) for seed in SEEDS]
    flagged = [
        visits.graded(visits.predictions("leak", seed, index=index), index)
        for seed, index in zip(SEEDS, leaks, strict=True)
    ]
    sound = [visits.graded(visits.predictions("sound", seed)) for seed in SEEDS]
    assert any(found.above_oracle for found in flagged)
    assert not any(found.above_oracle for found in sound)
    assert np.mean([found.score.value for found in flagged]) > max(found.score.value for found in sound)


def _leaky(index: Index, seed: int) -> Index:
    """The same cases dealt one by one, whoever they are of."""
    items = [*index.training, *index.validation, *index.test]
    order = np.random.default_rng(seed).permutation(len(items))
    dealt = [items[i] for i in order]
    cut, end = len(index.training), len(index.training) + len(index.validation)
    return index.model_copy(
        update={"training": tuple(dealt[:cut]), "validation": tuple(dealt[cut:end]), "test": tuple(dealt[end:])}
    )


def _rewritten(predictions: Path, out: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """The masks of a folder, changed."""
    folder = out / "rewritten"
    folder.mkdir()
    for path in predictions.glob("*.nii.gz"):
        image = nibabel.load(path)
        mask = change(np.asanyarray(image.dataobj).astype(np.uint8)).astype(np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, image.affine), folder / path.name)
    return folder
