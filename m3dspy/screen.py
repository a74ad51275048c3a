"""How a run looks on a terminal: one line a finished stage, a bar while epochs go by."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from m3dspy.errors import clean
from m3dspy.signatures.values import Fingerprint, Group, Outcome, Request, Score, Spread

_STAGES = {
    "look": "look at the data",
    "plan": "plan",
    "index": "index the cases",
    "design": "design the training",
    "script": "write and try the script",
    "tune": "tune",
    "train": "train the final model",
    "control": "train the shuffled control",
    "single": "train one model alone",
    "untuned": "train with the first settings",
    "draw-1": "train on other images",
    "draw-2": "train on other images",
    "grade": "grade on held-out cases",
    "report": "report",
}


class Screen:
    """Shows the events of a run on stderr; use as `run.listen`, inside a `with` block."""

    def __init__(self, quiet: bool = False):
        self._console = Console(file=sys.stderr, quiet=quiet, highlight=False)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=quiet,
        )
        self._task: Any = None

    def __enter__(self) -> "Screen":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        event = {name: clean(value) if isinstance(value, str) else value for name, value in event.items()}
        kind = event["kind"]
        if kind == "stage":
            self._stage(event)
        elif kind == "epoch" and self._task is not None:
            note = f"{event['attempt']}: epoch {event['epoch'] + 1} of {event['epochs']}, score {event['score']:.3f}"
            self._bar.update(self._task, total=event["epochs"], completed=event["epoch"] + 1, note=note)
        elif kind == "case":
            self._case(event)
        elif kind == "trial":
            score = "" if event["score"] is None else f" {event['score']:.3f}"
            self._console.print(f"    trial {event['number']}: {event['state']}{score}")
        elif kind == "repair":
            self._console.print(
                f"    {event['role']} mends its answer: {_first_line(event['complaint'])}", markup=False
            )
        elif kind == "back":
            self._console.print(f"    back to {event['to']}: {_first_line(event['complaint'])}", markup=False)
        elif kind == "warning":
            self._console.print(f"  ! {event['text']}", markup=False)

    def _case(self, event: dict[str, Any]) -> None:
        if self._task is None:
            self._task = self._bar.add_task("answer the images", total=event["of"], note="")
        note = f"{event['number']} of {event['of']}: {event['case']}"
        self._bar.update(self._task, completed=event["number"], note=note)
        if "failed" in event:
            self._console.print(f"  ! {event['case']}: {event['failed']}", markup=False)

    def _stage(self, event: dict[str, Any]) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None
        name: str = _STAGES.get(event["name"]) or event["name"]
        if event["status"] == "start":
            self._task = self._bar.add_task(name, total=None, note="")
        else:
            self._console.print(f"  {name:<28}{event['seconds']:7.1f} s", markup=False)


def verdict(outcome: Outcome) -> str:
    """How a run ended, in one line."""
    grade = outcome.grade
    if grade is None:
        return f"{outcome.status}: {outcome.reason}"
    control = f", shuffled control {grade.control.value:.3f}" if grade.control else ""
    pixels = grade.others.get("pixel AUROC")
    beside = f", pixel AUROC {interval(pixels)}" if pixels else ""
    beats = "beats both" if grade.s2 else "does not beat both"
    return (
        f"{grade.metric} {interval(grade.score)}{beside} on {grade.cases} held-out cases of {grade.patients} patients; "
        f"floor {grade.floor.value:.3f}{control}: {beats}"
    )


def prompts_as_text(asked: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], request: Request) -> str:
    """Questions to language models in full, and whose answers stood in to get from one to the next."""
    parts = []
    for number, (role, messages) in enumerate(asked, 1):
        parts.append(f"=== question {number}, from the {role} to {request.routing.get(role, request.lm)}")
        parts += [f"--- {message['role']}\n{message['content']}" for message in messages]
    return "\n".join(
        [
            *parts,
            f"=== Nothing was sent. After question 1 the answers of the built-in rules stand in for those of "
            f"{request.lm}; what it would answer shapes the later questions.",
        ]
    )


def runs_as_text(found: Sequence[Mapping[str, Any]], home: Path) -> str:
    """Runs, two lines each."""
    if not found:
        return f"{home} holds no runs. Start one with: m3dspy run"
    lines = []
    for run in found:
        when = f"{datetime.fromtimestamp(run['when']):%Y-%m-%d %H:%M}"
        score = "" if run["score"] is None else f"{run['metric']} {run['score']:.3f}"
        lines.append(f"{when}  {run['status']:<11}{score:<20}{clean(_first_line(run['request'])[:70])}")
        lines.append(f"    {run['page'] or run['run']}")
    return "\n".join(lines)


def interval(score: Score) -> str:
    """`0.742 [0.65, 0.83]`."""
    return f"{score.value:.3f} [{score.low:.2f}, {score.high:.2f}]"


def as_json(run_id: str, folder: str, outcome: Outcome) -> str:
    """What `--json` prints of a run."""
    return json.dumps({"run": run_id, "folder": folder, **outcome.model_dump(mode="json")})


def folder_as_text(found: Fingerprint, notices: list[str]) -> str:
    """What a look at a folder found, for a person: `notices` are its warnings with the files' real names."""
    lines = [f"{found.files} files, {found.megabytes:.1f} MB"]
    if found.unpacked:
        lines.append(f"unpacked from {found.unpacked.format}: {' '.join(found.unpacked.how)}")
    for group in found.groups:
        lines += [f"images  {group.pattern}", f"        {_group(group)}"]
    for pair in found.pairs:
        lines.append(f"masks   {pair.matched} of {pair.image} with {pair.mask}; values {', '.join(pair.values)}")
    for folders in found.class_folders:
        lines.append("classes " + ", ".join(f"{name} {count}" for name, count in folders.classes.items()))
    for table in found.tables:
        lines.append(f"table   {table.path}: {table.rows} rows")
        for column in table.columns:
            shown = ", ".join(f"{value} {count}" for value, count in column.values.items()) or column.pattern
            files = f"; names {column.rows_with_file} files of {column.names_files}" if column.names_files else ""
            lines.append(f"        {column.name}: {column.kind}, {column.distinct} distinct {shown}{files}")
    for key in found.patients:
        where = f"column {key.column} of {key.table}" if key.where == "column" else f"{key.where} {key.part}"
        lines.append(f"patient {where}: {key.patients} patients, {key.images} images")
    if found.lookalikes:
        lines.append(f"        {found.lookalikes} of the sampled images nearly repeat another one")
    return "\n".join(lines + [f"  !     {clean(notice)}" for notice in notices])


def _group(group: Group) -> str:
    parts = [f"{group.count} {group.format} {group.dims}D", f"shape {_spread(group.shape)}"]
    if group.spacing:
        parts.append(f"spacing {_spread(group.spacing)} mm")
    parts += [", ".join(part) for part in (group.orientations, group.dtypes, group.units) if part]
    if group.intensity:
        parts.append(f"intensity {group.intensity['min']:g} to {group.intensity['max']:g}")
    if group.values:
        parts.append(f"values {', '.join(map(str, group.values))}")
    return "; ".join(parts)


def _spread(spread: Spread) -> str:
    low, high = (" x ".join(f"{number:g}" for number in numbers) for numbers in (spread.least, spread.most))
    return low if low == high else f"{low} to {high}"


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:160] if text.strip() else ""
