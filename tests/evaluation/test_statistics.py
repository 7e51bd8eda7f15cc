"""Bootstrap intervals of means."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from captum_scorecam.evaluation.statistics import Estimate, estimates


def test_intervals_are_the_same_each_time_and_do_not_touch_numpys_random_state() -> None:
    values = np.random.default_rng(1).normal(size=(40, 3))
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    assert estimates(values) == estimates(values.copy())
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


def test_an_interval_is_scipys_percentile_bootstrap_to_its_own_noise() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=60)
    reference = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3))
    (found,) = estimates(values[:, None])
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.05 * width)


def test_the_interval_of_many_normal_values_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(4).normal(5.0, 2.0, size=5000)  # needs more than one draw at once
    (found,) = estimates(values[:, None])
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * values.std() / math.sqrt(5000), rel=0.06)


def test_columns_with_gaps_have_the_estimates_of_what_they_hold() -> None:
    values = np.random.default_rng(5).normal(size=(30, 3))
    values[::4, 1] = np.nan
    without_gaps = values[~np.isnan(values[:, 1]), 1]
    assert estimates(values)[1] == estimates(without_gaps[:, None])[0]
    assert estimates(values)[2] == estimates(values[:, 2:])[0]


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert estimates(np.full((9, 1), 0.5)) == [Estimate(0.5, 0.5, 0.5, 9)]
