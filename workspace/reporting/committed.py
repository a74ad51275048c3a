"""What a run has committed, as far as a report reads it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3dspy.signatures.values import Design, Fingerprint, Grade, Index, Outcome, Plan, Request, Tuned
from m3dspy.workspace.reporting.timeline import Call


@dataclass(frozen=True)
class Committed:
    """What a run has committed so far; None for a stage that was not reached."""

    folder: Path
    events: list[dict[str, Any]]
    calls: list[Call]
    request: Request
    outcome: Outcome | None
    fingerprint: Fingerprint | None
    plan: Plan | None
    index: Index | None
    design: Design | None
    tuned: Tuned | None

    @property
    def grade(self) -> Grade | None:
        return self.outcome.grade if self.outcome else None


def supervision(task: str) -> str:
    """What a model of this task learns from."""
    return "reports" if task == "report_generation" else "labels"


def folds_of(run: Committed) -> int:
    """How many models were trained: as many as were asked for, where the template has folds."""
    from m3dspy.workspace import emit

    asked = run.request.folds
    return asked if asked > 1 and run.design and "folds" in emit.fields(run.design.template) else 1
