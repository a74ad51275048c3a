"""A run in plain words, pictures and numbers: `report.html`, for the researcher who has to judge the model.

One file that loads nothing from elsewhere. Everything is read from what the run committed; no model is loaded. What a
run does not have (tuning off, no control, a stage that was not reached) is said in words.
"""

from pathlib import Path
from typing import TypeVar

from m3dspy.signatures.values import Design, Fingerprint, Index, Outcome, Plan, Request, Tuned
from m3dspy.workspace import private
from m3dspy.workspace.reporting import cases, charts, data, learning, record, results, timeline, verdict
from m3dspy.workspace.reporting.blocks import Page, Section, html
from m3dspy.workspace.reporting.committed import Committed
from m3dspy.workspace.runs import Run, write_atomic

V = TypeVar("V")

NAME = "report.html"


def report(run_folder: Path) -> Path:
    """Write `report.html` into the folder of a run, which the caller holds.

    Returns: its path; it is written whole or not at all.
    Raises:  M3Error: one of the run's files is damaged.
    """
    path = run_folder.resolve() / NAME
    write_atomic(path, page(run_folder).encode())
    return path


def page(run_folder: Path) -> str:
    """The page of a run as it is now: done, refused, failed or still going on.

    Raises: M3Error: one of the run's files is damaged.
    """
    run = Run(run_folder)

    def reached(name: str, kind: type[V]) -> V | None:
        return run.load(name, kind) if run.has(name) else None

    with private.hiding(private.read(run.folder / private.FILE)):
        committed = Committed(
            run.folder,
            list(run.events()),
            timeline.calls(run.folder / "lm.jsonl"),
            run.load("request", Request),
            reached("outcome", Outcome),
            reached("fingerprint", Fingerprint),
            reached("plan", Plan),
            reached("index", Index),
            reached("design", Design),
            reached("tuned", Tuned),
        )
        return html(_page(committed))


def _page(run: Committed) -> Page:
    parts = (
        ("plan", "Request and plan", verdict.planned),
        ("data", "Data", data.glance),
        ("design", "Design and script", learning.designed),
        ("training", "Training", learning.trained),
        ("tuning", "Tuning", learning.tuned),
        ("results", "Test results", results.graded),
        ("cases", "Cases", cases.shown),
        ("timeline", "How it went", record.way),
        ("models", "Language models", record.ledger),
        ("again", "To reproduce", record.again),
        ("limits", "Limits", record.limits),
    )
    title = run.plan.goal if run.plan else run.request.text
    sections = [Section(name, title, blocks(run)) for name, title, blocks in parts]
    chart = charts.verdict(run.grade) if run.grade else None
    return Page(title, run.folder.name, verdict.banners(run), verdict.judged(run), sections, chart)
