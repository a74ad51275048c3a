"""The benchmark, with candidates whose worth is known."""

import csv
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from m3dspy.errors import DataError, RunFailed
from m3dspy.m3bench import bench as benches
from m3dspy.m3bench import task as datasets
from m3dspy.m3bench.bench import Round, Table, bench
from m3dspy.m3bench.candidate import Limits, Submission
from m3dspy.m3bench.dealing import deal
from m3dspy.m3bench.grade import grade
from m3dspy.m3bench.masks import along_image, along_patient, fitted
from m3dspy.m3bench.release import Release
from m3dspy.signatures.values import Index, Score

TASKS = [datasets.find("ADNI"), datasets.find("CT-kidney")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    for task in TASKS:
        datasets.make(task.name, home / task.name, size=60)
    return {task.name: home / task.name for task in TASKS}


def answered(given, sure):
    """Write answers that give each case's own label the probability `sure`; a benchmark's candidate cannot know it."""
    home = given.data.parent
    folder = given.out / "predictions"
    folder.mkdir(exist_ok=True)
    index = Release(home).index()
    with (folder / "predictions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", *index.labels])
        for item in index.test:
            row = [sure if label == item.label else (1 - sure) / (len(index.labels) - 1) for label in index.labels]
            writer.writerow([item.id, index.labels[int(np.argmax(row))], *row])


@dataclass(frozen=True)
class Knows:
    """Answers rightly, and says what it is told to say."""

    says: Submission

    def __call__(self, given):
        answered(given, 0.9)
        return self.says


def sample(given):
    """Hands in the sample."""
    (given.out / "predictions").mkdir()
    for path in (given.data / "sample").iterdir():
        (given.out / "predictions" / path.name).write_bytes(path.read_bytes())
    return Submission()


def test_every_round_counts_and_a_failed_one_is_a_failure(tmp_path, data):
    def candidate(given):
        if given.seed == 1:
            raise RunFailed("The script ended badly.", tmp_path / "log")
        answered(given, 0.9)
        return Submission()

    table = bench(candidate, TASKS, 3, tmp_path / "out", data=data, name="knows")
    adni, kidney = table.rows
    assert (adni.s1.successes, adni.s1.runs, adni.s2.successes) == (2, 3, 2)
    assert (table.total.s1.successes, table.total.s1.runs, table.total.s2.successes) == (4, 6, 4)
    assert adni.score
    assert adni.floor
    assert (adni.score.value, adni.floor.value) == (1.0, 0.5)
    assert "ended badly" in kidney.failures[0]
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "| ADNI | 2/3 [21%, 94%] | 2/3 [21%, 94%] |" in text
    assert "66/70 [86%, 98%]" in text
    assert "phantom" in text
    assert Table.model_validate_json((tmp_path / "out" / "bench.json").read_text()) == table


def test_a_round_tells_what_was_asked_and_with_what_it_was_run(tmp_path, data):
    bench(sample, TASKS[:1], 2, tmp_path / "out", data=data)
    for number in range(2):
        path = tmp_path / "out" / "ADNI" / f"round-{number:02d}" / "round.json"
        found = Round.model_validate_json(path.read_text())
        assert (found.number, found.seed, found.phantom) == (number, number, True)
        assert found.request == TASKS[0].requests[number]
        assert found.versions["python"].startswith("3.")
        assert found.grade
        assert (found.grade.s1, found.grade.s2) == (True, False)


def test_a_finished_round_is_not_run_again(tmp_path, data):
    seen = []

    def candidate(given):
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(given.out)
        return sample(given)

    with pytest.raises(KeyboardInterrupt):
        bench(candidate, TASKS, 2, tmp_path / "out", data=data)
    again = []

    def carry_on(given):
        again.append(given.out)
        return sample(given)

    table = bench(carry_on, TASKS, 2, tmp_path / "out", data=data)
    assert len({*seen, *again}) == len(seen) + len(again) == 4
    assert table.total.s1.successes == 4


