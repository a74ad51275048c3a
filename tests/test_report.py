import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from m3dspy.errors import M3Error
from m3dspy.signatures.values import (
    ANOMALY_LABELS,
    Design,
    Fingerprint,
    Grade,
    Index,
    Item,
    Outcome,
    PatientKey,
    Plan,
    Request,
    Score,
    Source,
    Trial,
    Tuned,
)
from m3dspy.workspace import emit
from m3dspy.workspace.report import report
from m3dspy.workspace.reporting import examples
from m3dspy.workspace.runs import Run

RNG = np.random.default_rng(0)
LABELS = ("CN", "MCI", "AD")
ORGANS = ("left lung", "right lung", "infection")


def score(value, half=0.05):
    return Score(value=value, low=value - half, high=min(value + half, 1))


def started(folder, data, task, **plan):
    """A run folder with a request and a plan."""
    folder.mkdir(parents=True)
    run = Run(folder)
    run.commit("request", Request(text=f"a model for {task}", data=str(data), trials=3))
    fields = {"goal": f"Show a {task}", "modality": "CT", "images": "img/*", "source": Source(kind="folder"), **plan}
    run.commit("plan", Plan(task=task, **fields))
    return run


def classified(tmp_path, *, grade=None, trials=(), settings=(), **outcome):
    """A finished run that tells three classes apart on twelve small volumes; the last test case has no answer."""
    data = tmp_path / "data"
    data.mkdir()
    items = []
    for number in range(12):
        np.save(data / f"v{number}.npy", RNG.normal(number % 3, 1, (20, 24, 16)).astype(np.float32))
        items.append(Item(id=f"v{number}", patient=f"p{number}", image=f"v{number}.npy", label=LABELS[number % 3]))
    patient = PatientKey(where="column", table="all.csv", column="Subject", patients=12, images=12)
    run = started(tmp_path / "runs" / "one", data, "classification", dims=3, labels=LABELS, patient=patient)
    run.commit("fingerprint", Fingerprint(files=12, megabytes=1.2, formats={".npy": 12}, warnings=("two files | odd",)))
    run.commit(
        "index",
        Index(task="classification", labels=LABELS, training=items[:3], validation=items[3:6], test=items[6:]),
    )
    design = Design(
        template="classify", network="cnn", dims=3, size=(20, 24, 16), intensity="zscore", loss="ce", lr=1e-3,
        batch=4, epochs=3, why="Small data, small network."
    )  # fmt: skip
    run.commit("design", design)
    run.commit("tuned", Tuned(trials=trials, settings=dict(settings)))
    (run.folder / "model").mkdir()
    lines = [{"epoch": 0, "loss": 1.1, "score": 0.4}, {"epoch": 1, "loss": 0.8, "score": 0.7}]
    (run.folder / "model" / "result.json").write_text(json.dumps({"score": 0.7, "epoch": 1, "history": lines}))
    answers = run.folder / "predictions"
    answers.mkdir()
    rows = [f"v{number},{LABELS[number % 3]},0.5,0.3,0.2" for number in range(6, 11)]
    (answers / "predictions.csv").write_text("\n".join(["id,label,CN,MCI,AD", *rows]))
    graded = Grade(
        metric="macro AUROC", score=score(0.74), floor=score(0.5, 0), control=score(0.52),
        others={"accuracy": score(0.6)}, per_label={label: score(0.7) for label in LABELS},
        confusion=((2, 0, 0), (1, 1, 0), (1, 0, 1)), cases=6, patients=6,
        missing=("v11",), s1=False, s2=True, worst=("v11", "v7", "v8", "v10"),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade or graded, seconds={"index": 3, "train": 300}, **outcome))
    return run.folder


