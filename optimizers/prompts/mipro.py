"""Instructions written by the teacher and sets of demonstrations, chosen together by Bayesian search.

MIPROv2, Opsahl-Ong et al. 2024, arXiv:2406.11695.
"""

import dspy

from m3dspy.optimizers.prompts._search import DEMOS, Expected, Search

CANDIDATES = 5  # instructions, and sets of demonstrations, a predictor
_SUMMARY = 10  # questions about the data, at most


def expected(train: int, val: int, predictors: int, rollouts: int) -> Expected:
    """Every trial is a run over all validation exercises; each instruction takes two questions."""
    return Expected(
        student_runs=(1 + _trials(rollouts, val)) * val,
        teacher_runs=train,
        teacher_questions=_SUMMARY + 3 * CANDIDATES * predictors,
        demos=DEMOS,
    )


def search(student: dspy.Module, given: Search) -> dspy.Module:
    """The student's program with the best combination."""
    optimizer = dspy.MIPROv2(
        metric=given.metric,
        prompt_model=given.teacher,
        teacher_settings={"lm": given.teacher},
        auto=None,
        num_candidates=CANDIDATES,
        max_bootstrapped_demos=DEMOS,
        max_labeled_demos=0,
        num_threads=given.threads,
        max_errors=1,
        seed=given.seed + 1,  # its 0 means "my own"
    )
    return optimizer.compile(
        student,
        trainset=given.train,
        valset=given.val,
        num_trials=_trials(given.rollouts, len(given.val)),
        minibatch=False,
    )


def _trials(rollouts: int, val: int) -> int:
    return max(2, rollouts // val - 1)
