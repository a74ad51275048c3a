"""Every dataset as it is really published: fetched, read by the expert's index, released and answered."""

import subprocess
import sys
from dataclasses import replace

import pytest
from real_trees import TREES, litter

from m3dspy.m3bench.bench import bench
from m3dspy.m3bench.candidates import CANDIDATES
from m3dspy.m3bench.fetch import fetch, real
from m3dspy.m3bench.task import find, tasks
from m3dspy.programs.lms.experts.data_engineer import write_prepare
from m3dspy.programs.lms.experts.task_manager import make_plan
from m3dspy.programs.task_manager import check_plan
from m3dspy.signatures.values import Index
from m3dspy.workspace.cards import cards
from m3dspy.workspace.indexes.checking import check_index
from m3dspy.workspace.look import look

NAMES = [task.name for task in tasks()]


@pytest.fixture(scope="module", params=NAMES)
def fetched(request, tmp_path_factory):
    """A task that asks for as few files as the tree has; the folder its download was put into; cases and patients."""
    home, task = tmp_path_factory.mktemp("real"), find(request.param)
    task = replace(task, layout=tuple(replace(part, count=None) for part in task.layout))
    counts = TREES[task.name](home / "download")
    litter(home / "download")
    return task, fetch(task, home / "download", home / "root").folder, counts


def test_every_dataset_has_a_tree():
    assert set(TREES) == set(NAMES)


def test_a_download_is_found_and_every_case_of_it_is_read(fetched):
    task, folder, (cases, patients) = fetched
    assert real(folder.parent, [task]) == {task.name: folder}
    index = task.gold(folder, 0)
    items = [*index.training, *index.validation, *index.test]
    assert (len(items), len({item.patient for item in items})) == (cases, patients)
    assert check_index(index, folder) == []


def test_the_benchmark_runs_on_it(fetched, tmp_path):
    task, folder, _ = fetched
    table = bench(CANDIDATES["dummy"].candidate, [task], 1, tmp_path, data={task.name: folder})
    [row] = table.rows
    assert (row.s1.successes, row.phantom) == (1, False)


def test_the_rules_plan_it_as_the_expert_would_and_index_every_case(fetched, tmp_path):
    task, folder, (cases, patients) = fetched
    fingerprint = look(folder)
    answer = make_plan(task.requests[0], fingerprint, cards(), "")
    assert answer["plan"] is not None, answer["refusal"]
    plan = answer["plan"]
    assert check_plan(plan, fingerprint, cards()) == []
    assert (plan.task, plan.labels) == (task.task, task.labels)
    assert (plan.patient is None) == (task.facts.patient is None)

    script = tmp_path / "prepare.py"
    script.write_text(write_prepare(plan, fingerprint)["prepare"])
    subprocess.run([sys.executable, script, "--data", folder, "--out", tmp_path], check=True)
    index = Index.model_validate_json((tmp_path / "index.json").read_bytes())
    items = [*index.training, *index.validation, *index.test]
    assert (len(items), len({item.patient for item in items})) == (cases, patients)
