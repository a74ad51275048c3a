"""The benchmark: a candidate over datasets and rounds, and the table that comes of it.

What a candidate is, the examiner does not know: a function that takes a dataset to an Outcome. Every round is kept in
a folder of its own, so that a benchmark which was interrupted goes on where it stopped. A round without an outcome, and
one that ended in an error, counts as a failure.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from m3dspy.errors import DataError, M3Error
from m3dspy.m3bench import published
from m3dspy.m3bench.stats import fisher, success, wilson
from m3dspy.m3bench.task import BenchTask, make, truth
from m3dspy.signatures.values import Outcome, Score, Success, Value
from m3dspy.workspace.runs import write_atomic

# Rounds that M3Builder completed with Claude-3.7-Sonnet, of 14 datasets x 5: Feng et al. 2025, arXiv:2502.20301.
M3BUILDER = (66, 70)

Candidate = Callable[[BenchTask, Path, Path, int], Outcome]  # dataset, its folder, a folder to write to, seed


class Row(Value):
    """One dataset, or all of them: how often S1 and S2 were reached, and the scores of the median round."""

    dataset: str
    phantom: bool
    s1: Success
    s2: Success
    metric: str = ""
    score: Score | None = None
    floor: Score | None = None
    control: Score | None = None
    above_oracle: int = 0
    failures: tuple[str, ...] = ()


class Table(Value):
    """What `bench.json` holds."""

    rounds: int
    rows: tuple[Row, ...]
    total: Row


def bench(
    candidate: Candidate,
    tasks: Sequence[BenchTask],
    rounds: int,
    out: Path,
    *,
    data: dict[str, Path] | None = None,
    executor: Executor | None = None,
    listen: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Table:
    """Run a candidate over datasets and rounds, and write `bench.json` and `bench.md`.

    Args: out: folder of the benchmark; rounds that are finished there are not run again.  data: dataset's name ->
        folder of the real data; a dataset that is not in it is judged on its phantom, made in `out/data`.
        executor: carries out the rounds, which then must be such as can be pickled, and `listen` is told of each as
        it ends; None: one after another, here.
    Round r runs with seed r. An M3Error of the candidate is a failed round; any other exception ends the benchmark.
    Raises: M3Error: another benchmark is at work there, or the executor broke down; what was finished is kept.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "bench.lock", timeout=0):
            folders = {task.name: (data or {}).get(task.name) or phantom(task, out) for task in tasks}
            todo = [
                (task, folders[task.name], folder, number)
                for number in range(rounds)
                for task in tasks
                if not ((folder := out / task.name / f"round-{number:02d}") / "outcome.json").is_file()
            ]
            ended = _side_by_side(candidate, todo, executor, listen) if executor else _in_turn(candidate, todo)
            for folder, outcome in ended:
                write_atomic(folder / "outcome.json", outcome.model_dump_json().encode())
    except Timeout:
        raise M3Error(f"Another benchmark is at work in {out}. Wait for it, or give another --out.") from None
    table = tabulate(tasks, rounds, out)
    write_atomic(out / "bench.json", table.model_dump_json(indent=1).encode())
    write_atomic(out / "bench.md", markdown(table).encode())
    return table


_Round = tuple[BenchTask, Path, Path, int]  # as a Candidate takes it


def _in_turn(candidate: Candidate, todo: Sequence[_Round]) -> Iterator[tuple[Path, Outcome]]:
    for given in todo:
        yield given[2], _carried_out(candidate, *given)


def _side_by_side(
    candidate: Candidate, todo: Sequence[_Round], executor: Executor, listen: Callable[[dict[str, Any]], None]
) -> Iterator[tuple[Path, Outcome]]:
    """Rounds as they end. One that was lost with its worker is carried out once more, and lost again it has failed.

    Raises: BrokenExecutor: nothing can be carried out any more.
    """
    begun, lost = time.monotonic(), set()
    open_ones = {executor.submit(_carried_out, candidate, *given): given for given in todo}
    try:
        while open_ones:
            for future in wait(open_ones, return_when=FIRST_COMPLETED).done:
                given = task, _, folder, number = open_ones.pop(future)
                try:
                    outcome = future.result()
                except BrokenExecutor as error:
                    if folder not in lost:
                        lost.add(folder)
                        open_ones[executor.submit(_carried_out, candidate, *given)] = given
                        listen({"kind": "warning", "text": f"{task.name}, round {number}, once more: {error}"})
                        continue
                    outcome = Outcome(status="failed", reason=f"Begun twice, and lost twice. {error}")
                yield folder, outcome
                name = f"{task.name}, round {number}: {outcome.status}"
                listen({"kind": "stage", "name": name, "status": "done", "seconds": time.monotonic() - begun})
    finally:
        for future in open_ones:
            future.cancel()


def _carried_out(candidate: Candidate, task: BenchTask, data: Path, folder: Path, number: int) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return candidate(task, data, folder, number)
    except M3Error as error:
        return Outcome(status="failed", reason=str(error))


