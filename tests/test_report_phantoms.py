"""The phantoms of report generation: what their radiologists write, whose reports are shared, and what is left out."""

import csv
import json
from collections import defaultdict

import numpy as np
import pytest
from PIL import Image

from m3dspy.m3bench import dictation
from m3dspy.m3bench.dictation import Finding, Wording
from m3dspy.m3bench.task import find, make, oracle, tasks, truth
from m3dspy.m3bench.tasks import brain_gnome, ct_rate, iu_xray
from m3dspy.signatures.values import SPLITS, Index
from m3dspy.workspace import sources

NAMES = [task.name for task in tasks() if task.task == "report_generation"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("reports")
    for name in NAMES:
        make(name, root / name, size=2 * find(name).smallest)
    return {name: root / name for name in NAMES}


def cases(index):
    return [item for split in SPLITS for item in index.items(split)]


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", NAMES)
def test_a_patient_never_stands_in_two_splits_and_every_case_has_findings(name, made):
    index = find(name).gold(made[name], 0)
    where = defaultdict(set)
    for split in SPLITS:
        for item in index.items(split):
            where[item.patient].add(split)
            assert item.findings and item.findings != "Not given."
            assert (made[name] / item.image).is_file()
    assert all(len(splits) == 1 for splits in where.values())
    assert all(index.items(split) for split in SPLITS)


@pytest.mark.parametrize("name", NAMES)
def test_the_best_reader_stays_below_one_and_another_s_truth_far_below(name, made):
    index, known = find(name).gold(made[name], 0), truth(made[name]) or {}
    index = index.model_copy(update={"test": tuple(cases(index))})
    best = oracle(made[name], index)
    images = sorted(known["cases"])
    dealt = dict(zip(images, (known["cases"][i] for i in np.random.default_rng(0).permutation(images)), strict=True))
    assert 0.8 < best < 1
    assert dictation.oracle(index, {"cases": dealt}) < 0.6 * best


def test_the_oracle_counts_the_findings_missed_and_invented():
    def case(number, findings):
        return {"id": f"c{number}", "patient": f"p{number}", "image": f"{number}.png", "findings": findings}

    written = ["There is cardiomegaly. No pneumothorax.", "There is a left pleural effusion."]
    test = [case(n, text) for n, text in enumerate(written)]
    index = Index.model_validate({"task": "report_generation", "labels": (), "test": test})
    known = {"0.png": ["cardiomegaly", "right nodule"], "1.png": ["left pleural effusion"]}
    # two findings in both, one in the truth only: 2 * 2 / (3 + 2)
    assert dictation.oracle(index, {"cases": known}) == pytest.approx(4 / 5)
    assert dictation.oracle(index, {"cases": {}}) is None


def test_what_an_unerring_radiologist_writes_is_read_as_what_is_there():
    from m3dspy.m3bench.findings import findings_of

    def guesses():
        for module in (iu_xray, ct_rate):
            for name in module.PREVALENCE:
                yield module.guess, name, module.WORDINGS, module.TOGETHER
        for disease, (_, sequences) in brain_gnome.COHORTS.items():
            for sequence in sequences:
                yield brain_gnome.guess, disease, brain_gnome.wordings(sequence), ()
        for name in ("brain oedema", "midline shift"):
            yield brain_gnome.guess, name, brain_gnome.wordings("t2f"), ()

    for guess, name, wordings, together in guesses():
        for seed in range(12):
            random = np.random.default_rng(seed)
            finding = guess(random, name)
            said, concluded = dictation.dictate(random, [finding], wordings, together)
            found = findings_of(" ".join(said + concluded))
            assert set(found) - {"enhancement"} == {name}, said + concluded
            if finding.side:
                assert found[name] == {finding.side}, said + concluded


def test_a_radiologist_who_sees_nothing_denies_and_concludes_nothing():
    wordings = {"a": Wording(("A.",), ("No a.",), ("A!",)), "b": Wording(("{Size} {side} b.",), ("No b.",))}
    random = np.random.default_rng(0)
    assert dictation.dictate(random, [], wordings) == (["No a.", "No b."], [])
    assert dictation.dictate(random, [Finding("b", "left", size=0.9)], wordings) == (["No a.", "Large left b."], [])
    assert dictation.dictate(random, [Finding("a")], wordings) == (["A.", "No b."], ["A!"])


def test_iu_xray_has_lateral_films_taken_out_words_empty_findings_and_lost_films(made):
    root = made["IU-Xray"]
    reports, films = table(root / "indiana_reports.csv"), table(root / "indiana_projections.csv")
    index = find("IU-Xray").gold(root, 0)
    empty = {row["uid"] for row in reports if not row["findings"]}
    assert 0.03 < len(empty) / len(reports) < 0.3
    assert not empty & {item.patient for item in cases(index)}
    assert {film["projection"] for film in films} == {"Frontal", "Lateral"}
    assert any("XXXX" in row["findings"] for row in reports)
    assert len({Image.open(root / iu_xray.IMAGES / film["filename"]).size for film in films[:20]}) > 1
    of = defaultdict(set)
    for item in cases(index):
        of[item.patient].add((item.findings, item.impression))
    assert all(len(texts) == 1 for texts in of.values())


def test_the_two_kernels_of_a_ct_scan_share_a_report_and_stay_together(made):
    root = made["CT-RATE"]
    index = find("CT-RATE").gold(root, 0)
    scans = defaultdict(list)
    for item in cases(index):
        scans[item.image.rpartition("_")[0]].append(item)
    pairs = [items for items in scans.values() if len(items) == 2]
    assert pairs
    for one, other in pairs:
        assert (one.findings, one.impression, one.patient) == (other.findings, other.impression, other.patient)
        soft, sharp = (sources.read(root / item.image)[0].astype(float) for item in (one, other))
        assert 0 < np.abs(soft - sharp).mean() < 100  # HU
    assert {item.patient.partition("_")[0] for item in index.test} == {"valid"}
    assert {item.patient.partition("_")[0] for item in (*index.training, *index.validation)} == {"train"}
    assert {"train_1", "valid_1"} <= {item.patient for item in cases(index)}


def test_a_report_that_is_not_given_is_left_out_of_ct_rate(made):
    rows = [row for path in (made["CT-RATE"] / ct_rate.REPORTS).iterdir() for row in table(path)]
    assert any(row["Impressions_EN"] == "Not given." for row in rows)
    impressions = {item.impression for item in cases(find("CT-RATE").gold(made["CT-RATE"], 0))}
    assert "Not given." not in impressions


def test_the_patient_of_brain_gnome_comes_once_a_sequence_and_keeps_to_one_list(made):
    index = find("BrainGnome").gold(made["BrainGnome"], 0)
    of = defaultdict(set)
    for item in cases(index):
        of[item.patient].add(item.image.removesuffix(".nii.gz").rpartition("-")[2])
    assert max(map(len, of.values())) == 4
    assert set().union(*of.values()) == {"t1n", "t1c", "t2w", "t2f", "dwi"}
    tested = {row["image_path"] for row in json.loads((made["BrainGnome"] / "reports_test.json").read_text())}
    assert {item.image for item in index.test} <= tested


@pytest.mark.parametrize(
    ("name", "withheld"), [("CT-RATE", "validation_reports.csv"), ("BrainGnome", "reports_test.json")]
)
def test_without_its_test_cases_a_dataset_is_split_anew(name, withheld, made, tmp_path):
    import shutil

    shutil.copytree(made[name], tmp_path / name)
    (hidden,) = (tmp_path / name).rglob(withheld)
    hidden.unlink()
    whole, rest = find(name).gold(made[name], 0), find(name).gold(tmp_path / name, 0)
    assert all(rest.items(split) for split in SPLITS)
    assert {item.image for item in cases(rest)} == {item.image for item in (*whole.training, *whole.validation)}


def test_the_lesion_lies_on_the_side_that_the_report_names():
    def brightest(side):
        shares = brain_gnome.brain(np.random.default_rng(3), [Finding("infarct", side, "parietal", 0.5)])
        return np.argwhere(shares["infarct"] > 0.5)[:, 0].mean() - (brain_gnome.SHAPE[0] - 1) / 2

    assert brightest("left") < -3 < 3 < brightest("right")  # RAS+, the first axis runs to the patient's right

    def denser(side):
        there = [Finding("pleural effusion", side, size=0.9)]
        change = iu_xray.frontal(np.random.default_rng(3), there) - iu_xray.frontal(np.random.default_rng(3), [])
        middle = change.shape[1] // 2
        return change[:, middle:].mean() - change[:, :middle].mean()

    assert denser("right") < 0 < denser("left")  # the patient's right is on the left of a film


def test_a_look_tells_the_patients_of_brain_gnome_by_the_sequence_at_the_end_of_the_name():
    from m3dspy.workspace.looking.patients import _file_name

    names = [f"images/{case}-{s}.nii.gz" for case in ("WMH-00005", "BraTS-GLI-00001-000") for s in ("t1n", "t2f")]
    names += [f"images/ISLES22-0000{n}-{s}.nii.gz" for n in (4, 9) for s in ("dwi", "t2f")]
    key = _file_name(names)
    assert key is not None
    assert (key.patients, key.images) == (4, 6 + 2)
