"""TAB in the shells: commands and names are offered, and nothing heavy is imported for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_layers import HEAVY

from m3dspy.m3bench import task

FOLDER = Path(sys.executable).parent  # of the command
FIRST, SECOND = "20260101-101010-tell-cysts-from-stones-0a1b", "20260102-101010-segment-both-lungs-2c3d"
PROGRAM = "runs/programs/gepa-gpt-4o-mini-1f"


@pytest.fixture
def home(tmp_path):
    """A folder with two runs and a compiled program, and a run elsewhere."""
    for file in (f"runs/{FIRST}/request.json", f"runs/{SECOND}/request.json", "others/third/request.json"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("{}")
    (tmp_path / PROGRAM).mkdir(parents=True)
    (tmp_path / PROGRAM / "manifest.json").write_text("{}")
    return tmp_path


def offered(home, *words):
    """What bash offers for the last word, asked as the function of `m3dspy --show-completion` asks."""
    told = {"COMP_WORDS": "\n".join(["m3dspy", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [FOLDER / "m3dspy"], cwd=home, env={**os.environ, **told, "_M3DSPY_COMPLETE": "complete_bash"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_commands_are_completed(home):
    assert offered(home, "re") == ["resume", "report"]
    assert offered(home, "data", "ma") == ["make"]


def test_datasets_are_those_of_the_benchmark(home):
    assert offered(home, "data", "make", "") == sorted(found.name for found in task.tasks())
    assert offered(home, "bench", "--tasks", "CT") == ["CT-RATE", "CT-kidney"]


def test_runs_are_those_of_the_folder_of_runs(home):
    assert offered(home, "resume", "") == [FIRST, SECOND]
    assert offered(home, "predict", SECOND[:8]) == [SECOND]
    assert offered(home, "report", "--runs", "others", "") == ["third"]


def test_programs_and_optimizers_are_completed(home):
    assert offered(home, "compare", "runs/pro") == [PROGRAM]
    assert offered(home, "compile", "--optimizer", "") == ["bootstrap", "gepa", "mipro", "random-search"]


def test_bash_completes_by_the_function_that_is_installed(home):
    asked = f'COMP_WORDS=(m3dspy resume {FIRST[:8]}); COMP_CWORD=2; _m3dspy_completion m3dspy; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f'eval "$(m3dspy --show-completion)"\n{asked}'], cwd=home,
        env={**os.environ, "PATH": f"{FOLDER}:{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == (FIRST, "")


def test_nothing_heavy_is_imported_for_a_name(home):
    code = (
        "import sys; from m3dspy import cli, completion; "
        "completion.datasets(); completion.programs(); completion.optimizers(); "
        f"print([name for name in {(*HEAVY, 'pydantic')} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=home)
    assert done.stdout.strip() == "[]", done.stderr
