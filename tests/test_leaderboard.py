"""The leaderboard, from benchmarks whose rounds are known."""

import pytest
from PIL import Image

from m3dspy.errors import DataError, UsageError
from m3dspy.m3bench.bench import Round, tabulate
from m3dspy.m3bench.candidate import Limits, Submission
from m3dspy.m3bench.leaderboard import leaderboard, markdown, write
from m3dspy.m3bench.task import find
from m3dspy.signatures.values import Grade, Score


def a_round(dataset, number, s1=True, s2=True, s3=None, notes=(), claimed=None, phantom=True, **told):
    score = Score(value=0.7, low=0.6, high=0.8)
    grade = Grade(metric="m", score=score, floor=score, cases=9, patients=9, s1=s1, s2=s2, s3=s3)
    submission = Submission(
        **{"lm": "rules", "program": "as written", **told},
        claimed=claimed and Score(value=claimed, low=claimed, high=claimed),
    )
    return Round(
        dataset=dataset,
        number=number,
        request="r",
        seed=number,
        phantom=phantom,
        limits=Limits(),
        submission=submission,
        grade=grade,
        oracle=0.9,
        notes=notes,
        roles={"task_manager": s1},
        seconds=60,
    )


def a_bench(folder, rounds, names=("ADNI", "Liver"), count=2, name="m3dspy"):
    for found in rounds:
        place = folder / found.dataset / f"round-{found.number:02d}"
        place.mkdir(parents=True)
        (place / "round.json").write_text(found.model_dump_json())
    table = tabulate([find(known) for known in names], count, folder, name)
    (folder / "bench.json").write_text(table.model_dump_json())
    return folder


@pytest.fixture
def ours(tmp_path):
    """Three rounds of four: one is missing, one has no S2, one is a leak, and the claim of another may be luck."""
    rounds = [
        a_round("ADNI", 0, s3=True, dollars=0.5, calls=3, notes=("claims more than the phantom allows: a leak",)),
        a_round("ADNI", 1, s2=False, s3=False, dollars=0.25, calls=4),
        a_round("Liver", 0, dollars=0.0, claimed=0.91),
    ]
    return a_bench(tmp_path / "ours", rounds)


def test_a_missing_round_is_a_failure_and_costs_are_added_up(ours):
    row, published = leaderboard([ours]).rows
    assert (row.s1.successes, row.s1.runs, row.s2.successes, row.s2.runs) == (3, 4, 2, 4)
    assert (row.s3.successes, row.s3.runs) == (1, 2)
    assert (row.calls, row.dollars, row.seconds, row.leaks, row.phantom) == (7, 0.75, 180, 1, True)
    assert (row.shared.successes, row.shared.runs) == (2, 2)  # ADNI is among M3Builder's datasets, Liver is not
    assert row.groups["anomaly detection"].runs == 2
    assert (row.roles["task_manager"].successes, row.roles["task_manager"].runs) == (3, 3)
    assert (published.s1.successes, published.s1.runs) == (66, 70)
    assert sum(group.successes for group in published.groups.values()) == 66


def test_benches_of_one_candidate_make_one_row(ours, tmp_path):
    more = a_bench(tmp_path / "more", [a_round("BTCV", 0)], names=["BTCV"], count=1)
    other = a_bench(tmp_path / "other", [a_round("BTCV", 0, lm="gpt-4o")], names=["BTCV"], count=1)
    rows = leaderboard([ours, more, other]).rows
    assert [row.s1.runs for row in rows] == [5, 1, 70]
    assert "gpt-4o" in rows[1].name  # S2 of 3/5 is at least 23 %, of 1/1 at least 21 %


def test_a_row_is_compared_with_the_chosen_one(tmp_path):
    good = a_bench(tmp_path / "good", [a_round("ADNI", n, lm="good") for n in range(4)], names=["ADNI"], count=4)
    bad = a_bench(
        tmp_path / "bad", [a_round("ADNI", n, s1=False, s2=False, lm="bad") for n in range(4)], names=["ADNI"], count=4
    )
    board = leaderboard([good, bad], against="m3dspy, as written, bad")
    first, second, published = board.rows
    assert first.p_s1 == pytest.approx(2 / 70)  # 2 of the C(8, 4) = 70 ways
    assert (second.p_s1, published.p_s2) == (None, None)
    with pytest.raises(UsageError, match=r"No row is called 'm3dspy'"):  # two begin so
        leaderboard([good, bad], against="m3dspy")


def test_the_text_marks_phantoms_and_leaks(ours):
    text = markdown(leaderboard([ours]))
    line = next(line for line in text.splitlines() if "as written" in line)
    assert "**phantom**" in line
    assert "3/4 [30%, 95%]" in line
    assert "**a leak in 1**" in line
    assert "66/70 [86%, 98%]" in text
    assert "arXiv:2502.20301" in text
    assert "| M3Builder, Claude-3.7-Sonnet | 13/15 [62%, 96%] |" in text


def test_a_price_that_is_not_known_is_not_zero(tmp_path):
    folder = a_bench(tmp_path / "x", [a_round("ADNI", 0, dollars=None)], names=["ADNI"], count=1)
    assert "not known" in markdown(leaderboard([folder]))


def test_three_files_are_written_and_the_picture_is_light(ours, tmp_path):
    files = write(leaderboard([ours]), tmp_path / "board")
    assert [file.name for file in files] == ["leaderboard.md", "leaderboard.json", "leaderboard.png"]
    with Image.open(files[2]) as picture:
        assert picture.getpixel((0, 0))[:3] == (255, 255, 255)


def test_a_folder_without_a_bench_is_named(tmp_path):
    with pytest.raises(DataError, match=r"holds no benchmark"):
        leaderboard([tmp_path])
