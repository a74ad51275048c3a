"""Run a prepare.py on a dataset, and believe nothing of its index that was not checked."""

import json
import re
from pathlib import Path

from pydantic import ValidationError

from m3dspy.errors import DataError, RunFailed
from m3dspy.signatures.values import SPLITS, Index, Plan
from m3dspy.workspace import execute, untrusted
from m3dspy.workspace.indexes.cases import numbered
from m3dspy.workspace.indexes.reading import without
from m3dspy.workspace.looking import contained
from m3dspy.workspace.private import hidden
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
    (folder / "unreadable.json").unlink(missing_ok=True)
    index, checked = _attempt(run, plan, root, trusted, unsafe)
    if damaged := _left_out(run, checked):
        write_atomic(folder / "unreadable.json", json.dumps(sorted(damaged)).encode())
        index, checked = _attempt(run, plan, root, trusted, unsafe)
        index = without(index, _left_out(run, checked))
    if checked.problems:
        raise DataError(_anonymous("\n".join(checked.problems), index))
    return _pseudonymous(index)


def _left_out(run: Run, checked: contained.Checked) -> set[str]:
    """The ids of the cases that cannot be used; the run says why."""
    for why, ids in checked.unreadable.items():
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        run.event("warning", text=f"left out, {', '.join(ids[:3])}{more}: {why}")
    return set().union(*checked.unreadable.values())


def _pseudonymous(index: Index) -> Index:
    """The index with tokens in the ids of cases and patients: ids are what logs, predictions and reports hold."""
    items = [item for split in SPLITS for item in index.items(split)]
    named = iter(numbered([hidden(item.id).replace("<", "").replace(">", "") for item in items]))
    renamed = {
        split: tuple(
            item.model_copy(update={"id": next(named), "patient": hidden(item.patient)}) for item in index.items(split)
        )
        for split in SPLITS
    }
    return index.model_copy(update=renamed)


def _attempt(run: Run, plan: Plan, root: Path, trusted: bool, unsafe: bool) -> tuple[Index, contained.Checked]:
    """The index that prepare.py writes, and what is wrong with it."""
    out, log = run.attempt("index"), run.log("index")
    log.unlink(missing_ok=True)
    lines = execute.stream(
        run.folder / "prepare",
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
    if problems := _unlike(index, plan):
        raise DataError("\n".join(problems))
    return index, contained.check(out / "index.json", root, plan.caps)


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
