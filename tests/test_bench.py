"""The benchmark's bookkeeping, with candidates whose outcomes are known."""

import pytest

from m3dspy.errors import DataError, RunFailed
from m3dspy.m3bench.bench import Table, bench
from m3dspy.m3bench.task import find
from m3dspy.signatures.values import Grade, Outcome, Score

TASKS = [find("ADNI"), find("BTCV")]


def half(value):
    return Score(value=value, low=value - 0.1, high=value + 0.1)


def outcome(value, s2=True, above=False):
    return Outcome(
        status="done",
        phantom=True,
        grade=Grade(
            metric="macro AUROC",
            score=half(value),
            floor=half(0.5),
            control=half(0.51),
            cases=9,
            patients=9,
            s1=True,
            s2=s2,
            above_oracle=above,
        ),
    )


@pytest.fixture
def folders(tmp_path):
    return {task.name: tmp_path for task in TASKS}


def test_every_round_counts_and_a_failed_one_is_a_failure(tmp_path, folders):
    def candidate(task, data, out, seed):
        if task.name == "BTCV" and seed == 1:
            raise RunFailed("The script ended badly.", out / "log")
        return outcome(0.6 + seed / 10, s2=seed > 0)

    table = bench(candidate, TASKS, 3, tmp_path / "out", data=folders)
    adni, btcv = table.rows
    assert (adni.s1.successes, adni.s1.runs, adni.s2.successes) == (3, 3, 2)
    assert (btcv.s1.successes, btcv.s1.runs, btcv.s2.successes) == (2, 3, 1)
    assert (table.total.s1.successes, table.total.s1.runs, table.total.s2.successes) == (5, 6, 3)
    assert adni.score == half(0.7)  # the median round
    assert "ended badly" in btcv.failures[0]
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "| ADNI | 3/3 [44%, 100%] | 2/3 [21%, 94%] | macro AUROC | 0.700 [0.600, 0.800] | 0.500 | 0.510 |" in text
    assert "66/70 [86%, 98%]" in text
    assert "phantom" in text
    assert Table.model_validate_json((tmp_path / "out" / "bench.json").read_text()) == table


def test_a_finished_round_is_not_run_again(tmp_path, folders):
    seen = []

    def candidate(task, data, out, seed):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append((task.name, seed))
        return outcome(0.7)

    with pytest.raises(KeyboardInterrupt):
        bench(candidate, TASKS, 2, tmp_path / "out", data=folders)
    again = []

    def carry_on(task, data, out, seed):
        again.append((task.name, seed))
        return outcome(0.7)

    table = bench(carry_on, TASKS, 2, tmp_path / "out", data=folders)
    assert sorted(seen + again) == [("ADNI", 0), ("ADNI", 1), ("BTCV", 0), ("BTCV", 1)]
    assert table.total.s1.successes == 4


def test_a_leak_is_shown_beside_its_score(tmp_path, folders):
    bench(lambda *_: outcome(0.9, above=True), TASKS, 1, tmp_path / "out", data=folders)
    assert (tmp_path / "out" / "bench.md").read_text().count("1 above the oracle: a leak") == 2


def test_a_damaged_round_is_named(tmp_path, folders):
    (tmp_path / "out" / "ADNI" / "round-00").mkdir(parents=True)
    (tmp_path / "out" / "ADNI" / "round-00" / "outcome.json").write_text("{")
    with pytest.raises(DataError, match=r"round-00/outcome\.json is damaged"):
        bench(lambda *_: outcome(0.9), TASKS, 1, tmp_path / "out", data=folders)


def test_what_is_published_on_the_real_dataset_stands_below_and_apart(tmp_path):
    liver = find("Liver")
    bench(lambda *given: outcome(0.8), [liver], 1, tmp_path / "out", data={"Liver": tmp_path})
    ours, _, theirs = (tmp_path / "out" / "bench.md").read_text().partition("Published on the real datasets")
    assert "| Liver | 1/1" in ours
    assert "| Liver | MVFA | 4 | 81.18 | 99.73 |" in theirs
    assert "not to be compared with phantoms" in theirs
