"""The exercises: the same bytes everywhere, right answers that hold, and a split that is disjoint."""

import ast
import hashlib
import json
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3dspy.errors import UsageError
from m3dspy.m3bench import exercise, forge, partition
from m3dspy.m3bench.faults import EDITS, LOST, damage, faults
from m3dspy.m3bench.layouts._topics import TOPICS, ask_in_vain
from m3dspy.m3bench.phantom import stream
from m3dspy.m3bench.task import tasks
from m3dspy.programs.lms.experts import data_engineer, task_manager, words
from m3dspy.programs.task_manager import check_plan
from m3dspy.signatures.values import SPLITS, Index
from m3dspy.workspace import emit
from m3dspy.workspace.indexing import check_index

PARTS = ("train", "validation", "held-out")
LAYOUTS = [(layout, part) for part in ("train", "held-out") for layout in partition.layouts_of(part)]
NAMES = [f"forge-{layout}-{seed:06d}" for layout, _ in LAYOUTS for seed in range(3)]
ANOMALIES = [f"forge-normal-abnormal-{seed:06d}" for seed in range(18)]
SCRIPTS = {name: (emit.TEMPLATES / f"{name}.py").read_text() for name in ("classify", "detect", "segment", "report")}


def tree_hash(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


def rows(index, split):
    return sorted((item.id, str(item.image), item.patient, item.label) for item in index.items(split))


# ------------------------------------------------------------------------------------------------ what is made
def test_a_folder_and_its_answers_are_the_same_in_every_process(exercises, tmp_path):
    names = [f"forge-{layout}-000001" for layout, _ in LAYOUTS]
    code = (
        "import sys; from pathlib import Path; from m3dspy.m3bench import exercise\n"
        "for name in sys.argv[2:]: exercise.make(name, Path(sys.argv[1]))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "4711"}
    subprocess.run([sys.executable, "-c", code, tmp_path, *names], env=environment, check=True, capture_output=True)
    for name in names:
        exercise.make(name, exercises)
        assert tree_hash(tmp_path / name) == tree_hash(exercises / name), name


def test_an_exercise_is_made_once_however_many_threads_ask(tmp_path):
    name = "forge-table-words-000003"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: exercise.make(name, tmp_path), range(8)))
    assert all(one == made[0] for one in made)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [name]
    assert exercise.root(name, tmp_path) == tmp_path / name / "data"


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_of_an_exercise_hold(name, exercises):
    made = exercise.make(name, exercises)
    if made.refused:
        assert (made.plan, made.index, made.capped) == (None, None, None)
        return
    data = exercise.root(name, exercises)
    assert check_plan(made.plan, made.fingerprint, list(made.cards)) == []
    assert check_index(made.index, data) == []
    assert check_index(made.capped, data, made.plan.caps) == []
    assert 10 <= sum(len(made.index.items(split)) for split in SPLITS) <= 72
    assert (made.plan.card is not None) == bool(made.card)
    group = next(group for group in made.fingerprint.groups if group.pattern == made.plan.images)
    assert min(group.shape.least) >= 8
    assert str(exercises) not in made.model_dump_json()


@pytest.mark.parametrize("name", NAMES)
def test_the_helpers_obeying_the_plan_give_the_index(name, exercises, tmp_path, monkeypatch):
    """The plan names patients, labels and split in the words of the helpers, and the index is what they then find."""
    made = exercise.make(name, exercises)
    if made.refused:
        return
    script = tmp_path / "prepare.py"
    script.write_text(data_engineer.write_prepare(made.plan, made.fingerprint)["prepare"])
    monkeypatch.setattr(sys, "argv", ["", "--data", str(exercise.root(name, exercises)), "--out", str(tmp_path)])
    runpy.run_path(str(script))
    found = Index.model_validate_json((tmp_path / "index.json").read_text())
    for split in SPLITS:
        assert rows(found, split) == rows(made.capped, split)
    assert bool(re.search("split_column=|test='", script.read_text())) == made.official_split


def test_layouts_differ_in_all_that_real_datasets_differ_in(exercises):
    made = [exercise.make(f"forge-{layout}-{seed:06d}", exercises) for layout, _ in LAYOUTS for seed in range(6)]
    plans = [one.plan for one in made if one.plan]
    groups = [group for one in made for group in one.fingerprint.groups]
    assert len(LAYOUTS) >= 12
    assert {(plan.task, plan.dims) for plan in plans} == set(TOPICS)
    assert {plan.source.kind for plan in plans} == {"folder", "table", "masks", "json"}
    assert {plan.patient and plan.patient.where for plan in plans} == {None, "folder", "file name", "column"}
    assert {group.format for group in groups} == {"raster", "nifti", "dicom", "npy", "torch_tensor"}
    assert {True, False} == {group.slices for group in groups} == {one.official_split for one in made}
    assert {plan.sided for plan in plans} == {bool(one.card) for one in made} == {True, False}
    assert {plan.caps.balanced for plan in plans if plan.caps.training} == {True, False}
    assert any(plan.label_values and plan.task == "classification" for plan in plans)
    assert len({plan.modality for plan in plans}) >= 5
    for task in ("classification", "segmentation"):
        requests = {one.request for one in made if one.plan and one.plan.task == task}
        assert len({re.split(r"\W", request)[0] for request in requests}) >= 5


