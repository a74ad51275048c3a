"""Who asked what, for how much: one line a call in lm.jsonl, budgets that stop, and answers kept for good."""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from m3dspy.errors import Stopped
from m3dspy.workspace.runs import heal

_role: ContextVar[str] = ContextVar("role", default="")
_asked: ContextVar[list[str] | None] = ContextVar("keys of the questions asked", default=None)


@contextmanager
def speaking(role: str) -> Iterator[None]:
    """Calls made inside are booked to this role."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)


@contextmanager
def asked() -> Iterator[list[str]]:
    """The keys of the questions that are asked inside, also of those whose answers are remembered."""
    keys: list[str] = []
    token = _asked.set(keys)
    try:
        yield keys
    finally:
        _asked.reset(token)


class Ledger:
    """The account of one run, and its memory: a question that was answered before is never paid for again.

    Args:    path: the file to append to, or None to keep it in memory only.  budget: dollars.  max_calls: calls.
             minutes: wall time from now on.
    Raises:  Stopped, from `admit`, once a budget is spent.

    Each line: time, role, model, key, input_tokens, output_tokens, cost (dollars; null: price unknown), seconds,
    messages, answer, finish (why it ended). `key` is what the answer is remembered by.
    """

    def __init__(
        self,
        path: Path | None = None,
        budget: float | None = None,
        max_calls: int | None = None,
        minutes: float | None = None,
    ):
        self.path, self.budget, self.max_calls, self.minutes = path, budget, max_calls, minutes
        self._ends = None if minutes is None else time.monotonic() + 60 * minutes
        self._lock = threading.Lock()
        self._asking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._answers: dict[str, tuple[list[Any], str | None]] = {}
        self.lines: list[dict[str, Any]] = []
        self.recalled = 0
        if path:
            heal(path)
            for line in read_ledger(path):
                self._keep(line)

    @property
    def calls(self) -> int:
        return len(self.lines)

    @property
    def dollars(self) -> float | None:
        """What was spent; None if the price of some model is not known."""
        costs = [line["cost"] for line in self.lines]
        return None if None in costs else sum(costs)

    @contextmanager
    def asking(self, key: str) -> Iterator[bool]:
        """Whether the answer is known already; if not, nobody else asks while the block runs."""
        if (keys := _asked.get()) is not None:
            keys.append(key)
        with self._lock:
            turn = self._asking[key]
        with turn:
            self.recalled += key in self._answers
            yield key in self._answers

    def answer(self, key: str) -> tuple[list[Any], str | None]:
        """What a language model said, and why it ended ("stop", "length" ...)."""
        return self._answers[key]

    def is_useless(self, key: str) -> bool:
        """Whether an answer is empty or was cut off."""
        answer, finish = self._answers[key]
        return finish == "length" or not any(answer)

    def admit(self, free: bool) -> None:
        """Let one more call pass, or stop; a call to a free LM spends no dollars."""
        if self._ends is not None and time.monotonic() >= self._ends:
            raise Stopped(f"The time of {self.minutes:g} minutes is over. Raise --minutes to go on.")
        if self.max_calls is not None and self.calls >= self.max_calls:
            raise Stopped(
                f"The budget of {self.max_calls} calls to language models is spent. Raise --max-calls to go on."
            )
        if self.budget is not None and not free:
            spent = self.dollars
            if spent is None:
                raise Stopped(
                    "The price of this language model is not known, so --budget cannot hold. Use --max-calls."
                )
            if spent >= self.budget:
                raise Stopped(f"The budget of ${self.budget:.2f} is spent (${spent:.4f}). Raise --budget to go on.")

    def add(self, entry: dict[str, Any], seconds: float, free: bool, key: str, finish: str | None) -> None:
        """Book one call from DSPy's history entry; `free` for an LM that costs nothing."""
        usage = entry.get("usage") or {}
        line = {
            "time": round(time.time(), 3),
            "role": _role.get(),
            "model": entry.get("model"),
            "key": key,
            "input_tokens": usage.get("prompt_tokens", usage.get("input_tokens", 0)) or 0,
            "output_tokens": usage.get("completion_tokens", usage.get("output_tokens", 0)) or 0,
            "cost": 0.0 if free else entry.get("cost"),
            "seconds": round(seconds, 3),
            "messages": entry.get("messages") or entry.get("prompt"),
            "answer": entry.get("outputs"),
            "finish": finish,
        }
        text = json.dumps(line, default=str)
        with self._lock:
            if self.path:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(text + "\n")
            self._keep(json.loads(text))

    def _keep(self, line: dict[str, Any]) -> None:
        self._answers[line.get("key", "")] = line.pop("answer", []), line.pop("finish", None)
        line.pop("messages", None)
        self.lines.append(line)


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of lm.jsonl; a line torn by a crash is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for text in lines:
            try:
                yield json.loads(text)
            except json.JSONDecodeError:
                continue
