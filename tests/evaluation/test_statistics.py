"""Intervals of means, paired tests, their correction and effect sizes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from captum_scorecam.evaluation.statistics import (
    Difference,
    Estimate,
    Values,
    compared,
    estimates,
    holm,
    paired_differences,
)

Draw = Callable[[np.random.Generator, tuple[int, int]], Values]

# Differences with mean 0: skewness 0, 1 and 1.4, and a fifth or half of them 0.
NULLS: dict[str, Draw] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "skewed": lambda generator, shape: generator.gamma(4.0, size=shape) - 4,
    "very skewed": lambda generator, shape: generator.gamma(2.0, size=shape) - 2,
    "a fifth zero": lambda generator, shape: generator.normal(size=shape) * (generator.random(shape) > 0.2),
    "half zero": lambda generator, shape: generator.normal(size=shape) * (generator.random(shape) > 0.5),
}


def false_alarms(draw: Draw, n: int, runs: int) -> float:
    """Returns the percentage of runs whose 95 % interval excludes 0."""
    generator, found = np.random.default_rng(n), 0
    for _ in range(runs // 2000):
        intervals = [(each.low, each.high) for each in estimates(draw(generator, (n, 2000)))]
        found += sum(low is not None and high is not None and not low <= 0 <= high for low, high in intervals)
    return 100 * found / runs


def false_verdicts(draw: Draw, n: int, runs: int) -> float:
    """Returns the share of runs, each of one comparison, in which the test finds a difference."""
    blocks = np.array_split(draw(np.random.default_rng(n), (n, runs)), runs // 50, axis=1)
    found = [each for block in blocks for each in compared(block)]
    return float(np.mean([each.p_value is not None and each.p_value <= 0.05 for each in found]))


@pytest.mark.parametrize("kind", ["normal", "skewed", "a fifth zero"])
def test_intervals_of_null_differences_exclude_0_in_5_percent_of_runs(kind: str) -> None:
    assert 3 < false_alarms(NULLS[kind], 10, 2000) < 7


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize("kind", NULLS)
def test_intervals_exclude_0_in_3_to_7_percent_of_many_runs(kind: str, n: int) -> None:
    # Of five differences, some of them 0, too few are left for an interval that is not too wide.
    lowest = 0 if n == 5 and "zero" in kind else 3
    assert lowest < false_alarms(NULLS[kind], n, 20_000) < 7


def test_the_test_finds_what_is_not_there_in_5_percent_of_runs() -> None:
    assert 0.03 < false_verdicts(NULLS["normal"], 10, 400) < 0.07


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20, 30, 50, 100])
@pytest.mark.parametrize("kind", ["normal", "skewed", "a fifth zero", "half zero"])
def test_the_test_finds_what_is_not_there_in_at_most_7_percent_of_many_runs(kind: str, n: int) -> None:
    # Of ten differences, half of them 0, too few are left for a small p-value.
    lowest = 0.005 if (kind, n) == ("half zero", 10) else 0.01
    assert lowest < false_verdicts(NULLS[kind], n, 2000) < 0.07


@pytest.mark.slow
def test_holms_correction_keeps_any_false_verdict_of_a_table_below_7_percent_of_tables() -> None:
    generator = np.random.default_rng(1)
    tables = [compared(NULLS["normal"](generator, (10, 12))) for _ in range(400)]
    any_found = [min(each.corrected_p_value or 0 for each in table) <= 0.05 for table in tables]
    any_uncorrected = [min(each.p_value or 0 for each in table) <= 0.05 for table in tables]
    assert np.mean(any_found) < 0.07
    assert np.mean(any_uncorrected) > 0.3


def test_intervals_are_the_same_each_time_and_do_not_touch_numpys_random_state() -> None:
    values = np.random.default_rng(1).normal(size=(40, 3))
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    assert estimates(values) == estimates(values.copy())
    assert compared(values) == compared(values.copy())
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


def test_an_interval_is_halfway_between_students_and_the_studentised_bootstraps() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=60)
    resamples = np.random.default_rng(3).choice(values, (20_000, 60))
    error = values.std(ddof=1) / math.sqrt(60)
    t = (resamples.mean(1) - values.mean()) / (resamples.std(1, ddof=1) / math.sqrt(60))
    studentised = values.mean() - np.quantile(t, [0.975, 0.025]) * error
    student = stats.t.interval(0.95, 59, values.mean(), error)
    (found,) = estimates(values[:, None])
    width = student[1] - student[0]
    assert found.low == pytest.approx((studentised[0] + student[0]) / 2, abs=0.03 * width)
    assert found.high == pytest.approx((studentised[1] + student[1]) / 2, abs=0.03 * width)
    assert abs(studentised[0] - student[0]) > 0.03 * width


@pytest.mark.parametrize("n", [2, 4, 5000])
def test_an_interval_of_a_few_or_very_many_values_is_students(n: int) -> None:
    values = np.random.default_rng(4).normal(5.0, 2.0, size=n)
    (found,) = estimates(values[:, None])
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_columns_with_gaps_have_the_estimates_of_what_they_hold() -> None:
    values = np.random.default_rng(5).normal(size=(30, 3))
    values[::4, 1] = np.nan
    without_gaps = values[~np.isnan(values[:, 1]), 1]
    for function in (estimates, compared):
        assert function(values[:, :2])[1].mean == function(without_gaps[:, None])[0].mean
    assert estimates(values)[1] == estimates(without_gaps[:, None])[0]
    assert estimates(values)[2] == estimates(values[:, 2:])[0]
    assert compared(values)[1].n == 22


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([], Estimate(None, None, None, 0)),
        ([0.5], Estimate(0.5, None, None, 1)),
        ([0.5] * 9, Estimate(0.5, None, None, 9)),
        ([0.3 - 0.1, 0.5 - 0.3, 0.7 - 0.5], Estimate(0.2, None, None, 3)),  # equal but for rounding
    ],
)
def test_values_without_a_spread_have_a_mean_and_no_interval(column: list[float], expected: Estimate) -> None:
    assert estimates(np.array(column)[:, None]) == [expected]


def test_a_lone_value_among_zeros_has_a_finite_interval() -> None:
    (found,) = estimates(np.array([[0.0]] * 9 + [[1.0]]))
    assert found.low is not None
    assert found.high is not None
    assert -0.3 < found.low < 0.1 < found.high < 1


def test_intervals_end_where_a_metric_does() -> None:
    values = np.array([[0.0, 0.0]] * 8 + [[1.0, 1.0]])
    clipped, free = estimates(values, [(0, 1), (-math.inf, math.inf)])
    assert free.low is not None
    assert free.low < 0
    assert (clipped.low, clipped.high) == (0, free.high)


# --- Tests and effect sizes -------------------------------------------------------------------------------------------


def test_a_p_value_is_the_share_of_signs_that_are_as_extreme() -> None:
    differences = np.array([3.0, 2.0, 2.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0])
    # Sums of the signed values 3, 2, 2, 1, 1, 1, 1 of at least 9 or at most −9, by hand: of 128, the signs that leave
    # at most 1 negative. 11 with none; 9 with one of the four 1s.
    (found,) = compared(differences[:, None])
    assert found.p_value == pytest.approx(2 * 5 / 128)
    assert found.effect_size == pytest.approx(0.9 / differences.std(ddof=1))


@pytest.mark.parametrize("n", [10, 11, 13])
@pytest.mark.parametrize("kind", NULLS)
def test_p_values_are_those_of_scipys_exact_test(kind: str, n: int) -> None:
    differences = NULLS[kind](np.random.default_rng(9), (n, 8))
    expected = stats.permutation_test(
        (differences,),
        lambda values, axis: values.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    found = [each.p_value for each in compared(differences)]
    assert found == pytest.approx(expected.pvalue, rel=1e-12)


def test_p_values_of_thirty_pairs_are_those_of_many_random_signs() -> None:
    differences = np.random.default_rng(10).gamma(2.0, size=(30, 4)) - np.array([2.6, 2.4, 1.8, 1.6])
    signs = np.random.default_rng(11).choice([-1.0, 1.0], (200_000, 30))
    expected = (np.abs(signs @ differences) >= np.abs(differences.sum(0))).mean(0)
    found = [each.p_value for each in compared(differences)]
    assert found == pytest.approx(expected, abs=0.004)  # four standard errors at 0.3


def test_sums_that_differ_by_rounding_are_as_extreme() -> None:
    before = np.array([0.1, 0.2, 0.3, 0.4, 0.0, 0.1, 0.2, 0.3, 0.0, 0.1])
    differences = np.array([0.3, 0.4, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4, 0.0, 0.0]) - before
    tenths = np.array([2, 2, 2, 2, 1, 1, 1, 1, 0, -1])
    assert len({*differences.tolist()}) > 4
    signs = np.array(list(itertools.product([-1, 1], repeat=10)))
    (found,) = compared(differences[:, None])
    assert found.p_value == np.mean(np.abs(signs @ tenths) >= 11)


def test_values_that_only_float32_tells_apart_do_not_differ() -> None:
    first = np.random.default_rng(12).uniform(0.2, 0.3, (12, 1))
    second = first.astype(np.float32).astype(np.float64)
    differences = paired_differences(first, second)
    assert (first != second).all()
    assert compared(differences) == [Difference(0.0, None, None, 12, None, 1.0, 1.0)]
    assert estimates(np.full((5, 1), 0.25) + np.array([[0], [3e-8], [0], [0], [0]]))[0].low is None
    assert paired_differences(np.array([[0.0], [0.7]]), np.array([[3e-8], [0.4]])) == pytest.approx(
        np.array([[0.0], [0.3]])
    )
    assert paired_differences(first[:0], second[:0]).shape == (0, 1)
    clear = paired_differences(first, first + 1e-4)
    assert clear == pytest.approx(np.full((12, 1), -1e-4))
    assert np.isnan(paired_differences(np.array([[np.nan]]), first[:1])).all()


def test_a_clear_difference_is_found_among_many_tests() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (20, 600))
    noise -= noise.mean(0)
    shifts = np.where(np.arange(600) < 3, 4, 0)
    found = compared(noise + shifts)
    corrected = [1 if difference.corrected_p_value is None else difference.corrected_p_value for difference in found]
    assert [p < 0.05 for p in corrected] == [True] * 3 + [False] * 597
    few = compared((noise + shifts)[:, 1:21])
    assert few[0].p_value == found[1].p_value == 2.0**-19  # all signs or none
    assert [each.p_value for each in found[3:21]] == [each.p_value for each in few[2:]]


def test_beyond_thirty_pairs_p_values_are_shares_of_random_signs() -> None:
    differences = np.random.default_rng(13).gamma(0.5, size=(200, 12)) - np.linspace(0.4, 0.6, 12)
    differences[:150, 3] = np.nan
    differences[:178, 7] = np.nan  # 22 pairs: all combinations
    signs = np.random.default_rng(14).choice([-1.0, 1.0], (20_000, 200))
    values = np.nan_to_num(differences)
    expected = (np.abs(signs @ values) >= np.abs(values.sum(0))).mean(0)
    found = [each.p_value for each in compared(differences)]
    assert found == pytest.approx(expected, abs=0.03)  # four standard errors of 4096 combinations at 0.5
    assert found[7] == compared(differences[:, 7:8])[0].p_value


def test_a_few_large_differences_count_for_less_than_students_test_says() -> None:
    differences = np.array([[40.0]] + [[0.5], [0.0]] * 40)
    by_signs, by_t = compared(differences)[0].p_value, stats.ttest_1samp(differences[:, 0], 0).pvalue
    assert by_signs == pytest.approx(2.0**-40, abs=1 / 1001)
    assert by_t > 0.05


def test_the_smallest_corrected_p_value_hardly_depends_on_the_number_of_tests() -> None:
    shifted = np.random.default_rng(15).normal(1.0, 0.1, (40, 50))
    for n_tests in (1, 50):
        found = compared(shifted[:, :n_tests])[0]
        assert found.p_value == pytest.approx(1 / (1000 * n_tests + 1))
        assert found.corrected_p_value == pytest.approx(0.001, rel=0.01)


def test_more_than_a_thousand_pairs_get_students_p_value() -> None:
    values = np.random.default_rng(6).normal(0.03, 1, size=1001)
    assert compared(values[:, None])[0].p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    thousand, by_t = compared(values[:1000, None])[0].p_value, stats.ttest_1samp(values[:1000], 0).pvalue
    assert thousand == pytest.approx(by_t, abs=0.06)
    assert thousand != pytest.approx(by_t, rel=1e-6)


@pytest.mark.parametrize("n", [30, 31, 200])
def test_neither_order_nor_direction_changes_a_p_value(n: int) -> None:
    values = np.random.default_rng(7).normal(0.1, 1, size=(n, 1))
    assert compared(values)[0].p_value == compared(values[::-1])[0].p_value == compared(-values)[0].p_value


def test_fewer_than_ten_pairs_are_not_tested_and_not_counted() -> None:
    values = np.random.default_rng(8).normal(2, 1, size=(10, 2))
    values[0, 0] = np.nan
    nine, ten = compared(values)
    assert (nine.n, nine.p_value, nine.corrected_p_value) == (9, None, None)
    assert ten.p_value == ten.corrected_p_value == 2 / 1024
    assert [each.p_value for each in compared(values, tested=False)] == [None, None]


def test_equal_differences_have_no_effect_size_and_an_exact_p_value() -> None:
    zero, one = compared(np.stack([np.zeros(60), np.ones(60)], 1))
    assert zero == Difference(0.0, None, None, 60, None, 1.0, 1.0)
    assert (one.mean, one.low, one.effect_size, one.p_value) == (1.0, None, None, 2.0**-59)
    assert one.corrected_p_value == pytest.approx(2.0**-58)


def test_holms_correction_is_the_one_computed_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
