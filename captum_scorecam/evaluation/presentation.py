"""Formats methods, metrics and numbers for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable

from captum_scorecam.evaluation.methods import METHODS
from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.statistics import Difference, Estimate
from captum_scorecam.evaluation.summary import Summary
from captum_scorecam.evaluation.verdicts import higher_is_better


def method_title(name: str) -> str:
    """Returns a method's title, or its name if it has no title or its plugin is not imported."""
    return (METHODS[name].title if name in METHODS else None) or name


def metric_title(name: str) -> str:
    """Returns a metric's title with its unit, or its name if its plugin is not imported."""
    return METRICS[name].title if name in METRICS else name


def title_and_unit(name: str) -> tuple[str, str]:
    """Returns a metric's title without its unit, which follows the last comma, and the unit, "" if there is none."""
    title, _, unit = metric_title(name).rpartition(", ")
    return (title, unit) if title else (unit, "")


def curve_axes(name: str) -> tuple[str, str]:
    """Returns the labels of the x and y axes of a metric's curves, empty if there are none."""
    return METRICS[name].axes if name in METRICS else ("", "")


def evidence_text(difference: Difference) -> str:
    """Formats the effect size and the corrected p-value of a difference, as far as they are known."""
    d = None if difference.effect_size is None else f"d {number_text(difference.effect_size, 2)}"
    p = None if difference.corrected_p_value is None else f"p {p_text(difference.corrected_p_value)}"
    return ", ".join(text for text in (d, p) if text)


def p_text(p: float) -> str:
    """Formats a p-value with two digits: < 0.001, 0.0042, 0.37."""
    return "< 0.001" if p < 0.001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def error_text(share: float) -> str:
    """Formats a map's largest standard error, a share of its largest value: ±3.1%, or exact if it is 0."""
    if share == 0:
        return "exact"
    return f"±{_percent(share)}" if math.isfinite(share) else "error unknown"  # of a map that is zero


def _percent(share: float) -> str:
    if 0 < share < 0.0005:
        return "<0.1%"
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"


def budget_texts(summary: Summary) -> list[str]:
    """Returns a sentence for each method whose maps were made with `max_forwards` or `error`."""
    return [
        f"{method_title(method)} ran {cost.forwards:,.1f} masks per image on average, at most {cost.most_forwards:,}. "
        f"The largest standard error of a map is {_percent(cost.map_error)} of its maximum on average, "
        f"at most {_percent(cost.largest_map_error)}.{_of_unknown(cost.unknown_map_errors)}"
        for method, cost in summary.costs.items()
        if cost.map_error is not None and cost.largest_map_error is not None
    ]


def _of_unknown(n_maps: int) -> str:
    if n_maps == 0:
        return ""
    return f" It is unknown for {n_maps:,} other {'map, which is' if n_maps == 1 else 'maps, which are'} zero."


def decimals(values: Iterable[float | None]) -> int:
    """Returns the number of decimals, from 1 to 6, that gives the largest value three significant digits."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return 1 if largest == 0 else min(6, max(1, 2 - math.floor(math.log10(largest))))


def unmarked_text(metrics: Iterable[str]) -> str | None:
    """Says which metrics have no known direction, so that nothing is marked as best, better or worse; None if none."""
    unknown = [title_and_unit(metric)[0] for metric in metrics if higher_is_better(metric) is None]
    return f"Not marked, since their plugin was not given: {', '.join(unknown)}." if unknown else None


def number_text(value: float | None, places: int, *, signed: bool = False) -> str:
    """Formats a number with a true minus sign, and None as a dash."""
    if value is None:
        return "–"
    rounded = round(value, places) + 0.0  # turns −0 into 0
    return f"{rounded:{'+' if signed else ''}.{places}f}".replace("-", "−")


def interval_text(estimate: Estimate, places: int) -> str:
    """Formats an interval as [low, high], or as an empty string if there is none."""
    if estimate.low is None:
        return ""
    return f"[{number_text(estimate.low, places)}, {number_text(estimate.high, places)}]"
