"""Intervals and comparisons, against numbers that can be worked out by hand or were published."""

import numpy as np
import pytest

from m3dspy.m3bench import stats


def test_wilson_gives_the_published_interval_of_66_out_of_70():
    assert stats.wilson(66, 70) == pytest.approx((0.862, 0.978), abs=5e-4)


def test_wilson_of_no_runs_says_nothing_and_never_leaves_0_to_1():
    assert stats.wilson(0, 0) == (0, 1)
    assert stats.wilson(0, 4)[0] == 0
    assert all(stats.wilson(0, n)[0] == 0 and stats.wilson(n, n)[1] == 1 for n in range(1, 200))
    assert stats.wilson(4, 4)[1] == 1


def test_fisher_is_symmetric_and_finds_70_of_70_no_better_than_66_of_70():
    assert stats.fisher(70, 70, 66, 70) == pytest.approx(stats.fisher(66, 70, 70, 70)) == pytest.approx(0.12, abs=0.005)


def test_a_draw_takes_all_cases_of_a_patient_together_and_as_many_patients_as_there_are():
    weights = stats.resampled(["a", "a", "b", "c"], seed=0)
    assert weights.shape == (1000, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 1:].sum(1) == 3).all()


def test_draws_depend_on_the_seed_alone():
    patients = [str(i) for i in range(9)]
    assert (stats.resampled(patients, 1) == stats.resampled(patients, 1)).all()
    assert (stats.resampled(patients, 1) != stats.resampled(patients, 2)).any()


def test_cases_of_one_patient_widen_the_interval():
    values = np.repeat([0.0, 1.0] * 10, 5)
    alone = stats.score(stats.mean_of(values), stats.resampled([str(i) for i in range(100)], 0))
    together = stats.score(stats.mean_of(values), stats.resampled([str(i // 5) for i in range(100)], 0))
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_the_interval_of_a_mean_is_about_two_standard_errors():
    values = np.array([0.0, 1.0] * 50)  # standard error of the mean: 0.5 / 10
    found = stats.score(stats.mean_of(values), stats.resampled([str(i) for i in range(100)], 0))
    assert (found.low, found.high) == pytest.approx((0.4, 0.6), abs=0.015)


def test_a_mean_leaves_out_what_does_not_exist():
    weights = np.ones((1, 3))
    assert stats.mean_of(np.array([0.2, np.nan, 0.4]))(weights) == pytest.approx(0.3)
    assert np.isnan(stats.mean_of(np.array([np.nan] * 3))(weights)).all()


def test_pairing_finds_a_small_difference_in_cases_that_vary_much():
    hard = np.linspace(0, 1, 40)
    weights = stats.resampled([str(i) for i in range(40)], 0)
    assert stats.beats(stats.mean_of(hard + 0.02), stats.mean_of(hard), weights)
    assert not stats.beats(stats.mean_of(hard), stats.mean_of(hard), weights)
    assert not stats.beats(stats.mean_of(hard), stats.mean_of(hard + 0.02), weights)


def test_a_lead_in_one_patient_alone_is_no_lead():
    lucky = np.zeros(20)
    lucky[0] = 1
    assert not stats.beats(
        stats.mean_of(lucky), stats.mean_of(np.zeros(20)), stats.resampled([str(i) for i in range(20)], 0)
    )
