"""Summarises a run: means with intervals, over all images and per class, and differences from a reference."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.mean_curves import at_best_points, best_of_curves, best_points
from captum_scorecam.evaluation.metric_choice import add_known_metrics
from captum_scorecam.evaluation.metrics.registry import range_of
from captum_scorecam.evaluation.records import Failure, Record, RunSettings
from captum_scorecam.evaluation.statistics import (
    FEWEST_TESTED,
    FLIPS_PER_TEST,
    LEVEL,
    MOST_ENUMERATED,
    MOST_FLIPPED,
    RESAMPLES,
    SEED,
    Difference,
    Estimate,
    Values,
    compared,
    estimates,
    paired_differences,
)
from captum_scorecam.evaluation.verdicts import leading_methods
from captum_scorecam.models import class_name

Estimates: TypeAlias = dict[str, dict[str, Estimate]]  # by method and metric
Differences: TypeAlias = dict[str, dict[str, Difference]]
_Column = TypeVar("_Column", bound=Estimate)
_Name = TypeVar("_Name", str, tuple[str, str])
GroupedBy: TypeAlias = Literal["label", "target"]

PREFERRED_REFERENCE = "score_cam"
ALL_IMAGES = "all"
_COLUMNS = (
    *("class", "method", "metric", "mean", "low", "high", "n"),
    *("reference", "difference", "difference_low", "difference_high", "pairs"),
    *("effect_size", "p_value", "corrected_p_value"),
)
_BEGINNINGS_OF_FORMULAS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # OWASP, "CSV Injection"


@dataclass(frozen=True)
class Group:
    """The results of a group of images.

    Attributes:
        name (str): Name of the class, or ``all``.
        images (int): Number of images with a result.
        means (dict): An estimate for each method and metric.
        differences (dict): A difference for each method and metric: the method's value minus the reference's, over the
            images for which both have values. The reference itself is omitted. Those of classes are not tested.
    """

    name: str
    images: int
    means: Estimates
    differences: Differences


@dataclass(frozen=True)
class Cost:
    """The work for the maps of a method, and with `max_forwards` or `error` the error that remains.

    Attributes:
        forwards (float): The mean of `Record.forwards`.
        most_forwards (int): Its largest value.
        map_error (float, optional): The mean of `Record.map_error`; None if no map has one.
        largest_map_error (float, optional): Its largest value.
        unknown_map_errors (int): Maps without one, though others have one. Default: 0.
    """

    forwards: float
    most_forwards: int
    map_error: float | None
    largest_map_error: float | None
    unknown_map_errors: int = 0


@dataclass(frozen=True)
class Summary:
    """The results of a run.

    Attributes:
        methods (tuple of str): In the order of the run's settings.
        metrics (tuple of str): In the order of the run's settings.
        reference (str): The method that the others are compared with.
        overall (Group): Results over all images.
        leading (dict of str to set): For each metric, the method with the best mean and those that no test finds worse;
            none if no method is found worse than the best. Every pair of methods is tested as for the differences, and
            Holm's correction counts all pairs and metrics, since which method is the best is known only afterwards.
        grouped_by (str): ``label`` if images are grouped by label, ``target`` if no image has a label.
        classes (tuple of Group): Results per class, by ascending index.
        costs (dict of str to Cost): The work of each method that has a result, over all images.
        errors (tuple of Record): The records with failures.
    """

    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    reference: str
    overall: Group
    leading: dict[str, set[str]]
    grouped_by: GroupedBy
    classes: tuple[Group, ...]
    costs: dict[str, Cost]
    errors: tuple[Record, ...]

    @property
    def failures(self) -> list[tuple[Record, str | None, Failure]]:
        """Each failure with its record, and its metric; None if the image or the method failed."""
        return [(record, metric, failure) for record in self.errors for metric, failure in record.failures]

    @property
    def tests(self) -> int:
        """The number of tested differences over all images, which Holm's correction counts."""
        differences = [each for of_metric in self.overall.differences.values() for each in of_metric.values()]
        return sum(difference.p_value is not None for difference in differences)