def tabulate(tasks: Sequence[BenchTask], rounds: int, out: Path) -> Table:
    """The table of what lies in a benchmark's folder."""
    rows, everything = [], []
    for task in tasks:
        outcomes = [_read(out / task.name / f"round-{number:02d}" / "outcome.json") for number in range(rounds)]
        rows.append(_row(task.name, outcomes))
        everything += outcomes
    return Table(rounds=rounds, rows=tuple(rows), total=_row("all", everything).model_copy(update=_NO_SCORES))


_NO_SCORES = {"metric": "", "score": None, "floor": None, "control": None, "failures": ()}


def _row(name: str, outcomes: Sequence[Outcome | None]) -> Row:
    grades = sorted(
        (outcome.grade for outcome in outcomes if outcome and outcome.grade), key=lambda grade: grade.score.value
    )
    median = grades[len(grades) // 2] if grades else None
    return Row(
        dataset=name,
        phantom=any(outcome.phantom for outcome in outcomes if outcome),
        s1=success(sum(grade.s1 for grade in grades), len(outcomes)),
        s2=success(sum(grade.s2 for grade in grades), len(outcomes)),
        metric=median.metric if median else "",
        score=median.score if median else None,
        floor=median.floor if median else None,
        control=median.control if median else None,
        above_oracle=sum(grade.above_oracle for grade in grades),
        failures=tuple(
            outcome.reason if outcome else "no outcome" for outcome in outcomes if not outcome or not outcome.grade
        ),
    )


def markdown(table: Table) -> str:
    """The table for people."""
    lines = [
        "| dataset | S1 | S2 | metric | score [95 %] | floor | control | |",
        "|---|---|---|---|---|---|---|---|",
        *(_line(row) for row in (*table.rows, table.total)),
        "",
        "S1: a valid checkpoint and a well-formed prediction for every test case. S2: better than the trivial answer",
        "and than the same pipeline trained on shuffled labels (one-sided paired bootstrap over patients, 95 %). a/b",
        f"with 95 % Wilson intervals; scores of the median of {table.rounds} round(s). No outcome counts as a failure.",
        "",
        _beside(table.total.s1),
    ]
    if any(row.phantom for row in table.rows):
        lines += ["", "*phantom*: made-up data; the score says nothing about patients."]
    lines += _published(table)
    failures = [f"- {row.dataset}: {reason}" for row in table.rows for reason in row.failures]
    if failures:
        lines += ["", "Failures:", "", *failures]
    return "\n".join(lines) + "\n"


def _published(table: Table) -> list[str]:
    """What others report on the real datasets with as few shots as M3Bench's requests name, or with none."""
    found = [row for dataset in table.rows for row in published.rows(dataset.dataset) if row.shots in (0, 4)]
    if not found:
        return []
    cells = (
        (row.dataset, row.method, row.shots, row.image_auroc, row.pixel_auroc, row.source, row.note) for row in found
    )
    return [
        "",
        "Published on the real datasets (AUROC of images and pixels in %; not to be compared with phantoms):",
        "",
        "| dataset | method | shots | images | pixels | source | note |",
        "|---|---|---|---|---|---|---|",
        *(f"| {' | '.join('' if cell is None else str(cell) for cell in line)} |" for line in cells),
    ]


def _line(row: Row) -> str:
    notes = ["phantom"] if row.phantom else []
    if row.above_oracle:
        notes.append(f"**{row.above_oracle} above the oracle: a leak**")
    score = f"{row.score.value:.3f} [{row.score.low:.3f}, {row.score.high:.3f}]" if row.score else ""
    cells = [row.dataset, rate(row.s1), rate(row.s2), row.metric, score, _value(row.floor), _value(row.control)]
    return f"| {' | '.join(cells)} | {', '.join(notes)} |"


def rate(success: Success) -> str:
    """`5/6 [44%, 97%]`."""
    return f"{success.successes}/{success.runs} [{success.low:.0%}, {success.high:.0%}]"


def _value(score: Score | None) -> str:
    return f"{score.value:.3f}" if score else ""


def _beside(s1: Success) -> str:
    published, runs = M3BUILDER
    low, high = wilson(published, runs)
    p = fisher(s1.successes, s1.runs, published, runs)
    return (
        f"Beside it: M3Builder with Claude-3.7-Sonnet completed {published}/{runs} [{low:.0%}, {high:.0%}] on the 14 "
        f"real datasets (arXiv:2502.20301; completion only, comparable with S1); Fisher's exact p = {p:.3f}."
    )


def phantom(task: BenchTask, out: Path) -> Path:
    """The phantom of a dataset in the benchmark's folder, made where it is not there yet."""
    folder = out / "data" / task.name
    if truth(folder) is None or not folder.is_dir():
        make(task.name, folder)
    return folder


def _read(path: Path) -> Outcome | None:
    if not path.is_file():
        return None
    try:
        return Outcome.model_validate_json(path.read_text())
    except (ValidationError, ValueError):
        raise DataError(f"{path} is damaged. Remove it, and that round is run again.") from None
