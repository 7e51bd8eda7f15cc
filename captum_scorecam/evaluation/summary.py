"""The records of a run as means with intervals: over all images, paired against a reference method, and per class."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.statistics import LEVEL, RESAMPLES, SEED, Estimate, Values, estimates

Record = Mapping[str, Any]
Estimates = dict[str, dict[str, Estimate]]  # by method and measure

PREFERRED_REFERENCE = "score_cam"
ALL_IMAGES = "all"
_COLUMNS = (
    *("class", "method", "measure", "mean", "low", "high", "n"),
    *("reference", "difference", "difference_low", "difference_high", "pairs"),
)


@dataclass(frozen=True)
class Group:
    """Some images, measured.

    Attributes:
        name (str): The class's name, or ``all``.
        images (int): How many images have a record.
        means (dict): An estimate for each method and measure.
        differences (dict): The same for the method's value less the reference's, over the images where both have one.
            The reference itself is left out.
    """

    name: str
    images: int
    means: Estimates
    differences: Estimates


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        methods (tuple of str): In the order of the configuration.
        measures (tuple of str): In the order of the configuration.
        reference (str): The method that the others are compared to.
        overall (Group): All images.
        grouped_by (str): What the classes are: ``label``, or ``target`` where no image has a label.
        classes (tuple of Group): Each class, in the order of the class indices.
        errors (tuple of dict): The records of what failed.
    """

    methods: tuple[str, ...]
    measures: tuple[str, ...]
    reference: str
    overall: Group
    grouped_by: str
    classes: tuple[Group, ...]
    errors: tuple[Record, ...]


def summarize(records: Sequence[Record], asked: Mapping[str, Any], reference: str | None = None) -> Summary:
    """Summarises the records of a run.

    A measure that does not apply to an image (its value is null) leaves that image out of the mean and out of its n;
    a pair counts where both methods have a value.

    Args:
        records (sequence of dict): What `read_records` returned.
        asked (dict): The ``asked`` of its configuration, of which ``methods`` and ``measures`` are read.
        reference (str, optional): The method that the others are compared to. Default: None, score_cam where it ran,
            else the first.

    Returns:
        Summary: The means, differences and errors.

    Raises:
        ValueError: If the reference is not one of the run's methods.
    """
    methods, measures = tuple(asked["methods"]), tuple(asked["measures"])
    reference = _checked_reference(reference, methods)
    measured = [record for record in records if not record.get("error")]
    grouped_by = "label" if any(record.get("label") is not None for record in measured) else "target"
    table = _Table(measured, methods, measures, methods.index(reference))
    overall = table.group(ALL_IMAGES, list(table.rows.values()))
    classes = tuple(table.group(name, rows) for name, rows in _rows_by_class(measured, grouped_by, table.rows).items())
    errors = tuple(record for record in records if record.get("error"))
    return Summary(methods, measures, reference, overall, grouped_by, classes, errors)


def _checked_reference(reference: str | None, methods: Sequence[str]) -> str:
    if reference is None:
        return PREFERRED_REFERENCE if PREFERRED_REFERENCE in methods else methods[0]
    if reference not in methods:
        raise ValueError(f"Expected `--reference` to be one of {', '.join(methods)}, but got {reference!r}.")
    return reference


class _Table:
    """The values of a run, images × methods × measures, NaN where there is none."""

    def __init__(
        self, records: Sequence[Record], methods: Sequence[str], measures: Sequence[str], reference: int
    ) -> None:
        self.methods, self.measures, self.reference = methods, measures, reference
        self.rows = {image: row for row, image in enumerate(dict.fromkeys(record["image"] for record in records))}
        self.values = np.full((len(self.rows), len(methods), len(measures)), np.nan)
        for record in records:
            row, method = self.rows[record["image"]], methods.index(record["method"])
            self.values[row, method] = [_finite(record["values"].get(measure)) for measure in measures]

    def group(self, name: str, rows: Sequence[int]) -> Group:
        values = self.values[rows]
        means = self._estimates(values)
        differences = self._estimates(values - values[:, self.reference : self.reference + 1])
        del differences[self.methods[self.reference]]
        return Group(name, len(rows), means, differences)

    def _estimates(self, values: Values) -> Estimates:
        of_columns = iter(estimates(values.reshape(len(values), len(self.methods) * len(self.measures))))
        return {method: {measure: next(of_columns) for measure in self.measures} for method in self.methods}


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else math.nan


def _rows_by_class(records: Sequence[Record], grouped_by: str, rows: Mapping[str, int]) -> dict[str, list[int]]:
    of_class: dict[int, dict[int, None]] = {}  # the rows of each class, each once
    for record in records:
        if record.get(grouped_by) is not None:
            of_class.setdefault(record[grouped_by], {})[rows[record["image"]]] = None
    names = class_names(records)
    return {class_title(index, names): list(of_class[index]) for index in sorted(of_class)}


def class_names(records: Sequence[Record]) -> dict[int, str]:
    """Returns the names of the classes that some image was explained for."""
    return {record["target"]: record["target_name"] for record in records if record.get("target_name")}


def class_title(index: int, names: Mapping[int, str]) -> str:
    """Returns a class's name with its index, which tells two classes of one name apart."""
    return f"{names[index]} ({index})" if index in names else f"class {index}"


def write_summary(summary: Summary, run: Path) -> None:
    """Writes ``summary.json`` and ``summary.csv`` into a run's folder; a rerun writes them identically.

    The CSV has a row for each class (``all`` first), method and measure.

    Args:
        summary (Summary): What to write.
        run (Path): The folder.

    Raises:
        OSError: If a file can't be written; what stood there is as it was.
    """
    plain = json.dumps(_plain(summary), indent=2, ensure_ascii=False)
    write_durably(run / "summary.json", f"{plain}\n".encode())
    write_durably(run / "summary.csv", _table_text(summary).encode())


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "methods": summary.methods,
        "measures": summary.measures,
        "reference": summary.reference,
        "interval": {"level": LEVEL, "bootstrap_resamples": RESAMPLES, "seed": SEED},
        "errors": len(summary.errors),
        "all": _plain_group(summary.overall),
        "grouped_by": summary.grouped_by,
        "classes": {group.name: _plain_group(group) for group in summary.classes},
    }


def _plain_group(group: Group) -> dict[str, Any]:
    plain = asdict(group)
    del plain["name"]
    return plain


def _table_text(summary: Summary) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for group in (summary.overall, *summary.classes):
        for method in summary.methods:
            for measure in summary.measures:
                mean = group.means[method][measure]
                difference = group.differences.get(method, {}).get(measure)
                compared = [] if difference is None else [summary.reference, *_cells(difference)]
                table.writerow([group.name, method, measure, *_cells(mean), *(compared or [""] * 5)])
    return text.getvalue()


def _cells(estimate: Estimate) -> tuple[float | None, float | None, float | None, int]:
    return estimate.mean, estimate.low, estimate.high, estimate.n
