"""Tuning finds the same whether or not it was killed, stops what it prunes, and outlives what fails."""

import json
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from m3dspy.errors import DataError, M3Error, RunFailed
from m3dspy.optimizers.storage import journal_storage
from m3dspy.optimizers.tune import Halving, tune
from m3dspy.signatures.values import Design, Fingerprint, Index, Item, Plan, Request, Source, Tuned
from m3dspy.workspace import training
from m3dspy.workspace.runs import Run

ROOT = Path(__file__).parent.parent

# A stand-in that keeps the contract of train.py without a network: the score rises by epochs, most at lr = 0.001.
SCRIPT = """
import argparse, json, math, os, sys, threading, time
from pathlib import Path
LOSSES = {"name": "CategoricalDistribution", "attributes": {"choices": ["ce", "focal"]}}
SPACE = {"lr": json.loads('FLOAT'), "loss": LOSSES}
DEFAULTS = {"lr": 0.002, "loss": "ce"}
parser = argparse.ArgumentParser()
for name in ("index", "data", "out", "predict", "model"):
    parser.add_argument(f"--{name}", type=Path)
for name in ("space", "smoke", "resume", "worker"):
    parser.add_argument(f"--{name}", action="store_true")
parser.add_argument("--set", nargs="+", default=[])
given = parser.parse_args()
if given.space:
    print(json.dumps({"space": {name: json.dumps(choice) for name, choice in SPACE.items()}, "defaults": DEFAULTS}))
    raise SystemExit
if given.predict:
    items = json.loads(given.predict.read_text())
    given.out.joinpath("predictions.csv").write_text("".join((given.data / i["image"]).read_text() for i in items))
    raise SystemExit
index = json.loads(given.index.read_text())
if given.smoke:
    files = [path for path in sorted(given.data.rglob("*")) if path.is_file() and path.read_text()]
    print("not empty:", *(path.relative_to(given.data) for path in files))
    print("test labels:", [item["label"] for item in index["test"]])
    raise SystemExit
stopped = set()
def train(out, chosen, resume, tag):
    settings = {"epochs": 9, **DEFAULTS, **chosen}
    lr, epochs = float(settings["lr"]), int(settings["epochs"])
    checkpoint = out / "checkpoint.json"
    history = json.loads(checkpoint.read_text()) if resume and checkpoint.exists() else []
    print(f"{len(history)} epochs kept, {len(index['test'])} test cases")
    for line in history:
        print(json.dumps(tag | line))
    for epoch in range(len(history), epochs):
        PAUSE
        if tag.get("trial") in stopped:
            return
        FAILURE
        score = 1 / (1 + (math.log10(lr) + 3) ** 2) - 0.1 / (epoch + 1) - 0.01 * (settings["loss"] == "focal")
        history.append({"epoch": epoch, "loss": 1 - score, "score": score})
        checkpoint.write_text(json.dumps(history))
        print(json.dumps(tag | history[-1]))
    best = max(history, key=lambda line: line["score"])
    result = {"score": best["score"], "epoch": best["epoch"], **settings}
    out.joinpath("result.json").write_text(json.dumps(result))
if not given.worker:
    train(given.out, dict(word.split("=") for word in given.set), given.resume, {})
    raise SystemExit
print("a worker starts")
orders = []
def listen():
    for line in sys.stdin:
        order = json.loads(line)
        stopped.add(order["stop"]) if "stop" in order else orders.append(order)
    os._exit(0)
threading.Thread(target=listen, daemon=True).start()
while True:
    while not orders:
        time.sleep(0.01)
    order = orders.pop(0)
    tag = {"trial": order["trial"]}
    try:
        train(given.out / order["trial"], order["settings"], order["resume"], tag)
        print(json.dumps(tag | {"done": True}))
    except OSError as error:
        print(json.dumps(tag | {"error": str(error)}))
"""
FLOAT = '{"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 1e-1, "log": true, "step": null}}'


