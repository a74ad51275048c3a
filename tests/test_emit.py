"""A design is checked, then written as a folder that trains with no m3dspy installed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from m3dspy.errors import M3Error, UsageError
from m3dspy.signatures.values import Design, Index, Item, Knob
from m3dspy.workspace import emit

HEADS = Index(task="classification", labels=("CN", "AD"))
CHESTS = Index(task="segmentation", labels=("left lung", "right lung"), values=(1, 2))


def classifier(**more) -> Design:
    chosen = {"template": "classify", "network": "cnn", "dims": 3, "size": (16, 16, 16), "intensity": "zscore"}
    return Design(**(chosen | {"loss": "ce", "lr": 2e-3, "batch": 4, "epochs": 1} | more))


def segmenter(**more) -> Design:
    chosen = {"template": "segment", "network": "unet", "dims": 3, "size": (48, 48, 24), "intensity": "percentile"}
    return Design(**(chosen | {"loss": "dice_ce", "lr": 3e-3, "batch": 2, "epochs": 1} | more))


def detector(**more) -> Design:
    chosen = {"template": "detect", "network": "clip_vit_b16", "dims": 2, "channels": 3, "size": (64, 64)}
    chosen |= {"intensity": "unit", "loss": "log-odds", "shots": 2}
    return Design(**(chosen | {"lr": 2e-3, "batch": 4, "epochs": 1} | more))


def livers(normal=2, abnormal=2) -> Index:
    kinds = ["normal"] * normal + ["abnormal"] * abnormal
    items = tuple(Item(id=f"c{i}", patient=f"p{i}", image=f"{i}.png", label=kind) for i, kind in enumerate(kinds))
    return Index(task="anomaly_detection", labels=("normal", "abnormal"), about="liver CT", training=items)


def test_the_catalogue_is_read_without_importing_torch():
    code = "import sys; from m3dspy.workspace.emit import catalogue; catalogue(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_catalogue_offers_a_small_and_a_strong_network_for_every_task_and_dimension():
    for task in ("classification", "segmentation"):
        found = emit.catalogue(task)
        assert [template.task for template in found.templates if template.needs is None] == [task]
        for dims in (2, 3):
            assert {entry.size for entry in found.networks if dims in entry.dims} == {"small", "strong"}
        assert all(entry.about for entry in (*found.templates, *found.networks))
    found = emit.catalogue("anomaly_detection")
    assert found.templates[0].presets[:2] == ("default", "paper")
    assert {entry.size for entry in found.networks} == {"small", "strong"}
    assert {entry.dims for entry in found.networks} == {(2,)}


def test_only_settings_that_may_be_tuned_are_offered_with_their_defaults():
    settings = emit.templates()["classify"].settings
    assert settings["dropout"] == "0.3"
    assert not {"about", "shots", "draw", "scale"} & set(emit.templates()["detect"].settings)
    assert not {"labels", "size", "spacing", "seed", "shuffled", "network", "precision"} & set(settings)


def test_a_good_design_has_no_problems():
    knobs = {"lr": Knob(low=1e-4, high=1e-2, log=True), "width": Knob(low=4, high=16, whole=True)}
    assert emit.check_design(classifier(space=knobs | {"loss": Knob(choices=("ce", "focal"))}), HEADS) == []
    assert emit.check_design(segmenter(), CHESTS) == []
    assert emit.check_design(detector(space={"residual": Knob(choices=(0.0, 0.2))}), livers()) == []
    assert emit.check_design(detector(preset="paper", space={"residual": Knob(low=0.1, high=0.4)}), livers()) == []


@pytest.mark.parametrize(
    ("design", "index", "words"),
    [
        (classifier(template="clasify"), HEADS, "No template is called 'clasify'. Did you mean 'classify'?"),
        (classifier(network="cn"), HEADS, "No network is called 'cn'. Did you mean 'cnn'?"),
        (classifier(network="unet"), HEADS, "network unet serves 2D and 3D segmentation, not 3D classification"),
        (classifier(), CHESTS, "template classify is for classification, the index is for segmentation"),
        (classifier(loss="dice_ce"), HEADS, "No loss of template classify is called 'dice_ce'"),
        (
            segmenter(size=(48, 48, 20)),
            CHESTS,
            "size 48 x 48 x 20: network unet needs multiples of 8, such as 48 x 48 x 16",
        ),
        (classifier(size=(16, 16, 4)), HEADS, "size 16 x 16 x 4: every axis needs 8 voxels or more"),
        (classifier(size=(512, 512, 512)), HEADS, "a batch of 4 x 512 x 512 x 512 is 537 million voxels"),
        (classifier(spacing=(1.0, 0.0, 1.0)), HEADS, "spacing 1 x 0 x 1: every axis must be above 0 mm"),
        (classifier(intensity="window", window=(300, -100)), HEADS, "window 300 to -100: the first must be below"),
        (classifier(), Index(task="classification", labels=("AD",)), "needs two labels or more, the index has AD"),
        (segmenter(), CHESTS.model_copy(update={"values": (1,)}), "2 labels and 1 mask values"),
        (segmenter(preset="residual"), CHESTS, "network unet does not know residual: leave it out"),
        (
            segmenter(space={"slicewise": Knob(choices=(False, True))}),
            CHESTS,
            "network unet does not know slicewise: leave it out",
        ),
        (detector(shots=None), livers(), "shots is missing"),
        (
            detector(shots=16),
            livers(16, 8),
            "16 shots were asked of each kind; training holds 8 abnormal: lower shots",
        ),
        (detector(intensity="zscore"), livers(), "intensity zscore: CLIP expects 0..1"),
        (detector(channels=1), livers(), "channels 1: CLIP sees three"),
        (detector(preset="papre"), livers(), "No preset of template detect is called 'papre'. Did you mean 'paper'?"),
        (classifier(shots=4), HEADS, "shots is for anomaly_detection only"),
        (classifier(intensity="unit"), HEADS, "intensity unit is for anomaly_detection only"),
    ],
)
def test_every_problem_of_a_design_is_one_line(design, index, words):
    problems = emit.check_design(design, index)
    assert any(words in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


@pytest.mark.parametrize(
    ("name", "knob", "words"),
    [
        ("lrate", Knob(low=1e-4, high=1e-2), "No setting is called 'lrate'. Did you mean 'lr'?"),
        ("spacing", Knob(choices=(1, 2)), "spacing cannot be tuned"),
        ("batch", Knob(low=2, high=8), "batch is of kind int"),
        ("lr", Knob(choices=("fast", "slow")), "lr is of kind float"),
        ("lr", Knob(low=1e-4, high=2.0), "lr cannot be 2.0"),
        ("lr", Knob(low=1e-5, high=1e-4), "the design's own lr, 0.002, is not in its knob"),
        ("loss", Knob(choices=("ce", "hinge")), "loss may be one of ce, focal"),
        ("batch", Knob(choices=(4, 500_000)), "batch cannot be 500000"),
    ],
)
def test_every_problem_of_a_knob_is_named(name, knob, words):
    (first, *_) = [problem for problem in emit.check_design(classifier(space={name: knob}), HEADS) if name in problem]
    assert words in first


def test_all_problems_are_told_at_once():
    design = classifier(template="x", network="y", spacing=(0.0, 1.0, 1.0))
    assert len(emit.check_design(design, HEADS)) == 3
    with pytest.raises(M3Error, match=r"^The design cannot be built: No template .*; No network .*; spacing .*\.$"):
        emit.emit(design, HEADS, "nowhere")


def test_the_diff_to_the_template_shows_the_settings_and_the_space_and_nothing_else(tmp_path):
    space = {
        "lr": Knob(low=1e-4, high=1e-2, log=True),
        "width": Knob(low=4, high=16, whole=True),
        "loss": Knob(choices=("ce", "focal")),
    }
    changes = emit.diff(emit.emit(classifier(space=space), HEADS, tmp_path)).splitlines()
    removed = [line[1:] for line in changes if line.startswith("-") and not line.startswith("---")]
    added = [line[1:] for line in changes if line.startswith("+") and not line.startswith("+++")]
    assert removed[0] == "SETTINGS = Settings()"
    assert all(line.startswith('    "') for line in removed[1:])
    assert added[0] == "SETTINGS = Settings("
    assert '    labels=("CN", "AD"),' in added
    assert '    "lr": FloatDistribution(0.0001, 0.01, log=True),' in added
    assert '    "width": IntDistribution(4, 16),' in added
    assert len([line for line in changes if line.startswith("@@")]) <= 2


def test_the_same_design_gives_the_same_bytes_as_ruff_would_format_them(tmp_path):
    organs = Index(task="segmentation", labels=tuple(f'organ "{n}" é' for n in range(13)), values=tuple(range(1, 14)))
    first = emit.emit(segmenter(), organs, tmp_path / "a")
    second = emit.emit(segmenter(), organs, tmp_path / "b")
    for path in sorted(first.rglob("*.py")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "120", "--diff", str(first / "train.py")]
    done = subprocess.run(ruff, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_network_and_the_readers_are_copied_word_for_word(tmp_path):
    folder = emit.emit(classifier(), HEADS, tmp_path)
    assert (folder / "network.py").read_bytes() == (emit.NETWORKS / "cnn.py").read_bytes()
    for name in emit.HELPERS:
        assert (folder / name).read_bytes() == (emit.TEMPLATES / name).read_bytes()
    readers = sorted(path.name for path in emit.SOURCES.glob("*.py"))
    assert sorted(path.name for path in (folder / "sources").iterdir()) == readers


def test_a_preset_gives_what_the_design_leaves_open_and_the_package_comes_along(tmp_path):
    folder = emit.emit(detector(preset="paper", lr=3e-3), livers(), tmp_path)
    text = (folder / "train.py").read_text()
    settings = text[text.index("SETTINGS = Settings(") : text.index("SPACE = ")]
    for line in ('activation="gelu"', "residual=0.2", "lr=0.003", "batch=4", 'about="liver CT"', "shots=2"):
        assert f"    {line},\n" in settings
    package = sorted(path.name for path in (emit.HERE / "mvfa").glob("*.py"))
    assert sorted(path.name for path in (folder / "mvfa").iterdir()) == package
    emit.emit(classifier(), HEADS, tmp_path / "other")
    assert not (tmp_path / "other" / "mvfa").exists()


def test_a_folder_without_a_script_has_no_diff(tmp_path):
    with pytest.raises(UsageError, match=r"holds no train\.py"):
        emit.diff(tmp_path)


def test_an_emitted_folder_trains_where_m3dspy_cannot_be_imported(tmp_path):
    items = []
    for i in range(6):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=(16, 16, 16)).astype(np.float32))
        items.append(Item(id=f"c{i}", patient=f"p{i}", image=f"{i}.npy", label=HEADS.labels[i % 2]))
    index = HEADS.model_copy(update={"training": (*items[:2],), "validation": (*items[2:4],), "test": (*items[4:],)})
    (tmp_path / "index.json").write_text(index.without_test_labels().model_dump_json())
    folder = emit.emit(classifier(), index, tmp_path / "code")
    (folder / "m3dspy.py").write_text("raise ImportError('m3dspy must not be needed')")
    words = ["--index", tmp_path / "index.json", "--data", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, folder / "train.py", *words],
        capture_output=True, text=True, cwd=tmp_path, env={"OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["epoch"] for line in done.stdout.splitlines()] == [0]
    assert len((tmp_path / "out" / "predictions" / "predictions.csv").read_text().splitlines()) == 1 + len(index.test)


def test_a_writer_of_reports_that_mirrors_left_and_right_is_sent_back():
    index = Index(task="report_generation", labels=())
    for dims, sideways in ((2, 1), (3, 0)):
        design = Design(
            template="report",
            network="report_cnn",
            dims=dims,
            size=(32,) * dims,
            intensity="percentile",
            flips=(sideways,),
            loss="ce",
            lr=1e-3,
            batch=4,
            epochs=1,
        )
        assert any("reports tell left from right" in line for line in emit.check_design(design, index))
