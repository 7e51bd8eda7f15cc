"""Which methods are the best, and which differences between two of them are not due to chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.records import Record, RunSettings
from captum_scorecam.evaluation.statistics import LEVEL, Difference
from captum_scorecam.evaluation.summary import ALL_IMAGES, Group, ValueTable


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


def best_methods(group: Group, metric: str) -> set[str]:
    """Returns the methods with the best mean."""
    return best_of({method: estimates[metric].mean for method, estimates in group.means.items()}, metric)


def verdict(difference: Difference, metric: str) -> Literal["better", "worse"] | None:
    """Returns ``better`` or ``worse`` if the corrected test finds a difference, otherwise None."""
    higher, p = higher_is_better(metric), difference.corrected_p_value
    if higher is None or difference.mean is None or p is None or p > 1 - LEVEL:
        return None
    return "better" if (difference.mean > 0) == higher else "worse"


def leading_methods(records: Sequence[Record], settings: RunSettings) -> dict[str, set[str]]:
    """Returns, by metric, the method with the best mean and those that no test finds worse.

    Each pair of methods is tested as for `compared`, and Holm's correction counts all pairs and metrics, since which
    method is the best is known only afterwards.

    Args:
        records (sequence of Record): From `read_records`; curves are not needed.
        settings (RunSettings): From `read_settings`.

    Returns:
        dict: The names by metric; none where no method is found worse than the best, or the direction is unknown.
    """
    methods, metrics = settings.methods, settings.metrics
    table = ValueTable([record for record in records if record.error is None], methods, metrics, methods[0])
    worse: dict[str, set[tuple[str, str]]] = {metric: set() for metric in metrics}  # the first than the second
    for (first, second), differences in table.pairs().items():
        for metric, difference in differences.items():
            found = verdict(difference, metric)
            if found == "worse":
                worse[metric].add((first, second))
            elif found == "better":
                worse[metric].add((second, first))
    means = table.group(ALL_IMAGES, range(len(table.rows))).means
    leading: dict[str, set[str]] = {}
    for metric in metrics:
        values = {method: mean for method in methods if (mean := means[method][metric].mean) is not None}
        best = (max if higher_is_better(metric) else min)(values, key=values.__getitem__, default=None)
        beaten = {method for method in values if (method, best) in worse[metric]}
        leading[metric] = {*values} - beaten if beaten else set()
    return leading
