"""Metrics of how concentrated a map is: sparseness and complexity."""

from __future__ import annotations

from captum_scorecam.evaluation.metrics.metric import AT_LEAST_0, FRACTION, Metric, MetricInput, MetricResult
from captum_scorecam.metrics.functional import complexity, sparseness


def _sparseness(metric_input: MetricInput) -> MetricResult:
    return MetricResult(float(sparseness(metric_input.maps)))


def _complexity(metric_input: MetricInput) -> MetricResult:
    return MetricResult(float(complexity(metric_input.maps)))


METRICS_OF_CONCENTRATION = (
    Metric("sparseness", "Sparseness", True, _sparseness, range=FRACTION),
    Metric("complexity", "Complexity, nats", False, _complexity, range=AT_LEAST_0),
)
