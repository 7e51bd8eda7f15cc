"""Metrics of the class score as pixels are inserted or removed in the order of the map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from captum_scorecam.evaluation.metrics.metric import (
    CORRELATION,
    FRACTION,
    HALF,
    Metric,
    MetricInput,
    MetricResult,
    as_floats,
)
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.metrics.functional import PerturbationCurve, deletion, insertion, lerf, morf, road

Curves = TypeVar("Curves")

STEPS = 100  # each step changes 1 % of the pixels
_INSERTED = ("Share of pixels inserted", "Class score")
_DELETED = ("Share of pixels deleted", "Class score")
_REMOVED = ("Share of pixels removed", "Class score")
_GAIN = ("Share of pixels removed", "LeRF − MoRF")
_IMPUTED = ("Share of pixels imputed", "(LeRF − MoRF) / 2")


def _area_under(find: Callable[[MetricInput], PerturbationCurve]) -> Callable[[MetricInput], MetricResult]:
    def compute(metric_input: MetricInput) -> MetricResult:
        curve = metric_input.once(find)
        return MetricResult(float(curve.auc), Curve(as_floats(curve.fractions), as_floats(curve.scores)))

    return compute


def _curve(function: Callable[..., PerturbationCurve]) -> Callable[[MetricInput], PerturbationCurve]:
    return lambda metric_input: _computed(function, metric_input, step=1 / STEPS)


_INSERTION, _DELETION, _MORF, _LERF = map(_curve, (insertion, deletion, morf, lerf))


def _srg(metric_input: MetricInput) -> MetricResult:
    lost, gained = metric_input.once(_MORF), metric_input.once(_LERF)
    gain = Curve(as_floats(lost.fractions), as_floats(gained.scores - lost.scores))
    return MetricResult(float(gained.auc - lost.auc), gain)


def _road(metric_input: MetricInput) -> MetricResult:
    curves = _computed(road, metric_input, generator=metric_input.request.options.generator())
    halves = (curves.lerf - curves.morf) / 2
    return MetricResult(float(curves.road), Curve(as_floats(curves.fractions), as_floats(halves)))


def _computed(function: Callable[..., Curves], metric_input: MetricInput, **options: Any) -> Curves:
    return function(
        metric_input.request.forward_of_masked,
        metric_input.request.inputs,
        metric_input.maps,
        metric_input.target,
        score=metric_input.request.score,
        perturbations_per_eval=metric_input.perturbations_per_eval,
        **options,
    )


METRICS_OF_CURVES = (
    Metric(
        "insertion", "Insertion, AUC", True, _area_under(_INSERTION), range=FRACTION, in_chunks=True, axes=_INSERTED
    ),
    Metric("deletion", "Deletion, AUC", False, _area_under(_DELETION), range=FRACTION, in_chunks=True, axes=_DELETED),
    Metric("morf", "MoRF, AUC", False, _area_under(_MORF), range=FRACTION, in_chunks=True, axes=_REMOVED),
    Metric("lerf", "LeRF, AUC", True, _area_under(_LERF), range=FRACTION, in_chunks=True, axes=_REMOVED),
    Metric("srg", "SRG", True, _srg, range=CORRELATION, in_chunks=True, axes=_GAIN),
    Metric("road", "ROAD", True, _road, range=HALF, in_chunks=True, axes=_IMPUTED),
)
