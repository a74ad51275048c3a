"""Instructions that evolve: the teacher reads what went wrong, in the words of the metric, and rewrites them.

GEPA, Agrawal et al. 2025, arXiv:2507.19457. It needs feedback more than examples, and leaves prompts short.
"""

import dspy

from m3dspy.optimizers.prompts._search import Expected, Search

_BATCH = 3  # exercises a reflection looks at: run before and after


def expected(train: int, val: int, predictors: int, rollouts: int) -> Expected:
    """For every batch that is run twice, one question to the teacher a predictor."""
    runs = max(rollouts, val + 2 * _BATCH)
    return Expected(student_runs=runs, teacher_questions=predictors * -(-(runs - val) // (2 * _BATCH)))


def search(student: dspy.Module, given: Search) -> dspy.Module:
    """The student's program with the instructions that did best on validation exercises."""
    optimizer = dspy.GEPA(
        metric=given.metric,
        max_metric_calls=max(given.rollouts, len(given.val) + 2 * _BATCH),
        reflection_minibatch_size=_BATCH,
        reflection_lm=given.teacher,
        component_selector="all",  # a look, an answer and its repair share their fate, and rollouts are dear
        num_threads=given.threads,
        seed=given.seed,
    )
    return optimizer.compile(student, trainset=given.train, valset=given.val)
