"""SIGKILL whole runs again and again, resume each until it is done, and look for work that was lost or done twice.

python benchmarks/kill_loop.py [--kills 100] [--seed 0]

A third of the kills come just before the process opens a file to write, renames or removes something for the n-th time:
there a crash can leave half a commit. A third come in the 50 ms after an event, and a third in the 3 s after one. Every
second run asks a language model over HTTP. Starts are forked from a process that has imported the package, so that
kills are not spent on imports. Prints a table; the exit status is 1 if anything was lost, done twice, or came out
otherwise than in a run that was left alone.
"""

import argparse
import hashlib
import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from m3dspy import cli, job, screen  # noqa: F401  (imported before the forks)
from m3dspy.m3bench import task

REQUEST = "segment both lungs and the COVID-19 infection on chest CT, as a quick try"
CHANGING = ("outcome.json", "public_index.json", "tuning_index.json")  # written anew at every start
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


@dataclass
class Tally:
    """What the kills came to."""

    stages: Counter[str] = field(default_factory=Counter)
    windows: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    wrong: list[str] = field(default_factory=list)
    in_flight: int = 0

    @property
    def kills(self) -> int:
        return self.stages.total()


# ------------------------------------------------------------------------------------------------ processes
def start(words: list[str], home: Path, step: int | None = None) -> int:
    """Fork `m3dspy words`; with `step` it kills itself just before that change to a run folder. Returns its pid."""
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        os.chdir(home)
        screen = os.open("screen.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(screen, 1)
        os.dup2(screen, 2)
        sys.argv = ["m3dspy", *words, "--json"]
        if step is not None:
            kill_at(step, f"{home}/runs")
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def kill_at(step: int, below: str) -> None:
    """Let this process end by SIGKILL before its `step`-th change below a folder."""
    left = step

    def count(event: str, about: tuple[Any, ...]) -> None:
        nonlocal left
        opened = event == "open" and len(about) == 3 and isinstance(about[2], int) and about[2] & 0o3
        if (opened or event in CHANGES) and (place := str(about[0])).startswith((below, "runs")):
            left -= 1
            if left == 0:
                Path(below).parent.joinpath("window").write_text(
                    f"{event} {re.sub(r'[0-9]{2,}', 'N', Path(place).name)}"
                )
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def ended(pid: int, seconds: float | None) -> int | None:
    """The exit status of a child, negative by a signal; None if it still runs after the time."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


@contextmanager
def language_model(home: Path) -> Iterator[tuple[str, Path]]:
    """The rules behind HTTP in a process of their own: its address, and a file with a line for every question."""
    import rules_server

    asked, ready = home / "asked", home / "address"
    asked.touch()
    pid = os.fork()
    if not pid:

        def reply(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            with asked.open("a") as file:
                file.write("asked\n")
            return rules_server.by_rules(request)

        with rules_server.serve(reply) as base:
            ready.with_suffix(".tmp").write_text(base)
            ready.with_suffix(".tmp").rename(ready)
            signal.pause()
        os._exit(0)
    while not ready.exists():
        time.sleep(0.01)
    try:
        yield ready.read_text(), asked
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# ------------------------------------------------------------------------------------------------ what is on disk
def lines(path: Path) -> list[str]:
    """The whole lines of a journal."""
    text = path.read_text() if path.is_file() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(run / "events.jsonl")]


def committed(run: Path) -> dict[str, str]:
    """Everything that has its final name, by its hash."""
    files = [path for path in run.glob("*.json") if path.name not in CHANGING]
    for folder in ("model", "predictions", "control"):
        files += [path for path in (run / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stage(run: Path | None) -> str:
    """What a run is doing, as its events tell."""
    if run is None:
        return "before the run"
    told = events(run)
    for event in reversed(told):
        if event["kind"] == "stage":
            return event["name"] if event["status"] == "start" else f"after {event['name']}"
    return "before look"


def result(run: Path) -> dict[str, Any]:
    """What a run came to: weights and predictions by their hash, trials without their seconds, the grade."""
    found: dict[str, Any] = {
        name: digest
        for name, digest in committed(run).items()
        if name == "model/model.safetensors" or "predictions/" in name
    }
    tuned, grade = json.loads((run / "tuned.json").read_text()), json.loads((run / "grade.json").read_text())
    return found | {"trials": [{**trial, "seconds": 0} for trial in tuned["trials"]], "grade": grade}


def twice(run: Path) -> list[str]:
    """What the run's own books show to be done twice."""
    told = events(run)
    books = {
        "stage": [e["name"] for e in told if e["kind"] == "stage" and e["status"] == "done"],
        "epoch": [f"{e['attempt']} {e['epoch']}" for e in told if e["kind"] == "epoch"],
        "trial": [e["number"] for e in told if e["kind"] == "trial"],
        "call": [json.loads(line)["key"] for line in lines(run / "lm.jsonl")],
    }
    again = [f"{kind} {what} {n} times" for kind, all in books.items() for what, n in Counter(all).items() if n > 1]
    for n, event in enumerate(told):
        if event["kind"] == "stage" and event["status"] == "start" and event["name"] != "report":
            before = [e for e in told[:n] if e["kind"] == "stage" and e["status"] == "done"]
            again += [f"stage {event['name']} begun after it was done" for e in before if e["name"] == event["name"]]
    return again


# ------------------------------------------------------------------------------------------------ the loop
def one_run(words: list[str], home: Path, most: int, draw: random.Random, tally: Tally, asked: Path | None) -> Path:
    """Start a run, kill it up to `most` times, resume it until it is done; what goes wrong is put down in the tally."""
    home.mkdir()
    seen: dict[str, list[str]] = {"events.jsonl": [], "lm.jsonl": []}
    whole: dict[str, str] = {}
    paid = 0
    run = None
    for kills in range(most + 1):
        run = _run(home)
        how = draw.choice(("step", "event", "time"))
        step = draw.randint(1, 60) if how == "step" and kills < most else None
        pid = start(["resume", str(run)] if run else words, home, step)
        status = None
        if step is None and kills < most:
            events_more, after = draw.randint(0, 8), draw.uniform(0, 0.05 if how == "event" else 3)
            while (status := ended(pid, 0.002)) is None:
                run = _run(home)
                if run and len(lines(run / "events.jsonl")) >= len(seen["events.jsonl"]) + events_more:
                    break
            if status is None and (status := ended(pid, after)) is None:
                os.kill(pid, signal.SIGKILL)
        status = ended(pid, None) if status is None else status
        run = _run(home)
        if run is not None:
            for name, before in seen.items():
                now = lines(run / name)
                if now[: len(before)] != before:
                    tally.wrong.append(f"{home.name}: lines of {name} that were there are gone")
                seen[name] = now
            now_whole = committed(run)
            for name, digest in whole.items():
                if now_whole.get(name) != digest:
                    tally.wrong.append(
                        f"{home.name}: {name} was committed and is {'changed' if name in now_whole else 'gone'}"
                    )
            whole = now_whole
        if asked and run is not None:
            in_flight = len(lines(asked)) - len(lines(run / "lm.jsonl"))
            if in_flight - paid > 1:
                tally.wrong.append(f"{home.name}: {in_flight - paid} questions were asked that are in no book")
            paid = in_flight
        if status != -signal.SIGKILL:
            if status:
                tally.wrong.append(f"{home.name}: ended with status {status}: {lines(home / 'screen.log')[-1:]}")
            break
        where = stage(run)
        tally.stages[where] += 1
        if step is not None:
            tally.windows[(home / "window").read_text()] += 1
        print(f"  {home.name}: kill {tally.kills} in {where}", file=sys.stderr, flush=True)
    assert run is not None
    tally.runs, tally.in_flight = tally.runs + 1, tally.in_flight + paid
    tally.wrong += [f"{home.name}: {what}" for what in twice(run)]
    if leftovers := [str(path.relative_to(run)) for path in run.rglob("*.tmp")]:
        tally.wrong.append(f"{home.name}: left {', '.join(leftovers)}")
    return run


def _run(home: Path) -> Path | None:
    return next(home.glob("runs/[!.]*"), None)


def loop(kills: int, seed: int, home: Path, trials: int = 3) -> Tally:
    """Whole runs, rules and language model by turns, until that many kills are spent."""
    draw, tally = random.Random(seed), Tally()
    task.make("COVID19", home / "data", size=task.find("COVID19").smallest)
    words = ["run", REQUEST, "--data", str(home / "data"), "--trials", str(trials)]
    straight = result(one_run(words, home / "straight", 0, draw, tally, None))
    while tally.kills < kills:
        name = home / f"run-{tally.runs}"
        with language_model(home) as (base, asked):
            over_http = tally.runs % 2 == 0
            how = ["--lm", "openai/rules", "--api-base", base] if over_http else []
            asked.write_text("")
            run = one_run([*words, *how], name, kills - tally.kills, draw, tally, asked if over_http else None)
            (home / "address").unlink()
        if not (run / "grade.json").is_file():
            break
        found = result(run)
        tally.wrong += [f"{name.name}: another {what}" for what in straight if found.get(what) != straight[what]]
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=3)
    given = parser.parse_args()
    home, began = Path(mkdtemp(prefix="kill-loop-")), time.monotonic()
    tally = loop(given.kills, given.seed, home, given.trials)
    print(f"{tally.kills} kills of {tally.runs - 1} runs in {time.monotonic() - began:.0f} s; runs in {home}\n")
    print("stage at the kill".ljust(28) + "kills")
    for name, count in sorted(tally.stages.items()):
        print(name.ljust(28) + str(count))
    print("\nkilled just before".ljust(29) + "kills")
    for name, count in sorted(tally.windows.items()):
        print(name.ljust(28) + str(count))
    print(f"\nLM calls in flight at a kill, and asked again: {tally.in_flight}")
    print(f"lost, done twice or different: {len(tally.wrong)}")
    for line in tally.wrong:
        print(f"  {line}")
    return bool(tally.wrong)


if __name__ == "__main__":
    sys.exit(main())
