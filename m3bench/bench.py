"""The benchmark: a candidate over datasets and rounds, and the table that comes of it.

    OUT/data/NAME/          the phantom, and beside it what only its generator knows
    OUT/released/NAME/      public/ is what a candidate is shown, private/ has the answers: see m3bench.release
    OUT/NAME/round-00/out/  what the candidate writes: its predictions, and whatever else it keeps
    OUT/NAME/round-00/round.json   how the round ended, and what the examiner found: written last
    OUT/bench.json, bench.md       the table

What a candidate is, the examiner does not know: a function from an Assignment to a Submission. A benchmark that was
interrupted goes on where it stopped. A round without a submission, one that ended in an error and one that took more
than it may count as failures.
"""

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from m3dspy.errors import DataError, M3Error
from m3dspy.m3bench import limited, published
from m3dspy.m3bench.candidate import Assignment, Candidate, Limits, Submission
from m3dspy.m3bench.grade import ABOVE_ORACLE
from m3dspy.m3bench.release import Release, graded, release
from m3dspy.m3bench.stats import fisher, success, wilson
from m3dspy.m3bench.task import BenchTask, find, make, truth
from m3dspy.signatures.values import ROLES, SPLITS, Grade, Index, Item, Score, Success, Value
from m3dspy.workspace.runs import write_atomic

# Rounds that M3Builder completed with Claude-3.7-Sonnet, of 14 datasets x 5: Feng et al. 2025, arXiv:2502.20301.
M3BUILDER = (66, 70)
REFERENCES = Path(__file__).with_name("references.json")
ENOUGH = 0.9  # of the reference, for S3
LEAK = "a leak"  # how a note ends that says so
PACKAGES = ("m3dspy", "numpy", "scipy", "torch", "monai", "optuna", "dspy", "litellm", "nibabel")


class Round(Value):
    """One round: what was asked, how the candidate says it ended, and what the examiner found.

    grade: None where there is nothing to grade, and then `failure` says why.
    """

    dataset: str
    number: int
    request: str
    seed: int
    phantom: bool
    limits: Limits
    submission: Submission
    grade: Grade | None = None
    failure: str = ""
    oracle: float | None = Field(default=None, description="the best score that the phantom allows on the test cases")
    roles: dict[str, bool] = Field(default_factory=dict, description="role -> whether it reached its goal")
    notes: tuple[str, ...] = Field(default=(), description="what a reader of the score must know")
    seconds: float = Field(default=0.0, description="wall time of the candidate")
    versions: dict[str, str] = Field(default_factory=dict, description="Python and packages")

    @property
    def leaks(self) -> bool:
        """Whether the examiner found that it knew what it could not."""
        return any(LEAK in note for note in self.notes)

    @property
    def optimism(self) -> float | None:
        """How much more the candidate claims than it delivers."""
        claimed = self.submission.claimed
        return claimed.value - self.grade.score.value if claimed and self.grade else None


class Row(Value):
    """One dataset, or all of them: how often each level was reached, and the scores of the median round.

    Of an even number that is the lower one.  s3: of the datasets that have a reference.  seconds, optimism: of the
    median round.  calls, dollars: of all rounds; dollars None where a price is not known.
    """

    dataset: str
    phantom: bool
    s1: Success
    s2: Success
    s3: Success
    roles: dict[str, Success] = Field(default_factory=dict)
    metric: str = ""
    score: Score | None = None
    floor: Score | None = None
    control: Score | None = None
    dealt: Score | None = None
    reference: float | None = None
    oracle: float | None = None
    optimism: float | None = None
    above_oracle: int = 0
    seconds: float | None = None
    calls: int = 0
    dollars: float | None = 0.0
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class Table(Value):
    """What `bench.json` holds. program, lm: as the candidate names itself."""

    rounds: int
    rows: tuple[Row, ...]
    total: Row
    candidate: str = ""
    program: str = ""
    lm: str = ""


