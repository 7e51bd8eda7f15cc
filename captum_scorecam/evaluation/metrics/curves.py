"""Metrics of the class score as pixels are inserted or deleted in the order of the map."""

from __future__ import annotations

from collections.abc import Callable

from captum_scorecam.evaluation.metrics.metric import FRACTION, Metric, MetricInput, MetricResult, as_floats
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.metrics.functional import PerturbationCurve, deletion, insertion

STEPS = 100  # each step changes 1 % of the pixels


def _area_under(function: Callable[..., PerturbationCurve]) -> Callable[[MetricInput], MetricResult]:
    def compute(metric_input: MetricInput) -> MetricResult:
        curve = function(
            metric_input.request.forward_of_masked,
            metric_input.request.inputs,
            metric_input.maps,
            metric_input.target,
            step=1 / STEPS,
            score=metric_input.request.score,
            perturbations_per_eval=metric_input.perturbations_per_eval,
        )
        return MetricResult(float(curve.auc), Curve(as_floats(curve.fractions), as_floats(curve.scores)))

    return compute


METRICS_OF_CURVES = (
    Metric("insertion", "Insertion, AUC", True, _area_under(insertion), range=FRACTION),
    Metric("deletion", "Deletion, AUC", False, _area_under(deletion), range=FRACTION),
)