def summarize(records: Sequence[Record], settings: RunSettings, reference: str | None = None) -> Summary:
    """Summarises the records of a run.

    An image for which a metric is undefined does not count for that metric; differences count the images for which
    both methods have a value.

    Args:
        records (sequence of Record): From `read_records`; curves are not needed.
        settings (RunSettings): From `read_settings`, for the names of methods and metrics.
        reference (str, optional): The method that the others are compared with. Default: None, score_cam if it ran,
            otherwise the first method.

    Returns:
        Summary: The means, differences and errors.

    Raises:
        ValueError: If the reference is not one of the run's methods.
    """
    add_known_metrics(settings.metric_options)  # whose directions count
    methods, metrics = settings.methods, settings.metrics
    reference = _checked_reference(reference, methods)
    results = [record for record in records if record.error is None]
    grouped_by: GroupedBy = "target" if all(record.label is None for record in results) else "label"
    table = ValueTable(results, settings, reference)
    overall = table.group(ALL_IMAGES, list(table.rows.values()), tested=True)
    classes = tuple(table.group(name, rows) for name, rows in _rows_by_class(results, grouped_by, table.rows).items())
    errors = tuple(record for record in records if record.failures)
    costs = {method: _cost(of_method) for method in methods if (of_method := _of_method(results, method))}
    return Summary(
        methods, metrics, reference, overall, table.leading(overall.means), grouped_by, classes, costs, errors
    )


def _of_method(records: Sequence[Record], method: str) -> list[Record]:
    return [record for record in records if record.method == method]


def _cost(records: Sequence[Record]) -> Cost:
    forwards = [record.forwards or 0 for record in records]
    errors = [record.map_error for record in records if record.map_error is not None]
    if not errors:
        return Cost(fmean(forwards), max(forwards), None, None)
    return Cost(fmean(forwards), max(forwards), fmean(errors), max(errors), len(records) - len(errors))


def _checked_reference(reference: str | None, methods: Sequence[str]) -> str:
    if reference is None:
        return PREFERRED_REFERENCE if PREFERRED_REFERENCE in methods else methods[0]
    if reference not in methods:
        raise ValueError(f"Expected `reference` to be one of {', '.join(methods)}, but got {reference!r}.")
    return reference


class ValueTable:
    """The values of a run, images × methods × metrics, NaN where a metric is undefined."""

    def __init__(self, records: Sequence[Record], settings: RunSettings, reference: str) -> None:
        methods, metrics = settings.methods, settings.metrics
        self.methods, self.metrics, self.reference = methods, metrics, reference
        self._ranges = [range_of(metric, settings.score) for metric in metrics]
        self.rows = {index: row for row, index in enumerate(dict.fromkeys(record.index for record in records))}
        self.values = np.full((len(self.rows), len(methods), len(metrics)), np.nan)
        points = best_points(records, best_of_curves(metrics))
        for record in records:
            found = at_best_points(record, points).values
            values = [found.get(metric) for metric in metrics]
            row, method = self.rows[record.index], methods.index(record.method)
            self.values[row, method] = [np.nan if value is None else value for value in values]

    def group(self, name: str, rows: Sequence[int], *, tested: bool = False) -> Group:
        """Returns the means over some rows, and the differences from the reference."""
        values = self.values[rows]
        others = [number for number, method in enumerate(self.methods) if method != self.reference]
        differences = paired_differences(values[:, others], values[:, [self.methods.index(self.reference)]])
        means = estimates(_flat(values), self._ranges * len(self.methods))
        return Group(
            name,
            len(rows),
            self._by_name(means, self.methods),
            self._by_name(compared(_flat(differences), tested=tested), [self.methods[number] for number in others]),
        )

    def leading(self, means: Estimates) -> dict[str, set[str]]:
        """Returns the leading methods of each metric, from the means over all images."""
        pairs = [*itertools.combinations(range(len(self.methods)), 2)]
        firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
        differences = compared(_flat(paired_differences(self.values[:, firsts], self.values[:, seconds])))
        of_pairs = self._by_name(differences, [(self.methods[first], self.methods[second]) for first, second in pairs])
        return {
            metric: leading_methods(
                metric,
                {method: of_method[metric].mean for method, of_method in means.items()},
                {pair: of_pair[metric] for pair, of_pair in of_pairs.items()},
            )
            for metric in self.metrics
        }

    def _by_name(self, columns: Sequence[_Column], names: Sequence[_Name]) -> dict[_Name, dict[str, _Column]]:
        each = iter(columns)
        return {name: {metric: next(each) for metric in self.metrics} for name in names}


