"""What choosing the best threshold on the scored images does to MaxBoxAcc, its intervals and its tests.

Simulated: an image is a hit at the thresholds of a random interval. Both methods have the same MaxBoxAcc in the limit
of many images; the second is like the first, or its hits do not depend on the threshold, so that there is no choice.

python benchmarks/best_threshold.py --output benchmarks/results/best_threshold
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from recording import Row, record

from captum_scorecam.evaluation.statistics import Values, compared, estimates

SIZES = (10, 20, 50, 200, 1000)
THRESHOLDS = np.arange(0, 1, 0.02)


def hits(generator: np.random.Generator, *images: int) -> NDArray[np.bool_]:
    """Hits of images × thresholds."""
    centre = generator.normal(0.4, 0.2, (*images, 1)).clip(0, 1)
    width = generator.normal(0.25, 0.25, (*images, 1))
    found: NDArray[np.bool_] = np.abs(THRESHOLDS - centre) < width / 2
    return found


def at_best(found: NDArray[np.bool_]) -> Values:
    """The hits of runs × images at each run's best threshold."""
    best = found.mean(1).argmax(1)
    return np.take_along_axis(found, best[:, None, None], 2)[..., 0].astype(float)


def main() -> None:
    """Writes the percentages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/best_threshold"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--tests", type=int, default=300)
    options = parser.parse_args()
    limit = float(hits(np.random.default_rng(0), 400_000).mean(0).max())
    rows: list[Row] = []
    for n in SIZES:
        generator = np.random.default_rng(n)
        first, like = (at_best(hits(generator, options.runs, n)) for _ in range(2))
        without_choice = (generator.random((options.runs, n)) < limit).astype(float)
        intervals = [(each.low or 0, each.high or 1) for each in estimates(first.T, [(0, 1)] * options.runs)]
        row: Row = {
            "images": n,
            "MaxBoxAcc − its limit": float(first.mean()) - limit,
            "interval misses the limit, %": 100 * float(np.mean([not a <= limit <= b for a, b in intervals])),
        }
        for name, second in (("the like", like), ("one without choice", without_choice)):
            tested = compared((first - second)[: options.tests].T)
            row[f"p ≤ 0.05 against {name}, %"] = 100 * float(np.mean([(each.p_value or 0) <= 0.05 for each in tested]))
        rows.append(row)
    record(options.output, {"runs": options.runs, "runs of tests": options.tests, "limit": f"{limit:.3f}"}, rows)


if __name__ == "__main__":
    main()
