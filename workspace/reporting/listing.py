"""What runs there are."""

from pathlib import Path
from typing import Any

from m3dspy.errors import M3Error
from m3dspy.signatures.values import Outcome, Request
from m3dspy.workspace.report import NAME
from m3dspy.workspace.runs import Run


def listing(home: Path) -> list[dict[str, Any]]:
    """Every run of a folder, the newest first: id, when (seconds since 1970), request, status, metric, score, page.

    status: done, refused, failed, unfinished, or damaged where one of its files cannot be read.
    """
    folders = [path.parent for path in home.glob("[!.]*/request.json")]
    return [_row(Run(folder)) for folder in sorted(folders, key=lambda folder: folder.name, reverse=True)]


def _row(run: Run) -> dict[str, Any]:
    page, first = run.folder / NAME, next(run.events(), None)
    row: dict[str, Any] = {
        "run": run.id,
        "when": round(first["time"] if first else (run.folder / "request.json").stat().st_mtime),
        "request": "",
        "status": "damaged",
        "metric": None,
        "score": None,
        "page": str(page) if page.is_file() else None,
    }
    try:
        row["request"] = run.load("request", Request).text
        outcome = run.load("outcome", Outcome) if run.has("outcome") else None
    except M3Error:
        return row
    row["status"] = outcome.status if outcome else "unfinished"
    if outcome and outcome.grade:
        row |= {"metric": outcome.grade.metric, "score": outcome.grade.score.value}
    return row
