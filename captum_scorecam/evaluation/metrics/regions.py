"""Metrics of how well a map covers the object: pointing games, relevance and overlap, with boxes or a mosaic's tile."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_scorecam.evaluation.metrics.metric import FRACTION, Metric, MetricInput, MetricResult, Need
from captum_scorecam.metrics.functional import energy_pointing_game, iou, pointing_game, relevance_mass, relevance_rank

_BOXES: frozenset[Need] = frozenset({"boxes"})
_LABEL: frozenset[Need] = frozenset({"label"})


def _in_region(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[MetricInput], MetricResult]:
    def compute(metric_input: MetricInput) -> MetricResult:
        if metric_input.region is None:
            return MetricResult(None)
        return MetricResult(float(function(metric_input.maps, metric_input.region.unsqueeze(0))))

    return compute


_POINTING, _ENERGY = _in_region(pointing_game), _in_region(energy_pointing_game)

METRICS_OF_REGIONS = (
    Metric("pointing_game", "Pointing game", True, _POINTING, needs=_BOXES, range=FRACTION),
    Metric("energy_pointing_game", "Energy in the boxes", True, _ENERGY, needs=_BOXES, range=FRACTION),
    Metric("relevance_mass", "Relevance mass", True, _in_region(relevance_mass), needs=_BOXES, range=FRACTION),
    Metric("relevance_rank", "Relevance rank", True, _in_region(relevance_rank), needs=_BOXES, range=FRACTION),
    Metric("iou", "IoU", True, _in_region(iou), needs=_BOXES, range=FRACTION),
    Metric("mosaic_pointing_game", "Energy in the tile", True, _ENERGY, "mosaic", _LABEL, FRACTION),
)
