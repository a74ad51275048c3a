"""kill -9 in the middle of a run: what was finished is not done again, and the end is that of a run left alone."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from m3dspy.m3bench import task

REQUEST = "segment both lungs and the COVID-19 infection on chest CT, as a quick try"
KILLS = {  # during the index, during the second trial, during the final training
    "index": lambda event: event["kind"] == "stage" and event["name"] == "index",
    "trial": lambda event: event["kind"] == "epoch" and event["attempt"] == "trial-001",
    "final": lambda event: event["kind"] == "epoch" and event["attempt"] == "final" and event["epoch"] == 1,
}


def command(home, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "m3dspy", *words, "--json"], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def events(run):
    path = run / "events.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def killed_when(process, home, reached):
    """Kill a process as soon as its run's events show what is waited for; returns the run's folder."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        for run in home.glob("runs/[!.]*"):
            if any(reached(event) for event in events(run)):
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return run
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.02)
    raise AssertionError("what was waited for did not come in 5 minutes")


def finish(process):
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


def result(run):
    """What a run came to: weights and predictions by their hash, trials without their seconds, the grade."""
    digest = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("predictions", "control/predictions")
        for path in sorted((run / folder).iterdir())
    }
    digest["model"] = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    trials = json.loads((run / "tuned.json").read_text())["trials"]
    return digest, [{**trial, "seconds": 0} for trial in trials], json.loads((run / "grade.json").read_text())


@pytest.mark.soak
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_is_not(tmp_path):
    task.make("COVID19", tmp_path / "data", size=task.find("COVID19").smallest)
    words = ["run", REQUEST, "--data", str(tmp_path / "data"), "--trials", "2"]
    homes = {}
    for name in ("straight", "killed"):
        homes[name] = tmp_path / name
        homes[name].mkdir()
    straight = Path(finish(command(homes["straight"], *words))["folder"])

    process = command(homes["killed"], *words)
    for reached in KILLS.values():
        run = killed_when(process, homes["killed"], reached)
        process = command(homes["killed"], "resume", str(run))
    finish(process)

    assert result(run) == result(straight)
    done = Counter(event["name"] for event in events(run) if event["kind"] == "stage" and event["status"] == "done")
    assert set(done.values()) == {1}, done
    epochs = [(e["attempt"], e["epoch"]) for e in events(run) if e["kind"] == "epoch"]
    assert len(epochs) == len(set(epochs)), "an epoch that was finished was done again"
    calls = [json.loads(line)["role"] for line in (run / "lm.jsonl").read_text().splitlines()]
    assert Counter(calls)["task_manager"] == 1