def bench(
    candidate: Candidate,
    tasks: Sequence[BenchTask],
    rounds: int,
    out: Path,
    *,
    name: str = "",
    data: Mapping[str, Path] | None = None,
    limits: Limits | None = None,
    executor: Executor | None = None,
    listen: Callable[[dict[str, Any]], None] = lambda event: None,
) -> Table:
    """Run a candidate over datasets and rounds, and write `bench.json` and `bench.md`.

    Args: out: folder of the benchmark; rounds that are finished there are not run again.  name: of the candidate.
        data: dataset's name -> folder of the real data; a dataset that is not in it is judged on its phantom, made in
        `out/data`.  limits: of each round; a candidate with a limit of minutes is carried out in a process of its own.
        executor: carries out the rounds, and `listen` is told of each as it ends; None: one after another, here.
    With minutes or an executor the candidate must be such as can be pickled.
    Round r runs with seed r, and with the dataset's request r modulo their number. An M3Error of the candidate is a
    failed round; any other exception ends the benchmark.
    Raises: M3Error: another benchmark is at work there, or the executor broke down; what was finished is kept.
    """
    limits = limits or Limits()
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / "bench.lock", timeout=0):
            released = {}
            for task in tasks:
                folder = (data or {}).get(task.name) or phantom(task, out)
                released[task.name] = release(task, folder, out / "released" / task.name)
            todo = [
                _Todo(task.name, number, released[task.name], out / task.name / f"round-{number:02d}", limits)
                for number in range(rounds)
                for task in tasks
                if not (out / task.name / f"round-{number:02d}" / "round.json").is_file()
            ]
            ended = _side_by_side(candidate, todo, executor, listen) if executor else _in_turn(candidate, todo)
            for given, found in ended:
                write_atomic(given.folder / "round.json", found.model_dump_json(indent=1).encode())
    except Timeout:
        raise M3Error(f"Another benchmark is at work in {out}. Wait for it, or give another --out.") from None
    table = tabulate(tasks, rounds, out, name)
    write_atomic(out / "bench.json", table.model_dump_json(indent=1).encode())
    write_atomic(out / "bench.md", markdown(table).encode())
    return table


@dataclass(frozen=True)
class _Todo:
    """A round that is to be carried out. folder: of the round."""

    dataset: str
    number: int
    released: Release
    folder: Path
    limits: Limits

    @property
    def title(self) -> str:
        return f"{self.dataset}, round {self.number}"

    def request(self) -> str:
        requests = find(self.dataset).requests
        return requests[self.number % len(requests)]

    def ended(self, submission: Submission, **found: Any) -> Round:
        return Round(
            dataset=self.dataset,
            number=self.number,
            request=self.request(),
            seed=self.number,
            phantom=self.released.truth() is not None,
            limits=self.limits,
            submission=submission,
            oracle=self.released.oracle(),
            versions=_versions(),
            **found,
        )


def _in_turn(candidate: Candidate, todo: Sequence[_Todo]) -> Iterator[tuple[_Todo, Round]]:
    for given in todo:
        yield given, _carried_out(candidate, given)


def _side_by_side(
    candidate: Candidate, todo: Sequence[_Todo], executor: Executor, listen: Callable[[dict[str, Any]], None]
) -> Iterator[tuple[_Todo, Round]]:
    """Rounds as they end. One that was lost with its worker is carried out once more, and lost again it has failed.

    Raises: BrokenExecutor: nothing can be carried out any more.
    """
    begun, lost = time.monotonic(), set()
    open_ones = {executor.submit(_carried_out, candidate, given): given for given in todo}
    try:
        while open_ones:
            for future in wait(open_ones, return_when=FIRST_COMPLETED).done:
                given = open_ones.pop(future)
                try:
                    found = future.result()
                except BrokenExecutor as error:
                    if given.folder not in lost:
                        lost.add(given.folder)
                        open_ones[executor.submit(_carried_out, candidate, given)] = given
                        listen({"kind": "warning", "text": f"{given.title}, once more: {error}"})
                        continue
                    why = f"Begun twice, and lost twice. {error}"
                    found = given.ended(Submission(status="failed", reason=why), failure=why)
                yield given, found
                name = f"{given.title}: {found.submission.status}"
                listen({"kind": "stage", "name": name, "status": "done", "seconds": time.monotonic() - begun})
    finally:
        for future in open_ones:
            future.cancel()


def _carried_out(candidate: Candidate, given: _Todo) -> Round:
    """One round, graded."""
    out, begun = given.folder / "out", time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    assignment = Assignment(
        request=given.request(), data=given.released.public, out=out, seed=given.number, limits=given.limits
    )
    minutes = given.limits.minutes
    try:
        submission = limited.within(minutes, candidate, assignment) if minutes else candidate(assignment)
    except M3Error as error:
        submission = Submission(status="failed", reason=str(error))
    seconds = round(time.monotonic() - begun, 1)
    return judged(given, submission, seconds)