def test_a_request_in_vain_names_nothing_that_the_folder_holds():
    everything = [
        (task, topic) for (task, _), found in TOPICS.items() if task != "anomaly_detection" for topic in found
    ]
    for task, topic in everything:
        for seed in range(60):
            request = ask_in_vain(task, topic, stream(seed, topic.images))
            for _, other in everything:
                request = request.replace(other.images, "images")
            named = [name for name in topic.names if re.search(rf"\b{name}\b", request)]
            assert named == [], request


def test_anomalies_are_asked_for_in_vain_on_another_subject_zero_shot_or_in_another_task():
    asked = {topic.images: {} for topic in TOPICS["anomaly_detection", 2]}
    for topic in TOPICS["anomaly_detection", 2]:
        for seed in range(30):
            request = ask_in_vain("anomaly_detection", topic, stream(seed, topic.images))
            other = not words.regions(topic.images) & words.regions(request)
            kind = "subject" if other else "zero-shot" if words.shots(request) == 0 else words.task_of(request)
            asked[topic.images].setdefault(kind, request)
    for kinds in asked.values():
        assert {"subject", "zero-shot"} < set(kinds)
        assert not {"anomaly_detection", "classification", "segmentation", None} & set(kinds)


@pytest.mark.parametrize("name", ANOMALIES)
def test_the_rules_find_the_expert_s_plan_of_an_anomaly_detection(name, exercises):
    made = exercise.make(name, exercises)
    answer = task_manager.make_plan(made.request, made.fingerprint, list(made.cards), "")
    assert answer["plan"] == made.plan
    assert bool(answer["refusal"]) == made.refused


def test_anomaly_detections_differ_and_each_of_their_lists_holds_enough_of_both_kinds(exercises):
    made = [exercise.make(name, exercises) for name in ANOMALIES]
    made = [one for one in made if one.plan]
    assert {one.plan.shots for one in made} == {2, 4}
    assert {(bool(one.plan.masks), one.official_split) for one in made} == {(m, t) for m in (0, 1) for t in (0, 1)}
    assert {bool(one.plan.source.path) for one in made} == {True, False}
    assert len({one.plan.label_values for one in made}) >= 4
    for one in made:
        assert (words.shots(one.request), one.index.about) == (one.plan.shots, one.plan.about)
        for split in SPLITS:
            held = Counter(item.label for item in one.index.items(split))
            assert min(held["normal"], held["abnormal"]) >= one.plan.shots, (one.name, split)
        marked = [item.label for split in SPLITS for item in one.index.items(split) if item.mask]
        assert set(marked) == ({"abnormal"} if one.plan.masks else set())


def test_one_request_in_six_is_in_vain(exercises):
    made = [exercise.make(name, exercises) for name in partition.names("train", 79)[:-1]]
    assert [one.refused for one in made].count(True) == 13  # of 78 forged: every layout once in six rounds
    assert all(one.fingerprint.groups and one.request for one in made)


def test_datasets_become_exercises_as_well(exercises):
    made = exercise.make("COVID19", exercises)
    assert (made.part, made.plan.source.path) == ("train", "segmentation_masks/*_#.nii.gz")
    assert (made.plan.label_values, made.plan.sided, made.plan.card) == (("1", "2", "3"), True, "COVID19")
    assert check_plan(made.plan, made.fingerprint, list(made.cards)) == []
    assert check_index(made.capped, exercise.root("COVID19", exercises)) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", tasks(), ids=lambda task: task.name)
def test_every_dataset_has_the_expert_s_plan(task, exercises):
    made = exercise.make(task.name, exercises)
    assert check_plan(made.plan, made.fingerprint, list(made.cards)) == []
    assert check_index(made.capped, exercise.root(task.name, exercises), made.plan.caps) == []
    assert made.plan.labels == task.labels