def _flat(values: Values) -> Values:
    """Returns a column for each method and metric."""
    return values.reshape(len(values), values.shape[1] * values.shape[2])


def _rows_by_class(records: Sequence[Record], grouped_by: GroupedBy, rows: Mapping[int, int]) -> dict[str, list[int]]:
    rows_of: dict[int, dict[int, None]] = {}  # each row once
    for record in records:
        index = record.label if grouped_by == "label" else record.target
        if index is not None:
            rows_of.setdefault(index, {})[rows[record.index]] = None
    names = class_names(records)
    return {class_title(index, names): list(rows_of[index]) for index in sorted(rows_of)}


def class_names(records: Sequence[Record]) -> dict[int, str]:
    """Returns the names of the explained classes and those of labels, by index."""
    named = [
        pair for record in records for pair in ((record.target, record.target_name), (record.label, record.label_name))
    ]
    return {index: name for index, name in named if index is not None and name is not None}


def class_title(index: int, names: Mapping[int, str]) -> str:
    """Returns a class's name and index, since several classes can have the same name."""
    return f"{names[index]} ({index})" if index in names else class_name(index, None)


def write_summary(summary: Summary, run: Path) -> None:
    """Writes ``summary.json`` and ``summary.csv`` to a run's folder; the same records give identical files.

    The CSV file has a row for each class (``all`` first), method and metric. Names that a spreadsheet would run as a
    formula begin with an apostrophe.

    Args:
        summary (Summary): The summary.
        run (Path): The run's folder.

    Raises:
        OSError: If a file can't be written; an existing file is unchanged.
    """
    plain = json.dumps(_plain(summary), indent=2, ensure_ascii=False)
    # Names need not be valid Unicode: JSON has escapes for what UTF-8 lacks.
    write_durably(run / "summary.json", f"{plain}\n".encode(errors="backslashreplace"))
    write_durably(run / "summary.csv", _table_text(summary).encode(errors="replace"))


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "methods": summary.methods,
        "metrics": summary.metrics,
        "reference": summary.reference,
        "interval": {"level": LEVEL, "bootstrap_resamples": RESAMPLES, "seed": SEED},
        "test": {
            "fewest_pairs": FEWEST_TESTED,
            "most_exact_pairs": MOST_ENUMERATED,
            "most_flipped_pairs": MOST_FLIPPED,
            "flips_per_comparison": FLIPS_PER_TEST,
            "seed": SEED,
            "correction": "holm",
            "comparisons": summary.tests,
        },
        "errors": len(summary.failures),
        "leading": {metric: sorted(leading) for metric, leading in summary.leading.items()},
        "costs": {method: asdict(cost) for method, cost in summary.costs.items()},
        "all": _plain_group(summary.overall),
        "grouped_by": summary.grouped_by,
        "classes": {group.name: _plain_group(group) for group in summary.classes},
    }


def _plain_group(group: Group) -> dict[str, Any]:
    plain = asdict(group)
    del plain["name"]
    return plain


def text_cell(text: str) -> str:
    """Returns a text as one line for a CSV file, with an apostrophe if a spreadsheet would run it as a formula."""
    is_formula = any(beginning.startswith(_BEGINNINGS_OF_FORMULAS) for beginning in (text, text.lstrip()))
    line = text.translate(str.maketrans("\r\n", "  "))
    return f"'{line}" if is_formula else line


def _table_text(summary: Summary) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for group in (summary.overall, *summary.classes):
        for method in summary.methods:
            for metric in summary.metrics:
                mean = group.means[method][metric]
                difference = group.differences.get(method, {}).get(metric)
                compared_to = [""] * 8 if difference is None else [summary.reference, *_difference_cells(difference)]
                table.writerow([text_cell(group.name), method, metric, *_cells(mean), *compared_to])
    return text.getvalue()


def _cells(estimate: Estimate) -> tuple[float | None, float | None, float | None, int]:
    return estimate.mean, estimate.low, estimate.high, estimate.n


def _difference_cells(difference: Difference) -> tuple[float | None, ...]:
    return *_cells(difference), difference.effect_size, difference.p_value, difference.corrected_p_value
