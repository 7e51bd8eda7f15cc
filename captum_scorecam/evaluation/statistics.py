"""Means with bootstrap confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
_MOST_DRAWS = 2**22  # per batch: 32 MiB of indices

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over images with its confidence interval.

    Attributes:
        mean (float, optional): The mean; None if there are no values.
        low (float, optional): Lower end of the 95 % interval; None if there are fewer than two values.
        high (float, optional): Upper end of the interval; None if there are fewer than two values.
        n (int): The number of values.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int


def estimates(values: Values) -> list[Estimate]:
    """Estimates the mean of each column, with a percentile bootstrap interval.

    Rows are resampled 2000 times with a fixed seed, so the same values in the same order give the same numbers. Each
    column is resampled over the rows in which it has a value.

    Args:
        values (ndarray): N×C, one row per image; NaN for missing values.

    Returns:
        list of Estimate: C estimates, rounded to 10 significant digits to hide the order of summation.
    """
    found: list[Estimate] = [Estimate(None, None, None, 0)] * values.shape[1]
    present = ~np.isnan(values)
    patterns, of_column = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        columns = np.flatnonzero(of_column.ravel() == number)
        rows = np.flatnonzero(patterns[:, number])
        for column, estimate in zip(columns, _dense_estimates(values[np.ix_(rows, columns)]), strict=True):
            found[column] = estimate
    return found


def _dense_estimates(values: Values) -> Iterator[Estimate]:
    n = len(values)
    if n == 0:
        yield from [Estimate(None, None, None, 0)] * values.shape[1]
        return
    means = [_rounded(math.fsum(column) / n) for column in values.T]
    if n == 1:
        yield from (Estimate(mean, None, None, n) for mean in means)
        return
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_resampled_means(values), [tail, 1 - tail], axis=0)
    for mean, lower, upper in zip(means, low, high, strict=True):
        yield Estimate(mean, _rounded(lower), _rounded(upper), n)


def _resampled_means(values: Values) -> Values:
    """Returns the means of 2000 resamples, 2000×C: the count of each row times the row."""
    n = len(values)
    generator = np.random.default_rng(SEED)
    at_once = max(1, _MOST_DRAWS // n)
    means = []
    for start in range(0, RESAMPLES, at_once):
        resamples = min(at_once, RESAMPLES - start)
        drawn = generator.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
        means.append(counts @ values / n)
    return np.concatenate(means)


def _rounded(value: float) -> float:
    return float(f"{value:.10g}")
