"""Killed, terminated, moved, out of space or with the clock set back: a run loses nothing and does nothing twice."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import chain, repeat
from pathlib import Path

import dspy
import pytest
from test_builder import Listener
from test_resume import REQUEST, command, events, finish, killed_when, result
from test_tune import make_run, tune_until

from m3dspy import job
from m3dspy.errors import DataError, M3Error, RunFailed, UsageError
from m3dspy.m3bench import task
from m3dspy.optimizers import tune
from m3dspy.optimizers.storage import journal_storage
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM
from m3dspy.signatures.values import Index, Item, Request
from m3dspy.workspace import inventory, runs
from m3dspy.workspace.look import look
from m3dspy.workspace.runs import Run

ROOT = Path(__file__).parent.parent
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    return folder


@pytest.fixture
def run(tmp_path, data):
    return Run.create(Request(text="tell a from b", data=str(data)), tmp_path / "runs")


@pytest.fixture
def indexed(run, data):
    """A run whose index names three files."""
    items = tuple(Item(id=name, patient=name, image=f"{name}.png", label="x") for name in "abc")
    index = Index(task="classification", labels=("x", "y"), training=items)
    inventory.note(run, index, data)
    run.commit("index", index)
    return run


def python(code, *words):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


KILLED_AT_THE_SECOND_FILE = """
import os, sys
from m3dspy.workspace.runs import Run
removed = 0
def watch(event, about):
    global removed
    if event == "os.remove" and str(about[0]).endswith(".png"):
        removed += 1
        if removed == 2:
            os.kill(os.getpid(), 9)
run = Run.open(sys.argv[1])
with run.lock():
    sys.addaudithook(watch)
    run.drop("predictions")
"""


def test_a_stage_whose_removal_was_killed_is_gone_as_a_whole(run):
    folder = run.attempt("final")
    for name in "abc":
        (folder / f"{name}.png").touch()
    run.adopt(folder, "predictions")
    assert python(KILLED_AT_THE_SECOND_FILE, run.folder).wait() == -9
    assert not run.has("predictions")
    assert len(list(run.folder.glob("predictions.*.tmp/*.png"))) == 2
    with run.lock():
        assert not list(run.folder.glob("*.tmp"))


KILLED_BEFORE = """
import os, sys
event, name, *sys.argv[1:] = sys.argv[1:]
def watch(happens, about):
    if happens == event and any(str(place).endswith(name) for place in about):
        os.kill(os.getpid(), 9)
