"""Demonstrations: the teacher does the exercises, and what it got right at once is shown to the student.

BootstrapFewShot, Khattab et al. 2023, arXiv:2310.03714. The cheapest: no run of the student is needed.
"""

import random

import dspy

from m3dspy.optimizers.prompts._search import DEMOS, Expected, Search


def expected(train: int, val: int, predictors: int, rollouts: int) -> Expected:
    """The teacher stops once it has enough; at worst it does every exercise."""
    return Expected(student_runs=0, teacher_runs=train, demos=DEMOS)


def search(student: dspy.Module, given: Search) -> dspy.Module:
    """The student's program with up to three demonstrations a predictor."""
    train = random.Random(given.seed).sample(given.train, len(given.train))
    optimizer = dspy.BootstrapFewShot(
        metric=given.metric,
        teacher_settings={"lm": given.teacher},
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=0,  # an exercise by itself holds no fields of a predictor
        max_errors=1,
    )
    return optimizer.compile(student, trainset=train)
