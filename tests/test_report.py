import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_runs import anomalous, classified, score, segmented, written
from report_text import page_text

from m3dspy.signatures.values import (
    Design,
    Fingerprint,
    Grade,
    Index,
    Outcome,
    PatientKey,
    Request,
)
from m3dspy.workspace import emit
from m3dspy.workspace.report import report
from m3dspy.workspace.reporting import examples, pictures
from m3dspy.workspace.runs import Run


def text_of(folder) -> str:
    return page_text(report(folder).read_text())


def test_the_outcome_is_one_sentence_with_score_interval_floor_and_control(tmp_path):
    page = text_of(classified(tmp_path))
    assert "reached a macro AUROC of 0.740 (0.690 to 0.790)." in page
    assert "trivial answer reaches 0.500 (0.500 to 0.500)" in page
    assert "shuffled labels reaches 0.520 (0.470 to 0.570)" in page
    assert "every test case: not passed" in page
    assert "count as 0: 1 (v11)" in page
    assert "For research use only" in page
    assert "PHANTOM" not in page
    assert "pass it on only where the data may go" in page


def test_phantom_scores_are_marked_loudly(tmp_path):
    page = text_of(segmented(tmp_path))
    assert "PHANTOM DATA." in page
    assert "(0.770 to 0.870) (phantom)." in page


def test_a_leak_is_named(tmp_path):
    grade = Grade(
        metric="accuracy", score=score(0.99), floor=score(0.4), cases=6, patients=6, s1=True, s2=True, above_oracle=True
    )
    assert "LEAK" in text_of(classified(tmp_path, grade=grade))


def test_surfaces_stand_beside_overlaps_and_the_best_possible_beside_the_score(tmp_path):
    page = text_of(segmented(tmp_path))
    assert "the best that any reader could reach is 0.971." in page
    assert "Agreement of each structure's surface" in page
    assert "0.880 (0.830 to 0.930)" in page


@pytest.mark.slow
def test_a_page_stays_small_however_noisy_large_and_many_the_cases_are(tmp_path):
    page = report(segmented(tmp_path, shape=(300, 300, 30), test=14, noise=500))
    assert page.stat().st_size < 5_000_000
    assert "Of 14 test cases these are the 2 worst, then 6 others" in page_text(page.read_text())


def test_what_a_run_does_not_have_is_said_in_words(tmp_path):
    page = text_of(segmented(tmp_path))
    assert "Tuning was off" in page
    assert "No control was trained on shuffled labels" in page
    assert "No script was written" in page
    assert "No training was finished" in page
    assert "The data does not name the patients" in page


def test_patients_that_the_plan_does_not_tell_apart_are_not_called_unnamed(tmp_path):
    folder = segmented(tmp_path)
    key = PatientKey(where="folder", part="sub-##", patients=4, images=8)
    Run(folder).commit("fingerprint", Fingerprint(files=8, megabytes=1, formats={}, patients=(key,)))
    page = text_of(folder)
    assert "The plan leaves unused what names the patients: each file counts as one." in page
    assert "The data does not name" not in page


def test_a_refused_request_gives_the_reason_and_no_picture(tmp_path):
    folder = tmp_path / "runs" / "no"
    folder.mkdir(parents=True)
    run = Run(folder)
    run.commit("request", Request(text="segment the liver", data="/d"))
    run.commit("outcome", Outcome(status="refused", reason="No image shows a liver."))
    page = text_of(folder)
    assert "The request was refused: No image shows a liver." in page
    assert "No plan was made." in page
    assert "<svg" not in (folder / "report.html").read_text()


