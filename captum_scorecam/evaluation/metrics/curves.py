"""Metrics of the class score as pixels are inserted or removed in the order of the map."""

from __future__ import annotations

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
from captum_scorecam.metrics.functional import PerturbationCurve, deletion, insertion, road

_INSERTED = ("Share of pixels inserted", "Class score")
_DELETED = ("Share of pixels deleted", "Class score")
_REMOVED = ("Share of pixels removed", "Class score")
_GAIN = ("Share of pixels removed", "LeRF − MoRF")
_IMPUTED = ("Share of pixels imputed", "(LeRF − MoRF) / 2")


def _insertion(metric_input: MetricInput) -> MetricResult:
    return _area(metric_input.computed(insertion))


def _deletion(metric_input: MetricInput) -> MetricResult:
    return _area(metric_input.computed(deletion))


def _morf(metric_input: MetricInput) -> MetricResult:
    return _area(metric_input.morf_curve)


def _lerf(metric_input: MetricInput) -> MetricResult:
    return _area(metric_input.lerf_curve)


def _area(curve: PerturbationCurve) -> MetricResult:
    return MetricResult(float(curve.auc), Curve(as_floats(curve.fractions), as_floats(curve.scores)))


def _srg(metric_input: MetricInput) -> MetricResult:
    lost, gained = metric_input.morf_curve, metric_input.lerf_curve
    gain = Curve(as_floats(lost.fractions), as_floats(gained.scores - lost.scores))
    return MetricResult(float(gained.auc - lost.auc), gain)


def _road(metric_input: MetricInput) -> MetricResult:
    curves = metric_input.computed(road, generator=metric_input.request.options.generator())
    halves = (curves.lerf - curves.morf) / 2
    return MetricResult(float(curves.road), Curve(as_floats(curves.fractions), as_floats(halves)))


METRICS_OF_CURVES = (
    Metric("insertion", "Insertion, AUC", True, _insertion, range=FRACTION, in_chunks=True, axes=_INSERTED),
    Metric("deletion", "Deletion, AUC", False, _deletion, range=FRACTION, in_chunks=True, axes=_DELETED),
    Metric("morf", "MoRF, AUC", False, _morf, range=FRACTION, in_chunks=True, axes=_REMOVED),
    Metric("lerf", "LeRF, AUC", True, _lerf, range=FRACTION, in_chunks=True, axes=_REMOVED),
    Metric("srg", "SRG", True, _srg, range=CORRELATION, in_chunks=True, axes=_GAIN),
    Metric("road", "ROAD", True, _road, range=HALF, in_chunks=True, axes=_IMPUTED),
)
