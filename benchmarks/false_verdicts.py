"""How often intervals and tests find a difference between methods whose means are equal.

python benchmarks/false_verdicts.py --output benchmarks/results/false_verdicts

The last kind of differences has a mean other than 0: for it, intervals that miss this mean are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recording import Row, record
from scipy import stats
from scipy.special import stdtrit

from captum_scorecam.evaluation.statistics import compared, estimates

Values = NDArray[np.float64]
Ends = tuple[Values, Values]

RESAMPLES = 1000
ROUNDING = 1e-9
SIZES = (5, 10, 20, 50)
DIFFERENCES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Values]] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "skewness 1 (gamma)": lambda generator, shape: generator.gamma(4.0, size=shape) - 4,
    "skewness 1.4 (gamma)": lambda generator, shape: generator.gamma(2.0, size=shape) - 2,
    "skewness 2 (exponential)": lambda generator, shape: generator.exponential(size=shape) - 1,
    "a fifth zero, normal": lambda generator, shape: generator.normal(size=shape) * (generator.random(shape) > 0.2),
    "half zero, normal": lambda generator, shape: generator.normal(size=shape) * (generator.random(shape) > 0.5),
    "half zero, the rest of mean 1": lambda generator, shape: (
        generator.normal(1, size=shape) * (generator.random(shape) > 0.5)
    ),
}
MEANS = {"half zero, the rest of mean 1": 0.5}  # of the others, 0


def here(values: Values) -> Ends:
    """The package's intervals, of runs × n values."""
    found = estimates(values.T)
    return np.array([each.low or 0 for each in found]), np.array([each.high or 0 for each in found])


def scipys(method: str) -> Callable[[Values], Ends]:
    """SciPy's bootstrap intervals; a run of equal values has none."""

    def ends(values: Values) -> Ends:
        with np.errstate(all="ignore"):
            found = stats.bootstrap(
                *((values,), np.mean),
                **{"axis": 1, "n_resamples": RESAMPLES, "method": method, "batch": 50},
                random_state=np.random.default_rng(0),
            ).confidence_interval
        return np.nan_to_num(found.low), np.nan_to_num(found.high)

    return ends


def studentised(values: Values) -> Ends:
    """The studentised bootstrap's intervals, which may be infinite."""
    n, generator = values.shape[1], np.random.default_rng(0)
    centre, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(n)
    counts = np.apply_along_axis(np.bincount, 1, generator.integers(n, size=(RESAMPLES, n)), minlength=n)
    centred = values - centre[:, None]
    means, squares = centred @ counts.T / n, centred**2 @ counts.T / n
    with np.errstate(all="ignore"):
        t = np.nan_to_num(means / np.sqrt((squares - means**2).clip(0) / (n - 1)), nan=0.0)
    upper, lower = np.quantile(t, [0.975, 0.025], axis=1, method="inverted_cdf")
    return centre - upper * error, centre - lower * error


def students(values: Values) -> Ends:
    """Student's intervals."""
    n = values.shape[1]
    error = stats.t.ppf(0.975, n - 1) * values.std(1, ddof=1) / np.sqrt(n)
    return values.mean(1) - error, values.mean(1) + error


def of_nonzero(values: Values) -> Ends:
    """Student's intervals, narrowed until they exclude 0 where those of the values other than 0 alone do."""
    n, count = values.shape[1], np.count_nonzero(values, axis=1)
    squared = stdtrit((count - 1).clip(1), 0.975) ** 2
    largest = np.where(count > 1, count * squared / (count - 1 + squared), count)  # of sum² / sum of squares
    critical = np.sqrt((n - 1) * largest / (n - largest))
    error = critical * values.std(1, ddof=1) / np.sqrt(n)
    return values.mean(1) - error, values.mean(1) + error


INTERVALS: dict[str, Callable[[Values], Ends]] = {
    "here": here,
    "percentile": scipys("percentile"),
    "BCa": scipys("BCa"),
    "studentised": studentised,
    "t": students,
    "t of nonzero": of_nonzero,
}
TESTS = ("test here", "Wilcoxon")


def main() -> None:
    """Writes the percentages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/false_verdicts"))
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--tests", type=int, default=1000)
    options = parser.parse_args()
    rows: list[Row] = []
    for kind, draw in DIFFERENCES.items():
        mean = MEANS.get(kind, 0.0)
        for n in SIZES:
            values = draw(np.random.default_rng(n), (options.runs, n))
            row: Row = {"differences": kind, "n": n}
            for name, method in INTERVALS.items():
                low, high = method(values)
                row[name] = 100 * float(np.mean((low > mean + ROUNDING) | (high < mean - ROUNDING)))
            rows.append(row | (_tests(values[: options.tests]) if mean == 0 else dict.fromkeys(TESTS)))
    record(options.output, {"runs": options.runs, "runs of tests": options.tests}, rows)


def _tests(values: Values) -> Row:
    permutation = [each.p_value for each in compared(values.T)]
    tested = [p for p in permutation if p is not None]
    wilcoxon = [stats.wilcoxon(run).pvalue if run.any() else 1.0 for run in values]
    if not tested:
        return dict.fromkeys(TESTS)
    return {name: 100 * float(np.mean(np.array(p) <= 0.05)) for name, p in zip(TESTS, (tested, wilcoxon), strict=True)}


if __name__ == "__main__":
    main()