def make_run(folder, pause="", failure="", space=FLOAT, task="classification", home="runs"):
    """A run up to its script: three patients, a table of labels, nine epochs."""
    data = folder / "data"
    (data / "masks").mkdir(parents=True)
    for name in ("labels.csv", "a.txt", "b.txt", "c.txt", "masks/a.txt", "masks/b.txt", "masks/c.txt"):
        (data / name).write_text(f"this is {name}")
    labels = {name: "a" if task == "classification" else f"masks/{name}.txt" for name in "abc"}
    items = [Item(id=name, patient=name, image=f"{name}.txt", label=label) for name, label in labels.items()]
    run = Run.create(Request(text="tell a from b", data=str(data), seed=7), folder / home)
    run.commit("fingerprint", Fingerprint.model_validate(
        {"files": 1, "megabytes": 0, "formats": {}, "tables": [{"path": "labels.csv", "rows": 3, "columns": []}]}
    ))  # fmt: skip
    source = Source(kind="table", path="labels.csv")
    run.commit("plan", Plan(
        task="classification", goal="x", modality="CT", dims=2, images="*.txt", labels=("a", "b"), source=source
    ))  # fmt: skip
    splits = {name: (item,) for name, item in zip(("training", "validation", "test"), items, strict=True)}
    run.commit("index", Index(task=task, labels=("a", "b"), **splits))
    run.commit("design", Design(
        template="t", network="n", dims=2, size=(8, 8), intensity="zscore", loss="ce", lr=1e-3, batch=1, epochs=9
    ))  # fmt: skip
    (run.folder / "code").mkdir()
    text = SCRIPT.replace("PAUSE", pause).replace("FAILURE", failure).replace("FLOAT", space)
    (run.folder / "code" / "train.py").write_text(text)
    return run


def tuned(run, trials, minutes=None):
    return tune(run, trials, minutes, trusted=True, unsafe=False)


def timeless(found):
    return [trial.model_copy(update={"seconds": 0.0}) for trial in found.trials]


def states(found):
    return [trial.state for trial in found.trials]


# ------------------------------------------------------------------------------------------------ the search
def test_the_first_trial_has_the_defaults_and_a_third_of_the_epochs(tmp_path):
    run = make_run(tmp_path)
    found = tuned(run, 1)
    assert found.trials[0].settings == found.settings == {"lr": 0.002, "loss": "ce"}
    bend = 1 / (1 + 0.30103**2)  # log10(0.002) + 3 = 0.30103
    assert found.trials[0].curve == pytest.approx([bend - 0.1, bend - 0.05, bend - 0.1 / 3], abs=1e-5)
    assert found.trials[0].score == pytest.approx(sum(found.trials[0].curve) / 3)  # it rises
    assert run.load("tuned", Tuned) == found


def test_the_best_complete_trial_gives_the_settings(tmp_path):
    found = tuned(make_run(tmp_path), 8)
    best = max((trial for trial in found.trials if trial.state == "complete"), key=lambda trial: trial.score)
    assert found.settings == best.settings
    assert [trial.number for trial in found.trials] == list(range(8))
    assert {trial.settings["loss"] for trial in found.trials} == {"ce", "focal"}


def test_no_trials_and_no_space_leave_the_design_as_it_is(tmp_path):
    assert tuned(make_run(tmp_path / "a"), 0) == Tuned()
    run = make_run(tmp_path / "b")
    script = run.folder / "code" / "train.py"
    script.write_text('print(\'{"space": {}, "defaults": {}}\')')
    assert tuned(run, 5) == Tuned() == run.load("tuned", Tuned)


def test_epochs_and_trials_are_announced_and_trials_leave_no_files(tmp_path):
    run = make_run(tmp_path)
    tuned(run, 1)
    told = [(event["kind"], event.get("attempt"), event.get("epoch"), event.get("epochs")) for event in run.events()]
    assert told == [("epoch", "trial-000", n, 3) for n in range(3)] + [("trial", None, None, None)]
    assert not (run.folder / "attempts" / "trial-000").exists()
    assert "0 test cases" in run.log("trial-000").read_text()


def test_time_up_begins_no_further_trial(tmp_path):
    assert len(tuned(make_run(tmp_path), 5, minutes=1e-6).trials) == 1


def test_more_trials_go_on_from_those_there_are(tmp_path):
    run = make_run(tmp_path)
    assert timeless(tuned(run, 4))[:2] == timeless(tuned(run, 2))[:2]
    assert timeless(tuned(run, 6)) == timeless(tuned(make_run(tmp_path / "straight"), 6))


