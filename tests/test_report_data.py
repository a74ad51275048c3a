"""Folders of images and reports, from the look at them to the design, in the three layouts they are published in."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from report_folders import NORMAL, brain_sequences, chest_films, chest_volumes, findings

from m3dspy.errors import DataError
from m3dspy.m3bench.exercise import plan_of
from m3dspy.m3bench.task import Facts
from m3dspy.optimizers.likeness import of_plan
from m3dspy.programs.lms.experts import data_engineer, module_architect, reports, task_manager
from m3dspy.programs.task_manager import check_plan
from m3dspy.signatures.values import (
    SPLITS,
    Catalogue,
    Fingerprint,
    Index,
    IndexSummary,
    Machine,
    NetworkEntry,
    Plan,
    Source,
    TemplateEntry,
)
from m3dspy.workspace import indexing as ix
from m3dspy.workspace import tools
from m3dspy.workspace.indexes.forms import write_m3builder
from m3dspy.workspace.look import look

LAYOUTS = {
    "films": (chest_films, {}, "write the report of a chest X-ray"),
    "volumes": (chest_volumes, {}, "Generate radiology reports for chest CT"),
    "lists": (chest_volumes, {"form": "json"}, "draft findings and impression of every chest CT"),
    "sequences": (brain_sequences, {}, "brain MRI: report generation"),
}
CATALOGUE = Catalogue(
    templates=(
        TemplateEntry(
            name="report",
            task="report_generation",
            about="",
            losses=("words",),
            settings={"lr": "1e-3", "augment": "0.2"},
        ),
    ),
    networks=(NetworkEntry(name="writer", task="report_generation", dims=(2, 3), size="small", about=""),),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name), **how) for name, (make, how, _) in LAYOUTS.items()}


def planned(folder: Path, request: str) -> tuple[Plan, Fingerprint]:
    fingerprint = look(folder)
    answer = task_manager.make_plan(request, fingerprint, [], "")
    assert answer["plan"], answer["refusal"]
    return answer["plan"], fingerprint


def indexed(folder: Path, plan: Plan, fingerprint: Fingerprint, out: Path) -> tuple[Index, str]:
    """The index that the script of the rules writes, and what it says."""
    script = out / "prepare.py"
    script.write_text(data_engineer.write_prepare(plan, fingerprint)["prepare"])
    ran = subprocess.run([sys.executable, script, "--data", folder, "--out", out], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return Index.model_validate_json((out / "index.json").read_bytes()), ran.stdout


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_planned_indexed_and_passes_the_checks(layout, folders, tmp_path):
    folder, request = folders[layout], LAYOUTS[layout][2]
    plan, fingerprint = planned(folder, request)
    assert (plan.task, plan.labels, plan.sided) == ("report_generation", (), True)
    assert check_plan(plan, fingerprint, []) == []
    index, said = indexed(folder, plan, fingerprint, tmp_path)
    assert ix.check_index(index, folder) == []
    assert NORMAL not in said and "pneumothorax" not in said


def test_a_report_is_joined_to_the_films_of_its_study_and_empty_findings_are_left_out(folders, tmp_path):
    plan, fingerprint = planned(folders["films"], "write the report of a chest X-ray")
    assert plan.source == Source(
        kind="table", path="indiana_reports.csv", file_column="filename", files="indiana_projections.csv", key="uid"
    )
    index, said = indexed(folders["films"], plan, fingerprint, tmp_path)
    items = [item for split in SPLITS for item in index.items(split)]
    assert len(items) == 32  # 24 frontal and 12 lateral films; studies 5 and 7 have 2 each and no findings
    assert "left out: 4 rows without findings" in said
    assert all(item.findings == findings(int(item.patient)) for item in items)
    assert {item.patient for item in items} == {str(uid) for uid in range(1, 25) if uid not in (5, 7)}


def test_the_reconstructions_of_a_patient_stay_together_and_official_validation_cases_stay_apart(folders, tmp_path):
    plan, fingerprint = planned(folders["volumes"], "Generate radiology reports for chest CT")
    assert (plan.findings, plan.impression) == ("Findings_EN", "Impressions_EN")
    index, _ = indexed(folders["volumes"], plan, fingerprint, tmp_path)
    assert {item.patient for item in index.validation} == {f"valid_{n}" for n in range(1, 5)}
    of = {split: {item.patient for item in index.items(split)} for split in SPLITS}
    assert not of["training"] & of["test"]
    assert "train_4" not in of["training"] | of["test"]  # its report says "Not given."


def test_the_sequences_of_a_case_have_one_patient_and_the_official_test_list_is_the_test(folders, tmp_path):
    plan, fingerprint = planned(folders["sequences"], "brain MRI: report generation")
    index, _ = indexed(folders["sequences"], plan, fingerprint, tmp_path)
    assert len(index.test) == 16
    assert {item.patient for item in index.test} == {f"BraTS-GLI-{case:05d}" for case in range(12, 16)}


def test_without_its_test_list_the_rest_is_split_by_patient(folders, tmp_path):
    folder = shutil.copytree(folders["sequences"], tmp_path / "rest")
    (folder / "reports_test.json").unlink()
    plan, fingerprint = planned(folder, "brain MRI: report generation")
    index, _ = indexed(folder, plan, fingerprint, tmp_path)
    assert sum(len(index.items(split)) for split in SPLITS) == 48
    assert ix.check_index(index, folder) == []


@pytest.mark.parametrize(
    "request_text", ["only the findings, please: write reports", "write the reports, no impression"]
)
def test_the_impression_is_left_out_where_only_findings_are_asked_for(request_text, folders):
    assert planned(folders["films"], request_text)[0].impression == ""


def test_no_text_of_a_report_is_in_the_fingerprint_or_in_the_answer_of_a_tool(folders):
    for name, folder in folders.items():
        shown = look(folder).model_dump_json()
        with tools.desk(folder):
            for table in look(folder).tables:
                shown += tools.preview(table.path)
                shown += "".join(tools.read_table(table.path, column.name) for column in table.columns)
        for text in (NORMAL, "There is a", "On t1n", "Acute ", "No acute disease"):
            assert text not in shown, name


def test_the_fingerprint_tells_how_long_reports_are_and_how_many_are_missing_or_alike(folders):
    table = next(table for table in look(folders["films"]).tables if table.path == "indiana_reports.csv")
    column = next(column for column in table.columns if column.name == "findings")
    assert (column.kind, column.missing, column.commonest) == ("text", 2, 8)  # every third of 24 is normal
    assert column.words == 14  # "There is a nodule on the left, as compared with study 2. No fracture."


def test_reports_in_other_files_are_counted_and_not_shown(tmp_path):
    chest_films(tmp_path, studies=6)
    (tmp_path / "notes.txt").write_text("FINDINGS: Mrs Thornbury has a nodule.")
    (tmp_path / "one.json").write_text(json.dumps({"a": {"report": "Mrs Thornbury has a nodule."}}))
    texts = {document.path: document.text for document in look(tmp_path).documents}
    assert texts == {"notes.txt": "a report of 6 words", "one.json": '{"a": {"report": "a report of 5 words"}}'}


def test_a_folder_without_reports_is_refused(tmp_path):
    chest_films(tmp_path, studies=8)
    (tmp_path / "indiana_reports.csv").unlink()
    answer = task_manager.make_plan("write the report of a chest X-ray", look(tmp_path), [], "")
    assert answer["plan"] is None
    assert "no table and no JSON list holds the text of reports" in answer["refusal"]


def test_a_decoder_that_knows_a_language_learns_more_slowly(folders):
    plan, fingerprint = planned(folders["films"], "write the report of a chest X-ray")
    group = next(group for group in fingerprint.groups if group.pattern == plan.images)
    how = {"size": (64, 64), "intensity": "percentile", "window": None, "hurry": False, "alone": False}
    counts = {"training": 200}
    index = IndexSummary(task=plan.task, labels=(), cases=counts, patients=counts)
    fresh = CATALOGUE.networks[0]
    made = [
        reports.design("", plan, index, group, CATALOGUE, network, **how)
        for network in (fresh, fresh.model_copy(update={"pretrained": True}))
    ]
    assert made[1].lr < made[0].lr / 4
    for design in made:
        assert design.space["lr"].low < design.lr < design.space["lr"].high


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"findings": "Findings"}, "indiana_reports.csv has no column 'Findings'"),
        ({"findings": "MeSH"}, "of kind category: findings are of kind text"),
        ({"sided": False}, "sided must be true"),
        ({"source": Source(kind="table", path="indiana_reports.csv", file_column="image")}, "names no image"),
        ({"source": Source(kind="table", path="reports.csv", file_column="image")}, "There is no table 'reports.csv'"),
        (
            {"source": Source(kind="table", path="indiana_reports.csv", file_column="filename", files="x.csv")},
            "key the column both tables share",
        ),
    ],
)
def test_a_plan_that_names_what_is_not_there_is_sent_back(change, complaint, folders):
    plan, fingerprint = planned(folders["films"], "write the report of a chest X-ray")
    assert complaint in " ".join(check_plan(plan.model_copy(update=change), fingerprint, []))


def test_two_reports_for_one_image_are_an_error_that_quotes_neither(tmp_path):
    chest_films(tmp_path, studies=6)
    table = tmp_path / "indiana_reports.csv"
    table.write_text(table.read_text() + "1,,,,,,A mass on the right.,\n")
    with pytest.raises(
        DataError, match=r"row 2 and indiana_reports\.csv, row 8 give two reports for one uid"
    ) as caught:
        ix.from_reports(
            tmp_path,
            table.name,
            findings="findings",
            files="indiana_projections.csv",
            key="uid",
            file_column="filename",
            images="**/*.png",
        )
    assert "mass" not in str(caught.value)


def report(name: str, text: str | None, patient: str) -> dict:
    return {"id": name, "patient": patient, "image": "x.png", "findings": text}


def test_the_check_of_an_index_names_cases_without_findings_and_training_that_says_one_thing():
    lists = {
        "training": [report("a", NORMAL, "1"), report("b", NORMAL, "2")],
        "validation": [report("c", " ", "3")],
        "test": [report("d", "x" * 20_001, "1")],
    }
    index = Index.model_validate({"task": "report_generation", "labels": (), **lists})
    lines = "\n".join(ix.check_index(index, Path(__file__).parent))
    assert "c in validation has no findings" in lines
    assert "d in test is longer than 20,000 characters" in lines
    assert "All reports of training are the same" in lines
    assert "Patient '1' is in training and test" in lines
    assert NORMAL not in lines


def test_the_design_of_the_rules_sees_the_whole_image_and_mirrors_nothing(folders, tmp_path):
    for name, dims in (("films", 2), ("volumes", 3)):
        plan, fingerprint = planned(folders[name], LAYOUTS[name][2])
        out = tmp_path / name
        out.mkdir()
        index, _ = indexed(folders[name], plan, fingerprint, out)
        asked = ("", plan, ix.summary(index), fingerprint, Machine(), CATALOGUE, "")
        design = module_architect.design_training(*asked)["design"]
        assert (design.template, design.network, design.dims, design.flips) == ("report", "writer", dims, ())
        assert set(design.space) == {"lr", "augment"}


def test_the_experts_plan_of_an_exercise_is_the_plan_of_the_rules(folders, tmp_path):
    plan, fingerprint = planned(folders["films"], "write the report of a chest X-ray")
    index, _ = indexed(folders["films"], plan, fingerprint, tmp_path)
    facts = Facts(
        modality="X-ray",
        source=plan.source,
        patient="file name",
        sided=True,
        findings="findings",
        impression="impression",
    )
    expert = plan_of(index, facts, fingerprint, None)
    assert all(facet.share == 1 for facet in of_plan(plan, expert, index))
    other = plan.model_copy(update={"findings": "comparison"})
    assert [facet.name for facet in of_plan(other, expert, index) if facet.share < 1] == ["findings"]


def test_reports_are_written_in_the_form_of_m3builder_and_read_again(folders, tmp_path):
    plan, fingerprint = planned(folders["lists"], "draft findings and impression of every chest CT")
    index, _ = indexed(folders["lists"], plan, fingerprint, tmp_path)
    written = json.loads(write_m3builder(index, tmp_path)[0].read_text())
    assert written[0] == {
        "image_path": index.training[0].image,
        "findings": index.training[0].findings,
        "impression": index.training[0].impression,
    }
