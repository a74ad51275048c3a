"""The rules of the Model Trainer."""

from typing import Any


def judge_smoke_run(log: str) -> dict[str, Any]:
    """A script that ended well may go. Rules cannot mend code, and say so by giving nothing back."""
    return {"verdict": "go" if log.startswith("ended well") else "repair", "mended": ""}
