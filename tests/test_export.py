"""An exported task folder, used as MLE-bench uses it: by its own prepare.py and grade.py."""

import base64
import hashlib
import importlib.util
import json
import subprocess
import sys

import pandas as pd
import pytest

from m3dspy.errors import DataError
from m3dspy.m3bench.export import export
from m3dspy.m3bench.task import find, make

DATASETS = ("CT-kidney", "COVID19", "Liver")


@pytest.fixture(scope="module", params=DATASETS)
def exported(request, tmp_path_factory):
    """(task folder, raw data, public, private)"""
    home, task = tmp_path_factory.mktemp("export"), find(request.param)
    make(task.name, home / "raw", size=task.demo)
    folder = export(task, home / "raw", home / "tasks")
    public, private = home / "prepared" / "public", home / "prepared" / "private"
    public.mkdir(parents=True)  # as MLE-bench does
    private.mkdir()
    loaded(folder / "prepare.py").prepare(raw=home / "raw", public=public, private=private)
    return folder, home / "raw", public, private


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def perfect(private):
    """The submission of somebody who knows the answers."""
    answers = pd.read_csv(private / "answers.csv")
    if answers["mask"].notna().all():
        return answers[["id", "mask"]]
    labels = json.loads(answers["form"][0])["labels"]
    held = [json.loads(case)["label"] for case in answers["case"]]
    chances = {label: [float(label == name) for name in held] for label in labels}
    return pd.DataFrame({"id": answers["id"], "label": held, **chances})


def test_the_folder_has_what_mle_bench_reads(exported):
    yaml = pytest.importorskip("yaml")
    folder, *_ = exported
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert set(config) >= {
        "id",
        "name",
        "competition_type",
        "awards_medals",
        "description",
        "dataset",
        "grader",
        "preparer",
    }
    assert config["id"] == folder.name
    assert config["grader"]["grade_fn"] == f"mlebench.competitions.{folder.name}.grade:grade"
    assert "phantom" in config["name"]
    board = pd.read_csv(folder / "leaderboard.csv")
    assert board["score"].is_monotonic_decreasing
    assert board["teamName"][0] == "oracle"
    splits = json.loads((folder / "splits.json").read_text())
    assert not set(splits["test"]) & set(splits["training"] + splits["validation"])


def test_preparing_again_gives_the_bytes_of_the_checksums(exported):
    yaml = pytest.importorskip("yaml")
    folder, _, public, private = exported
    expected = yaml.safe_load((folder / "checksums.yaml").read_text())
    for part in (public, private):
        files = [path for path in part.iterdir() if path.suffix in (".csv", ".json")]
        own = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in files}
        assert own == expected[part.name]


def test_an_agent_sees_no_answers(exported):
    _, _, public, private = exported
    assert {path.name for path in public.iterdir()} == {
        "train", "test", "test.json", "task.json", "sample", "sample_submission.csv",
    }  # fmt: skip
    assert (private / "answers.csv").is_file()


def test_the_answers_score_1_and_the_sample_next_to_nothing(exported):
    folder, _, public, private = exported
    grade = loaded(folder / "grade.py").grade
    answers = pd.read_csv(private / "answers.csv")
    assert grade(perfect(private), answers) == 1
    assert grade(pd.read_csv(public / "sample_submission.csv"), answers) <= 0.5


def test_a_case_that_is_left_out_costs_its_score(exported):
    folder, _, _, private = exported
    answers = pd.read_csv(private / "answers.csv")
    assert loaded(folder / "grade.py").grade(perfect(private)[1:], answers) < 1


def test_a_submission_without_a_column_or_with_a_case_twice_is_invalid(exported):
    folder, _, _, private = exported
    grade, answers = loaded(folder / "grade.py").grade, pd.read_csv(private / "answers.csv")
    whole = perfect(private)
    with pytest.raises(DataError, match="has no column"):
        grade(whole[["id"]], answers)
    with pytest.raises(DataError, match="twice"):
        grade(pd.concat([whole, whole[:1]]), answers)


def test_both_scripts_run_by_hand(exported, tmp_path):
    folder, raw, *_ = exported
    words = [sys.executable, folder / "prepare.py", raw, tmp_path / "public", tmp_path / "private"]
    subprocess.run(words, check=True)
    perfect(tmp_path / "private").to_csv(tmp_path / "mine.csv", index=False)
    words = [sys.executable, folder / "grade.py", tmp_path / "mine.csv", tmp_path / "private" / "answers.csv"]
    assert float(subprocess.run(words, check=True, capture_output=True, text=True).stdout) == 1


def test_a_mask_that_is_no_file_counts_as_missing(exported):
    folder, _, _, private = exported
    answers = pd.read_csv(private / "answers.csv")
    if answers["mask"].isna().all():
        return
    whole = perfect(private).copy()
    whole.loc[0, "mask"] = base64.b64encode(b"no image").decode()
    left_out = loaded(folder / "grade.py").grade(whole[1:], answers)
    assert loaded(folder / "grade.py").grade(whole, answers) == left_out
