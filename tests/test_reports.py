"""Reports: what is read off them, how they are graded, and how they leave the sandbox."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3dspy.errors import DataError
from m3dspy.m3bench import reports
from m3dspy.m3bench.answers import read_reports
from m3dspy.m3bench.findings import NONE, findings_of
from m3dspy.m3bench.grade import grade
from m3dspy.signatures.values import Index, Item
from m3dspy.workspace import untrusted

LEFT, RIGHT, NOWHERE = frozenset({"left"}), frozenset({"right"}), frozenset()
ONE = np.ones((1, 2))


# ------------------------------------------------------------------------------------------------ what a report says
@pytest.mark.parametrize(
    ("report", "found"),
    [
        ("No pleural effusion or pneumothorax.", {NONE: NOWHERE}),
        ("Heart size is normal. Lungs are clear, without focal consolidation.", {NONE: NOWHERE}),
        ("The lungs are free of nodules.", {NONE: NOWHERE}),
        ("The heart is not enlarged.", {NONE: NOWHERE}),
        ("The heart is mildly enlarged.", {"cardiomegaly": NOWHERE}),
        ("Pneumothorax is not seen. Pleural effusion has resolved.", {NONE: NOWHERE}),
        ("Cardiomegaly, the mediastinal contour is normal.", {"cardiomegaly": NOWHERE}),
        ("Pleural effusion and pneumothorax are not seen.", {NONE: NOWHERE}),
        ("Mass in the left frontal lobe.", {"tumour": LEFT}),
        ("Small LEFT pleural effusion.", {"pleural effusion": LEFT}),
        ("Bilateral pleural effusions.", {"pleural effusion": LEFT | RIGHT}),
        ("Right pleural effusion.\nLeft pleural effusion.", {"pleural effusion": LEFT | RIGHT}),
        ("Right effusion and left pneumothorax.", {"pleural effusion": RIGHT, "pneumothorax": LEFT}),
        ("No effusion, but a nodule of 2.5 cm in the right lung.", {"nodule": RIGHT}),
        ("No pneumothorax, there is a left sided pacemaker.", {"device": LEFT}),
        ("No change of the right pleural effusion.", {"pleural effusion": RIGHT}),
        ("Pneumonia cannot be excluded.", {"pneumonia": NOWHERE}),
        ("Opacity in the left base may represent atelectasis.", {"opacity": LEFT, "atelectasis": LEFT}),
        ("Pericardial effusion.", {"pericardial effusion": NOWHERE}),
        ("Calcified atherosclerotic changes in the wall of the aorta.", {"arterial calcification": NOWHERE}),
        ("Coronary artery wall calcification.", {"coronary calcification": NOWHERE}),
        (
            "Interlobular septal thickening with a mosaic attenuation pattern.",
            {"septal thickening", "mosaic attenuation"},
        ),
        ("Millimetric nonspecific nodules in both lungs.", {"nodule": LEFT | RIGHT}),
        ("Restricted diffusion in the left frontal lobe, consistent with acute infarct.", {"infarct": LEFT}),
        (
            "Right frontal glioblastoma with vasogenic oedema and midline shift.",
            {"glioma", "brain oedema", "midline shift"},
        ),
        ("Pulmonary edema.", {"pulmonary oedema": NOWHERE}),
        ("Periventricular white matter hyperintensities.", {"white matter hyperintensity": NOWHERE}),
        ("The ventricles are not enlarged. No haemorrhage.", {NONE: NOWHERE}),
        ("", {NONE: NOWHERE}),
    ],
)
def test_a_report_says_what_a_radiologist_would_read_in_it(report, found):
    said = findings_of(report)
    assert (set(said) if isinstance(found, set) else said) == found


# ------------------------------------------------------------------------------------------------ numbers
def test_finding_f1_adds_up_the_findings_of_all_cases():
    truth = [findings_of("Cardiomegaly. Left pleural effusion."), findings_of("Normal.")]
    said = [findings_of("Cardiomegaly. Pneumothorax."), findings_of("Clear.")]
    assert reports.finding_f1(truth, said)(ONE) == 2 * 2 / (3 + 3)  # cardiomegaly and the normal case are right
    assert reports.finding_f1(truth, said, leave_out=[NONE])(ONE) == 2 * 1 / (2 + 2)
    assert reports.finding_f1(truth, said, only="cardiomegaly")(ONE) == 1
    assert reports.finding_f1(truth, [None, said[1]])(ONE) == 2 * 1 / (3 + 1)  # no answer: both findings are missed
    assert reports.finding_f1(truth, said)(np.array([[2.0, 0.0]])) == 2 * 1 / (2 + 2)  # the first patient drawn twice


def test_bleu_is_the_geometric_mean_of_clipped_precisions_times_the_penalty_for_brevity():
    measured = reports.wording(["the heart is normal in size"], ["the the heart is"])
    assert measured["BLEU-1"](ONE[:, :1]) == pytest.approx(3 / 4 * np.exp(1 - 6 / 4))  # one "the" counts
    assert measured["BLEU-2"](ONE[:, :1]) == pytest.approx(np.sqrt(3 / 4 * 2 / 3) * np.exp(1 - 6 / 4))
    assert measured["BLEU-4"](ONE[:, :1]) == 0  # no four words in a row agree
    same = reports.wording(["no effusion is seen"], ["No effusion is seen"])
    assert same["BLEU-4"](ONE[:, :1]) == same["ROUGE-L"](ONE[:, :1]) == 1


def test_bleu_of_an_answer_that_is_missing_is_zero():
    assert reports.wording(["no effusion"], [None])["BLEU-1"](ONE[:, :1]) == 0


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    assert reports.rouge_l(["a", "b", "c", "d"], ["a", "x", "c", "d", "y"]) == 2 * 3 / (4 + 5)
    assert reports.rouge_l(["a", "b"], ["b", "a"]) == 2 * 1 / (2 + 2)
    assert reports.rouge_l(["a"], []) == 0


# ------------------------------------------------------------------------------------------------ grades
def study(number: int, findings: str, folder: Path) -> Item:
    """A case whose picture is dark, with a bright square where its report says "is a nodule"."""
    picture = np.random.default_rng(number).integers(0, 60, (40, 40)).astype(np.uint8)
    if "is a nodule" in findings:
        picture[10:30, 10:30] += 150
    Image.fromarray(picture).save(folder / f"{number}.png")
    return Item(id=f"c{number}", patient=f"p{number}", image=f"{number}.png", findings=findings, impression="As above.")


@pytest.fixture
def index(tmp_path) -> Index:
    said = ["No nodule.", "There is a nodule."]
    items = [study(number, said[number % 2 if number < 20 else number % 3 == 0], tmp_path) for number in range(30)]
    return Index(task="report_generation", labels=(), training=items[20:], test=items[:20])


def answered(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir()
    said = {name: {"findings": text, "impression": ""} for name, text in texts.items()}
    (folder / "reports.json").write_text(json.dumps(said))
    return folder


def test_the_radiologists_own_reports_score_1_and_beat_the_constant_one(index, tmp_path):
    perfect = answered(tmp_path / "perfect", {item.id: item.findings for item in index.test})
    blind = answered(tmp_path / "blind", {item.id: "No nodule." for item in index.test})
    found = grade(index, tmp_path, perfect, checkpoint=None, control=blind)
    assert (found.metric, found.score.value, found.missing) == ("finding F1", 1.0, ())
    assert found.floor.value == found.control.value == 2 * 10 / (20 + 20)  # "no nodule" is right for half of the cases
    assert found.per_label["nodule"].value == 1.0
    assert found.others["retrieval finding F1"].value == 1.0  # the bright square is seen on 24 x 24 voxels
    assert found.others["constant finding F1"].value == 0.5


def test_one_report_for_all_cases_is_called_blind(index, tmp_path):
    blind = answered(tmp_path / "blind", {item.id: "No nodule." for item in index.test})
    notes = grade(index, tmp_path, blind, checkpoint=None).notes
    assert any("all cases were given the same report" in note for note in notes)


def test_a_case_without_a_report_scores_0_and_is_named(index, tmp_path):
    half = answered(tmp_path / "half", {item.id: item.findings for item in index.test[:10]})
    found = grade(index, tmp_path, half, checkpoint=None)
    assert found.score.value == 2 * 10 / (20 + 10)
    assert found.missing == tuple(item.id for item in index.test[10:])
    assert not found.s1


def test_reports_without_radiologists_reports_cannot_be_graded(index, tmp_path):
    with pytest.raises(DataError, match="no labelled test cases"):
        grade(index.without_test_labels(), tmp_path, tmp_path, checkpoint=None)


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[]",
        '{"c0": "a text"}',
        '{"c0": {"findings": "x"}}',
        '{"c0": {"findings": "x", "impression": null}}',
        '{"c0": {"findings": "x", "impression": "", "more": 1}}',
        '{"c0": {"findings": " ", "impression": ""}}',
        '{"c0": {"findings": "x", "impression": ""}, "c0": {"findings": "y", "impression": ""}}',
        '{"other": {"findings": "x", "impression": ""}}',
        json.dumps({"c0": {"findings": "x" * (untrusted.LONGEST_STRING + 1), "impression": ""}}),
    ],
)
def test_what_is_no_report_is_no_answer(text, index, tmp_path):
    (tmp_path / "reports.json").write_text(text)
    assert read_reports(tmp_path, index) == {}


def test_reports_behind_a_link_are_no_answer(index, tmp_path):
    answered(tmp_path / "real", {"c0": "No nodule."})
    (tmp_path / "reports.json").symlink_to(tmp_path / "real/reports.json")
    assert read_reports(tmp_path, index) == {}
    assert read_reports(tmp_path / "real", index) == {"c0": ("No nodule.", "")}
