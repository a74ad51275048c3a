"""Run a prepare.py on a dataset, and believe nothing of its index that was not checked."""

import re
from pathlib import Path

from pydantic import ValidationError

from m3dspy.errors import DataError, RunFailed
from m3dspy.signatures.values import SPLITS, Index, Plan
from m3dspy.workspace import execute, untrusted
from m3dspy.workspace.indexing import check_index
from m3dspy.workspace.runs import Run, write_atomic

_MOST_BYTES = 512 << 20
_SECONDS = 1800.0


def prepare(run: Run, code: str, plan: Plan, root: Path, *, trusted: bool, unsafe: bool) -> Index:
    """The index that a prepare.py writes for this dataset, of which it sees all: it makes the split, labels included.

    Args: run: keeps the script in `prepare/`.  code: the text of prepare.py.  trusted: written by our own rules.
    Raises: RunFailed: the script ended badly.  DataError: its index is missing, malformed, or breaks a rule.
    """
    folder = run.folder / "prepare"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "prepare.py", f"{code.rstrip()}\n".encode())
    out, log = run.attempt("index"), run.log("index")
    log.unlink(missing_ok=True)
    lines = execute.stream(
        folder,
        "prepare.py",
        ["--data", "{data}", "--out", "{out}"],
        out=out,
        mounts={"data": root},
        log=log,
        seconds=_SECONDS,
        trusted=trusted,
        unsafe=unsafe,
    )
    try:
        for line in lines:
            run.event("log", attempt="index", text=untrusted.clean(line)[:300])
    except RunFailed as failure:
        said = failure.tail[-1].partition("m3dspy.errors.DataError: ")[2] if failure.tail else ""
        raise DataError(said) if said else failure from None
    index = read_index(out)
    if problems := _unlike(index, plan) or check_index(index, root, plan.caps):
        raise DataError(_anonymous("\n".join(problems), index))
    return index


def read_index(folder: Path) -> Index:
    """The index.json that a script left.

    Raises: DataError: it is not there, not a plain file, too large, or not an Index.
    """
    if not (folder / "index.json").exists():
        raise DataError("prepare.py wrote no index.json. End it with ix.write_index(out, ...).")
    try:
        return Index.model_validate_json(untrusted.read(folder, "index.json", _MOST_BYTES))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"index.json: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _anonymous(text: str, index: Index) -> str:
    """The text without patient identifiers: it goes back to a language model."""
    for patient in {item.patient for split in SPLITS for item in index.items(split)}:
        text = re.sub(rf"(?<!\w){re.escape(patient)}(?!\w)", "<patient>", text)
    return text


def _unlike(index: Index, plan: Plan) -> list[str]:
    """Where the index is about something else than the plan."""
    problems = []
    if index.task != plan.task:
        problems.append(f"The index is for {index.task}, the plan for {plan.task}.")
    if set(index.labels) != set(plan.labels):
        problems.append(f"The index has the labels {', '.join(index.labels)}; the plan {', '.join(plan.labels)}.")
    return problems
