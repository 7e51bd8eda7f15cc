"""Metrics of how well a map covers the object, known by boxes, a mask or a mosaic's tile."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_scorecam.evaluation.metrics.metric import FRACTION, Metric, MetricInput, MetricResult, Need, as_floats
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.metrics.functional import (
    energy_pointing_game,
    iou,
    max_box_acc,
    pointing_game,
    relevance_mass,
    relevance_rank,
)

_BOXES: frozenset[Need] = frozenset({"boxes"})
_LABEL: frozenset[Need] = frozenset({"label"})


def _in_region(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[MetricInput], MetricResult]:
    return lambda metric_input: _compared(function, metric_input.maps, metric_input.region)


def _on_object(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[MetricInput], MetricResult]:
    return lambda metric_input: _compared(function, metric_input.maps, metric_input.object_pixels)


def _compared(function: Callable[[Tensor, Tensor], Tensor], maps: Tensor, region: Tensor | None) -> MetricResult:
    return MetricResult(None if region is None else float(function(maps, region.unsqueeze(0))))


def _max_box_acc(metric_input: MetricInput) -> MetricResult:
    boxes = metric_input.object_boxes
    if boxes is None:
        return MetricResult(None)
    found = max_box_acc(metric_input.maps, [boxes])
    return MetricResult(None, Curve(as_floats(found.thresholds), as_floats(found.hits)))


_POINTING, _ENERGY = _in_region(pointing_game), _in_region(energy_pointing_game)

METRICS_OF_REGIONS = (
    Metric("pointing_game", "Pointing game", True, _POINTING, needs=_BOXES, range=FRACTION),
    Metric("energy_pointing_game", "Energy in the boxes", True, _ENERGY, needs=_BOXES, range=FRACTION),
    Metric("relevance_mass", "Relevance mass", True, _on_object(relevance_mass), needs=_BOXES, range=FRACTION),
    Metric("relevance_rank", "Relevance rank", True, _on_object(relevance_rank), needs=_BOXES, range=FRACTION),
    Metric("iou", "IoU", True, _on_object(iou), needs=_BOXES, range=FRACTION),
    Metric(
        "max_box_acc",
        "MaxBoxAcc",
        True,
        _max_box_acc,
        needs=_BOXES,
        range=FRACTION,
        best_of_curve=True,
        axes=("Threshold", "Share of hits"),
    ),
    Metric("mosaic_pointing_game", "Energy in the tile", True, _ENERGY, "mosaic", _LABEL, FRACTION),
)
