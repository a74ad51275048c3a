"""What an anomaly detection trains beside its final model; and zero-shot, where one dataset is left out."""

import csv

import pytest
from test_tune import make_run

from m3dspy import job, zero_shot
from m3dspy.errors import UsageError
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.candidate import Submission
from m3dspy.programs.builder import Script
from m3dspy.signatures.values import Design, Index, Plan, Request, Trial, Tuned
from m3dspy.workspace.runs import Run

SCRIPT = """
import json, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("--out") + 1])
settings = dict(word.split("=") for word in sys.argv if "=" in word)
if settings.get("draw") == FAILS:
    sys.exit("no such draw")
(out / "predictions").mkdir()
(out / "predictions" / "predictions.csv").write_text(json.dumps(settings))
(out / "cache").mkdir()
(out / "cache" / ("a" * 32 + ".npy")).touch()
print(json.dumps({"epoch": 0, "loss": 1, "score": 0.5}))
(out / "result.json").write_text(json.dumps({"epoch": 0, "score": 0.5}))
"""


def tuned_run(folder, best, shots=4, fails="none"):
    """A run whose tuning began with lr=0.1 and ended with `best`."""
    run = make_run(folder)
    index = run.load("index", Index)
    run.commit("index", index.model_copy(update={"task": "anomaly_detection"}))
    run.commit("design", run.load("design", Design).model_copy(update={"shots": shots}))
    run.commit("script", Script(trusted=True))
    (run.folder / "code" / "mvfa").mkdir()
    (run.folder / "code" / "train.py").write_text(SCRIPT.replace("FAILS", repr(fails)))
    first = Trial(number=0, state="complete", score=0.4, settings={"lr": 0.1})
    run.commit("tuned", Tuned(trials=(first,), settings={"lr": best}))
    return run


def left_by(run):
    """What each training was told, by where its predictions are."""
    job._train(run, run.load("request", Request))
    names = ("predictions", "control/predictions", "untuned", "draws/1", "draws/2")
    tables = {name: run.folder / name / "predictions.csv" for name in names if run.has(name)}
    return {name: ",".join(next(csv.reader(path.open(newline="")))) for name, path in tables.items()}


def test_other_draws_and_the_settings_before_tuning_are_trained_beside(tmp_path):
    run = tuned_run(tmp_path, best=0.2)
    assert left_by(run) == {
        "predictions": '{"seed": "7", "lr": "0.2"}',
        "control/predictions": '{"seed": "7", "lr": "0.2", "shuffled": "true"}',
        "untuned": '{"seed": "7"}',
        "draws/1": '{"seed": "7", "lr": "0.2", "draw": "1"}',
        "draws/2": '{"seed": "7", "lr": "0.2", "draw": "2"}',
    }
    assert not run.has("cache")
    assert not (run.folder / "model" / "cache").exists()


def test_where_tuning_changed_nothing_and_nothing_is_drawn_there_is_nothing_beside(tmp_path):
    assert set(left_by(tuned_run(tmp_path, best=0.1, shots=0))) == {"predictions", "control/predictions"}


def test_a_draw_that_cannot_be_trained_costs_the_run_nothing_but_that_draw(tmp_path):
    run = tuned_run(tmp_path, best=0.1, fails="2")
    assert set(left_by(run)) == {"predictions", "control/predictions", "draws/1"}
    (warning,) = [event["text"] for event in run.events() if event["kind"] == "warning"]
    assert warning.startswith("draw-2: train.py ended with status 1")


# ------------------------------------------------------------------------------------------------ one dataset left out
@pytest.fixture
def small(monkeypatch, tmp_path):
    """The smallest phantoms of two datasets, and a job that only says which run it was given."""
    seen: list[Run] = []
    known = [datasets.find(name) for name in ("ADNI", "Liver", "OCT17")]
    monkeypatch.setattr(datasets, "tasks", lambda: known)
    for task in known[1:]:
        datasets.make(task.name, tmp_path / "zero-shot" / "data" / task.name, size=task.smallest)
    monkeypatch.setattr(job, "submitted", lambda run, given: seen.append(run) or Submission(status="failed"))
    return seen


def test_zero_shot_learns_from_all_other_datasets_and_is_tried_on_the_one_left_out(tmp_path, small):
    told = []
    request = Request(text="-", data=".", trials=0)
    table = zero_shot.bench(["Liver"], request, 1, tmp_path, told.append)
    assert [row.dataset for row in table.rows] == ["Liver"]
    (run,) = small
    assert run.load("request", Request).text == "zero-shot anomaly detection on liver CT"
    assert run.load("plan", Plan).shots == 0
    index = run.load("index", Index)
    assert {item.image.split("/")[0] for item in index.test} == {"Liver"}
    learnt = {item.image.split("/")[0] for item in (*index.training, *index.validation)}
    assert learnt == {"OCT17"}
    assert datasets.is_phantom(tmp_path / "zero-shot" / "data")


def test_zero_shot_is_for_anomaly_detection_only(tmp_path):
    with pytest.raises(UsageError, match=r"^ADNI is not for anomaly detection; --zero-shot knows Brain, Chest"):
        zero_shot.bench(["ADNI"], Request(text="-", data="."), 1, tmp_path, print)