def test_a_pruned_trial_stops_its_script(tmp_path):
    run = make_run(tmp_path, pause="if epoch == 1: time.sleep(0.2)")
    pruned = [trial for trial in tuned(run, 9).trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert len(trial.curve) == 1
        assert run.log(f"trial-{trial.number:03d}").read_text().count('"epoch"') == 1


def told(study, scores, interrupted=False):
    """A trial that reports these scores until it is pruned; how many it reported."""
    trial = study.ask()
    for epoch, score in enumerate(scores):
        trial.report(score, epoch)
        if trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch + 1
    if not interrupted:
        trial.set_user_attr("reason", "")
    study.tell(trial, None if interrupted else max(scores), TrialState.FAIL if interrupted else None)
    return len(scores)


def test_after_a_ninth_and_a_third_of_the_epochs_the_best_third_goes_on():
    study = optuna.create_study(direction="maximize", pruner=Halving(9))  # rungs: 1 and 3 epochs
    assert [told(study, [score] * 9) for score in (0.5, 0.4, 0.3)] == [9] * 3
    assert told(study, [0.9] * 9, interrupted=True) == 9  # nobody's rival
    assert told(study, [0.6, 0.3, 0.4, *[0.9] * 6]) == 9  # the fourth: the others are too few to judge it
    assert told(study, [0.55] * 9) == 1  # one of five goes on, 0.6
    assert told(study, [0.58] * 9) == 3  # two of six, then one of five: 0.6 was its best after three epochs, too
    assert told(study, [0.7] * 9) == 9


def test_one_lucky_epoch_is_no_better_trial():
    study = optuna.create_study(direction="maximize", pruner=Halving(9))
    assert [told(study, [0.5, 0.55, 0.6, *[0.6] * 6]) for _ in range(4)] == [9] * 4  # after three epochs .55
    assert told(study, [0.5, 0.4, 0.7, *[0.9] * 6]) == 3


# ------------------------------------------------------------------------------------------------ failures
def test_a_failing_trial_is_kept_with_its_reason_and_the_next_begins(tmp_path):
    run = make_run(tmp_path, failure="if lr < 1e-3: raise ValueError('the loss became nan')")
    found = tuned(run, 5)
    failed = [trial for trial in found.trials if trial.settings["lr"] < 1e-3]
    assert failed
    assert all(trial.state == "failed" and trial.score is None for trial in failed)
    study = optuna.load_study(study_name="tune", storage=journal_storage(run.folder / "study" / "journal.log"))
    reasons = [trial.user_attrs["reason"] for trial in study.trials if "reason" in trial.user_attrs]
    assert len(reasons) == len(failed)
    assert "ValueError: the loss became nan" in reasons[0]


def test_if_all_fail_that_is_one_clear_error_and_a_resumed_run_tries_again(tmp_path):
    run = make_run(tmp_path, failure="raise ValueError('no such label')")
    message = r"^All 2 trials failed\. The last: train\.py ended with status 1\. (.*\n)*.*ValueError: no such label"
    with pytest.raises(M3Error, match=message):
        tuned(run, 2)
    script = run.folder / "code" / "train.py"
    script.write_text(script.read_text().replace("raise ValueError", "str"))
    assert states(tuned(run, 2)) == ["complete", "complete"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            '{"name": "Wide"}',
            r"^The script's SPACE\['lr'\] is no Optuna distribution: Unknown distribution class: Wide",
        ),
        (
            '{"name": "CategoricalDistribution", "attributes": {"choices": [0.002, null]}}',
            r"^The script's SPACE\['lr'\] offers None; a choice must be a text, a number, true or false\.$",
        ),
        (
            FLOAT.replace("1e-1", "1e-3"),
            r"^The script's default lr=0\.002 lies outside its own SPACE: FloatDistribution",
        ),
    ],
)
def test_a_space_that_cannot_be_used_is_one_line(tmp_path, space, message):
    with pytest.raises(DataError, match=message):
        tuned(make_run(tmp_path, space=space), 2)


def test_a_script_without_a_space_is_one_line(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "code" / "train.py").write_text("print('hello')")
    with pytest.raises(RunFailed, match=r"^train\.py --space must print \{\"space\""):
        tuned(run, 2)


