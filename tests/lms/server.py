"""Simulated language models behind an OpenAI-compatible server on loopback, with the faults that real ones have.

python tests/lms/server.py --port 8000 --log calls.jsonl
m3dspy compile --teacher gpt-4o --student openai/gpt-4o-mini --api-base http://127.0.0.1:8000/v1
"""

import argparse
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, it finds its neighbours too

import rules_server

from lms.simulated import Simulated
from m3dspy.programs.lms import rules

SKILLS = {"gpt-4o": 1.0, "gpt-4.1-mini": 0.8, "gpt-4o-mini": 0.55, "gpt-4.1-nano": 0.25}
MODELS: dict[str, Callable[..., str]] = {name: Simulated(name, skill).answer for name, skill in SKILLS.items()}
MODELS["rules"] = rules.answer
PROSE = "I think the answer is maybe 42?"
HTML = {"Content-Type": "text/html"}


def _error(kind: str, message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


ERRORS: Mapping[str, tuple[Any, ...]] = {
    "429": (429, _error("rate_limit_error", "Slow down.", "rate_limit_exceeded"), {"Retry-After": "1"}),
    "quota": (429, _error("insufficient_quota", "You exceeded your current quota.", "insufficient_quota")),
    "500": (500, _error("server_error", "The server had an error.")),
    "503": (503, b"<html><h1>503 Service Unavailable</h1></html>", HTML),
    "401": (401, _error("invalid_request_error", "Incorrect API key provided.", "invalid_api_key")),
    "404": (404, _error("invalid_request_error", "The model does not exist.", "model_not_found")),
    "dropped": (0, b""),
}
SPOILS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "cut": lambda body: json.dumps(body).encode()[: len(json.dumps(body)) // 2],
    "no choices": lambda body: body | {"choices": []},
    "null": lambda body: _saying(body, content=None),
    "length": lambda body: _saying(body, "length", content=_content(body)[: len(_content(body)) // 2]),
    "refusal": lambda body: _saying(body, content=None, refusal="I can't help with that."),
    "prose": lambda body: _saying(body, content=PROSE),
}
FAULTS = (*ERRORS, *SPOILS, "silence")


def _content(body: dict[str, Any]) -> str:
    return body["choices"][0]["message"]["content"]


def _saying(body: dict[str, Any], reason: str = "stop", **message: Any) -> dict[str, Any]:
    choices = [
        choice | {"message": {"role": "assistant", **message}, "finish_reason": reason} for choice in body["choices"]
    ]
    return body | {"choices": choices}


@contextmanager
def serve(
    port: int = 0,
    log: Path | None = None,
    *,
    fault: str = "",
    fault_model: str = "",
    fault_after: int = 0,
    delay: float = 60.0,
    die_at: int = 0,
    kill: int | Callable[[], object] = 0,
) -> Iterator[str]:
    """The server's base address while the block runs.

    Args:
        log: where each answered request leaves a line of JSON: model, key, status.
        fault: one of FAULTS, shown by `fault_model` (or by all) after `fault_after` requests; `delay`: seconds of
            silence, then the connection is dropped.
        die_at: at the request of this number `kill` is called, or sent SIGKILL if it is a process; that request, and
            those under way with it, are never answered.
    """
    if fault not in ("", *FAULTS):
        raise ValueError(f"No fault is called {fault!r}. Known: {', '.join(FAULTS)}.")
    lock, seen, deaths = threading.Lock(), 0, 0

    def reply(request: dict[str, Any]) -> tuple[Any, ...]:
        nonlocal seen, deaths
        with lock:
            seen += 1
            number = seen
            if number == die_at:
                deaths += 1
                kill() if callable(kill) else os.kill(kill, signal.SIGKILL)
                return ERRORS["dropped"]
            alive = deaths
        faulty = fault and number > fault_after and request["model"].endswith(fault_model)
        if faulty and fault == "silence":
            time.sleep(delay)
            return ERRORS["dropped"]
        answer = ERRORS[fault] if faulty and fault in ERRORS else _answer(request)
        if faulty and fault in SPOILS:
            answer = answer[0], SPOILS[fault](answer[1])
        with lock:
            if deaths > alive:
                return ERRORS["dropped"]
            if log and answer[0]:
                _book(log, request, answer[0])
        return answer

    with rules_server.serve(reply, port) as base:
        yield base


def repeats(log: Path) -> int:
    """How many requests were answered well that had been answered well before."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    keys = [line["key"] for line in lines if line["status"] == 200]
    return len(keys) - len(set(keys))


def _book(log: Path, request: dict[str, Any], status: int) -> None:
    key = sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    with log.open("a") as file:
        file.write(json.dumps({"model": request["model"], "key": key, "status": status}) + "\n")


def _answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    name = request["model"].rpartition("/")[2]
    if name not in MODELS:
        return 404, _error("invalid_request_error", f"The model {name!r} does not exist.", "model_not_found")
    messages = [(message["role"], rules_server.text_of(message["content"])) for message in request["messages"]]
    system = "\n".join(text for role, text in messages if role in ("system", "developer"))
    try:
        text = MODELS[name](system, messages)
    except LookupError as error:
        return 400, _error("invalid_request_error", str(error))
    return 200, _completion(request, text, sum(math.ceil(len(said) / 4) for _, said in messages))


def _completion(request: dict[str, Any], text: str, asked: int) -> dict[str, Any]:
    count = request.get("n") or 1
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index in range(count)
    ]
    said = count * math.ceil(len(text) / 4)
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    body = {"id": "s", "object": "chat.completion", "created": 0, "model": request["model"]}
    return body | {"choices": choices, "usage": usage}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    with serve(given.port, given.log) as address:
        print(f"{', '.join(MODELS)} at {address}", flush=True)
        threading.Event().wait()
