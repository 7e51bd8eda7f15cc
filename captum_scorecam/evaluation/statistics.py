"""Means with confidence intervals, and paired comparisons with tests and effect sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
FEWEST_RESAMPLED, MOST_RESAMPLED = 5, 1000
FEWEST_TESTED, MOST_ENUMERATED = 10, 30
MOST_FLIPPED, FLIPS_PER_TEST = 1000, 1000
_ROUNDING = 1e-6  # of the largest value, for metrics that are computed in float32
_BLOCK = 4096  # combinations of signs at once
_MOST_FLIPS = 1_000_000
_ENOUGH_HITS = 400  # of which the standard error is 5 %
_WIDEST = 4  # times Student's critical value

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its confidence interval.

    Attributes:
        mean (float, optional): The mean; None if there are no values.
        low (float, optional): Lower end of the 95 % interval; None if there are fewer than two values or all are equal,
            since their spread is unknown.
        high (float, optional): Upper end of the interval; None where `low` is.
        n (int): The number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean paired difference between two methods with its interval, effect size and test.

    Attributes:
        mean (float, optional): As for `Estimate`.
        low (float, optional): As for `Estimate`.
        high (float, optional): As for `Estimate`.
        n (int): The number of pairs.
        effect_size (float, optional): Cohen's d_z, the mean over the standard deviation of the differences; None if
            there are fewer than two pairs or all differences are equal.
        p_value (float, optional): Two-sided, of the test that `compared` describes; None if it was not tested.
        corrected_p_value (float, optional): The same with Holm's correction; None if it was not tested.
    """

    effect_size: float | None = None
    p_value: float | None = None
    corrected_p_value: float | None = None


def estimates(values: Values, ranges: Sequence[tuple[float, float]] | None = None) -> list[Estimate]:
    """Estimates the mean of each column, with a 95 % interval.

    The critical values are halfway between Student's t and the studentised bootstrap: the bootstrap corrects for
    skewness, but overcorrects in small samples with many zeros. With fewer than 5 values, which are too few to
    resample, and with more than 1000, where the two agree, they are Student's. Rows are resampled 2000 times with a
    fixed seed, so the same values in the same order give the same numbers. Each column is resampled over the rows in
    which it has a value.

    Args:
        values (ndarray): N×C, one row per image; NaN for missing values.
        ranges (sequence of tuple, optional): The lowest and highest possible value of each column, to which intervals
            are clipped. Default: None, any.

    Returns:
        list of Estimate: C estimates, rounded to 10 significant digits to hide the order of summation.
    """
    if values.shape[1] == 0:
        return []
    found = [Estimate(None, None, None, 0)] * values.shape[1]
    ranges = [(-math.inf, math.inf)] * values.shape[1] if ranges is None else ranges
    present = ~np.isnan(values)
    patterns, of_column = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(of_column.ravel() == number)
        rows = np.flatnonzero(patterns[:, number])
        dense = _dense_estimates(values[np.ix_(rows, columns)])
        for column, estimate in zip(columns.tolist(), dense, strict=True):
            found[column] = _within(estimate, *ranges[column])
    return found


def paired_differences(first: Values, second: Values) -> Values:
    """Subtracts values of one method from those of another, both with a row per image.

    A difference of up to a millionth of the column's largest value is taken as rounding in float32, and is 0.
    """
    differences = first - second
    largest = np.fmax.reduce(np.fmax(np.abs(first), np.abs(second)), axis=0, initial=0.0)
    return np.where(np.abs(differences) <= _ROUNDING * largest, 0.0, differences)


def compared(differences: Values, *, tested: bool = True) -> list[Difference]:
    """Estimates the mean of each column of paired differences, and tests whether it is 0.

    The test flips the signs of the differences: the p-value is the share of the combinations of signs whose mean is at
    least as far from 0. Up to 30 pairs, all combinations count; from 31 to 1000, random ones and the one observed, 1000
    times as many as there are tested columns (at most a million), drawn with a fixed seed and shared by all columns. So
    p-values change slightly with the other columns; their standard errors are about 5 %, and 14 % for one that Holm's
    correction of all columns brings to 0.05. Beyond 1000 pairs, it is Student's t test. Columns with fewer than 10
    pairs are not tested. Holm's correction counts all tested columns.

    Args:
        differences (ndarray): N×C, one row per image; NaN where one of two values is missing.
        tested (bool): Whether to test. Default: True.

    Returns:
        list of Difference: C differences.
    """
    columns = [column[~np.isnan(column)] for column in differences.T]
    p_values = _p_values(columns) if tested else [None] * len(columns)
    corrected = iter(holm([p for p in p_values if p is not None]))
    return [
        Difference(
            *(estimate.mean, estimate.low, estimate.high, estimate.n, _effect_size(column)),
            *(p, None if p is None else next(corrected)),
        )
        for estimate, column, p in zip(estimates(differences), columns, p_values, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for multiple tests (Holm, Scandinavian Journal of Statistics, 1979)."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[number])
        corrected[number] = _rounded(min(1.0, largest))
    return corrected


def _within(estimate: Estimate, lowest: float, highest: float) -> Estimate:
    if estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(estimate.mean, max(lowest, estimate.low), min(highest, estimate.high), estimate.n)


def _dense_estimates(values: Values) -> Iterator[Estimate]:
    n = len(values)
    if n == 0:
        yield from [Estimate(None, None, None, 0)] * values.shape[1]
        return
    means = np.array([math.fsum(column) / n for column in values.T])
    if n == 1:
        yield from (Estimate(_rounded(mean), None, None, n) for mean in means)
        return
    low, high = means - _critical_values(values, means)[::-1] * values.std(0, ddof=1) / math.sqrt(n)
    for column, mean, lower, upper in zip(values.T, means, low, high, strict=True):
        if _are_equal(column):
            yield Estimate(_rounded(mean), None, None, n)
        else:
            yield Estimate(_rounded(mean), _rounded(lower), _rounded(upper), n)


def _critical_values(values: Values, means: Values) -> Values:
    """Returns the lower and upper critical value of each column's t statistic, 2×C."""
    n, tail = len(values), (1 - LEVEL) / 2
    student = stdtrit(n - 1, 1 - tail)
    symmetric = np.multiply.outer([-student, student], np.ones(values.shape[1]))
    if not FEWEST_RESAMPLED <= n <= MOST_RESAMPLED:
        return symmetric
    bounded = _resampled_statistics(values - means).clip(-_WIDEST * student, _WIDEST * student)
    found: Values = (np.quantile(bounded, [tail, 1 - tail], axis=0) + symmetric) / 2
    return found


def _resampled_statistics(centred: Values) -> Values:
    """Returns the t statistics of 2000 resamples, 2000×C; infinite if all values of a resample are equal."""
    n = len(centred)
    drawn = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n)) + n * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * n).reshape(RESAMPLES, n)
    means, squares = counts @ centred / n, counts @ centred**2 / n
    variances = squares - means**2
    spread = variances > 1e-9 * squares  # smaller ones are rounding errors
    with np.errstate(divide="ignore", invalid="ignore"):
        statistics = means / np.sqrt(np.where(spread, variances, 0) / (n - 1))
    return np.nan_to_num(statistics, nan=0.0, posinf=np.inf, neginf=-np.inf)


