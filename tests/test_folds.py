"""A model of several folds: each case is answered by a network that did not learn from it, and graded so."""

import nibabel
import numpy as np
import pytest
from trained_runs import SEGMENT, cases

from m3dspy.m3bench.grade import out_of_fold
from m3dspy.m3bench.reference import trained


@pytest.mark.slow
def test_the_out_of_fold_score_is_that_of_the_answers_to_training_and_validation_cases(tmp_path):
    root, home = tmp_path / "data", tmp_path / "home"
    home.mkdir()
    index = cases(root, "segmentation")
    answers = trained(SEGMENT, index, root, home, folds=2, width=4) / "validation"
    found = out_of_fold(index, root, answers)
    dice = []
    for item in (*index.training, *index.validation):
        paths = answers / f"{item.id}.nii.gz", root / item.label
        a, b = (np.asarray(nibabel.load(path).dataobj) for path in paths)
        dice.append([2 * ((a == n) & (b == n)).sum() / ((a == n).sum() + (b == n).sum()) for n in (1, 2)])
    assert found["out-of-fold mean Dice"].value == pytest.approx(np.mean(dice))
    (answers / f"{index.validation[0].id}.nii.gz").unlink()
    without = [*dice[:4], [0, 0], dice[5]]
    assert out_of_fold(index, root, answers)["out-of-fold mean Dice"].value == pytest.approx(np.mean(without))


def test_a_task_that_cannot_be_folded_is_trained_once_and_says_so(tmp_path):
    from m3dspy import job
    from m3dspy.signatures.values import Request
    from m3dspy.workspace.runs import Run

    run = Run.create(Request(text="few-shot", data=str(tmp_path), folds=5), tmp_path / "runs")
    run.commit("design", SEGMENT.model_copy(update={"template": "report"}))
    assert job._folds(run, run.load("request", Request)) == {}
    assert "--folds 5: a model of the template report has one fold." in [event.get("text") for event in run.events()]
    run.commit("design", SEGMENT)
    assert job._folds(run, run.load("request", Request)) == {"folds": 5}