def test_an_unknown_exercise_is_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"No exercise is called 'forge-tabels-000001'\. Give a dataset .*table-words"):
        exercise.make("forge-tabels-000001", tmp_path)
    with pytest.raises(UsageError, match="No exercise is called 'forge-table-words-1'"):
        exercise.make("forge-table-words-1", tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ the split
def test_no_layout_or_dataset_is_compiled_on_and_held_out():
    assert not set(partition.layouts_of("train")) & set(partition.layouts_of("held-out"))
    assert partition.layouts_of("train") == partition.layouts_of("validation")
    assert {name.replace("_", "-") for name in forge.LAYOUTS} == {layout for layout, _ in LAYOUTS}
    assert [partition.part_of(name) for name in ("COVID19", "CT-kidney", "ADNI", "BTCV")] == [
        "train",
        "validation",
        "held-out",
        "held-out",
    ]


def test_no_exercise_stands_in_two_parts():
    drawn = {part: {name for seed in (0, 1) for name in partition.names(part, 500, seed)} for part in PARTS}
    for one in PARTS:
        assert {partition.part_of(name) for name in drawn[one]} == {one}
        assert not any(drawn[one] & drawn[other] for other in PARTS if other != one)


@pytest.mark.parametrize("part", PARTS)
def test_any_few_exercises_in_a_row_differ(part):
    names = partition.names(part, 100)
    layouts = partition.layouts_of(part)
    count = len(layouts)
    assert len(set(names)) == 100
    assert [partition.taken_apart(name)[0] for name in names[: 3 * count]] == 3 * layouts
    assert names[-1] in {task.name for task in tasks()}
    assert {forge.LAYOUTS[layout].TASK for layout in layouts[:3]} == {"classification", "segmentation"}


def test_another_seed_gives_other_exercises_and_too_many_are_refused():
    assert not set(partition.names("train", 50)[:-1]) & set(partition.names("train", 50, seed=1)[:-1])
    with pytest.raises(UsageError, match="20000 exercises with seed 0: a seed is 0 to 499 and gives at most 13000"):
        partition.names("train", 20_000)
    with pytest.raises(UsageError, match="No part is called 'test'"):
        partition.names("test", 1)


# ------------------------------------------------------------------------------------------------ as a dataset
def test_exercises_go_to_parquet_and_back(exercises, tmp_path):
    import datasets

    from m3dspy.m3bench.tasks import as_dataset

    made = as_dataset("train", 8, exercises)
    made.to_parquet(tmp_path / "train.parquet")
    back = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert back.to_list() == made.to_list()
    assert back["name"][:] == partition.names("train", 8)
    for row in back:
        known = exercise.make(row["name"], exercises)
        assert (row["request"], row["layout"], row["seed"]) == (known.request, known.layout, known.seed)
        assert row["refused"] == (row["plan"] is None) == (row["task"] is None)
        if row["plan"]:
            assert Index.model_validate_json(row["capped"]) == known.capped
            assert json.loads(row["plan"])["dims"] == row["dims"] == known.plan.dims


def test_without_a_part_all_three_are_given(exercises):
    from m3dspy.m3bench.tasks import as_dataset

    assert as_dataset(count=2, home=exercises)["part"][:] == ["train"] * 2 + ["validation"] * 2 + ["held-out"] * 2


# ------------------------------------------------------------------------------------------------ damaged scripts
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_damaged_script_parses_and_differs_in_one_place(name):
    made = [damage(SCRIPTS[name], seed) for seed in range(60)]
    assert made == [damage(SCRIPTS[name], seed) for seed in range(60)]
    assert 10 <= sum(kind == "none" for _, kind in made) <= 30  # one in three
    assert len({kind for _, kind in made} - {"none"}) >= 6
    for text, kind in made:
        assert (text == SCRIPTS[name]) == (kind == "none")
        ast.parse(text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_kind_of_fault_finds_its_place_in_every_template(name):
    assert set(faults(SCRIPTS[name])) == {LOST, *EDITS}


@pytest.mark.slow
@pytest.mark.parametrize("name", [n if n == "classify" else pytest.param(n, marks=pytest.mark.soak) for n in SCRIPTS])
def test_every_fault_ends_a_smoke_run_with_a_message_and_the_sound_script_does_not(name, tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    texts = [("none", SCRIPTS[name])] + [
        (kind, text) for kind, found in faults(SCRIPTS[name]).items() for text in found
    ]
    (tmp_path / "scripts.json").write_text(json.dumps(texts))
    command = [sys.executable, driver, tmp_path, emit.TEMPLATES, emit.HERE, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (_, sound), *damaged = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    assert sound == "ended well"
    assert len(damaged) == len(texts) - 1
    for kind, said in damaged:
        assert re.match("AttributeError|NameError|KeyError|TypeError|IndexError|RuntimeError|ValueError", said), (
            kind,
            said,
        )


DRIVER = """
import json, runpy, sys
from pathlib import Path
home, templates, workspace, name = Path(sys.argv[1]), *sys.argv[2:]
sys.path[:0] = [templates, workspace]
data = home / "data"
data.mkdir()
(home / "index.json").write_text(json.dumps(runpy.run_path(f"{templates}/{name}.py")["made_up"](data)))
for kind, text in json.loads((home / "scripts.json").read_text()):
    (home / "train.py").write_text(text)
    sys.argv = ["train.py", "--index", f"{home}/index.json", "--data", str(data), "--out", f"{home}/out", "--smoke"]
    try:
        runpy.run_path(f"{home}/train.py", run_name="__main__")
    except SystemExit as end:
        said = "ended well" if end.code == 0 else f"status {end.code}"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps([kind, said]), flush=True)
"""
