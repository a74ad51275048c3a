"""Candidates by name, and the job broken on purpose."""

from pathlib import Path

import pytest

from m3dspy import rivals
from m3dspy.errors import UsageError
from m3dspy.m3bench import candidates
from m3dspy.m3bench.candidates.command import Command
from m3dspy.m3bench.task import find, make
from m3dspy.signatures.values import SPLITS, Request

REQUEST = Request(text="-", data=".")


def named(name):
    return rivals.find(name, REQUEST, lambda event: None, force=False, unsafe=True)


def test_a_candidate_is_found_by_its_name_or_is_a_command():
    assert named("dummy") is candidates.CANDIDATES["dummy"].candidate
    assert isinstance(named("leaky"), rivals.Leaky)
    assert named("true {data} {out}") == Command("true {data} {out}", True)
    with pytest.raises(UsageError, match=r"No candidate is called 'dumy'. Did you mean 'dummy'"):
        named("dumy")


def test_a_split_by_image_puts_patients_into_two_splits(tmp_path):
    task = make("ADNI", tmp_path / "ADNI", size=find("ADNI").demo)
    index = task.gold(tmp_path / "ADNI", 0)
    owner = {item.id: item.patient for split in SPLITS for item in index.items(split)}
    leaky = rivals.by_image(index, 0)
    assert {item.id for split in SPLITS for item in leaky.items(split)} == set(owner)
    seen = [{owner[item.id] for item in leaky.items(split)} for split in SPLITS]
    assert seen[0] & seen[2]
    honest = [{item.patient for item in index.items(split)} for split in SPLITS]
    assert not honest[0] & honest[2]


def test_bounds_are_benched_from_the_command_line(m3dspy):
    """Small enough to be quick: the phantom is made beforehand."""
    make("CT-kidney", Path("out/data/CT-kidney"), size=find("CT-kidney").demo)
    words = ("--tasks", "CT-kidney", "--out", "out")
    status, out, err = m3dspy("bench", *words, "--candidate", "dummy")
    assert status == 0, err
    assert "| CT-kidney | 1/1" in out
    status, out, err = m3dspy("leaderboard", "out", "--out", "board")
    assert status == 0, err
    assert "dummy" in out
    assert "**phantom**" in out