def judged(given: _Todo, submission: Submission, seconds: float) -> Round:
    """What the examiner makes of a submission: a grade, or why there is none; and what does not add up."""
    roles = dict(submission.roles)
    leak = _divided(given.released, submission.index) if submission.index else ""
    if leak and "data_engineer" in roles:
        roles["data_engineer"] = False
    found = {"seconds": seconds, "roles": roles}
    if failure := _failure(given.limits, submission):
        return given.ended(submission, failure=failure, notes=(leak,) if leak else (), **found)
    grade = graded(
        given.released,
        given.folder / "out" / "predictions",
        checkpoint=submission.checkpoint,
        control=submission.control,
        seed=given.number,
    )
    grade = grade.model_copy(update=reached(given.dataset, given.released, grade))
    notes = [leak, *_doubts(given.released, submission, grade)]
    return given.ended(submission, grade=grade, notes=tuple(filter(None, notes)), **found)


def _failure(limits: Limits, submission: Submission) -> str:
    """Why a round counts as failed before anything is graded; "": it does not."""
    if submission.status != "done":
        return submission.reason or submission.status
    if limits.calls is not None and submission.calls > limits.calls:
        return f"It made {submission.calls} calls to language models, {limits.calls} were allowed."
    if limits.dollars is not None and (submission.dollars is None or submission.dollars > limits.dollars):
        spent = "an unknown sum" if submission.dollars is None else f"{submission.dollars:.2f} dollars"
        return f"It spent {spent}, {limits.dollars:.2f} dollars were allowed."
    return ""


def _doubts(released: Release, submission: Submission, grade: Grade) -> list[str]:
    """What the candidate claims and cannot be so."""
    claimed, found = submission.claimed, []
    if grade.above_oracle:
        found.append(f"above the oracle: {LEAK}")
    if claimed is None:
        return found
    if claimed.low > grade.score.value:
        found.append(f"claims {claimed.value:.3f}, delivers {grade.score.value:.3f}")
    oracle, certain = _oracle_of(released, submission.index), claimed.value
    if oracle is None:  # the claim is about other cases, so that only what chance does not explain counts
        oracle, certain = released.oracle(), claimed.low
    if oracle is not None and certain > oracle + ABOVE_ORACLE:
        found.append(f"claims more than the phantom allows: {LEAK}")
    return found


def _oracle_of(released: Release, path: Path | None) -> float | None:
    """The best score on the test cases of the candidate's own index; None where that is not known."""
    index = _read_index(path) if path else None
    return released.oracle(index) if index and index.test else None


def _divided(released: Release, path: Path) -> str:
    """Whether the candidate's own index has a patient in two splits, by the expert's knowledge of who is who."""
    if (index := _read_index(path)) is None:
        return "its index cannot be read"
    own = released.own()
    patient = {_first(item): item.patient for split in SPLITS for item in own.items(split)}
    splits: dict[str, set[str]] = {}
    for split in SPLITS:
        for item in index.items(split):
            if known := patient.get(_first(item)):
                splits.setdefault(known, set()).add(split)
    divided = sum(len(found) > 1 for found in splits.values())
    return f"{divided} patients stand in two splits of its index: {LEAK}" if divided else ""


def _first(item: Item) -> str:
    return item.image if isinstance(item.image, str) else item.image[0]


def _read_index(path: Path) -> Index | None:
    try:
        return Index.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def references() -> dict[str, dict[str, dict[str, Any]]]:
    """Dataset -> "phantom" or "real" -> the score of the reference recipe, and where it comes from."""
    return json.loads(REFERENCES.read_text()) if REFERENCES.is_file() else {}


def reached(dataset: str, released: Release, grade: Grade) -> dict[str, Any]:
    """The fields of a grade that tell of the reference: S3 is 90 % of it, from an S1 on."""
    kind = "real" if released.truth() is None else "phantom"
    known = references().get(dataset, {}).get(kind)
    if known is None:
        return {}
    return {"reference": known["score"], "s3": grade.s1 and grade.score.value >= ENOUGH * known["score"]}


@cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


# ------------------------------------------------------------------------------------------------ the table
def rounds_of(out: Path, task: BenchTask, rounds: int) -> list[Round | None]:
    """The rounds of a dataset as they lie in a benchmark's folder; None: not finished. Raises: DataError: damaged."""
    return [_read(out / task.name / f"round-{number:02d}" / "round.json") for number in range(rounds)]


def tabulate(tasks: Sequence[BenchTask], rounds: int, out: Path, name: str = "") -> Table:
    """The table of what lies in a benchmark's folder."""
    rows, everything = [], []
    for task in tasks:
        found = rounds_of(out, task, rounds)
        rows.append(_row(task.name, found))
        everything += found
    told = [found.submission for found in everything if found]
    s3 = success(sum(row.s3.successes for row in rows), sum(row.s3.runs for row in rows))
    return Table(
        rounds=rounds,
        rows=tuple(rows),
        total=_row("all", everything).model_copy(update={**_NO_SCORES, "s3": s3}),
        candidate=name,
        program=next((each.program for each in told if each.program), ""),
        lm=next((each.lm for each in told if each.lm), ""),
    )


