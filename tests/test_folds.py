"""A model of several folds: each case is answered by a network that did not learn from it, and graded so."""

import nibabel
import numpy as np
import pytest
from trained_runs import CLASSIFY, SEGMENT, cases

from m3dspy import job
from m3dspy.m3bench.grade import out_of_fold
from m3dspy.m3bench.reference import trained
from m3dspy.programs.builder import Script
from m3dspy.signatures.values import Index, Item, Request, Trial, Tuned
from m3dspy.workspace import emit, inventory
from m3dspy.workspace.runs import Run


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
    run = Run.create(Request(text="few-shot", data=str(tmp_path), folds=5), tmp_path / "runs")
    run.commit("design", SEGMENT.model_copy(update={"template": "report"}))
    assert job._folds(run, run.load("request", Request)) == {}
    assert "--folds 5: a model of the template report has one fold." in [event.get("text") for event in run.events()]
    run.commit("design", SEGMENT)
    run.commit("index", cases(tmp_path / "data", "segmentation"))
    assert job._folds(run, run.load("request", Request)) == {"folds": 5}


@pytest.mark.parametrize(
    ("task", "labels", "asked", "made"),
    [
        ("classification", "aaaaabb", 5, 2),  # else a fold shows one class only
        ("classification", "aaaaabbb", 3, 3),
        ("segmentation", "aaaaabb", 9, 7),
    ],
)
def test_there_are_as_many_folds_as_patients_can_fill(task, labels, asked, made, tmp_path):
    run = Run.create(Request(text="fold it", data=str(tmp_path), folds=asked), tmp_path / "runs")
    run.commit("design", SEGMENT if task == "segmentation" else CLASSIFY)
    items = tuple(Item(id=str(i), patient=f"p{i}", image=f"{i}.png", label=name) for i, name in enumerate(labels * 2))
    pairs = tuple(item.model_copy(update={"patient": f"p{i % len(labels)}"}) for i, item in enumerate(items))
    run.commit("index", Index(task=task, labels=("a", "b"), training=pairs[:-2], validation=pairs[-2:]))
    assert job._folds(run, run.load("request", Request)) == {"folds": made}
    told = [event["text"] for event in run.events() if event["kind"] == "warning"]
    assert told == (
        [f"--folds {asked}: {made} of them, as there are too few patients for more."] if made < asked else []
    )


@pytest.mark.slow
def test_a_run_of_folds_says_what_folds_and_what_tuning_added(tmp_path):
    index = cases(tmp_path / "data", "segmentation")
    request = Request(text="segment ball and cube", data=str(tmp_path / "data"), folds=2)
    run = Run.create(request, tmp_path / "runs")
    run.commit("index", index)
    run.commit("design", SEGMENT)
    emit.emit(SEGMENT, index, run.folder / "code")
    run.commit("script", Script(trusted=True))
    inventory.note(run, index, tmp_path / "data")
    first, best = (Trial(number=n, state="complete", settings={"lr": lr}) for n, lr in enumerate((5e-3, 1e-2)))
    run.commit("tuned", Tuned(trials=(first, best), settings=best.settings))
    job._train(run, request)
    found = job._grade(run, request)
    assert list(found.others)[:3] == ["out-of-fold mean Dice", "gain by folds", "gain by tuning"]
    assert job.OUT_OF_FOLD in found.notes