def test_a_missing_case_and_a_bad_checkpoint_cost_s1(tmp_path, data):
    def lacks_one(given):
        sample(given)
        path = given.out / "predictions" / "predictions.csv"
        path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
        return Submission()

    def bad_weights(given):
        answered(given, 0.9)
        (given.out / "model.safetensors").write_bytes(b"nothing")
        return Submission(checkpoint=given.out / "model.safetensors")

    for name, candidate in (("one", lacks_one), ("two", bad_weights)):
        table = bench(candidate, TASKS[:1], 1, tmp_path / name, data=data)
        assert (table.total.s1.successes, table.total.s2.successes) == (0, 0)


def test_more_than_the_phantom_allows_is_shown_beside_the_score(tmp_path, data):
    table = bench(Knows(Submission()), TASKS[:1], 1, tmp_path / "out", data=data)
    (adni,) = table.rows
    assert adni.oracle is not None
    assert adni.oracle < 1
    assert adni.above_oracle == 1
    assert "**above the oracle: a leak**" in (tmp_path / "out" / "bench.md").read_text()


def test_a_claim_that_the_hidden_answers_do_not_bear_out_is_shown(tmp_path, data):
    def boasts(given):
        sample(given)
        return Submission(claimed=Score(value=0.97, low=0.9, high=1.0))

    (adni,) = bench(boasts, TASKS[:1], 1, tmp_path / "out", data=data).rows
    assert adni.optimism == pytest.approx(0.47)
    assert adni.notes == ("claims 0.970, delivers 0.500", "claims more than the phantom allows: a leak")


def test_an_index_that_divides_a_patient_costs_its_role(tmp_path, data):
    own = datasets.find("ADNI").gold(data["ADNI"], 0)
    visits = [item for item in own.training if sum(other.patient == item.patient for other in own.training) > 1]
    one, *others = [item for item in visits if item.patient == visits[0].patient]
    (tmp_path / "index.json").write_text(
        Index(task="classification", labels=own.labels, training=(one,), test=tuple(others)).model_dump_json()
    )
    roles = {"task_manager": True, "data_engineer": True}
    candidate = Knows(Submission(index=tmp_path / "index.json", roles=roles))
    (adni,) = bench(candidate, TASKS[:1], 1, tmp_path / "out", data=data).rows
    assert (adni.roles["task_manager"].successes, adni.roles["data_engineer"].successes) == (1, 0)
    assert "1 patients stand in two splits of its index: a leak" in adni.notes


def test_of_two_rounds_the_lower_score_is_shown(tmp_path, data):
    def candidate(given):
        if given.seed == 1:
            return sample(given)
        answered(given, 0.9)
        return Submission()

    (adni,) = bench(candidate, TASKS[:1], 2, tmp_path / "out", data=data).rows
    assert (adni.s2.successes, adni.score.value) == (1, 0.5)


def test_s3_is_nine_tenths_of_the_reference(tmp_path, data, monkeypatch):
    for reference, s3 in ((0.5 / 0.9, 1), (0.56, 0)):
        monkeypatch.setattr(benches, "references", lambda said=reference: {"ADNI": {"phantom": {"score": said}}})
        table = bench(sample, TASKS, 1, tmp_path / str(s3), data=data)
        assert (table.total.s3.successes, table.total.s3.runs) == (s3, 1)  # CT-kidney has none
        assert table.rows[0].reference == reference


def test_a_damaged_round_is_named(tmp_path, data):
    (tmp_path / "out" / "ADNI" / "round-00").mkdir(parents=True)
    (tmp_path / "out" / "ADNI" / "round-00" / "round.json").write_text("{")
    with pytest.raises(DataError, match=r"round-00/round\.json is damaged"):
        bench(sample, TASKS[:1], 1, tmp_path / "out", data=data)


def test_what_is_published_on_the_real_dataset_stands_below_and_apart(tmp_path):
    liver = datasets.find("Liver")
    datasets.make("Liver", tmp_path / "Liver", size=liver.smallest)
    bench(sample, [liver], 1, tmp_path / "out", data={"Liver": tmp_path / "Liver"})
    ours, _, theirs = (tmp_path / "out" / "bench.md").read_text().partition("Published on the real datasets")
    assert "| Liver | 1/1" in ours
    assert "| Liver | MVFA | 4 | 81.18 | 99.73 |" in theirs
    assert "not to be compared with phantoms" in theirs


