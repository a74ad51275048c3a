"""What runs there are."""

from pathlib import Path
from typing import Any

from m3dspy.errors import M3Error
from m3dspy.signatures.values import Outcome, Request
from m3dspy.workspace.report import NAME
from m3dspy.workspace.runs import Run


def listing(home: Path) -> list[dict[str, Any]]:
    """Every run of a folder, the newest first: id, when (seconds since 1970), request, status, metric, score, page."""
    folders = [path.parent for path in home.glob("[!.]*/request.json")]
    return [_row(Run(folder)) for folder in sorted(folders, key=lambda folder: folder.name, reverse=True)]


def status(run: Run) -> str:
    """How a run ended: done, refused, failed; unfinished; or damaged, where a file cannot be read."""
    try:
        return run.load("outcome", Outcome).status if run.has("outcome") else "unfinished"
    except M3Error:
        return "damaged"


def _row(run: Run) -> dict[str, Any]:
    page, first = run.folder / NAME, next(run.events(), None)
    row: dict[str, Any] = {
        "run": run.id,
        "when": round(first["time"] if first else (run.folder / "request.json").stat().st_mtime),
        "request": "",
        "status": status(run),
        "metric": None,
        "score": None,
        "page": str(page) if page.is_file() else None,
    }
    try:
        row["request"] = run.load("request", Request).text
    except M3Error:
        return row | {"status": "damaged"}
    if row["status"] == "done" and (grade := run.load("outcome", Outcome).grade):
        row |= {"metric": grade.metric, "score": grade.score.value}
    return row