def test_a_run_that_goes_on_shows_what_it_has_so_far(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run = Run(folder)
    run.commit("request", Request(text="mark the liver", data="/d"))
    run.event("stage", name="train", status="start")
    for epoch in range(3):
        run.event("epoch", attempt="final", epochs=9, epoch=epoch, loss=1 / (epoch + 1), score=0.1 * epoch)
    page = text_of(folder)
    assert "The run is not finished. Last begun: Final training." in page
    assert "3 epochs of the final training have gone by." in page
    assert "| 2 | 0.3333 |" in page  # the loss of the last epoch


def test_patients_are_counted_but_not_named(tmp_path):
    page = text_of(classified(tmp_path))
    assert "| test | 6 | 6 | 2 | 2 | 2 |" in page
    assert not re.search(r"\bp\d+\b", page)


def test_the_learning_curve_is_what_the_script_claims_and_nonsense_is_not_drawn(tmp_path):
    folder = classified(tmp_path)
    assert "the model of epoch 1 was kept (0.700 on the validation cases)." in text_of(folder)
    for nonsense in ("null", '{"history": [{"epoch": 1, "loss": NaN, "score": 1}]}', "{", '{"history": []}'):
        (folder / "model" / "result.json").write_text(nonsense)
        assert "no record of its epochs that can be read" in text_of(folder)


def test_the_epoch_that_was_kept_is_named_whatever_its_score(tmp_path):
    folder = classified(tmp_path)
    result = json.loads((folder / "model" / "result.json").read_text())
    for kept, said in ((0, "epoch 0 was kept (0.400 on"), (77, "epoch 77 was kept (no score on")):
        (folder / "model" / "result.json").write_text(json.dumps(result | {"epoch": kept}))
        assert said in text_of(folder)


def test_a_report_generation_shows_both_reports_and_what_needs_no_model(tmp_path):
    page = text_of(written(tmp_path))
    for line in (
        "reached a finding F1 of 0.740",
        "trained on shuffled reports reaches 0.420",
        "| findings | Findings_EN |",
        "| reports come from | table all.csv |",
        "| the model | 0.740 (0.690 to 0.790) | 0.310 (0.260 to 0.360) | not measured |",
        "| the most frequent training report for every case | 0.410 (0.360 to 0.460) |",
        "| report of the nearest image | 0.520 (0.470 to 0.570) |",
        "| nodule | 0.660 (0.610 to 0.710) |",
        "| side accuracy | 0.900 (0.850 to 0.950) |",
        "3 different reports were written for 6 cases.",
        "| findings | Small | left effusion. | No *effusion*. |",
        "| findings | A nodule. | no report |",
        "it never saw the reports of the test cases",
    ):
        assert line in page, line


def test_an_anomaly_detector_is_compared_with_all_that_learnt_less(tmp_path):
    page = text_of(anomalous(tmp_path))
    assert "reached an image AUROC of 0.740" in page
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
    assert "Blue: what the expert marked" in page
    assert "cannot be shown" not in page


def test_an_image_level_set_has_a_map_but_no_pixel_scores(tmp_path):
    page = text_of(anomalous(tmp_path, masks=False))
    assert "| answer | image AUROC (95 % interval) |\n" in page
    assert "pixel AUROC" not in page
    assert "Dice" not in page
    assert "the map of scores" in page
    assert "the expert marked" not in page


def test_features_of_random_weights_are_said_loudly(tmp_path):
    assert "RANDOM BACKBONE." in text_of(anomalous(tmp_path))
    (tmp_path / "other").mkdir()
    page = text_of(anomalous(tmp_path / "other", weights="/w/clip.safetensors"))
    assert "RANDOM BACKBONE" not in page
    assert "--weights /w/clip.safetensors" in page


def test_a_zero_shot_run_names_what_it_learnt_from(tmp_path):
    page = text_of(anomalous(tmp_path, shots=0))
    assert "learnt from images of other data sets, liver CT (4)" in page
    assert "| to learn from | other data sets (zero-shot) |" in page


def test_the_choices_made_in_the_script_are_shown_and_its_training_can_be_repeated(tmp_path):
    folder = classified(tmp_path, settings={"lr": 0.003, "loss": "focal"})
    run = Run(folder)
    emit.emit(run.load("design", Design), run.load("index", Index), folder / "code")
    page = text_of(folder)
    assert "added: SETTINGS = Settings(" in page
    assert f"python {folder}/code/train.py --index {folder}/index.json --data {tmp_path / 'data'}" in page
    assert "--set seed=0 lr=0.003 loss=focal\n" in page


def test_a_run_of_several_folds_is_repeated_with_as_many(tmp_path):
    folder = classified(tmp_path)
    run = Run(folder)
    emit.emit(run.load("design", Design), run.load("index", Index), folder / "code")
    run.commit("request", run.load("request", Request).model_copy(update={"folds": 5}))
    page = text_of(folder)
    assert "--folds 5" in page
    assert "--set seed=0 folds=5\n" in page


def test_each_fold_has_a_curve_of_its_own(tmp_path):
    folder = classified(tmp_path)
    run = Run(folder)
    run.commit("request", run.load("request", Request).model_copy(update={"folds": 2}))
    each = run.load("design", Design).epochs
    scores = {0: 0.4, 1: 0.8, 2: 0.7, each: 0.6, each + 1: 0.5}  # the second stopped earlier
    history = [{"epoch": epoch, "loss": 1 - score, "score": score} for epoch, score in scores.items()]
    result = json.loads((folder / "model" / "result.json").read_text())
    (folder / "model" / "result.json").write_text(
        json.dumps(result | {"epoch": 1, "kept": [1, each], "history": history})
    )
    page = text_of(folder)
    assert "2 models were trained, each checked on another part of the cases, for 3, 2 epochs, by their own" in page
    assert "Of each an epoch was kept (0.800, 0.600 on its part)" in page
    assert "A line for each of 2 folds; circled: what was kept, epoch 1, 0." in page
    assert "| 2 | 1 | 0.5 |" in page  # the loss of the second fold's last epoch
    history[0]["epoch"] = -7 * each
    (folder / "model" / "result.json").write_text(json.dumps(result | {"history": history}))
    assert "no record of its epochs that can be read" in text_of(folder)


def test_the_ledger_is_summed_by_role_and_an_unknown_price_is_said(tmp_path):
    folder = classified(tmp_path)
    call = {
        "time": 1.0,
        "role": "task_manager",
        "model": "m",
        "input_tokens": 100,
        "output_tokens": 10,
        "cost": 0.25,
        "seconds": 2,
    }
    unpriced = {**call, "role": "data_engineer", "cost": None}
    lines = [*map(json.dumps, (call, call, unpriced)), '{"role": "torn']
    (folder / "lm.jsonl").write_text("\n".join(lines))
    page = text_of(folder)
    assert "| task_manager | m | 2 | 200 | 20 | 0.5000 | 4.0 s |" in page
    assert "| all | | 3 | 300 | 30 | not known | 6.0 s |" in page


def test_a_test_image_that_is_gone_is_named_and_the_report_is_written(tmp_path):
    folder = classified(tmp_path)
    (tmp_path / "data" / "v7.npy").unlink()
    assert "v7 cannot be shown" in text_of(folder)


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


def test_outlines_are_two_pixels_wide_and_none_runs_along_the_edge_of_a_picture():
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 2:8, 2:8] = True
    assert pictures._outlines(mask).sum() == 6 * 6 - 2 * 2
    assert not pictures._outlines(np.ones((1, 10, 10), bool)).any()


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