_NO_SCORES = {
    **dict.fromkeys(("score", "floor", "control", "dealt", "reference", "oracle", "optimism"), None),
    **{"metric": "", "failures": (), "notes": ()},
}


def _row(name: str, rounds: Sequence[Round | None]) -> Row:
    done = [found for found in rounds if found]
    scored = sorted(((found, found.grade) for found in done if found.grade), key=lambda pair: pair[1].score.value)
    middle, grade = scored[(len(scored) - 1) // 2] if scored else (None, None)
    referred = len(rounds) if any(_has_reference(found) for found in done) else 0
    dollars = [found.submission.dollars for found in done]
    roles = {
        role: success(sum(found.roles.get(role, False) for found in done), len(rounds))
        for role in ROLES
        if any(role in found.roles for found in done)
    }
    shown = ("metric", "score", "floor", "control", "dealt", "reference")
    return Row(
        dataset=name,
        phantom=any(found.phantom for found in done),
        s1=success(sum(grade.s1 for _, grade in scored), len(rounds)),
        s2=success(sum(grade.s2 for _, grade in scored), len(rounds)),
        s3=success(sum(bool(grade.s3) for _, grade in scored), referred),
        roles=roles,
        **{field: getattr(grade, field) for field in shown if grade},
        oracle=middle.oracle if middle else None,
        optimism=middle.optimism if middle else None,
        above_oracle=sum(grade.above_oracle for _, grade in scored),
        seconds=median(found.seconds for found in done) if done else None,
        calls=sum(found.submission.calls for found in done),
        dollars=None if None in dollars else sum(cost for cost in dollars if cost is not None),
        notes=tuple(dict.fromkeys(note for found in done for note in found.notes)),
        failures=tuple(found.failure if found else "not finished" for found in rounds if not found or found.failure),
    )


def _has_reference(found: Round) -> bool:
    return references().get(found.dataset, {}).get(_kind(found)) is not None


def _kind(found: Round) -> str:
    return "phantom" if found.phantom else "real"


COLUMNS = ("dataset", "S1", "S2", "S3", "metric", "score [95 %]", "floor", "control", "dealt", "reference", "oracle")
MORE_COLUMNS = ("optimism", "s", "calls", "$", "")


def markdown(table: Table) -> str:
    """The table for people."""
    columns = (*COLUMNS, *MORE_COLUMNS)
    lines = [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(_line(row) for row in (*table.rows, table.total)),
        "",
        "S1: a well-formed answer for every test case and, where the candidate has one, a valid checkpoint. S2: better",
        "than the trivial answer, than the same pipeline trained on shuffled labels (control) where there is one, and",
        "than the same answers dealt to other patients (one-sided paired bootstrap over patients, 95 %). S3: 90 % of",
        "the reference. a/b with 95 % Wilson intervals; scores of the median round (of two: the lower); optimism:",
        f"what it claims less what it delivers. {table.rounds} round(s) a dataset; no submission is a failure.",
        "",
        _beside(table.total.s1),
    ]
    if table.total.roles:
        told = ", ".join(f"{role} {rate(success)}" for role, success in table.total.roles.items())
        lines += ["", f"Goals reached by role: {told}."]
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
    notes = [*(["phantom"] if row.phantom else []), *(f"**{note}**" for note in row.notes)]
    score = f"{row.score.value:.3f} [{row.score.low:.3f}, {row.score.high:.3f}]" if row.score else ""
    cells = [
        *(row.dataset, rate(row.s1), rate(row.s2), rate(row.s3) if row.s3.runs else "", row.metric, score),
        *(_number(value.value if value else None) for value in (row.floor, row.control, row.dealt)),
        *(_number(value) for value in (row.reference, row.oracle)),
        "" if row.optimism is None else f"{row.optimism:+.3f}",
        "" if row.seconds is None else f"{row.seconds:.0f}",
        str(row.calls),
        "?" if row.dollars is None else f"{row.dollars:.2f}",
        ", ".join(notes),
    ]
    return f"| {' | '.join(cells)} |"


def rate(success: Success) -> str:
    """`5/6 [44%, 97%]`."""
    return f"{success.successes}/{success.runs} [{success.low:.0%}, {success.high:.0%}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


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


def _read(path: Path) -> Round | None:
    if not path.is_file():
        return None
    try:
        return Round.model_validate_json(path.read_text())
    except (ValidationError, ValueError):
        raise DataError(f"{path} is damaged. Remove it, and that round is run again.") from None
