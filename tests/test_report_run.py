"""A report generation from its design to its report: tuned, trained, answered, graded, applied."""

import json

import numpy as np
import pytest
from language_models import tiny_gpt2
from PIL import Image
from report_text import page_text

from m3dspy import job
from m3dspy.programs.builder import Script
from m3dspy.signatures.values import Design, Fingerprint, Index, Item, Knob, PatientKey, Plan, Request, Source
from m3dspy.workspace import inventory, training
from m3dspy.workspace.emit import emit
from m3dspy.workspace.runs import Run


def study(number, folder, random) -> Item:
    """A noisy picture with a bright disc on its left, on its right, or none, and the report of it."""
    rows, columns = np.mgrid[:40, :40]
    side, column = (("left", 10), ("right", 30), ("", 20))[number % 3]
    disc = (np.hypot(rows - random.integers(14, 26), columns - column) < 5) & bool(side)
    Image.fromarray((80 + 100 * disc + random.normal(0, 25, disc.shape)).clip(0, 255).astype(np.uint8)).save(
        folder / f"{number}.png"
    )
    findings = f"There is a nodule on the {side}. No effusion." if side else "The lungs are clear. No effusion."
    impression = f"{side.capitalize()} nodule." if side else "Normal."
    return Item(id=f"s{number}", patient=f"p{number}", image=f"{number}.png", findings=findings, impression=impression)


@pytest.fixture
def designed(tmp_path) -> Run:
    """A run whose model is yet to be tuned and trained."""
    return run_of(tmp_path, None)


def run_of(tmp_path, weights: str | None) -> Run:
    data, random = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    items = [study(number, data, random) for number in range(90)]
    index = Index(task="report_generation", labels=(), training=items[:45], validation=items[45:60], test=items[60:])
    run = Run.create(Request(text="Write reports.", data=str(data), trials=2, weights=weights), tmp_path / "runs")
    run.commit("fingerprint", Fingerprint(files=90, megabytes=0.1, formats={".png": 90}))
    run.commit(
        "plan",
        Plan(
            task="report_generation", goal="Report a made-up film", modality="X-ray", dims=2, images="#.png",
            labels=(), source=Source(kind="table", path="all.csv", file_column="image"), findings="findings",
            impression="impression", patient=PatientKey(where="file name", part=r"(\d+)", patients=90, images=90),
        ),
    )  # fmt: skip
    inventory.note(run, index, data)
    run.commit("index", index)
    design = Design(
        template="report", network="report_cnn", dims=2, size=(32, 32), intensity="percentile", loss="rare_words",
        lr=2e-3, batch=16, epochs=20, augment=0.2, space={"bag": Knob(low=0.5, high=2.0, log=True)},
    )  # fmt: skip
    run.commit("design", design)
    emit(design, index, run.folder / "code")
    run.commit("script", Script(trusted=True))
    return run


@pytest.mark.slow
def test_a_language_model_reaches_the_script_in_its_sandbox(tmp_path):
    run = run_of(tmp_path, f"gpt2={tiny_gpt2(tmp_path / 'gpt2')}")
    said = training.smoke(run, trusted=True, unsafe=False)
    own = json.loads((tmp_path / "gpt2/config.json").read_text())["vocab_size"]
    assert f"{own + 4} tokens" in said  # and the marks


@pytest.mark.slow
def test_a_report_generation_runs_from_its_design_to_its_report(designed, tmp_path):
    outcome = job.carry_on(designed)
    grade = outcome.grade
    assert (outcome.status, outcome.trials, grade.metric, grade.missing) == ("done", 2, "finding F1", ())
    assert grade.s1 and grade.s2
    assert grade.score.value > 0.9
    assert grade.floor.value == pytest.approx(2 * 20 / (30 + 30))  # a nodule for all: right for two in three
    assert grade.control.value < 0.8

    page = page_text((designed.folder / "report.html").read_text())
    for words in ("finding F1", "the most frequent training report for every case", "radiologist | model", "nodule"):
        assert words in page
    assert "There is a nodule on the" in page

    again = job.predict(designed, tmp_path / "data", tmp_path / "answers")
    assert again["cases"] == 90
    answers = json.loads((tmp_path / "answers/reports.json").read_text())
    assert len(answers) == 90
    assert all(report.keys() == {"findings", "impression"} for report in answers.values())
