"""One compiled program, and the prompts as written beside it, under several language models.

Success is counted on held-out exercises, for each role by itself and for all four in a row. Every answer is kept in
`work/lm.jsonl`: a comparison that was interrupted repeats no call.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path

import dspy
from dspy.utils.exceptions import LMError
from pydantic import Field

from m3dspy.errors import M3Error, Stopped, UsageError
from m3dspy.m3bench import partition
from m3dspy.m3bench.stats import mcnemar
from m3dspy.optimizers.chart import draw
from m3dspy.optimizers.measure import Bench, measure
from m3dspy.optimizers.route import MOST_LMS, find_route
from m3dspy.optimizers.session import Limits, Listen, alone, check_metric, quiet, step
from m3dspy.optimizers.standings import PARTS, Comparison, Measured, Route, Row, markdown, prompts
from m3dspy.optimizers.workshop import Workshop, sources
from m3dspy.programs import artifact
from m3dspy.programs.artifact import Loaded
from m3dspy.programs.builder import Builder
from m3dspy.programs.lms.adapter import Chat
from m3dspy.programs.lms.ledger import Ledger
from m3dspy.programs.lms.model import M3dLM, distinct, preflight
from m3dspy.signatures.values import Value
from m3dspy.workspace.runs import write_atomic


class Contest(Value):
    """Which LMs are to be compared, and on what."""

    lms: tuple[str, ...] = Field(min_length=1)
    exercises: int = Field(default=24, ge=1)
    seed: int = Field(default=0, ge=0)
    route: bool = Field(default=False, description="find the cheapest LMs for the roles")
    api_base: str | None = None
    unsafe: bool = False

    def id(self, program: Loaded) -> str:
        """The folder's name: the same for the same contest under the same code, wherever the servers are."""
        text = self.model_dump_json(exclude={"route", "api_base", "unsafe"}) + program.manifest.program
        text += artifact.code_hash() + sources()
        return f"{program.folder.resolve().name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def compare(
    program: Loaded,
    contest: Contest,
    limits: Limits,
    out: Path,
    practice: Path,
    threads: int,
    listen: Listen = lambda event: None,
    executor: Executor | None = None,
) -> Comparison:
    """Measure, and write `comparison.json`, `comparison.md` and `comparison.png`; with `route` also a routed program.

    An LM that is down ends its own rows only. A budget that is spent ends all; what was measured is kept.

    Args:   out: the comparison's folder.  practice: for exercises and scripts; may be shared.
            threads: exercises at a time.  listen: told of every step.
            executor: carries out the scripts; None: this process.
    Raises: UsageError: a name of an LM cannot be one, or too many for a route; nothing was begun.
            M3Error: another process is at it.  Stopped: the metric cannot be trusted here.
    """
    ledger_file = out / "work" / "lm.jsonl"
    lms = distinct(contest.lms, Ledger(), contest.api_base)
    if contest.route and len(lms) > MOST_LMS:
        raise UsageError(f"--route weighs {MOST_LMS} language models at most; got {len(lms)}. Leave some out.")
    names = tuple(partition.names("held-out", contest.exercises, contest.seed))
    ledger_file.parent.mkdir(parents=True, exist_ok=True)
    with alone(out / "work" / "lock"), quiet(out / "work" / "log"), dspy.context(adapter=Chat()):
        ledger = Ledger(ledger_file, limits.budget, limits.max_calls, limits.minutes)
        lms = distinct(contest.lms, ledger, contest.api_base)
        bench = Bench(names, Workshop(practice, unsafe=contest.unsafe, executor=executor), ledger, threads, listen)
        with step(listen, "check the metric with the built-in rules"):
            check_metric(names, bench.workshop)
        parts: dict[tuple[str, bool], dict[str, Measured]] = {}
        ended: dict[str, str] = {}
        route, why = None, ""
        try:
            for name, lm in lms.items():
                ended[name] = _measure_lm(bench, program.builder, name, lm, parts)
            if contest.route:
                compiled = {name: measured for (name, is_compiled), measured in parts.items() if is_compiled}
                route = find_route(bench, program.builder, compiled, lms)
        except Stopped as stop:
            why = str(stop)
        found = Comparison(
            program=program.manifest.title,
            exercises=names,
            rows=_rows(parts, ended),
            route=route,
            routed=_write_routed(program, route, out / "routed") if route and route.holds else "",
            ended=why,
        )
        write_atomic(out / "comparison.json", found.model_dump_json(indent=1).encode())
        write_atomic(out / "comparison.md", markdown(found).encode())
        draw(found, out / "comparison.png")
    return found


def _measure_lm(
    bench: Bench, compiled: Builder, name: str, lm: M3dLM, parts: dict[tuple[str, bool], dict[str, Measured]]
) -> str:
    """Measure both programs under an LM, part by part; why the LM could not go on, "" if it could.

    Raises: Stopped: the reason is not this LM's.
    """
    for is_compiled in (True, False):
        parts[name, is_compiled] = {}
    try:
        preflight(lm)
        lm.vital = True
        with dspy.context(lm=lm):
            for is_compiled, builder in ((True, compiled), (False, Builder())):
                for part in PARTS:
                    title = f"{name}, {prompts(is_compiled)}"
                    parts[name, is_compiled][part] = measure(bench, builder, part, title)
    except M3Error as error:
        return str(error)
    except Stopped as stop:
        if not isinstance(stop.__cause__, LMError):
            raise
        return str(stop)
    return ""


def _rows(parts: Mapping[tuple[str, bool], dict[str, Measured]], ended: Mapping[str, str]) -> tuple[Row, ...]:
    rows = []
    for (name, compiled), measured in parts.items():
        before = parts[name, False] if compiled else {}
        p = {
            part: mcnemar(list(before[part].results.values()), list(measured[part].results.values()))
            for part in measured
            if part in before
        }
        rows.append(Row(lm=name, compiled=compiled, parts=measured, p=p, ended=ended.get(name, "")))
    return tuple(rows)


def _write_routed(program: Loaded, route: Route, folder: Path) -> str:
    """The same program with its roles' LMs in the manifest; the folder."""
    manifest = program.manifest
    routed = manifest.model_copy(
        update={
            "name": f"{manifest.name}-routed",
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "routing": {role: artifact.without_login(lm) for role, lm in route.routing.items()},
            "arguments": {**manifest.arguments, "routed_from": manifest.title},
        }
    )
    artifact.write(folder, program.builder, routed, before=Builder())
    return str(folder)