def segmented(tmp_path, shape=(48, 40, 10), test=6, noise=40):
    """A finished run that marks both lungs and an infection on LAS volumes with 5 mm slices."""
    data, run_folder = tmp_path / "ct", tmp_path / "runs" / "two"
    (data / "img").mkdir(parents=True)
    affine = np.diag([-1.5, 1.5, 5.0, 1.0])
    run = started(run_folder, data, "segmentation", dims=3, labels=ORGANS, patient=None, sided=True)
    (run_folder / "predictions").mkdir()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")  # x runs to the patient's left
    items = []
    for number in range(test + 4):
        body = x**2 / 0.8 + y**2 / 0.6 < 1
        lungs = [((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 + z**2 < 0.9 for side in (0.42, -0.42)]
        spot = (x - 0.35) ** 2 + (y + 0.2) ** 2 + (z - 0.3) ** 2 < 0.03
        truth = np.select([spot, *lungs], [3, 1, 2], 0).astype(np.uint8)
        image = np.select([spot, *lungs, body], [-300, -850, -850, 45], -1000) + RNG.normal(0, noise, shape)
        for kind, voxels in (("img", image.astype(np.int16)), ("msk", truth)):
            nibabel.save(nibabel.Nifti1Image(voxels, affine), data / "img" / f"{kind}{number}.nii.gz")
        names = {"image": f"img/img{number}.nii.gz", "label": f"img/msk{number}.nii.gz"}
        items.append(Item(id=f"case-{number}", patient=f"p{number}", **names))
        answer = np.roll(truth, number % 4, axis=0)
        nibabel.save(nibabel.Nifti1Image(answer, affine), run_folder / "predictions" / f"case-{number}.nii.gz")
    run.commit(
        "index",
        Index(
            task="segmentation", labels=ORGANS, values=(1, 2, 3), training=items[test : test + 2],
            validation=items[test + 2 :], test=items[:test],
        ),
    )  # fmt: skip
    design = Design(
        template="segment", network="unet", dims=3, size=(48, 40, 10), intensity="window",
        window=(-1000, 400), loss="dice_ce", lr=1e-3, batch=2, epochs=3,
    )  # fmt: skip
    run.commit("design", design)
    grade = Grade(
        metric="mean Dice", score=score(0.82), floor=score(0.57),
        per_label=dict(zip(ORGANS, map(score, (0.92, 0.91, 0.6)), strict=True)),
        cases=test, patients=test, s1=True, s2=True, worst=("case-3", "case-2"),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade, phantom=True))
    return run_folder


def anomalous(tmp_path, *, masks=True, weights=None, shots=2):
    """A finished run that finds bright spots in small pictures; draw 2 of the shots is missing, test case c0 too."""
    data = tmp_path / "spots"
    data.mkdir()
    folder, items, rows = tmp_path / "runs" / "three", [], ["id,label,normal,abnormal"]
    run = started(
        folder, data, "anomaly_detection", dims=2, labels=ANOMALY_LABELS, about="liver CT", shots=shots,
        masks="mask*.png" if masks else None,
    )  # fmt: skip
    (folder / "request.json").unlink()
    run.commit("request", Request(text="few-shot anomaly detection", data=str(data), trials=3, weights=weights))
    for name in ("predictions/clip", "predictions/bank"):
        (folder / name).mkdir(parents=True)
    for number in range(16):
        picture, truth = RNG.integers(60, 90, (40, 60)).astype(np.uint8), np.zeros((40, 60), np.uint8)
        truth[10:20, 20:35] = 255 * (number % 2)
        Image.fromarray(picture + truth // 4).save(data / f"{number}.png")
        item = {"id": f"c{number}", "patient": f"p{number}", "image": f"{number}.png"}
        if masks and number % 2:
            Image.fromarray(truth).save(data / f"mask{number}.png")
            item["mask"] = f"mask{number}.png"
        items.append(Item.model_validate({**item, "label": ANOMALY_LABELS[number % 2]}))
        Image.fromarray(truth.astype(np.uint16) * 200 + 9000).save(folder / "predictions" / f"c{number}.png")
        if 0 < number < 8:
            chance = 0.3 + 0.1 * (number % 5)
            rows.append(f"c{number},{ANOMALY_LABELS[chance > 0.5]},{1 - chance},{chance}")
    for name in ("predictions", "predictions/clip"):
        (folder / name / "predictions.csv").write_text("\n".join(rows))
    index = {"training": items[8:12], "validation": items[12:], "test": items[:8]}
    run.commit("index", Index(task="anomaly_detection", labels=ANOMALY_LABELS, about="liver CT", **index))
    design = Design(
        template="detect", network="clip_vit_b16", dims=2, channels=3, size=(64, 64), intensity="unit",
        loss="log-odds", lr=1e-3, batch=4, epochs=3, shots=shots,
    )  # fmt: skip
    run.commit("design", design)
    others = {"image AP": score(0.8), "plain CLIP image AUROC": score(0.55), "bank image AUROC": score(0.65)}
    others |= {"untuned image AUROC": score(0.6), "image AUROC over 2 draws": score(0.7, 0.1)}
    others |= {"image AUROC of draw 0": score(0.74), "image AUROC of draw 1": score(0.66)}
    if masks:
        others |= {name: score(0.88) for name in ("pixel AUROC", "PRO", "Dice", "plain CLIP pixel AUROC")}
    grade = Grade(
        metric="image AUROC", score=score(0.74), floor=score(0.61), control=score(0.49), others=others,
        confusion=((2, 1), (1, 3)), cases=8, patients=8, missing=("c0",), s1=False, s2=False,
        worst=("c0", "c3", "c2"), notes=("draw 2 did not answer every test case",),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=grade))
    return folder


def test_the_outcome_is_one_sentence_with_score_interval_floor_and_control(tmp_path):
    page = report(classified(tmp_path)).read_text()
    assert "**macro AUROC of 0.740 (0.690 to 0.790)**" in page
    assert "trivial answer reaches 0.500 (0.500 to 0.500)" in page
    assert "shuffled labels reaches 0.520 (0.470 to 0.570)" in page
    assert "every test case: **not passed**" in page
    assert "count as 0: 1 (v11)" in page
    assert "For research use only" in page
    assert "PHANTOM" not in page


def test_phantom_scores_are_marked_loudly(tmp_path):
    page = report(segmented(tmp_path)).read_text()
    assert "**PHANTOM DATA.**" in page
    assert "(0.770 to 0.870) (phantom)**" in page


def test_a_leak_is_named(tmp_path):
    grade = Grade(
        metric="accuracy", score=score(0.99), floor=score(0.4), cases=6, patients=6, s1=True, s2=True, above_oracle=True
    )
    assert "LEAK" in report(classified(tmp_path, grade=grade)).read_text()


def test_every_figure_named_in_the_report_is_a_png_below_300_kb(tmp_path):
    trials = (
        Trial(number=0, state="complete", score=0.6, settings={"lr": 1e-3}, seconds=3),
        Trial(number=1, state="pruned", score=0.3, settings={"lr": 1e-2}),
        Trial(number=2, state="failed", settings={"lr": 0.5}),
    )
    for folder, count in ((classified(tmp_path, trials=trials), 4), (segmented(tmp_path), 2), (anomalous(tmp_path), 2)):
        names = re.findall(r"!\[[^]]*\]\(([^)]*)\)", report(folder).read_text())
        assert len(names) == count
        for name in names:
            assert (folder / name).stat().st_size < 300_000
            with Image.open(folder / name) as image:
                assert image.width == 800


def test_noisy_pictures_stay_below_300_kb(tmp_path):
    folder = segmented(tmp_path, shape=(512, 512, 3), noise=500)
    report(folder)
    assert (folder / "figures" / "examples.png").stat().st_size < 300_000


def test_what_a_run_does_not_have_is_said_in_words(tmp_path):
    page = report(segmented(tmp_path)).read_text()
    assert "Tuning was off" in page
    assert "No control was trained on shuffled labels" in page
    assert "No script was written" in page
    assert "No training was finished" in page
    assert "The data does not name the patients" in page


def test_a_refused_request_gives_the_reason_and_no_figure(tmp_path):
    folder = tmp_path / "runs" / "no"
    folder.mkdir(parents=True)
    run = Run(folder)
    run.commit("request", Request(text="segment the liver", data="/d"))
    run.commit("outcome", Outcome(status="refused", reason="No image shows a liver."))
    page = report(folder).read_text()
    assert "The request was refused: No image shows a liver." in page
    assert not (folder / "figures").exists()


def test_a_run_that_goes_on_has_no_report(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    Run(folder).commit("request", Request(text="x", data="/d"))
    with pytest.raises(M3Error, match="resume"):
        report(folder)
    assert not (folder / "report.md").exists()


def test_patients_are_counted_but_not_named(tmp_path):
    page = report(classified(tmp_path)).read_text()
    assert "| test | 6 | 6 | 2 | 2 | 2 |" in page
    assert not re.search(r"\bp\d+\b", page)


def test_text_from_outside_is_neither_markup_nor_a_formula(tmp_path):
    assert "two files \\| odd" in report(classified(tmp_path)).read_text()
    assert prose.table(["=a"], [["=1+1"], ["![x](y)\n| b"], [-0.5]]) == [
        "| '=a |",
        "| --- |",
        "| '=1+1 |",
        "| !\\[x\\](y) \\| b |",
        "| -0.5 |",
        "",
    ]
    assert prose.fenced("a\n```\nb", "diff")[0] == "````diff"


def test_the_learning_curve_is_what_the_script_claims_and_nonsense_is_not_drawn(tmp_path):
    folder = classified(tmp_path)
    assert "the model of epoch 1\nis the best on the validation cases (0.700)" in report(folder).read_text()
    for nonsense in ("null", '{"history": [{"epoch": 1, "loss": NaN, "score": 1}]}', "{", '{"history": []}'):
        (folder / "model" / "result.json").write_text(nonsense)
        assert "no record of its epochs that can be read" in report(folder).read_text()


def test_an_epoch_that_was_kept_without_being_the_best_is_named(tmp_path):
    folder = classified(tmp_path)
    result = json.loads((folder / "model" / "result.json").read_text())
    (folder / "model" / "result.json").write_text(json.dumps(result | {"epoch": 0}))
    assert "(0.700); that of epoch 0 was kept." in report(folder).read_text()


def test_a_report_generation_shows_both_reports_and_what_needs_no_model(tmp_path):
    data = tmp_path / "films"
    data.mkdir()
    said = ["No effusion.", "Small | left effusion.", "A nodule."]
    items = []
    for number in range(9):
        Image.fromarray(RNG.integers(0, 255, (40, 30), np.uint8)).save(data / f"{number}.png")
        texts = {"findings": said[number % 3], "impression": "As above."}
        items.append(Item(id=f"f{number}", patient=f"p{number}", image=f"{number}.png", **texts))
    source = Source(kind="table", path="all.csv", file_column="file")
    run = started(
        tmp_path / "runs" / "five", data, "report_generation", dims=2, labels=(), source=source, findings="Findings_EN"
    )
    run.commit("index", Index(task="report_generation", labels=(), training=items[:3], test=items[3:]))
    design = Design(
        template="report", network="report_cnn", dims=2, size=(32, 32), intensity="zscore", loss="ce", lr=1e-3,
        batch=4, epochs=3,
    )  # fmt: skip
    run.commit("design", design)
    (run.folder / "predictions").mkdir()
    answers = {f"f{k}": {"findings": "No *effusion*.", "impression": ""} for k in (3, 4, 5, 6, 7)}
    (run.folder / "predictions/reports.json").write_text(json.dumps(answers))
    others = {"BLEU-4": score(0.31), "side accuracy": score(0.9), "constant finding F1": score(0.41)}
    graded = Grade(
        metric="finding F1", score=score(0.74), floor=score(0.41), control=score(0.42), cases=6, patients=6,
        others=others | {"retrieval finding F1": score(0.52)}, per_label={"nodule": score(0.66)}, missing=("f8",),
        s1=False, s2=False, worst=("f8", "f4"), notes=("3 different reports were written for 6 cases",),
    )  # fmt: skip
    run.commit("outcome", Outcome(status="done", grade=graded))
    page = report(run.folder).read_text()
    for line in (
        "reached a **finding F1 of 0.740",
        "trained on shuffled reports reaches 0.420",
        r"| findings | Findings\_EN |",
        "| reports come from | table all.csv |",
        "| the model | 0.740 (0.690 to 0.790) | 0.310 (0.260 to 0.360) | not measured |",
        "| the most frequent training report for every case | 0.410 (0.360 to 0.460) |",
        "| report of the nearest image | 0.520 (0.470 to 0.570) |",
        "| nodule | 0.660 (0.610 to 0.710) |",
        "| side accuracy | 0.900 (0.850 to 0.950) |",
        "- 3 different reports were written for 6 cases.",
        r"| findings | Small \| left effusion. | No \*effusion\*. |",
        "| findings | A nodule. | no report |",
        "it never saw the reports\nof the test cases",
    ):
        assert line in page, line
    assert (run.folder / "figures/examples.png").is_file()


def test_an_anomaly_detector_is_compared_with_all_that_learnt_less(tmp_path):
    page = report(anomalous(tmp_path)).read_text()
    assert "reached an **image AUROC of 0.740" in page
    for row in (
        "the model | 0.740 (0.690 to 0.790) | 0.880 (0.830 to 0.930)",
        "mean of 2 draws of the shots | 0.700 (0.600 to 0.800) | not measured",
        "lowest of them, draw 1 | 0.660 (0.610 to 0.710) | not measured",
        "highest of them, draw 0 | 0.740 (0.690 to 0.790) | not measured",
        "the settings before tuning | 0.600 (0.550 to 0.650) | not measured",
        "plain CLIP: similarity to the text, zero-shot | 0.550 (0.500 to 0.600) | 0.880 (0.830 to 0.930)",
        "the same pipeline, labels shuffled (control) | 0.490 (0.440 to 0.540) | not measured",
        "bank of random features (the trivial answer) | 0.610 (0.560 to 0.660) | not measured",
        "chance | 0.500 (0.500 to 0.500) | 0.500 (0.500 to 0.500)",
    ):
        assert f"| {row} |" in page
    assert "Left out: draw 2 did not answer every test case." in page
    assert "image AP of 0.500" in page  # 4 of 8 test images
    assert "learnt from 2 normal and 2 abnormal ones (draw 0)" in page
    assert "Blue, solid: what the expert marked" in page
    assert "cannot be shown" not in page


def test_an_image_level_set_has_a_map_but_no_pixel_scores(tmp_path):
    page = report(anomalous(tmp_path, masks=False)).read_text()
    assert "| answer | image AUROC (95 % interval) |\n" in page
    assert "pixel AUROC" not in page
    assert "Dice" not in page
    assert "the map of scores" in page
    assert "the expert marked" not in page


def test_features_of_random_weights_are_said_loudly(tmp_path):
    assert "**RANDOM BACKBONE.**" in report(anomalous(tmp_path)).read_text()
    (tmp_path / "other").mkdir()
    page = report(anomalous(tmp_path / "other", weights="/w/clip.safetensors")).read_text()
    assert "RANDOM BACKBONE" not in page
    assert "--weights /w/clip.safetensors" in page


def test_a_zero_shot_run_names_what_it_learnt_from(tmp_path):
    page = report(anomalous(tmp_path, shots=0)).read_text()
    assert "learnt from images of other data sets, liver CT (4)" in page
    assert "| to learn from | other data sets (zero-shot) |" in page


def test_the_choices_made_in_the_script_are_shown_and_its_training_can_be_repeated(tmp_path):
    folder = classified(tmp_path, settings={"lr": 0.003, "loss": "focal"})
    run = Run(folder)
    emit.emit(run.load("design", Design), run.load("index", Index), folder / "code")
    page = report(folder).read_text()
    assert "+SETTINGS = Settings(" in page
    assert f"python {folder}/code/train.py --index {folder}/index.json --data {tmp_path / 'data'}" in page
    assert "--set seed=0 lr=0.003 loss=focal\n" in page


def test_the_ledger_is_summed_by_role_and_an_unknown_price_is_said(tmp_path):
    folder = classified(tmp_path)
    call = {"role": "task_manager", "model": "m", "input_tokens": 100, "output_tokens": 10, "cost": 0.25, "seconds": 2}
    unpriced = {**call, "role": "data_engineer", "cost": None}
    lines = [*map(json.dumps, (call, call, unpriced)), '{"role": "torn']
    (folder / "lm.jsonl").write_text("\n".join(lines))
    page = report(folder).read_text()
    assert "| task\\_manager | m | 2 | 200 | 20 | 0.5000 | 4 s |" in page
    assert "| all |  | 3 | 300 | 30 | not known | 6 s |" in page


def test_a_test_image_that_is_gone_is_named_and_the_report_is_written(tmp_path):
    folder = classified(tmp_path)
    (tmp_path / "data" / "v7.npy").unlink()
    assert "v7 cannot be shown" in report(folder).read_text()


def test_left_and_right_are_shown_in_radiological_convention():
    voxels = np.zeros((4, 6, 3))
    voxels[3, 5, 1] = 1  # in LAS the indices grow to the left, to the front, to the head
    stack = examples.lay(voxels[::-1], np.diag([1.0, 1.0, 3.0, 1.0]), dims=3)  # the same point, stored as RAS
    again = examples.lay(voxels, np.diag([-1.0, 1.0, 3.0, 1.0]), dims=3)
    assert stack.plane == "axial"
    assert stack.left == "R"
    for shown in (stack, again):
        assert shown.voxels.shape == (6, 4, 3)
        assert shown.voxels[0, 3, 1] == 1  # top is the front, the patient's left is on the right of the picture


def test_a_case_is_cut_in_its_plane_of_acquisition():
    shown = examples.lay(np.zeros((5, 40, 30)), np.diag([6.0, 1.0, 2.0, 1.0]), dims=3)
    assert (shown.plane, shown.left, shown.aspect) == ("sagittal", "A", 2.0)
    assert shown.voxels.shape == (30, 40, 5)


def test_volumes_without_an_affine_are_turned_only_as_far_as_their_shape_tells():
    voxels = np.zeros((6, 8, 4))
    voxels[0, 7, 1] = 1  # (x, y, z): least x, most y
    assert examples.lay(voxels, None, dims=3).voxels[0, 0, 1] == 1
    assert examples.lay(voxels, None, dims=3, slices=True).voxels[0, 7, 1] == 1
    assert examples.lay(np.zeros((3, 8, 9)), None, dims=3).voxels.shape == (8, 9, 3)
    assert examples.lay(np.zeros((8, 9, 3)), None, dims=2).voxels.shape == (8, 9, 1, 3)


def test_small_structures_are_seen_in_the_slice_that_is_shown():
    mask = np.zeros((10, 10, 3), np.uint8)
    mask[..., 0], mask[:6, :, 1], mask[8, 8, 1] = 1, 1, 2  # 100 and 60 voxels of 1; the only voxel of 2
    assert examples._shares(mask, (1, 2)).tolist() == pytest.approx([100 / 160, 60 / 160 + 1, 0])


def test_the_report_loads_no_torch(tmp_path):
    code = """if True:
        import pathlib, sys
        from m3dspy.workspace.report import report
        report(pathlib.Path(sys.argv[1]))
        print([name for name in ("torch", "monai", "dspy", "optuna", "matplotlib.pyplot") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(segmented(tmp_path))],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]", done.stderr
