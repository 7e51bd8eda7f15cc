"""Which methods are the best, and which differences between two of them are not due to chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.statistics import LEVEL, Difference


def higher_is_better(name: str) -> bool | None:
    """Returns whether higher values of a metric are better, or None if its plugin is not imported."""
    return METRICS[name].higher_is_better if name in METRICS else None


def best_of(values: Mapping[str, float | None], metric: str) -> set[str]:
    """Returns the names with the best value, or none if all values are equal or the direction is unknown."""
    present = {name: value for name, value in values.items() if value is not None}
    higher = higher_is_better(metric)
    if higher is None or len(set(present.values())) < 2:
        return set()
    best = max(present.values()) if higher else min(present.values())
    return {name for name, value in present.items() if value == best}


def verdict(difference: Difference, metric: str) -> Literal["better", "worse"] | None:
    """Returns ``better`` or ``worse`` if the corrected test finds a difference, otherwise None."""
    higher, p = higher_is_better(metric), difference.corrected_p_value
    if higher is None or difference.mean is None or p is None or p > 1 - LEVEL:
        return None
    return "better" if (difference.mean > 0) == higher else "worse"


def leading_methods(
    metric: str, means: Mapping[str, float | None], pairs: Mapping[tuple[str, str], Difference]
) -> set[str]:
    """Returns the method with the best mean and those that no test finds worse.

    Args:
        metric (str): The metric.
        means (mapping): The mean of each method.
        pairs (mapping): For each pair of methods, the tested difference of the first minus the second.

    Returns:
        set of str: The methods; none where no method is found worse than the best, or the direction is unknown.
    """
    found = {pair: verdict(difference, metric) for pair, difference in pairs.items()}
    worse = {pair if than == "worse" else pair[::-1] for pair, than in found.items() if than is not None}
    values = {method: mean for method, mean in means.items() if mean is not None}
    best = (max if higher_is_better(metric) else min)(values, key=values.__getitem__, default=None)
    beaten = {method for method in values if (method, best) in worse}
    return {*values} - beaten if beaten else set()
