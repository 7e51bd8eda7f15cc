"""A run in other formats: a table for a paper, the values of each image, and the mean curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined

from captum_scorecam._extras import import_extra
from captum_scorecam._messages import check_choice
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.mean_curves import mean_curves
from captum_scorecam.evaluation.presentation import (
    decimals,
    interval_text,
    method_title,
    metric_title,
    number_text,
    unmarked_text,
)
from captum_scorecam.evaluation.record_files import iterate_records, read_records, read_times, unfinished_images
from captum_scorecam.evaluation.records import Record, RunSettings
from captum_scorecam.evaluation.report.curves import draw_curves
from captum_scorecam.evaluation.settings import CONFIGURATION, read_configuration
from captum_scorecam.evaluation.summary import Summary, summarize, text_cell
from captum_scorecam.evaluation.verdicts import higher_is_better

Format: TypeAlias = Literal["latex", "markdown", "csv", "parquet", "svg", "pdf"]

DEFAULT_FILES: Final = {
    "latex": "table.tex",
    "markdown": "table.md",
    "csv": "values.csv",
    "parquet": "values.parquet",
    "svg": "curves.svg",
    "pdf": "curves.pdf",
}
_TEMPLATES: Final = {"latex": "table.tex.j2", "markdown": "table.md.j2"}
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "−": "$-$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "–": "--",
        **{character: f"\\{character}" for character in "&%$#_{}"},
    }
)
_MARKDOWN = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>|#$&~"})
_COLUMNS: Final = {
    "image": str,
    "index": int,
    "method": str,
    "error": str,
    "target": int,
    "target_name": str,
    "label": int,
    "predicted": int,
    "correct": bool,
    "probability": float,
    "forwards": int,
    "map_error": float,
    "region": str,
    "seconds": float,
}


def export_run(run: Path | str, file_format: Format, output: Path | str | None = None) -> Path:
    """Writes a run's results in another format.

    ``latex`` and ``markdown`` are the table of means with their intervals. In bold, per metric, are the best mean and
    those that no paired test finds worse; none where no method is found worse than the best. ``csv`` and ``parquet``
    have a row for each image and method, with a column for each metric, the target, the seconds of the map, and the
    error of a failed one; the forward passes that methods share count as seconds of the first of them. ``svg`` and
    ``pdf`` are the mean curves.

    Args:
        run (Path or str): The run's folder.
        file_format (str): ``latex``, ``markdown``, ``csv``, ``parquet``, ``svg`` or ``pdf``.
        output (Path or str, optional): The file to write. Default: None, ``table``, ``values`` or ``curves`` in the
            run's folder.

    Returns:
        Path: The file.

    Raises:
        ValueError: If the format is unknown, there is no run, it has no records yet, or no curves, or `output` has
            another format's suffix or is the summary of a run.
        ModuleNotFoundError: For ``parquet`` without pyarrow.
        OSError: If the file can't be written; an existing file is unchanged.
    """
    check_choice("file_format", file_format, Format)
    run = Path(run)
    default = run / DEFAULT_FILES[file_format]
    output = default if output is None else Path(output)
    if output.suffix.lower() != default.suffix:
        raise ValueError(f"Expected `output` to end in {default.suffix}, but got {str(output)!r}.")
    if output.name == "summary.csv" and (output.parent / CONFIGURATION).exists():
        raise ValueError(f"Expected `output` to be another file than the summary of a run, but got {str(output)!r}.")
    settings = read_configuration(run).settings
    records = read_records(run, curves=False)
    if not records:
        raise ValueError(f"Expected a run with records, but {str(run)!r} has none yet.")
    if file_format == "csv":
        content = _csv(list(_values(records, settings, run)), settings)
    elif file_format == "parquet":
        content = _parquet(list(_values(records, settings, run)), settings)
    elif file_format == "latex" or file_format == "markdown":
        content = _table(records, settings, file_format).encode(errors="replace")
    else:
        content = draw_curves(mean_curves(iterate_records(run)), settings.methods, settings.metrics, file_format)
    write_durably(output, content)
    return output


def _table(records: Sequence[Record], settings: RunSettings, file_format: Literal["latex", "markdown"]) -> str:
    summary = summarize(records, settings)
    places = {
        metric: decimals(of_method[metric].mean for of_method in summary.overall.means.values())
        for metric in settings.metrics
    }
    rows = [
        {
            "title": method_title(method),
            "cells": [
                {
                    "mean": number_text(estimate.mean, places[metric]),
                    "interval": interval_text(estimate, places[metric]),
                    "leads": method in summary.leading[metric],
                }
                for metric, estimate in summary.overall.means[method].items()
            ],
        }
        for method in settings.methods
    ]
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=False,  # neither format is HTML; `escaped` is applied to each text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        keep_trailing_newline=True,
    )
    characters = _LATEX if file_format == "latex" else _MARKDOWN
    environment.filters["escaped"] = lambda text: " ".join(text.split()).translate(characters)
    return environment.get_template(_TEMPLATES[file_format]).render(
        settings=settings,
        images=summary.overall.images,
        metrics=[(metric_title(metric), higher_is_better(metric)) for metric in settings.metrics],
        rows=rows,
        has_leading=any(summary.leading.values()),
        notes=_notes_on_n(records, summary, settings),
    )


def _notes_on_n(records: Sequence[Record], summary: Summary, settings: RunSettings) -> list[str]:
    """Says which means are over fewer images than the run has."""
    images, notes = summary.overall.images, []
    if unfinished := unfinished_images(records, settings):
        notes.append(f"Not finished: {settings.images - unfinished} of {settings.images} images.")
    if text := unmarked_text(summary.metrics):
        notes.append(text)
    if summary.errors:
        notes.append(f"Failures, which are left out: {len(summary.failures)}.")
    for metric in summary.metrics:
        numbers = sorted({of_method[metric].n for of_method in summary.overall.means.values()})
        if numbers != [images]:
            notes.append(f"{metric_title(metric)}: n {'–'.join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))}.")
    return notes


def _values(records: Sequence[Record], settings: RunSettings, run: Path) -> Iterator[dict[str, Any]]:
    # A method that failed took no time; after its records were repeated by another rank, it may come last.
    known = (times for times in read_times(run) if times.attribution is not None)
    seconds = {(times.index, times.method): times.attribution for times in known}
    metrics = _metric_columns(settings)
    for record in records:
        texts = [str(failure) if metric is None else f"{metric}: {failure}" for metric, failure in record.failures]
        row = {name: getattr(record, name) for name in _COLUMNS if name not in ("error", "seconds")}
        row |= {"error": "; ".join(texts) or None, "seconds": seconds.get((record.index, record.method))}
        yield row | {column: record.values.get(metric) for metric, column in metrics.items()}


def _metric_columns(settings: RunSettings) -> dict[str, str]:
    """The column of each metric; one with the name of another column gets a prefix."""
    return {metric: f"metric_{metric}" if metric in _COLUMNS else metric for metric in settings.metrics}


def _csv(rows: Sequence[dict[str, Any]], settings: RunSettings) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = [*_COLUMNS, *_metric_columns(settings).values()]
    table.writerow(columns)
    for row in rows:
        table.writerow([text_cell(row[name]) if isinstance(row[name], str) else row[name] for name in columns])
    return text.getvalue().encode(errors="replace")


def _parquet(rows: Sequence[dict[str, Any]], settings: RunSettings) -> bytes:
    pa, parquet = (import_extra(name, "parquet", "The format parquet") for name in ("pyarrow", "pyarrow.parquet"))
    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = [(name, types[kind]) for name, kind in _COLUMNS.items()]
    columns += [(name, pa.float64()) for name in _metric_columns(settings).values()]
    valid = [{name: _valid(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]
    file = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(valid, pa.schema(columns)), file)
    content: bytes = file.getvalue().to_pybytes()
    return content


def _valid(text: str) -> str:
    return text.encode(errors="replace").decode()  # file names need not be valid Unicode
