"""The candidates that everybody knows end where they belong; a command line is shown its folders and nothing else."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from m3dspy.errors import M3Error, NoSandbox, UsageError
from m3dspy.m3bench.candidate import Assignment, Limits
from m3dspy.m3bench.candidates import CANDIDATES, _sandboxed
from m3dspy.m3bench.candidates.command import Command
from m3dspy.m3bench.release import graded, release, validate
from m3dspy.m3bench.task import find, make
from m3dspy.workspace import execute
from m3dspy.workspace.sandbox import Containment

DATASETS = ("CT-kidney", "COVID19", "Liver")  # classes, masks, anomalies
BOUNDS = ("dummy", "blind", "oracle", "cheater")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    home = tmp_path_factory.mktemp("bench")
    for name in DATASETS:
        make(name, home / "data" / name, size=find(name).demo)
    return {name: release(find(name), home / "data" / name, home / "released" / name) for name in DATASETS}


def assignment(released, out, request="tell cysts from tumours", minutes=2.0):
    return Assignment(request=request, data=released.public, out=out, limits=Limits(minutes=minutes))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", BOUNDS)
def test_a_bound_is_well_formed_and_ends_where_it_belongs(released, dataset, name, tmp_path):
    given = assignment(released[dataset], tmp_path / "out")
    CANDIDATES[name].candidate(given)
    assert validate(released[dataset], tmp_path / "out" / "predictions") == []
    grade = graded(released[dataset], tmp_path / "out" / "predictions")
    assert grade.s1
    assert grade.s2 == (name == "oracle")
    if name == "oracle":
        assert grade.score.value == 1
    if name == "dummy":
        assert grade.score.value <= grade.floor.high


def test_the_cheater_would_win_if_it_could_see_the_answers(released, tmp_path):
    """So that its failure in the sandbox means something."""
    home = released["CT-kidney"]
    (tmp_path / "order.json").write_text("{}")
    (tmp_path / "out" / "predictions").mkdir(parents=True)
    script = _sandboxed.INSIDE / "cheat.py"
    words = [sys.executable, script, tmp_path / "order.json", f"data={home.public}", f"out={tmp_path / 'out'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "found the answers in" in done.stdout
    assert graded(home, tmp_path / "out" / "predictions").score.value == 1


def test_the_cheater_finds_nothing_in_the_sandbox(released, tmp_path):
    CANDIDATES["cheater"].candidate(assignment(released["CT-kidney"], tmp_path / "out"))
    assert (tmp_path / "out.log").read_text().startswith("found no answers")


AGENT = """
import json, shutil, sys
from pathlib import Path
request, data, out = sys.argv[1:]
shutil.copytree(Path(data) / "sample", Path(out) / "predictions")
(Path(out) / "said.json").write_text(json.dumps([request, sorted(p.name for p in Path(data).iterdir())]))
"""


@pytest.fixture
def agent(tmp_path):
    (tmp_path / "my agent").mkdir()
    (tmp_path / "my agent" / "agent.py").write_text(AGENT)
    return tmp_path / "my agent" / "agent.py"


def test_a_command_line_gets_its_request_as_one_argument(released, agent, tmp_path):
    request = "tell 'cysts'; rm -rf {out} $(id) \"and\" tumours"
    done = Command(f"python '{agent}' {{request}} {{data}} {{out}}")(
        assignment(released["CT-kidney"], tmp_path / "out", request)
    )
    said, shown = json.loads((tmp_path / "out" / "said.json").read_text())
    assert said == request
    assert shown == ["sample", "task.json", "test", "test.json", "train"]
    assert done.checkpoint is None
    assert graded(released["CT-kidney"], tmp_path / "out" / "predictions").s1


def test_a_command_that_holds_the_benchmark_is_refused(released, tmp_path):
    home = released["CT-kidney"].home
    (home.parent / "agent.py").write_text(AGENT)
    with pytest.raises(UsageError, match=r"holds the benchmark's own"):
        Command(f"python {home.parent / 'agent.py'} {{data}} {{out}}")(
            assignment(released["CT-kidney"], tmp_path / "out")
        )


def test_a_command_that_takes_too_long_is_ended(released, agent, tmp_path):
    agent.write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(M3Error, match="was stopped: time"):
        Command(f"python '{agent}' {{data}} {{out}}")(assignment(released["CT-kidney"], tmp_path / "out", minutes=0.02))


def test_a_command_that_fails_says_why(released, agent, tmp_path):
    agent.write_text("import urllib.request as u\nu.urlopen('http://192.0.2.1/', timeout=5)\n")
    with pytest.raises(M3Error, match=r"unreachable|not permitted|denied"):
        Command(f"python '{agent}' {{data}} {{out}}")(assignment(released["CT-kidney"], tmp_path / "out"))


@pytest.mark.parametrize(
    ("line", "told"),
    [("agent {request}", r"where \{data\} and \{out\} go"), ("agent '{data} {out}", "cannot be taken apart")],
)
def test_a_command_that_cannot_work_is_refused_at_once(line, told):
    with pytest.raises(UsageError, match=told):
        Command(line)


def test_without_a_sandbox_a_command_is_refused(monkeypatch):
    monkeypatch.setattr(execute, "probe", lambda: replace(Containment("none"), why="no bubblewrap here"))
    with pytest.raises(NoSandbox, match=r"no bubblewrap here.*--unsafe"):
        Command("agent {data} {out}")
    Command("agent {data} {out}", unsafe=True)