# ------------------------------------------------------------------------------------------------ kill -9
def tune_until(run, seen, times=1):
    """Tune in a process of its own, and kill it when `seen(event)` has come true so many times."""
    text = f"""
from m3dspy.optimizers.tune import tune
from m3dspy.workspace.runs import Run
run = Run.open({str(run.folder)!r})
with run.lock():
    tune(run, 6, trusted=True, unsafe=False)
"""
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT)
    deadline = time.monotonic() + 30
    while sum(map(seen, run.events())) < times and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_tuning_that_was_killed_and_resumed_finds_what_a_straight_one_finds(tmp_path):
    run = make_run(tmp_path / "killed", pause="time.sleep(0.2)")
    tune_until(run, lambda event: event.get("attempt") == "trial-000" and event["epoch"] == 1)
    tune_until(run, lambda event: event.get("attempt") == "trial-003")
    with run.lock():
        found = tuned(run, 6)
    assert timeless(found) == timeless(tuned(make_run(tmp_path / "straight"), 6))
    assert "2 epochs kept" in run.log("trial-000").read_text()
    told = [(event["attempt"], event["epoch"]) for event in run.events() if event["kind"] == "epoch"]
    assert len(told) == len(set(told))


def test_a_torn_journal_is_healed_wherever_it_was_torn(tmp_path):
    run = make_run(tmp_path)
    found = timeless(tuned(run, 2))
    journal = run.folder / "study" / "journal.log"
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    straight = timeless(tuned(make_run(tmp_path / "straight"), 3))
    for cut in (1, len(last) // 2, len(last) - 1):
        journal.write_bytes(whole + last[:cut])
        assert timeless(tuned(run, 2)) == found
    assert timeless(tuned(run, 3)) == straight
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


# ------------------------------------------------------------------------------------------------ the script's world
@pytest.mark.parametrize(
    ("task", "seen"),
    [
        ("classification", "a.txt b.txt test/test-000000"),
        ("segmentation", "a.txt b.txt masks/a.txt masks/b.txt test/test-000000"),
    ],
)
def test_a_script_sees_no_test_label_no_test_mask_and_no_run(tmp_path, task, seen):
    run = make_run(tmp_path, task=task, home="data/runs")
    said = training.smoke(run, trusted=True, unsafe=False)
    assert said.splitlines() == [f"not empty: {seen}", "test labels: [None]"]


def test_a_training_ends_with_its_result_and_goes_on_from_its_checkpoint(tmp_path):
    run = make_run(tmp_path)
    result = training.fit(run, "final", {"lr": 0.001, "epochs": 2}, resume=False, trusted=True, unsafe=False)
    assert (result["score"], result["seed"]) == (1 - 0.05, "7")
    result = training.fit(run, "final", {"lr": 0.001, "epochs": 4}, resume=True, trusted=True, unsafe=False)
    assert (result["score"], result["epoch"]) == (1 - 0.025, 3)
    assert "2 epochs kept, 1 test cases" in run.log("final").read_text()


def test_a_failure_at_a_test_case_names_the_case_as_the_dataset_does(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "code" / "train.py").write_text("raise SystemExit('error: case test-000000: cannot be read')")
    with pytest.raises(RunFailed, match=r"^case c: cannot be read\. Log: ") as failed:
        training.fit(run, "final", {}, resume=False, trusted=True, unsafe=False)
    assert failed.value.tail == ["error: case test-000000: cannot be read"]


@pytest.mark.parametrize("left", ["", "[1]", '{"score": NaN, "epoch": 1}', '{"epoch": 1}', "link"])
def test_a_result_that_is_none_is_not_believed(tmp_path, left):
    run = make_run(tmp_path)
    write = (
        "os.symlink('/etc/hostname', 'result.json')" if left == "link" else f"open('result.json', 'w').write({left!r})"
    )
    (run.folder / "code" / "train.py").write_text(f"import os; {write}")
    with pytest.raises(RunFailed, match=r"^train\.py left no valid result\.json"):
        training.fit(run, "final", {}, resume=False, trusted=True, unsafe=False)


@pytest.mark.parametrize(
    "line",
    [
        '{"epoch": -1, "loss": 0, "score": 0}',
        '{"epoch": 0, "loss": 0, "score": NaN}',
        '{"epoch": 0, "loss": 0, "score": 1e999}',
        '{"epoch": 0, "loss": true, "score": 0}',
        '{"epoch": 0}',
        '{"epoch":' * 9999,
        "[0]",
    ],
)
def test_a_line_that_is_no_epoch_is_only_log(tmp_path, line):
    run = make_run(tmp_path)
    (run.folder / "code" / "train.py").write_text(f"print({line!r})")
    assert list(training.epochs(run, "a", {}, resume=False, trusted=True, unsafe=False)) == []
    assert run.log("a").read_text().strip() == line


def test_predictions_of_new_images_appear_in_the_folder_asked_for(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "model").mkdir()
    items = [Item(id="a", patient="a", image="a.txt")]
    training.predict(run, items, tmp_path / "data", tmp_path / "answers", trusted=True, unsafe=False)
    assert (tmp_path / "answers" / "predictions.csv").read_text() == "this is a.txt"


def test_folders_too_deep_to_be_walked_end_a_prediction_with_one_line(tmp_path):
    run = make_run(tmp_path)
    (run.folder / "model").mkdir()
    (run.folder / "code" / "train.py").write_text("import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')")
    with pytest.raises(DataError, match=r"^The script left folders more than 16 deep in"):
        training.predict(run, [], tmp_path / "data", tmp_path / "answers", trusted=True, unsafe=False)
    assert not (tmp_path / "answers").exists()


# ------------------------------------------------------------------------------------------------ a pretrained backbone
LEAVES_FEATURES = """
import os, sys
from pathlib import Path
words = dict(zip(sys.argv, sys.argv[1:]))
print("given:", *(path.name[0] for path in sorted(Path(words["--cache"]).iterdir())) if "--cache" in words else "")
cache = Path(words["--out"], "cache")
cache.mkdir()
for name in ("a" * 32 + ".npy", "b" * 32 + ".txt", "../stray"):
    (cache / name).write_text(name)
os.symlink("/etc/hostname", cache / ("c" * 32 + ".npy"))
os.link(cache.parent / "stray", cache / ("d" * 32 + ".npy"))
"""
SHOWS_WEIGHTS = """
import sys
from pathlib import Path
words = dict(zip(sys.argv, sys.argv[1:]))
path = Path(words["--weights"]) if "--weights" in words else None
print("weights:", path and path.read_text())
"""


def with_backbone(folder, script):
    run = make_run(folder)
    run.commit("design", run.load("design", Design).model_copy(update={"network": "clip_vit_b16"}))
    (run.folder / "code" / "mvfa").mkdir()
    (run.folder / "code" / "train.py").write_text(script)
    return run


def test_what_an_attempt_made_of_the_images_is_given_to_the_next_but_no_link_and_no_other_file(tmp_path):
    run = with_backbone(tmp_path, LEAVES_FEATURES)
    said = [training.smoke(run, trusted=True, unsafe=False).strip() for _ in range(2)]
    assert said == ["given:", "given: a"]
    assert [path.name for path in (run.folder / "cache").iterdir()] == ["a" * 32 + ".npy"]
    assert not (run.folder / "attempts" / "smoke" / "cache").exists()


def test_the_weights_of_a_request_reach_a_script_that_reads_a_backbone_and_no_other(tmp_path):
    run = with_backbone(tmp_path, SHOWS_WEIGHTS)
    for name in ("asked.pt", "other.safetensors"):
        (tmp_path / name).write_text(name)
    request = run.load("request", Request)
    run.commit("request", request.model_copy(update={"weights": str(tmp_path / "asked.pt")}))
    assert training.smoke(run, trusted=True, unsafe=False) == "weights: asked.pt"
    (run.folder / "model").mkdir()
    how = {"trusted": True, "unsafe": False, "weights": str(tmp_path / "other.safetensors")}
    training.predict(run, [], tmp_path / "data", tmp_path / "answers", **how)
    assert run.log("predict").read_text() == "weights: other.safetensors\n"
    (run.folder / "code" / "mvfa").rmdir()
    assert training.smoke(run, trusted=True, unsafe=False) == "weights: None"


def test_masks_of_test_cases_and_the_truth_of_phantoms_are_hidden_from_an_anomaly_detection(tmp_path):
    run = make_run(tmp_path)
    index = run.load("index", Index)
    marked = tuple(item.model_copy(update={"mask": f"masks/{item.id}.txt"}) for item in index.test)
    run.commit("index", index.model_copy(update={"task": "anomaly_detection", "test": marked}))
    (tmp_path / "data" / "Liver.truth.json").write_text("{}")
    said = training.smoke(run, trusted=True, unsafe=False)
    assert said.splitlines()[0] == "not empty: a.txt b.txt test/test-000000"
