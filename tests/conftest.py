"""Every test: no network for model hubs and price lists, no language-model cache of the user's, one thread."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
sys.path.insert(0, str(Path(__file__).parent))  # tests share helpers such as rules_server
sys.path.append(str(Path(__file__).parents[1] / "workspace"))  # what templates/network.py adds; none may take it back


def pytest_collection_modifyitems(items):
    """The walk-throughs first, then the files with other long tests, so that no worker is left alone with one."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem != "test_walkthroughs", item.path not in long))


@pytest.fixture(scope="session")
def practice(tmp_path_factory):
    """One practice folder for all tests: exercises that one of them made, and scripts that it ran, serve the others."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "practice"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def exercises(practice):
    """Where `m3bench.exercise.make` puts them, the phantoms at their smallest size among them."""
    return practice / "exercises"


@pytest.fixture
def m3dspy(monkeypatch, capsys, tmp_path):
    """Run a command in an empty folder; its exit status, stdout and stderr."""
    from m3dspy import cli

    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["m3dspy", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    return run
