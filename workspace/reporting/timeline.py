"""What happened in a run, in order: its stages, and every question to a language model with its answer and price."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from m3dspy.workspace.reporting.blocks import Block, Code, Step, Table, code

MOST_STEPS = 600
MOST_TEXT = 1_000_000  # characters of prompts and answers on a page; what is beyond is cut, and says so
CUT = 400
STAGES = {
    "look": "Look at the data",
    "plan": "Plan, by the task manager",
    "index": "Index and split, by the data engineer",
    "design": "Design, by the module architect",
    "script": "Script, by the model trainer",
    "tune": "Tuning",
    "train": "Final training",
    "control": "Training of the shuffled control",
    "single": "Training of one model alone",
    "untuned": "Training with the first settings",
    "draw-1": "Training on other images",
    "draw-2": "Training on other images",
    "grade": "Grading on the test cases",
    "report": "Report",
}


class Call(BaseModel):
    """One line of lm.jsonl."""

    time: float
    role: str
    model: str | None
    input_tokens: int
    output_tokens: int
    cost: float | None
    seconds: float
    messages: Any = None
    answer: Any = None


def calls(path: Path) -> list[Call]:
    """The lines of lm.jsonl that are whole."""
    return list(_calls(path))


def _calls(path: Path) -> Iterator[Call]:
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield Call.model_validate_json(line)
            except ValidationError:  # torn by a crash
                continue


def seconds(spent: float) -> str:
    return f"{spent:.1f} s" if spent < 10 else f"{spent:.0f} s" if spent < 120 else f"{spent / 60:.0f} min"


def price(dollars: float | None) -> str:
    return "price not known" if dollars is None else f"${dollars:.4f}"


def steps(events: Sequence[dict[str, Any]], asked: Sequence[Call]) -> tuple[list[Step], int]:
    """What is worth reading of a run, oldest first, and how many steps were left out at the end."""
    told = [*((event["time"], event) for event in events), *((call.time, call) for call in asked)]
    told.sort(key=lambda pair: pair[0])
    shown, found = _Texts(), []
    for time, what in told:
        step = _asked(what, shown) if isinstance(what, Call) else _happened(what)
        if step:
            found.append(Step(f"{datetime.fromtimestamp(time):%H:%M:%S}", *step))
    return found[:MOST_STEPS], max(0, len(found) - MOST_STEPS)


def _happened(event: dict[str, Any]) -> tuple[str, Any, list[Block]] | None:
    kind = event["kind"]
    if kind == "stage":
        done = f": done in {seconds(event['seconds'])}" if event["status"] == "done" else ""
        return f"{STAGES.get(event['name'], event['name'])}{done}", "stage", []
    if kind == "repair":
        return f"Repair by {event['role']}", "repair", [code("What was wrong", event["complaint"])]
    if kind == "back":
        return f"From {event['by']} back to {event['to']}", "repair", [code("What was wrong", event["complaint"])]
    if kind == "warning":
        return f"Warning: {event['text']}", "warning", []
    return None


def _asked(call: Call, shown: "_Texts") -> tuple[str, Any, list[Block]]:
    who = call.role.replace("_", " ") or "preflight"
    tokens = f"{call.input_tokens:,} tokens in, {call.output_tokens:,} out"
    messages = call.messages if isinstance(call.messages, list) else [{"role": "user", "content": call.messages}]
    answers = call.answer if isinstance(call.answer, list) else [call.answer]
    blocks: list[Block] = [
        shown.code(f"Prompt, {message.get('role', 'user')}", _text(message.get("content")))
        for message in messages
        if isinstance(message, dict)
    ]
    blocks += [shown.code("Answer", _text(answer)) for answer in answers]
    return f"The {who} asks {call.model}: {tokens}, {price(call.cost)}, {seconds(call.seconds)}", "asked", blocks


def _text(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, indent=1)


class _Texts:
    """Prompts and answers in full, until there are so many that a page would be too large; no text comes twice."""

    def __init__(self):
        self.left = MOST_TEXT
        self.places: dict[str, int] = {}

    def code(self, about: str, text: str) -> Code:
        if len(text) > CUT and (known := self.places.get(text)):
            return code(f"{about} (as text {known})", f"{text[:CUT]}\n[... the same as text {known} above]")
        number = self.places.setdefault(text, len(self.places) + 1)
        if len(text) > max(self.left, CUT):
            return code(about, f"{text[:CUT]}\n[... {len(text) - CUT:,} more characters in lm.jsonl]")
        self.left -= len(text)
        return code(f"{about} (text {number})", text)


def ledger(asked: Sequence[Call]) -> Table:
    """Calls, tokens and dollars by role and model."""
    groups: dict[tuple[str, str], list[Call]] = {}
    for call in asked:
        groups.setdefault((call.role or "preflight", str(call.model)), []).append(call)
    rows = [
        (
            *names,
            len(group),
            sum(call.input_tokens for call in group),
            sum(call.output_tokens for call in group),
            "not known"
            if any(call.cost is None for call in group)
            else f"{sum(call.cost or 0.0 for call in group):.4f}",
            seconds(sum(call.seconds for call in group)),
        )
        for names, group in [*groups.items(), (("all", ""), list(asked))]
    ]
    head = ("role", "model", "calls", "tokens in", "tokens out", "dollars", "time")
    return Table("Calls to language models", head, rows)
