"""Who asked what, for how much: one line a call in lm.jsonl, and budgets that stop."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from m3dspy.errors import Stopped

_role: ContextVar[str] = ContextVar("role", default="")


@contextmanager
def speaking(role: str) -> Iterator[None]:
    """Calls made inside are booked to this role."""
    token = _role.set(role)
    try:
        yield
    finally:
        _role.reset(token)


class Ledger:
    """The account of one run.

    Args:    path: the file to append to, or None to keep it in memory only.  budget: dollars.  max_calls: calls.
    Raises:  Stopped, from `admit`, once a budget is spent. Calls answered by the cache cost nothing and do not count.

    Each line: time, role, model, input_tokens, output_tokens, cost (dollars; null: price unknown), seconds, cached,
    messages, answer.
    """

    def __init__(self, path: Path | None = None, budget: float | None = None, max_calls: int | None = None):
        self.path, self.budget, self.max_calls = path, budget, max_calls
        self._lock = threading.Lock()
        self.lines: list[dict[str, Any]] = list(read_ledger(path)) if path else []

    @property
    def calls(self) -> int:
        return sum(not line["cached"] for line in self.lines)

    @property
    def dollars(self) -> float | None:
        """What was spent; None if the price of some model is not known."""
        costs = [line["cost"] for line in self.lines if not line["cached"]]
        return None if None in costs else sum(costs)

    def admit(self, free: bool) -> None:
        """Let one more call pass, or stop; a call to a free LM spends no dollars."""
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

    def add(self, entry: dict[str, Any], seconds: float, free: bool) -> None:
        """Book one call from DSPy's history entry; `free` for an LM that costs nothing."""
        usage = entry.get("usage") or {}
        cached = not usage
        line = {
            "time": round(time.time(), 3),
            "role": _role.get(),
            "model": entry.get("model"),
            "input_tokens": usage.get("prompt_tokens", usage.get("input_tokens", 0)) or 0,
            "output_tokens": usage.get("completion_tokens", usage.get("output_tokens", 0)) or 0,
            "cost": 0.0 if free or cached else entry.get("cost"),
            "seconds": round(seconds, 3),
            "cached": cached,
            "messages": entry.get("messages") or entry.get("prompt"),
            "answer": entry.get("outputs"),
        }
        with self._lock:
            self.lines.append(line)
            if self.path:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, default=str) + "\n")


def read_ledger(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of lm.jsonl; a line torn by a crash is passed over."""
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue
