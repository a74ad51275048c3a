"""Warm workers train as fresh processes do, end within a step, and what befalls one costs one trial."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from test_tune import ROOT, make_run, states, timeless, tuned

from m3dspy.errors import M3Error, RunFailed
from m3dspy.optimizers.storage import journal_storage
from m3dspy.optimizers.tune import Order, carry_out, tune
from m3dspy.workspace import workers
from m3dspy.workspace.workers import Worker

TEMPLATES = ROOT / "workspace" / "templates"
SPAWN = multiprocessing.get_context("spawn")


# ------------------------------------------------------------------------------------------------ the script's side
def script(folder, name, *words, prelude=""):
    """A template on made-up data in `folder`, started with these words."""
    text = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, {str(TEMPLATES)!r})
import harness, {name} as t
{prelude}
data = Path("data")
if not data.is_dir():
    data.mkdir()
    Path("index.json").write_text(json.dumps(t.made_up(data)))
sys.argv = ["train.py", "--index", "index.json", "--data", "data", *sys.argv[1:]]
rest = (t.load_model, t.PRESETS, ("weights", "cache")) if hasattr(t, "load_model") else ()
sys.exit(harness.command_line(t.SETTINGS, t.SPACE, t.LOSSES, t.train, t.predict, t.made_up, *rest))
"""
    return subprocess.Popen(
        [sys.executable, "-c", text, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def say(process, **order):
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def said(process, until):
    """The lines up to the first that has this key."""
    lines = []
    for line in process.stdout:
        lines.append(json.loads(line))
        if until in lines[-1]:
            return lines
    raise AssertionError(f"ended without {until!r}: {lines}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["segment", *(pytest.param(n, marks=pytest.mark.soak) for n in ("classify", "report", "detect"))]
)
def test_a_worker_trains_to_the_bit_as_a_fresh_process_even_after_other_trials(tmp_path, name):
    worker = script(tmp_path, name, "--worker", "--out", "warm")
    other = {"lr": 0.003, "augment": 0.9, "epochs": 1, "seed": 5}
    say(worker, trial="other", settings=other, resume=False, test=False)
    assert said(worker, "done")[-1] == {"trial": "other", "done": True}
    say(worker, trial="same", settings={"lr": 0.001, "epochs": 2}, resume=False, test=True)
    warm = said(worker, "done")
    worker.stdin.close()
    assert worker.wait(10) == 0

    fresh = script(tmp_path, name, "--out", "fresh", "--set", "lr=0.001", "epochs=2")
    lines = [json.loads(line) for line in fresh.communicate()[0].splitlines()]
    assert warm[:-1] == [{"trial": "same", **line} for line in lines]
    files = [path for path in (tmp_path / "fresh").rglob("*") if path.is_file() and path.name != "result.json"]
    assert {"checkpoint.pt", "model.safetensors"} <= {path.name for path in files}
    for path in files:
        assert path.read_bytes() == (tmp_path / "warm" / "same" / path.relative_to(tmp_path / "fresh")).read_bytes()


TELLS_STEPS = """
step = harness.Training.step
def told(self, loss):
    harness.say(step=len(self.losses))
    while len(self.losses) == 2 and not harness.ORDERS.stopped:
        time.sleep(0.01)
    step(self, loss)
harness.Training.step = told
"""


def test_a_trial_that_is_stopped_ends_before_its_next_step_and_the_worker_takes_the_next(tmp_path):
    worker = script(tmp_path, "classify", "--worker", "--out", "out", prelude=TELLS_STEPS)
    settings = {"batch": 2, "epochs": 50}  # 14 images: 7 steps an epoch
    say(worker, trial="a", settings=settings, resume=False, test=False)
    for _ in range(3):
        said(worker, "step")
    say(worker, stop="a")
    assert said(worker, "done") == [{"trial": "a", "done": True}]
    say(worker, trial="a", settings={"loss": "nope"}, resume=False, test=False)
    assert said(worker, "error") == [{"trial": "a", "error": "No loss is called 'nope'. Known: ce, focal."}]
    worker.stdin.close()
    assert worker.wait(10) == 0


# ------------------------------------------------------------------------------------------------ what befalls a worker
def reasons(run):
    study = optuna.load_study(study_name="tune", storage=journal_storage(run.folder / "study" / "journal.log"))
    return [trial.user_attrs["reason"] for trial in study.trials if "reason" in trial.user_attrs]


def starts(run):
    return sum(path.read_text().count("a worker starts") for path in run.folder.glob("logs/worker-*.log"))


def test_all_trials_even_pruned_ones_are_one_workers(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(0.05)")
    assert {"complete", "pruned"} <= set(states(tuned(run, 9)))
    assert starts(run) == 1
    assert sorted(path.name for path in (run.folder / "attempts").iterdir()) == ["space", "worker-0.lock"]


def test_a_crash_costs_one_trial_and_the_next_gets_a_new_worker(tmp_path):
    crash = "if tag.get('trial') == 'trial-001' and epoch == 1: os.kill(os.getpid(), 9)"
    run = make_run(tmp_path, failure=crash)
    assert states(tuned(run, 3)) == ["complete", "failed", "complete"]
    assert reasons(run)[0].startswith("train.py was killed (signal 9)")
    assert starts(run) == 2


def test_an_error_in_words_costs_one_trial_and_no_worker(tmp_path):
    run = make_run(tmp_path, failure="if tag.get('trial') == 'trial-001': raise OSError('a.png is\x1b[2J empty')")
    assert states(tuned(run, 3)) == ["complete", "failed", "complete"]
    assert reasons(run) == [f"a.png is [2J empty. Log: {run.log('trial-001')}"]
    assert starts(run) == 1


def test_silence_costs_one_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "SILENCE", 1.5)
    run = make_run(tmp_path, pause="if tag.get('trial') == 'trial-001': time.sleep(60)")
    assert states(tuned(run, 3)) == ["complete", "failed", "complete"]
    assert "train.py did not stop, or said nothing for too long." in reasons(run)[0]
    assert starts(run) == 2


def test_a_trial_that_does_not_stop_is_killed_after_its_grace(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "GRACE", 0.5)
    run = make_run(tmp_path, pause="if epoch == 2: time.sleep(60)")
    with closing(Worker(run, trusted=True, unsafe=False)) as worker:
        for name in "ab":
            with closing(worker.epochs(name, {}, resume=False)) as epochs:
                assert [next(epochs)["epoch"], next(epochs)["epoch"]] == [0, 1]
                began = time.monotonic()
            assert time.monotonic() - began < 5
            assert run.log(name).read_text().count('"epoch"') == 2
    assert starts(run) == 2


def test_a_worker_that_is_cancelled_by_another_thread_ends_at_once(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(60)")
    with closing(Worker(run, trusted=True, unsafe=False)) as worker:
        threading.Timer(1, lambda: setattr(worker, "cancelled", True)).start()
        began = time.monotonic()
        with pytest.raises(workers.Cancelled):
            next(worker.epochs("a", {}, resume=False))
        assert time.monotonic() - began < 10


def test_a_script_that_puts_a_link_in_place_of_its_folder_reaches_nothing_beyond(tmp_path):
    victim = tmp_path / "victim" / "cache" / ("a" * 32 + ".npy")
    victim.parent.mkdir(parents=True)
    victim.write_text("mine")
    link = f"__import__('shutil').rmtree(out); os.symlink({str(tmp_path / 'victim')!r}, out); raise OSError('linked')"
    run = make_run(tmp_path, failure=f"if tag.get('trial') == 'trial-001': {link}")
    assert states(tuned(run, 3)) == ["complete", "failed", "complete"]
    assert victim.read_text() == "mine"
    assert not list((run.folder / "attempts").glob("trial-*"))


def test_two_are_never_at_the_same_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "WAIT", 0.1)
    run = make_run(tmp_path)
    with (
        closing(Worker(run, trusted=True, unsafe=False)) as worker,
        closing(Worker(run, trusted=True, unsafe=False)) as b,
    ):
        assert (worker.name, b.name) == ("worker-0", "worker-1")
        with closing(worker.epochs("a", {}, resume=False)) as epochs:
            next(epochs)
            with pytest.raises(RunFailed, match=r"^a is still at work elsewhere after 0\.1 s\."):
                next(b.epochs("a", {}, resume=False))


# ------------------------------------------------------------------------------------------------ several at a time
def test_two_trials_at_a_time_are_two_workers_and_every_trial_is_told_once(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(0.1)")
    found = tune(run, 6, trusted=True, unsafe=False, jobs=2)
    assert found.trials[0].settings == {"lr": 0.002, "loss": "ce"}
    assert [trial.number for trial in found.trials] == list(range(6))
    assert sorted(event["number"] for event in run.events() if event["kind"] == "trial") == list(range(6))
    assert len(list(run.folder.glob("logs/worker-?.log"))) == 2
    assert len({trial.settings["lr"] for trial in found.trials}) == 6


def test_more_jobs_than_cores_are_one_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"^--jobs 99 is more than this machine has, \d+ cores"):
        tune(make_run(tmp_path), 1, trusted=True, unsafe=False, jobs=99)


def killed_at(run, jobs, seen):
    text = f"""
from m3dspy.optimizers.tune import tune
from m3dspy.workspace.runs import Run
run = Run.open({str(run.folder)!r})
with run.lock():
    tune(run, 6, trusted=True, unsafe=False, jobs={jobs})
"""
    process = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not any(map(seen, run.events())) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_trials_interrupted_two_at_a_time_are_begun_again_with_their_settings_from_their_checkpoints(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(0.3)")
    killed_at(run, 2, lambda event: event.get("attempt") == "trial-003" and event["epoch"] == 1)
    with run.lock():
        found = tune(run, 6, trusted=True, unsafe=False, jobs=2)
    assert [trial.number for trial in found.trials] == list(range(6))
    assert re.search("[1-9] epochs kept", run.log("trial-003").read_text())
    study = optuna.load_study(study_name="tune", storage=journal_storage(run.folder / "study" / "journal.log"))
    orphans = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.FAIL]
    assert orphans
    for orphan in orphans:
        assert found.trials[orphan.user_attrs["k"]].settings == orphan.params
    told = [(event["attempt"], event["epoch"]) for event in run.events() if event["kind"] == "epoch"]
    assert len(told) == len(set(told))


def test_a_trial_goes_on_however_often_it_was_interrupted_and_stands_in_the_queue_once(tmp_path):
    run = make_run(tmp_path)
    storage = journal_storage(run.folder / "study" / "journal.log")
    study = optuna.create_study(study_name="tune", storage=storage, direction="maximize")
    for lost in (4, 5):  # killed after the second was queued and before the first was told
        study.enqueue_trial({"lr": 0.01, "loss": "ce"}, user_attrs={"k": 0, "lost": lost})
        if lost == 4:
            study.ask()
    found = tuned(run, 2)
    assert [trial.state for trial in found.trials] == ["complete", "complete"]
    assert found.trials[0].settings == {"lr": 0.01, "loss": "ce"}


# ------------------------------------------------------------------------------------------------ far away
class OneProcessEach(Executor):
    """Every trial in a process of its own; that of `k` is killed, so many times, once it has kept an epoch."""

    def __init__(self, k, times):
        self.k, self.times = k, times

    def submit(self, fn, order):
        pool = ProcessPoolExecutor(1, mp_context=SPAWN)
        future = pool.submit(fn, order)
        if order.k == self.k and self.times:
            self.times -= 1
            pid = next(iter(pool._processes))
            threading.Thread(target=self._kill, args=(pid, Path(order.folder), order.name)).start()
        future.add_done_callback(lambda future: pool.shutdown(wait=False))
        return future

    @staticmethod
    def _kill(pid, folder, name):
        while not list(folder.glob(f"attempts/worker-*/{name}/checkpoint.json")):
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_another_process_finds_the_same_and_writes_no_events(tmp_path):
    straight = tuned(make_run(tmp_path / "straight"), 4)
    run = make_run(tmp_path / "far")
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        found = tune(run, 4, trusted=True, unsafe=False, executor=pool)
    assert timeless(found) == timeless(straight)
    assert [event["kind"] for event in run.events()] == ["trial"] * 4


@pytest.mark.slow
def test_a_trial_lost_with_its_worker_is_carried_out_once_more_from_its_checkpoint(tmp_path):
    straight = tuned(make_run(tmp_path / "straight"), 3)
    run = make_run(tmp_path / "lost", pause="time.sleep(0.3)")
    found = tune(run, 3, trusted=True, unsafe=False, executor=OneProcessEach(k=1, times=1))
    assert timeless(found) == timeless(straight)
    assert any(event["kind"] == "warning" and "trial-001 lost its worker" in event["text"] for event in run.events())
    kept = [line for line in run.log("trial-001").read_text().splitlines() if line.endswith("0 test cases")]
    assert kept[-1] != "0 epochs kept, 0 test cases"


@pytest.mark.slow
def test_a_trial_that_loses_two_workers_has_failed(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(0.3)")
    found = tune(run, 3, trusted=True, unsafe=False, executor=OneProcessEach(k=1, times=2))
    assert states(found) == ["complete", "failed", "complete"]
    assert reasons(run)[0].startswith("trial-001 lost its worker twice: ")


def test_a_machine_that_does_not_see_the_run_folder_says_so(tmp_path):
    order = Order(str(tmp_path / "runs" / "x"), "", 0, 0, {}, False, True, False)
    with pytest.raises(M3Error, match=r"^The worker on .* does not see the run folder .*runs/x\. Put the runs on"):
        carry_out(order)


def test_a_machine_that_the_storage_does_not_let_in_says_so(tmp_path):
    pytest.importorskip("psycopg2")
    run = make_run(tmp_path)
    order = Order(str(run.folder), "postgresql://me@127.0.0.1:1/x", 0, 0, {}, False, True, False)
    with pytest.raises(M3Error, match=r"^The worker on \S+: The storage \S+//me@127\.0\.0\.1:1/x does not let us in: "):
        carry_out(order)