from m3dspy import cli
sys.addaudithook(watch)
cli.main()
"""


HOLDING = """
import sys
from m3dspy.workspace.runs import Run
with Run.open(sys.argv[1]).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_resume_says_which_process_holds_the_run_where_and_since_when(run):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(run.folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    second = command(run.folder.parent, "resume", str(run.folder))
    out, err = second.communicate(timeout=60)
    holder.communicate(b"")
    who = rf"process {holder.pid} on {re.escape(socket.gethostname())}, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S+"
    assert second.returncode == 1
    assert re.fullmatch(
        rf"m3dspy: Run {run.id} is at work elsewhere \({who}\)\. Wait for it, or end it\.\n", err.decode()
    )
    assert json.loads(out)["exit"] == 1


def test_the_lock_of_a_machine_that_a_run_was_copied_from_does_not_count(run):
    (run.folder / "run.lock").write_text("process 7 on another-machine, since 2020-01-01 00:00:00+00:00\n")
    with run.lock():
        assert socket.gethostname() in (run.folder / "run.lock").read_text()


def test_a_long_torn_last_line_is_cut_off_and_nothing_else(tmp_path):
    journal = tmp_path / "journal"
    for whole in (b"", b'{"a": 1}\n', b'{"a": 1}\n' + b"b" * 3 * runs.HEALED_AT_ONCE + b"\n"):
        for torn in (b"", b"x", b"x" * runs.HEALED_AT_ONCE, b"x" * (5 * runs.HEALED_AT_ONCE + 7)):
            journal.write_bytes(whole + torn)
            runs.heal(journal)
            assert journal.read_bytes() == whole


def test_runs_of_one_request_get_two_folders_though_the_clock_and_the_digits_repeat(tmp_path, monkeypatch):
    digits = chain(("aaaa", "aaaa"), repeat("bbbb"))
    monkeypatch.setattr(runs, "token_hex", lambda size: next(digits))

    class Stopped(runs.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 31)

    monkeypatch.setattr(runs, "datetime", Stopped)
    ids = [Run.create(Request(text="x", data="/d"), tmp_path).id for _ in range(2)]
    assert ids == ["20260131-000000-x-aaaa", "20260131-000000-x-bbbb"]


def test_a_stage_and_a_trial_last_no_less_than_nothing_though_the_clock_is_set_back(tmp_path, monkeypatch):
    run, real = make_run(tmp_path), time.time
    monkeypatch.setattr(runs.time, "time", lambda: real() - 3600)
    with run.stage("tune"):
        found = tune.tune(run, 1, trusted=True, unsafe=True)
    assert 0 < found.trials[0].seconds < 600
    assert 0 < [event["seconds"] for event in run.events() if event.get("status") == "done"][-1] < 600


def test_a_trial_goes_on_though_a_second_crash_came_before_it_was_asked_for_again(tmp_path):
    run = make_run(tmp_path, pause="time.sleep(0.2)")
    tune_until(run, lambda event: event.get("attempt") == "trial-001" and event["epoch"] == 1)
    storage = journal_storage(run.folder / "study" / "journal.log")
    storage.create_new_trial(storage.get_study_id_from_name("tune"))  # it has no settings yet
    tune.tune(run, 2, trusted=True, unsafe=True)
    assert "2 epochs kept" in run.log("trial-001").read_text()
    told = [(event["attempt"], event["epoch"]) for event in run.events() if event["kind"] == "epoch"]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("cut", ["before the stages are dropped", "after"])
def test_a_complaint_on_its_way_back_outlives_a_crash(tmp_path, cut):
    folder = tmp_path / "covid"
    task.make("COVID19", folder, size=task.find("COVID19").smallest)
    run = Run.create(Request(text="segment both lungs on chest CT", data=str(folder)), tmp_path / "runs")
    run.commit("fingerprint", look(folder))
    builder, lm = Builder(), M3dLM("rules", Ledger())
    builder.task_manager = Listener()
    builder.module_architect.forward = _gives_up
    for _ in range(2):
        with run.lock(), dspy.context(lm=lm, adapter=dspy.ChatAdapter()), pytest.raises(DataError, match="given up"):
            builder(run)
        if len(builder.task_manager.heard) == 1:
            run.event("back", by="design", to="plan", complaint="the labels are too many")
            if cut == "after":
                run.drop("index", "plan")
    assert builder.task_manager.heard == ["", "the labels are too many"]


def _gives_up(**inputs):
    raise DataError("given up")


# ------------------------------------------------------------------------------------------------ the dataset
def test_a_dataset_that_is_not_here_is_one_line_that_says_how_to_name_it(run, data):
    data.rename(data.with_name("elsewhere"))
    told = rf"^The dataset {data} is not here\. Say where it is: m3dspy resume {run.folder} --data DIR$"
    with pytest.raises(UsageError, match=told):
        job.carry_on(run)


@pytest.mark.parametrize(("what", "happened"), [("gone", r"b\.png is gone"), ("longer", r"b\.png was changed")])
def test_a_dataset_that_changed_after_its_index_is_one_line(indexed, data, what, happened):
    inventory.check(indexed, indexed.load("request", Request))
    if what == "gone":
        (data / "b.png").unlink()
    else:
        (data / "b.png").write_text("bb")
    told = (
        rf"^The dataset is not the one that run {indexed.id} indexed: {happened} \(1 of 3 files differ\)\. Put it back"
    )
    with pytest.raises(DataError, match=told):
        inventory.check(indexed, indexed.load("request", Request))


def test_a_dataset_that_was_moved_is_known_by_its_sizes_and_another_one_is_refused(indexed, data, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(data, copied, copy_function=shutil.copy)  # with new times
    os.utime(copied / "a.png", ns=(1, 1))
    job._moved(indexed, copied)
    inventory.check(indexed, indexed.load("request", Request))
    assert indexed.load("request", Request).data == str(copied)
    (copied / "c.png").write_text("another")
    with pytest.raises(DataError, match=r"c\.png was changed \(1 of 3 files differ\)"):
        job._moved(indexed, copied)


# ------------------------------------------------------------------------------------------------ a full disk
def test_a_storage_that_vanished_is_one_line():
    told = r"^/data/a\.png cannot be reached: Stale file handle\. Mend that, then resume the run\.$"
    with pytest.raises(M3Error, match=told), runs.disk(Path("x")):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/data/a.png")


def test_a_script_that_ran_into_a_full_disk_has_not_failed_of_its_own(tmp_path):
    log = tmp_path / "log"
    log.write_text(f"error: [Errno 28] {os.strerror(errno.ENOSPC)}\n")
    with pytest.raises(M3Error, match=r"^The disk that holds x is full\."), runs.disk(Path("x")):
        raise RunFailed("train.py ended with status 1.", log)
    log.write_text("error: no such loss\n")
    with pytest.raises(RunFailed, match="no such loss"), runs.disk(Path("x")):
        raise RunFailed("train.py ended with status 1.", log)


def test_a_trial_that_ran_into_a_full_disk_is_not_counted_as_failed(tmp_path):
    full = f'raise SystemExit("error: [Errno 28] {os.strerror(errno.ENOSPC)}")'
    run = make_run(tmp_path, failure=full)
    with pytest.raises(M3Error, match=r"^The disk that holds .* is full\. Free some space, then resume the run\.$"):
        tune.tune(run, 2, trusted=True, unsafe=True)
    script = run.folder / "code" / "train.py"
    script.write_text(script.read_text().replace(full, "pass"))
    assert [trial.state for trial in tune.tune(run, 2, trusted=True, unsafe=True).trials] == ["complete", "complete"]


FULL = """
set -e
mount -t tmpfs -o size=64m tmpfs "$1"
exec "$2" "$3" "$1" "$4"
"""


@root_only
@pytest.mark.soak
def test_a_disk_that_fills_amid_training_keeps_the_last_checkpoint_and_the_run_goes_on_once_there_is_space(tmp_path):
    task.make("COVID19", tmp_path / "data", size=task.find("COVID19").smallest)
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["unshare", "-m", "sh", "-c", FULL, "sh", disk, sys.executable, ROOT / "tests" / "full_disk.py"]
    done = subprocess.run([*map(str, words), str(tmp_path / "data")], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "done"


# ------------------------------------------------------------------------------------------------ whole runs
@pytest.mark.soak
def test_kills_at_random_instants_lose_nothing_and_do_nothing_twice(tmp_path):
    loop = [sys.executable, str(ROOT / "benchmarks" / "kill_loop.py"), "--kills", "5", "--seed", "3", "--trials", "2"]
    done = subprocess.run(loop, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert "lost, done twice or different: 0\n" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.soak
def test_sigterm_is_one_line_an_exit_status_and_no_process_left(tmp_path):
    task.make("COVID19", tmp_path / "data", size=task.find("COVID19").smallest)
    process = command(tmp_path, "run", REQUEST, "--data", str(tmp_path / "data"), "--trials", "1")
    run = None
    while run is None or not any(event["kind"] == "epoch" for event in events(run)):
        run = next(tmp_path.glob("runs/[!.]*"), None)
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    said = f"m3dspy: Terminated. What was finished is kept; go on with: m3dspy resume {run}"
    assert err.decode().splitlines()[-1] == said
    assert [words for words in commands() if str(run) in words] == []
    finish(command(tmp_path, "resume", str(run)))


def commands():
    """The command lines of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue


@pytest.mark.soak
def test_a_run_that_was_moved_with_its_dataset_amid_training_ends_like_one_that_was_not(tmp_path):
    task.make("COVID19", tmp_path / "data", size=task.find("COVID19").smallest)
    words = ["run", REQUEST, "--data", str(tmp_path / "data"), "--trials", "1"]
    (tmp_path / "here").mkdir()
    straight = Path(finish(command(tmp_path / "here", *words))["folder"])
    (tmp_path / "old").mkdir()
    final = lambda event: event["kind"] == "epoch" and event["attempt"] == "final"  # noqa: E731
    run = killed_when(command(tmp_path / "old", *words), tmp_path / "old", final)
    moved = Path(shutil.copytree(run, tmp_path / "new" / run.name))
    shutil.rmtree(run)
    (tmp_path / "data").rename(tmp_path / "new" / "data")
    refused = command(tmp_path, "resume", str(moved))
    assert f"Say where it is: m3dspy resume {moved} --data DIR\n" in refused.communicate(timeout=60)[1].decode()
    assert refused.returncode == 2
    finish(command(tmp_path, "resume", str(moved), "--data", str(tmp_path / "new" / "data")))
    assert result(moved) == result(straight)


@pytest.mark.soak
def test_further_trials_that_are_killed_are_all_done_and_the_model_is_that_of_the_best(tmp_path):
    task.make("COVID19", tmp_path / "data", size=task.find("COVID19").smallest)
    words = ["run", REQUEST, "--data", str(tmp_path / "data"), "--trials", "1"]
    run = Path(finish(command(tmp_path, *words))["folder"])
    for event, name, how in (
        ("os.rename", "/tuned.json", ("tune", run, "--trials", "3")),
        ("os.remove", "/report.html", ("resume", run)),  # better settings stand, the model of the old ones too
        ("os.rename", "/model", ("resume", run)),  # the model is being taken back
    ):
        killed = python(KILLED_BEFORE, event, name, *how).wait(300)
        assert killed in (-9, 0), "the last of them happens only if a trial was better"
    finish(command(tmp_path, "resume", str(run)))
    tuned = json.loads((run / "tuned.json").read_text())
    assert [trial["number"] for trial in tuned["trials"]] == [0, 1, 2, 3]
    settings = json.loads((run / "model" / "settings.json").read_text())
    assert {name: settings[name] for name in tuned["settings"]} == tuned["settings"]
    assert not (run / "more.json").exists()