# ------------------------------------------------------------------------------------------------ limits
@dataclass(frozen=True)
class Sleeps:
    """Leaves its process's id, starts another one, and sleeps for a minute."""

    folder: Path

    def __call__(self, given):
        other = os.fork()
        if other:
            (self.folder / "pids").write_text(json.dumps([os.getpid(), other]))
        time.sleep(60)
        return Submission()


def test_after_its_minutes_a_round_is_ended_with_all_its_processes(tmp_path, data):
    begun = time.monotonic()
    (adni,) = bench(Sleeps(tmp_path), TASKS[:1], 1, tmp_path / "out", data=data, limits=Limits(minutes=0.1)).rows
    assert time.monotonic() - begun < 30
    assert adni.failures == ("The round was ended after 0.1 minutes, which was all it had.",)
    time.sleep(0.5)
    for pid in json.loads((tmp_path / "pids").read_text()):
        assert not alive(pid)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_within_its_minutes_a_round_is_what_it_is_without(tmp_path, data):
    (adni,) = bench(Knows(Submission()), TASKS[:1], 1, tmp_path / "out", data=data, limits=Limits(minutes=5)).rows
    assert (adni.s1.successes, adni.failures) == (1, ())


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Submission(calls=11), "It made 11 calls to language models, 10 were allowed."),
        (Submission(dollars=2.5), "It spent 2.50 dollars, 2.00 dollars were allowed."),
        (Submission(dollars=None), "It spent an unknown sum, 2.00 dollars were allowed."),
        (Submission(status="refused", reason="No such data."), "No such data."),
    ],
)
def test_who_takes_more_than_allowed_or_refuses_has_failed(tmp_path, data, says, why):
    limits = Limits(calls=10, dollars=2.0)
    table = bench(Knows(says), TASKS[:1], 1, tmp_path / "out", data=data, limits=limits)
    assert table.rows[0].failures == (why,)
    assert table.total.s1.successes == 0


# ------------------------------------------------------------------------------------------------ the dealt control
def test_a_deal_gives_no_patient_an_answer_of_its_own_and_stays_the_same():
    patients = ["a", "a", "b", "c", "c", "c", "d"]
    for number in range(3):
        found = deal(patients, 0, number)
        assert found == deal(patients, 0, number)
        assert found
        assert all(patients[place] != patient for place, patient in zip(found, patients, strict=True))
    assert deal(patients, 0, 3) is None
    assert deal(["a", "a"], 0) is None


def test_what_is_the_same_for_every_patient_is_as_good_when_dealt(tmp_path, data):
    """The mean mask beats no dealt control; the expert's own masks do."""
    import nibabel

    covid = datasets.find("COVID19")
    root = tmp_path / "covid"
    datasets.make("COVID19", root, size=20)
    index = covid.gold(root, 0)
    first = nibabel.load(root / index.test[0].label)
    for name in ("own", "same"):
        (tmp_path / name).mkdir()
    straight = along_patient(np.asarray(first.dataobj), first.affine)
    for item in index.test:
        mask = nibabel.load(root / item.label)
        nibabel.save(mask, tmp_path / "own" / f"{item.id}.nii.gz")
        shape = along_patient(np.asarray(mask.dataobj), mask.affine).shape
        same = along_image(fitted(straight, shape), mask.affine)
        nibabel.save(nibabel.Nifti1Image(same, mask.affine), tmp_path / "same" / f"{item.id}.nii.gz")
    own = grade(index, root, tmp_path / "own", checkpoint=None, dealt=True)
    same = grade(index, root, tmp_path / "same", checkpoint=None, dealt=True)
    assert own.dealt
    assert same.dealt
    assert own.s2
    assert own.dealt.value < own.score.value == 1
    assert same.dealt.value == pytest.approx(same.score.value, abs=0.02)
    assert not same.s2
