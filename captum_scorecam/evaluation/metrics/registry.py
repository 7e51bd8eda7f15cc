"""The metrics by name."""

from __future__ import annotations

from typing import get_args

from captum_scorecam._messages import check_choice
from captum_scorecam.evaluation.metrics.concentration import METRICS_OF_CONCENTRATION
from captum_scorecam.evaluation.metrics.curves import METRICS_OF_CURVES
from captum_scorecam.evaluation.metrics.metric import ANY_NUMBER, Metric, Need, On, Range
from captum_scorecam.evaluation.metrics.reexplaining import METRICS_OF_METHODS
from captum_scorecam.evaluation.metrics.regions import METRICS_OF_REGIONS
from captum_scorecam.evaluation.metrics.scores_of_masked_inputs import METRICS_OF_MASKED_INPUTS
from captum_scorecam.evaluation.registry import register
from captum_scorecam.scoring.class_scores import NamedScore

DEFAULT_METRICS = ("average_drop", "average_increase", "insertion", "deletion")

METRICS = {
    metric.name: metric
    for metric in (
        *METRICS_OF_MASKED_INPUTS,
        *METRICS_OF_CURVES,
        *METRICS_OF_CONCENTRATION,
        *METRICS_OF_REGIONS,
        *METRICS_OF_METHODS,
    )
}
OWN_METRICS = frozenset(METRICS)  # without those registered later


def range_of(metric: str, score: NamedScore | None) -> Range:
    """Returns the range of a metric's values.

    It is not known for a metric that is not registered, nor if outputs that need not be probabilities are scores.
    """
    return METRICS[metric].range if metric in METRICS and score != "output" else ANY_NUMBER


def register_metric(metric: Metric) -> None:
    """Adds a metric to `METRICS`, for use in `plan_evaluation` and on the command line.

    Args:
        metric (Metric): The metric. Registering it again has no effect.

    Raises:
        ValueError: If the name is taken, is ``map`` or has characters other than letters, digits and underscores, or a
            field has an unknown value.
    """
    check_choice("on", metric.on, On)
    if not metric.needs <= {*get_args(Need)}:
        raise ValueError(
            f"Expected `needs` to contain only {', '.join(map(repr, get_args(Need)))}, but got {sorted(metric.needs)}."
        )
    if len(metric.axes) != 2 or not all(isinstance(label, str) for label in metric.axes):
        raise ValueError(f"Expected `axes` to be two labels, of x and y, but got {metric.axes!r}.")
    register(METRICS, metric.name, metric, "metric")
