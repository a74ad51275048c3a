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

import sys
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
from m3dspy.m3bench.release import Release, release
from m3dspy.m3bench.stats import fisher, success, wilson
from m3dspy.m3bench.task import BenchTask, find, make, truth
from m3dspy.signatures.values import ROLES, SPLITS, Grade, Index, Score, Success, Value
from m3dspy.workspace.runs import write_atomic

# Rounds that M3Builder completed with Claude-3.7-Sonnet, of 14 datasets x 5: Feng et al. 2025, arXiv:2502.20301.
M3BUILDER = (66, 70)
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
    def optimism(self) -> float | None:
        """How much more the candidate claims than it delivers."""
        claimed = self.submission.claimed
        return claimed.value - self.grade.score.value if claimed and self.grade else None


class Row(Value):
    """One dataset, or all of them: how often each level was reached, and the scores of the median round.

    s3: of the datasets that have a reference.  seconds, optimism: of the median round.  calls, dollars: of all rounds;
    dollars None where a price is not known.
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
    raise NotImplementedError


def rounds_of(out: Path, task: BenchTask, rounds: int) -> list[Round | None]:
    """The rounds of a dataset as they lie in a benchmark's folder; None: not finished. Raises: DataError: damaged."""
    raise NotImplementedError


def tabulate(tasks: Sequence[BenchTask], rounds: int, out: Path, name: str = "") -> Table:
    """The table of what lies in a benchmark's folder."""
    raise NotImplementedError