def _p_values(columns: Sequence[Values]) -> list[float | None]:
    from scipy import stats  # takes a second

    found: list[float | None] = [None] * len(columns)
    sampled: list[int] = []
    for number, differences in enumerate(columns):
        n = len(differences)
        if n < FEWEST_TESTED:
            continue
        if _are_equal(differences):  # only all signs or none are as extreme
            found[number] = 2.0 ** (1 - n) if differences.any() else 1.0
        elif n <= MOST_ENUMERATED:
            found[number] = _exact_p_value(differences)
        elif n <= MOST_FLIPPED:
            sampled.append(number)
        else:
            found[number] = _rounded(stats.ttest_1samp(differences, 0).pvalue)
    if sampled:
        n_tests = sum(len(differences) >= FEWEST_TESTED for differences in columns)
        n_flips = min(FLIPS_PER_TEST * n_tests, _MOST_FLIPS)
        p_values = _sampled_p_values([columns[number] for number in sampled], n_flips)
        for number, p_value in zip(sampled, p_values, strict=True):
            found[number] = p_value
    return found


def _exact_p_value(differences: Values) -> float:
    """Returns the share of the 2^n combinations of signs whose sum is at least as far from 0.

    Each sum is one of a first half of the differences plus one of the second, so that for each of the first, a search
    among those of the second counts the sums that are as large.
    """
    threshold = _threshold(differences)
    if threshold <= 0:
        return 1.0
    middle = len(differences) // 2
    first, second = _signed_sums(differences[:middle]), np.sort(_signed_sums(differences[middle:]))
    as_large = first.size * second.size - int(np.searchsorted(second, threshold - first).sum())
    return math.ldexp(as_large, 1 - len(differences))


def _sampled_p_values(columns: Sequence[Values], n_flips: int) -> list[float]:
    """Returns the shares of random combinations of signs, and the observed one, whose sums are at least as far from 0.

    The sums' distribution depends on the magnitudes only, which are sorted: so the order of the images is of no
    account. A column that has had enough such combinations needs no more (Besag and Clifford, Biometrika, 1991).
    """
    magnitudes = np.zeros((max(map(len, columns)), len(columns)))
    for number, differences in enumerate(columns):
        magnitudes[: len(differences), number] = np.sort(np.abs(differences))[::-1]
    thresholds = np.array([_threshold(differences) for differences in columns])
    hits, drawn, active = np.ones(len(columns)), np.ones(len(columns)), np.arange(len(columns))
    generator = np.random.default_rng(SEED)
    for start in range(0, n_flips, _BLOCK):
        size = (min(_BLOCK, n_flips - start), len(magnitudes))
        signs = generator.integers(2, size=size, dtype=np.int8).astype(np.float64)
        signs *= 2
        signs -= 1
        hits[active] += (np.abs(signs @ magnitudes[:, active]) >= thresholds[active]).sum(0)
        drawn[active] += len(signs)
        active = active[hits[active] < _ENOUGH_HITS]
        if active.size == 0:
            break
    return [_rounded(share) for share in hits / drawn]


def _threshold(differences: Values) -> float:
    """Returns the sum's distance from 0, less what may be rounding."""
    return abs(math.fsum(differences)) - _ROUNDING * float(np.abs(differences).max())


def _signed_sums(values: Values) -> Values:
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums - value, sums + value])
    return sums


def _effect_size(differences: Values) -> float | None:
    if len(differences) < 2 or _are_equal(differences):
        return None
    return _rounded(math.fsum(differences) / len(differences) / differences.std(ddof=1))


def _are_equal(values: Values) -> bool:
    """Checks whether values are equal up to rounding."""
    return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())


def _rounded(value: float) -> float:
    return float(f"{value:.10g}")
