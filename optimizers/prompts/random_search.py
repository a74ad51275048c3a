"""Demonstrations, several sets of them: the one that serves the student best on validation exercises is kept.

BootstrapFewShotWithRandomSearch, Khattab et al. 2023, arXiv:2310.03714.
"""

import random

import dspy

from m3dspy.optimizers.prompts._search import DEMOS, Expected, Search

_FIXED = 3  # candidates that DSPy adds by itself: none, labelled (here none too) and unshuffled demonstrations


def expected(train: int, val: int, predictors: int, rollouts: int) -> Expected:
    """Sets differ by their draw; an exercise that the teacher has done before costs nothing."""
    return Expected(student_runs=(_FIXED - 1 + _sets(rollouts, val)) * val, teacher_runs=train, demos=DEMOS)


def search(student: dspy.Module, given: Search) -> dspy.Module:
    """The student's program with the best set of demonstrations."""
    train = random.Random(given.seed).sample(given.train, len(given.train))
    optimizer = dspy.BootstrapFewShotWithRandomSearch(
        metric=given.metric,
        teacher_settings={"lm": given.teacher},
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=0,
        num_candidate_programs=_sets(given.rollouts, len(given.val)),
        num_threads=given.threads,
        max_errors=1,
    )
    return optimizer.compile(student, trainset=train, valset=given.val)


def _sets(rollouts: int, val: int) -> int:
    return max(1, rollouts // val - _FIXED + 1)
