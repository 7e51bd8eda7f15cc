"""The tables of the report, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from captum_scorecam.evaluation.presentation import (
    best_methods,
    decimals,
    higher_is_better,
    interval_text,
    measure_title,
    method_title,
    number_text,
    verdict,
)
from captum_scorecam.evaluation.statistics import Estimate
from captum_scorecam.evaluation.summary import Estimates, Group, Summary

MOST_CLASSES = 100


@dataclass(frozen=True)
class Cell:
    """A mean or a difference.

    Attributes:
        value (float, optional): To sort by.
        text (str): The value as it is shown.
        interval (str): Its interval as it is shown.
        n (int): The number of images or pairs.
        mark (str): ``best``, ``better``, ``worse`` or nothing.
        bar (tuple, optional): Where the interval begins, ends and has its mean, in percent of the column's range.
    """

    value: float | None
    text: str
    interval: str
    n: int
    mark: str
    bar: tuple[float, float, float] | None


@dataclass(frozen=True)
class Column:
    """A measure: ``n`` is the largest of its cells, ``zero`` the place of 0 in percent, where it is marked."""

    title: str
    unit: str
    higher_is_better: bool | None
    n: int
    zero: float | None


@dataclass(frozen=True)
class Row:
    """A method; ``series`` is the number of its colour."""

    title: str
    series: int
    cells: list[Cell]


@dataclass(frozen=True)
class ReportTable:
    """Methods × measures."""

    name: str
    images: int
    columns: list[Column]
    rows: list[Row]


def means_table(summary: Summary, group: Group) -> ReportTable:
    """Lays out the means of a group."""
    marks = {measure: dict.fromkeys(best_methods(group, measure), "best") for measure in summary.measures}
    return _table(summary, group, group.means, marks, signed=False)


def differences_table(summary: Summary) -> ReportTable:
    """Lays out the differences of all images to the reference."""
    differences = summary.overall.differences
    marks = {
        measure: {method: verdict(differences[method][measure], measure) or "" for method in differences}
        for measure in summary.measures
    }
    return _table(summary, summary.overall, differences, marks, signed=True)


def class_tables(summary: Summary) -> list[ReportTable]:
    """Lays out the means of the classes with the most images, at most `MOST_CLASSES`."""
    largest = sorted(summary.classes, key=lambda group: -group.images)[:MOST_CLASSES]
    return [means_table(summary, group) for group in largest]


def _table(
    summary: Summary, group: Group, rows: Estimates, marks: dict[str, dict[str, str]], *, signed: bool
) -> ReportTable:
    columns, cells = [], []
    for measure in summary.measures:
        estimates = {method: of_measure[measure] for method, of_measure in rows.items()}
        places = decimals(of_measure[measure].mean for of_measure in summary.overall.means.values())
        span = _span(list(estimates.values()), with_zero=signed)
        columns.append(_column(measure, list(estimates.values()), span if signed else None))
        cells.append([_cell(e, places, marks[measure].get(m, ""), span, signed) for m, e in estimates.items()])
    by_method = [
        Row(
            title=method_title(method),
            series=summary.methods.index(method),
            cells=[column[number] for column in cells],
        )
        for number, method in enumerate(rows)
    ]
    return ReportTable(group.name, group.images, columns, by_method)


def _column(measure: str, estimates: Sequence[Estimate], span: tuple[float, float] | None) -> Column:
    title, _, unit = measure_title(measure).rpartition(", ")
    zero = None if span is None else _percent(0.0, span)
    n = max((estimate.n for estimate in estimates), default=0)
    return Column(title or unit, unit if title else "", higher_is_better(measure), n, zero)


def _cell(estimate: Estimate, places: int, mark: str, span: tuple[float, float], signed: bool) -> Cell:
    text = number_text(estimate.mean, places, signed=signed)
    bar = None
    if estimate.mean is not None and estimate.low is not None and estimate.high is not None:
        bar = (_percent(estimate.low, span), _percent(estimate.high, span), _percent(estimate.mean, span))
    return Cell(estimate.mean, text, interval_text(estimate, places), estimate.n, mark, bar)


def _span(estimates: Sequence[Estimate], *, with_zero: bool) -> tuple[float, float]:
    """Returns the range that a column's bars share."""
    ends = [end for estimate in estimates for end in (estimate.low, estimate.high) if end is not None]
    ends += [0.0] if with_zero else []
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def _percent(value: float, span: tuple[float, float]) -> float:
    width = span[1] - span[0]
    return round(100 * (value - span[0]) / width, 1) if width else 50.0
