"""Mean curves of a run, and the values of metrics that are the best point of theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.records import Curve, Record

BestPoints: TypeAlias = Mapping[str, Mapping[str, float | str]]  # x by metric and method


@dataclass
class MeanCurve:
    """The mean of curves with the same points on the x axis.

    Attributes:
        x (tuple): The points, numbers or names.
        total (list of float): The sums of the curves' values.
        n (int): The number of curves.
    """

    x: tuple[float | str, ...]
    total: list[float]
    n: int = 0

    def add(self, curve: Curve) -> None:
        """Adds a curve; one with other points is left out of the mean and of n."""
        if tuple(curve.x) == self.x:
            self.total = [total + value for total, value in zip(self.total, curve.y, strict=True)]
            self.n += 1

    @property
    def y(self) -> list[float]:
        """The mean at each point."""
        return [total / self.n for total in self.total]


def mean_curves(records: Iterable[Record], metrics: Collection[str] | None = None) -> dict[str, dict[str, MeanCurve]]:
    """Averages the curves of records, of which only one needs to be in memory.

    Args:
        records (iterable of Record): The records.
        metrics (collection of str, optional): The metrics. Default: None, all.

    Returns:
        dict: A mean curve by metric and method.
    """
    curves: dict[str, dict[str, MeanCurve]] = {}
    for record in records:
        for metric, curve in record.curves.items():
            if record.method is not None and (metrics is None or metric in metrics):
                empty = MeanCurve(tuple(curve.x), [0.0] * len(curve.x))
                curves.setdefault(metric, {}).setdefault(record.method, empty).add(curve)
    return curves


def best_of_curves(metrics: Iterable[str]) -> set[str]:
    """Returns the metrics whose value is the best point of the mean curve."""
    return {metric for metric in metrics if metric in METRICS and METRICS[metric].best_of_curve}


def best_points(records: Iterable[Record], metrics: Collection[str]) -> BestPoints:
    """Returns where the mean curve of each method is best, the first of equal points.

    Args:
        records (iterable of Record): The records, of which only one needs to be in memory.
        metrics (collection of str): From `best_of_curves`.
    """
    return {
        metric: {
            method: curve.x[_best(curve.y, METRICS[metric].higher_is_better)] for method, curve in of_metric.items()
        }
        for metric, of_metric in mean_curves(records, metrics).items()
    }


def _best(values: list[float], higher: bool) -> int:
    return values.index(max(values) if higher else min(values))


def at_best_points(record: Record, points: BestPoints) -> Record:
    """Returns a record with the values of its curves at the points, as far as it has them."""
    values = {}
    for metric, of_method in points.items():
        curve, x = record.curves.get(metric), of_method.get(record.method or "")
        if curve is not None and x in curve.x:
            values[metric] = curve.y[curve.x.index(x)]
    return replace(record, values={**record.values, **values}) if values else record
