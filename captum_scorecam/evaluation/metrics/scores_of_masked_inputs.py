"""Metrics of the class score after masking the image with the map: average drop, increase and gain."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_scorecam.evaluation.metrics.metric import AT_LEAST_0, FRACTION, PERCENT, Metric, MetricInput, MetricResult
from captum_scorecam.metrics.functional import average_drop, average_gain, average_increase

_ScoreFunction = Callable[[Tensor, Tensor], Tensor]


def _of_map(function: _ScoreFunction) -> Callable[[MetricInput], MetricResult]:
    return lambda metric_input: MetricResult(float(function(*metric_input.scores_of_map)))


def _of_half(function: _ScoreFunction) -> Callable[[MetricInput], MetricResult]:
    return lambda metric_input: MetricResult(float(function(*metric_input.scores_of_half)))


METRICS_OF_MASKED_INPUTS = (
    Metric("average_drop", "Average drop, %", False, _of_map(average_drop), range=PERCENT, scores=AT_LEAST_0),
    Metric("average_increase", "Average increase, %", True, _of_map(average_increase), range=PERCENT),
    Metric("average_gain", "Average gain, %", True, _of_map(average_gain), range=PERCENT, scores=FRACTION),
    Metric(
        "average_drop_half",
        "Average drop, top half, %",
        False,
        _of_half(average_drop),
        range=PERCENT,
        scores=AT_LEAST_0,
    ),
    Metric("average_increase_half", "Average increase, top half, %", True, _of_half(average_increase), range=PERCENT),
)
