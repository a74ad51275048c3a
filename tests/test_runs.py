"""A run folder holds whole values or none, whatever moment it was killed at, and one process at a time."""

import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from m3dspy.errors import DataError, M3Error, UsageError
from m3dspy.signatures.values import Request, Trial, Tuned
from m3dspy.workspace import runs
from m3dspy.workspace.runs import Run

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path):
    return Run.create(Request(text="Tell Alzheimer's from healthy controls", data="/d"), tmp_path / "runs")


def test_a_new_run_is_named_by_date_and_request_and_holds_the_request(run):
    assert re.fullmatch(r"\d{8}-\d{6}-tell-alzheimer-s-from-healthy-co-[0-9a-f]{4}", run.id)
    assert run.load("request", Request).text == "Tell Alzheimer's from healthy controls"
    assert [path.name for path in run.folder.parent.iterdir()] == [run.id]


def test_a_request_without_a_latin_letter_still_gets_a_name(tmp_path):
    assert re.fullmatch(r"\d{8}-\d{6}-run-[0-9a-f]{4}", Run.create(Request(text="分割", data="/d"), tmp_path).id)


def test_a_run_opens_by_folder_and_by_id(run):
    home = run.folder.parent
    assert Run.open(run.folder).folder == Run.open(run.id, home).folder == run.folder


def test_a_misspelt_run_is_told_with_the_nearest(run):
    with pytest.raises(UsageError, match=rf"^No run is called '{run.id[:-1]}' in .*\. Did you mean '{run.id}'\?$"):
        Run.open(run.id[:-1], run.folder.parent)
    with pytest.raises(UsageError, match=r"holds no runs\. Start one with `m3dspy run`\."):
        Run.open("x", run.folder)


def test_a_committed_stage_comes_back_equal(run):
    tuned = Tuned(trials=(Trial(number=0, state="pruned", score=None, settings={"lr": 1e-3}),), settings={"lr": 1e-3})
    assert not run.has("tuned")
    run.commit("tuned", tuned)
    run.commit("script", {"trusted": True})
    assert run.has("tuned")
    assert run.load("tuned", Tuned) == tuned
    assert run.load("script", dict[str, bool]) == {"trusted": True}


def test_a_missing_and_a_damaged_stage_are_told_in_one_line(run):
    with pytest.raises(M3Error, match=rf"^Run {run.id} has no tuned yet\. Go on with: m3dspy resume {run.id}$"):
        run.load("tuned", Tuned)
    (run.folder / "tuned.json").write_text('{"trials": 3}')
    with pytest.raises(
        DataError, match=r"tuned\.json was changed or is damaged: trials: Input should be a valid array"
    ):
        run.load("tuned", Tuned)


def test_dropped_stages_are_gone(run):
    run.commit("tuned", Tuned())
    run.adopt(run.attempt("final"), "model")
    run.drop("model", "tuned", "never")
    assert not run.has("model")
    assert not run.has("tuned")


def test_an_attempt_starts_empty_unless_it_is_resumed(run):
    (run.attempt("final") / "checkpoint").touch()
    assert (run.attempt("final", resume=True) / "checkpoint").exists()
    assert list(run.attempt("final").iterdir()) == []


def test_an_attempt_becomes_a_stage_by_one_rename(run):
    attempt = run.attempt("final")
    (attempt / "predictions").mkdir()
    (attempt / "predictions" / "a.png").touch()
    (attempt / "result.json").touch()
    run.adopt(attempt / "predictions", "predictions")
    run.adopt(attempt, "model")
    assert (run.folder / "predictions" / "a.png").is_file()
    assert (run.folder / "model" / "result.json").is_file()
    assert run.has("model")
    assert not attempt.exists()


def test_a_link_that_a_script_left_is_not_adopted(run):
    attempt = run.attempt("final")
    (attempt / "model.safetensors").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match=r"The script left .*model\.safetensors, which is a link"):
        run.adopt(attempt, "model")
    assert not run.has("model")


def test_events_come_back_in_order_and_are_heard(tmp_path, run):
    heard = []
    run.listen = heard.append
    run.event("stage", name="plan", status="start")
    run.event("warning", text="größer")
    assert list(run.events()) == heard
    assert [event["kind"] for event in heard] == ["stage", "warning"]


def test_a_stage_is_booked_when_it_starts_and_when_it_ended_well(run):
    with run.stage("plan"):
        pass
    with pytest.raises(DataError), run.stage("index"):
        raise DataError("no")
    told = [(event["name"], event["status"]) for event in run.events() if event["kind"] == "stage"]
    assert told == [("plan", "start"), ("plan", "done"), ("index", "start")]


def test_a_torn_event_is_left_out_and_healed_by_the_next_holder(run):
    run.event("stage", name="plan")
    with (run.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"time": 1, "kind": "epo')
    assert [event["name"] for event in run.events()] == ["plan"]
    with run.lock():
        run.event("stage", name="index")
    assert [event["name"] for event in run.events()] == ["plan", "index"]


def test_leftovers_of_a_killed_writer_are_removed(run):
    (run.folder / "plan.json.123.tmp").touch()
    with run.lock():
        assert not list(run.folder.glob("*.tmp"))


def test_a_second_holder_is_told_who_has_the_run(run):
    since = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d"
    who = rf"process {os.getpid()} on {re.escape(socket.gethostname())}, since {since}"
    refusal = rf"^Run {run.id} is at work elsewhere \({who}\)\. Wait for it, or end it\.$"
    with run.lock(), pytest.raises(M3Error, match=refusal), Run.open(run.folder).lock():
        pass
    with run.lock():
        pass


def test_a_killed_holder_frees_the_run(run):
    holder = f"""
import os
from m3dspy.workspace.runs import Run
with Run.open({str(run.folder)!r}).lock():
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", holder], cwd=ROOT).returncode == -9
    with run.lock():
        pass


def test_a_file_is_the_old_or_the_new_one_whenever_its_writer_is_killed(run):
    path = run.folder / "big.json"
    runs.write_atomic(path, json.dumps([0] * 100_000).encode())
    writer = f"""
import json
from pathlib import Path
from m3dspy.workspace.runs import write_atomic
print("ready", flush=True)
for n in range(1, 10**9):
    write_atomic(Path({str(path)!r}), json.dumps([n] * 100_000).encode())
"""
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", writer], cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        for _ in range(20):
            values = json.loads(path.read_bytes())
            assert len(values) == 100_000
            assert len(set(values)) == 1
        process.kill()
        process.wait()
        process.stdout.close()
        assert len(json.loads(path.read_bytes())) == 100_000


def test_a_full_disk_is_one_line_and_other_errors_pass():
    full = r"^The disk that holds x is full\. Free some space, then resume the run\.$"
    with pytest.raises(M3Error, match=full), runs.disk(Path("x")):
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError), runs.disk(Path("x")):
        Path("/nowhere/at/all").read_text()


def test_a_full_disk_under_the_answer_cache_is_one_line_too(tmp_path):
    with pytest.raises(M3Error, match=r"disk that holds .* is full"), runs.disk(tmp_path):
        raise sqlite3.OperationalError("database or disk is full")
    with pytest.raises(sqlite3.OperationalError, match="locked"), runs.disk(tmp_path):
        raise sqlite3.OperationalError("database is locked")
