"""Mean curves of a run, laid out for the report's charts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from captum_scorecam.evaluation.presentation import measure_title, method_title
from captum_scorecam.evaluation.records import Record

WIDTH, HEIGHT = 420, 270
LEFT, RIGHT, TOP, BOTTOM = 38, 300, 12, 226  # of the plot; the labels stand to the right of it
_LABEL_GAP = 18
_AXES = {
    "insertion": ("Share of the pixels inserted", "Score of the class"),
    "deletion": ("Share of the pixels deleted", "Score of the class"),
    "sanity_check": (
        "Layers randomised, from the last to the first",
        "Rank correlation with the trained model's map",
    ),
}


@dataclass
class MeanCurve:
    """The mean of curves over the same points.

    Attributes:
        x (tuple): The points, numbers or names.
        total (list of float): The sums at each of them.
        n (int): How many curves there are.
    """

    x: tuple[float | str, ...]
    total: list[float]
    n: int = 0

    def add(self, x: Sequence[float | str], y: Sequence[float]) -> None:
        """Adds a curve; one over other points is left out of the mean and of n."""
        if tuple(x) == self.x:
            self.total = [total + value for total, value in zip(self.total, y, strict=True)]
            self.n += 1

    @property
    def y(self) -> list[float]:
        """The mean at each point."""
        return [total / self.n for total in self.total]


@dataclass(frozen=True)
class Line:
    """A method's curve, in the coordinates of its chart."""

    series: int
    title: str
    points: str
    end: float
    label: float


@dataclass(frozen=True)
class Chart:
    """The curves of a measure, in the coordinates of an SVG of `WIDTH` × `HEIGHT`."""

    title: str
    x_title: str
    y_title: str
    n: str
    lines: list[Line]
    x_ticks: list[tuple[float, str, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)


def mean_curves(records: Iterable[Record]) -> dict[str, dict[str, MeanCurve]]:
    """Averages the curves of records, which may be read one at a time.

    Returns:
        dict: A mean curve by measure and method.
    """
    curves: dict[str, dict[str, MeanCurve]] = {}
    for record in records:
        for measure, curve in (record.get("curves") or {}).items():
            of_measure = curves.setdefault(measure, {})
            empty = MeanCurve(tuple(curve["x"]), [0.0] * len(curve["x"]))
            of_measure.setdefault(record["method"], empty).add(curve["x"], curve["y"])
    return curves


def make_charts(
    curves: Mapping[str, Mapping[str, MeanCurve]], methods: Sequence[str], measures: Sequence[str]
) -> list[Chart]:
    """Lays out a chart for each measure that has curves, in the order of the measures."""
    return [_chart(measure, curves[measure], methods) for measure in measures if curves.get(measure)]


def _chart(measure: str, curves: Mapping[str, MeanCurve], methods: Sequence[str]) -> Chart:
    x_title, y_title = _AXES.get(measure, ("", ""))
    shown = {method: curves[method] for method in methods if method in curves}
    values = [value for curve in shown.values() for value in curve.y]
    ticks = _ticks(min([0.0, *values]), max([0.0, *values]))
    counts = sorted({curve.n for curve in shown.values()})
    first = next(iter(shown.values()))
    return Chart(
        title=measure_title(measure).split(",")[0],
        x_title=x_title,
        y_title=y_title,
        n=f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
        lines=_lines(shown, methods, (ticks[0], ticks[-1])),
        x_ticks=_x_ticks(first.x),
        y_ticks=[(_y(tick, (ticks[0], ticks[-1])), f"{tick:g}".replace("-", "−")) for tick in ticks],
    )


def _lines(curves: Mapping[str, MeanCurve], methods: Sequence[str], span: tuple[float, float]) -> list[Line]:
    ends = {method: _y(curve.y[-1], span) for method, curve in curves.items()}
    labels = _spread_labels(ends, {method: sum(curve.y) for method, curve in curves.items()})
    lines = []
    for method, curve in curves.items():
        points = " ".join(f"{x:.1f},{_y(y, span):.1f}" for x, y in zip(_positions(curve.x), curve.y, strict=True))
        lines.append(Line(methods.index(method), method_title(method), points, round(ends[method], 1), labels[method]))
    return lines


def _spread_labels(ends: Mapping[str, float], sums: Mapping[str, float]) -> dict[str, float]:
    """Places labels near the ends of their curves, one below the other; where ends meet, the higher curve is above."""
    order = sorted(ends, key=lambda method: (round(ends[method] / _LABEL_GAP), -sums[method]))
    places: list[float] = []
    for method in order:
        places.append(max(ends[method], places[-1] + _LABEL_GAP) if places else ends[method])
    middle = sum(places) / len(places) - sum(ends.values()) / len(ends)
    highest, lowest = TOP - places[0], BOTTOM - places[-1]
    shift = max(highest, min(lowest, -middle))
    return {method: round(place + shift, 1) for method, place in zip(order, places, strict=True)}


def _positions(x: Sequence[float | str]) -> list[float]:
    """Returns where points stand horizontally: numbers to scale, names evenly."""
    numbers = [value for value in x if not isinstance(value, str)]
    if len(numbers) < len(x):
        numbers = [float(number) for number in range(len(x))]
    low, width = min(numbers), (max(numbers) - min(numbers)) or 1.0
    return [LEFT + (RIGHT - LEFT) * (number - low) / width for number in numbers]


def _x_ticks(x: Sequence[float | str]) -> list[tuple[float, str, str]]:
    """Returns ticks as position, text and anchor: of names, the first and the last."""
    positions = _positions(x)
    if any(isinstance(value, str) for value in x):
        ends = {0: "start", len(x) - 1: "end"}
        return [(positions[place], str(x[place]), anchor) for place, anchor in ends.items()]
    low, high = (float(value) for value in (x[0], x[-1]))
    steps = [low + (high - low) * quarter / 4 for quarter in range(5)]
    return [(LEFT + (RIGHT - LEFT) * quarter / 4, f"{step:g}", "middle") for quarter, step in enumerate(steps)]


def _y(value: float, span: tuple[float, float]) -> float:
    return BOTTOM - (BOTTOM - TOP) * (value - span[0]) / (span[1] - span[0])


def _ticks(low: float, high: float) -> list[float]:
    """Returns three to six round numbers that cover a range."""
    width = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(width))
    step = next(factor * power for factor in (0.2, 0.25, 0.5, 1.0, 2.0) if width / (factor * power) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]
