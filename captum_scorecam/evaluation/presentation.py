"""How methods, measures and numbers are shown, on the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from captum_scorecam.evaluation.methods import METHODS
from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.statistics import Estimate
from captum_scorecam.evaluation.summary import Group

BETTER, WORSE = "better", "worse"


def method_title(name: str) -> str:
    """Returns a method's title; the name of one that has none, or of a plugin's that is not imported."""
    return (METHODS[name].title if name in METHODS else None) or name


def measure_title(name: str) -> str:
    """Returns a measure's title with its unit; the name of a plugin's measure that is not imported."""
    return METRICS[name].title if name in METRICS else name


def higher_is_better(name: str) -> bool | None:
    """Returns a measure's direction; None of a plugin's measure that is not imported."""
    return METRICS[name].higher_is_better if name in METRICS else None


def best_of(values: Mapping[str, float | None], measure: str) -> set[str]:
    """Returns whose value is the best: nobody's where there is no choice or the direction is unknown."""
    present = {name: value for name, value in values.items() if value is not None}
    higher = higher_is_better(measure)
    if higher is None or len(set(present.values())) < 2:
        return set()
    best = max(present.values()) if higher else min(present.values())
    return {name for name, value in present.items() if value == best}


def best_methods(group: Group, measure: str) -> set[str]:
    """Returns the methods with the best mean."""
    return best_of({method: of_measure[measure].mean for method, of_measure in group.means.items()}, measure)


def verdict(difference: Estimate, measure: str) -> str | None:
    """Returns ``better`` or ``worse`` where the interval of a difference excludes 0, else None."""
    higher = higher_is_better(measure)
    if higher is None or difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return None
    return BETTER if (difference.low > 0) == higher else WORSE


def decimals(values: Iterable[float | None]) -> int:
    """Returns how many decimals give the largest of some numbers three significant digits, 1 to 6."""
    largest = max((abs(value) for value in values if value is not None), default=1.0)
    return 1 if largest == 0 else min(6, max(1, 2 - math.floor(math.log10(largest))))


def number_text(value: float | None, places: int, *, signed: bool = False) -> str:
    """Writes a number with a true minus sign, or a dash where there is none."""
    if value is None:
        return "–"
    rounded = round(value, places) + 0.0  # which makes 0 of −0
    return f"{rounded:{'+' if signed else ''}.{places}f}".replace("-", "−")


def interval_text(estimate: Estimate, places: int) -> str:
    """Writes an interval as [low, high]; nothing where there is none."""
    if estimate.low is None:
        return ""
    return f"[{number_text(estimate.low, places)}, {number_text(estimate.high, places)}]"
