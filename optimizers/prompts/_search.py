"""What every optimizer of prompts is given, and what it says beforehand of its cost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy

DEMOS = 3  # demonstrations a prompt may hold


@dataclass(frozen=True)
class Search:
    """One search for better prompts of one role.

    train, val: exercises to learn from, and to choose by.  metric: see `optimizers.metrics`.
    teacher: the strong language model; the student's is `dspy.settings.lm`.
    rollouts: how often the student's program may be run for it, about.
    """

    train: list[dspy.Example]
    val: list[dspy.Example]
    metric: Callable[..., Any]
    teacher: dspy.LM
    rollouts: int
    seed: int
    threads: int


@dataclass(frozen=True)
class Expected:
    """What a search will cost: runs of the program by student and teacher, and questions to the teacher besides."""

    student_runs: int
    teacher_runs: int = 0
    teacher_questions: int = 0
    demos: int = 0
