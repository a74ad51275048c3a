"""Intervals and comparisons: proportions of runs, and metrics over patients.

A metric here is a function of case weights: `metric(weights) -> values`, weights (rounds, cases), values (rounds,).
Weights of 1 give the score itself; the weights that `resampled` draws give its bootstrap distribution in one call.
"""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from m3dspy.signatures.values import Item, Score, Success

Metric = Callable[[NDArray], NDArray]


def wilson(successes: int, runs: int) -> tuple[float, float]:
    """95 % interval of a success rate; (0, 1) of no runs.

    >>> [round(bound, 3) for bound in wilson(66, 70)]
    [0.862, 0.978]

    Source: Wilson 1927, doi:10.2307/2276774.
    """
    if runs == 0:
        return 0.0, 1.0
    z, rate = 1.959963984540054, successes / runs
    centre = rate + z * z / (2 * runs)
    half = z * sqrt(rate * (1 - rate) / runs + z * z / (4 * runs * runs))
    low, high = ((centre + side * half) / (1 + z * z / runs) for side in (-1, 1))
    return low if successes else 0.0, high if successes < runs else 1.0  # exactly, where rounding may miss the end


def success(successes: int, runs: int) -> Success:
    """A success rate with its interval."""
    low, high = wilson(successes, runs)
    return Success(successes=successes, runs=runs, low=low, high=high)


def fisher(successes: int, runs: int, other_successes: int, other_runs: int) -> float:
    """Two-sided p of two success rates being one and the same (Fisher's exact test).

    >>> round(fisher(70, 70, 66, 70), 2)
    0.12
    """
    from scipy.stats import fisher_exact

    table = [[successes, runs - successes], [other_successes, other_runs - other_successes]]
    return float(fisher_exact(table).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> float:
    """One-sided p of `after` being no better than `before` on the same cases (exact McNemar test).

    >>> mcnemar([False] * 5 + [True], [True] * 6)
    0.03125

    Source: McNemar 1947, doi:10.1007/BF02295996.
    """
    from scipy.stats import binomtest

    pairs = list(zip(before, after, strict=True))
    better, worse = pairs.count((False, True)), pairs.count((True, False))
    return float(binomtest(better, better + worse, alternative="greater").pvalue) if better + worse else 1.0


def resampled(patients: Sequence[str], seed: int, rounds: int = 1000) -> NDArray[np.float64]:
    """How often each case is drawn when as many patients as there are are drawn with replacement.

    Args: patients: of every case; the cases of one patient come and go together.  Returns: (rounds, cases).
    """
    _, number = np.unique(np.asarray(patients), return_inverse=True)
    count = int(number.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)
    return draws[:, number].astype(float)


def score(metric: Metric, weights: NDArray) -> Score:
    """A metric on all cases, with the middle 95 % of its bootstrap distribution.

    Rounds where it does not exist are left out; where it never exists, the interval is the value itself.
    """
    return with_interval(float(metric(np.ones((1, weights.shape[1])))[0]), metric(weights))


def with_interval(value: float, spread: NDArray) -> Score:
    """A value with the middle 95 % of its bootstrap distribution `spread`; see `score`."""
    spread = spread[np.isfinite(spread)]
    low, high = np.percentile(spread, [2.5, 97.5]) if spread.size else (value, value)
    return Score(value=value, low=float(low), high=float(high))


def beats(metric: Metric, other: Metric, weights: NDArray) -> bool:
    """Whether a metric is above another on the same cases: one-sided paired bootstrap over patients, 95 %."""
    ahead = metric(weights) - other(weights)
    ahead = ahead[np.isfinite(ahead)]
    return bool(ahead.size) and float(np.percentile(ahead, 5)) > 0


def mean_of(values: NDArray) -> Metric:
    """The weighted mean over cases as a metric; a case whose value is NaN is left out."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)

    def metric(weights: NDArray) -> NDArray:
        total = weights @ known
        return np.divide(weights @ filled, total, out=np.full(len(weights), np.nan), where=total > 0)

    return metric


class Examined(NamedTuple):
    """What a grade rests on: the deciding metric, and the ids of the cases without an answer."""

    metric: Metric
    missing: tuple[str, ...]


def scores(metrics: Mapping[str, Metric], weights: NDArray) -> dict[str, Score]:
    """The scores that exist: a label that no test case has gets none."""
    found = {name: score(metric, weights) for name, metric in metrics.items()}
    return {name: value for name, value in found.items() if np.isfinite(value.value)}


def worst(items: Sequence[Item], quality: NDArray, most: int = 8) -> tuple[str, ...]:
    """The ids of the cases of lowest quality, worst first."""
    order = np.argsort(np.nan_to_num(quality, nan=np.inf), kind="stable")[:most]
    return tuple(items[i].id for i in order)
