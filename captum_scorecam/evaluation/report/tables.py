"""The tables of the report, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from captum_scorecam.evaluation.presentation import (
    decimals,
    evidence_text,
    interval_text,
    method_title,
    number_text,
    title_and_unit,
)
from captum_scorecam.evaluation.statistics import Difference, Estimate
from captum_scorecam.evaluation.summary import Differences, Estimates, Group, Summary
from captum_scorecam.evaluation.verdicts import higher_is_better, verdict

Mark: TypeAlias = Literal["best", "better", "worse", ""]
Marks: TypeAlias = dict[str, dict[str, Mark]]  # by metric and method

MOST_CLASSES = 100


@dataclass(frozen=True)
class Cell:
    """A mean or a difference.

    Attributes:
        value (float, optional): The value to sort by.
        text (str): The value as text.
        interval (str): Its interval as text.
        numbers (dict): What a spreadsheet gets beside the value: the interval's ends and n, and of a difference the
            effect size and the corrected p-value; None if there is none.
        evidence (str): The effect size and corrected p-value of a difference as text.
        n (int): The number of images or pairs.
        mark (str): ``best``, ``better``, ``worse`` or nothing.
        bar (tuple, optional): Start and end of the interval and position of the mean, in percent of the column's range.
    """

    value: float | None
    text: str
    interval: str
    numbers: dict[str, float | None]
    evidence: str
    n: int
    mark: Mark
    bar: tuple[float, float, float] | None


@dataclass(frozen=True)
class Column:
    """A metric.

    Attributes:
        title (str): Its title without the unit.
        unit (str): Its unit, if it has one.
        higher_is_better (bool, optional): Its direction; None if unknown.
        n (int): The largest n of its cells.
        zero (float, optional): The position of 0 in percent of the column's range, if it is marked.
    """

    title: str
    unit: str
    higher_is_better: bool | None
    n: int
    zero: float | None


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        title (str): Its title.
        series (int): The number of its colour.
        cells (list of Cell): One per metric.
    """

    title: str
    series: int
    cells: list[Cell]


@dataclass(frozen=True)
class ReportTable:
    """Methods × metrics of a group of images.

    Attributes:
        name (str): The group's name.
        images (int): The number of its images.
        columns (list of Column): The metrics.
        rows (list of Row): The methods.
    """

    name: str
    images: int
    columns: list[Column]
    rows: list[Row]


def means_table(summary: Summary) -> ReportTable:
    """Returns the table of means over all images."""
    marks: Marks = {metric: dict.fromkeys(leading, "best") for metric, leading in summary.leading.items()}
    return _table(summary, summary.overall, summary.overall.means, marks, signed=False)


def differences_table(summary: Summary) -> ReportTable:
    """Returns the table of differences to the reference, over all images."""
    differences = summary.overall.differences
    marks: Marks = {
        metric: {method: verdict(differences[method][metric], metric) or "" for method in differences}
        for metric in summary.metrics
    }
    return _table(summary, summary.overall, differences, marks, signed=True)


def class_tables(summary: Summary) -> list[ReportTable]:
    """Returns the tables of means of the `MOST_CLASSES` classes with the most images; they are not tested."""
    largest = sorted(summary.classes, key=lambda group: -group.images)[:MOST_CLASSES]
    return [_table(summary, group, group.means, {}, signed=False) for group in largest]


def _table(summary: Summary, group: Group, rows: Estimates | Differences, marks: Marks, *, signed: bool) -> ReportTable:
    columns, cells = [], []
    for metric in summary.metrics:
        column = {method: estimates[metric] for method, estimates in rows.items()}
        places = decimals(estimates[metric].mean for estimates in summary.overall.means.values())
        span = _span(list(column.values()), with_zero=signed)
        columns.append(_column(metric, list(column.values()), span if signed else None))
        cells.append(
            [_cell(e, places, marks.get(metric, {}).get(method, ""), span, signed) for method, e in column.items()]
        )
    by_method = [
        Row(method_title(method), summary.methods.index(method), [column_cells[number] for column_cells in cells])
        for number, method in enumerate(rows)
    ]
    return ReportTable(group.name, group.images, columns, by_method)


def _column(metric: str, estimates: Sequence[Estimate], span: tuple[float, float] | None) -> Column:
    title, unit = title_and_unit(metric)
    zero = None if span is None else _percent(0.0, span)
    n = max((estimate.n for estimate in estimates), default=0)
    return Column(title, unit, higher_is_better(metric), n, zero)


def _cell(estimate: Estimate, places: int, mark: Mark, span: tuple[float, float], signed: bool) -> Cell:
    text = number_text(estimate.mean, places, signed=signed)
    bar = None
    if estimate.mean is not None and estimate.low is not None and estimate.high is not None:
        bar = (_percent(estimate.low, span), _percent(estimate.high, span), _percent(estimate.mean, span))
    evidence = ""
    numbers: dict[str, float | None] = {"low": estimate.low, "high": estimate.high, "n": estimate.n}
    if isinstance(estimate, Difference):
        evidence = evidence_text(estimate)
        numbers |= {"d": estimate.effect_size, "p": estimate.corrected_p_value}
    return Cell(estimate.mean, text, interval_text(estimate, places), numbers, evidence, estimate.n, mark, bar)


def _span(estimates: Sequence[Estimate], *, with_zero: bool) -> tuple[float, float]:
    """Returns the range that a column's bars share."""
    ends = [end for estimate in estimates for end in (estimate.low, estimate.high) if end is not None]
    ends += [0.0] if with_zero else []
    return (min(ends), max(ends)) if ends else (0.0, 0.0)


def _percent(value: float, span: tuple[float, float]) -> float:
    width = span[1] - span[0]
    return round(100 * (value - span[0]) / width, 1) if width else 50.0
