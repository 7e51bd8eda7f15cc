"""The tables of a summary on the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from captum_scorecam.evaluation.intervals import Estimate
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
from captum_scorecam.evaluation.summary import Estimates, Summary

_WIDTH = 160  # where the output goes to a file
_ARROWS = {True: " ↑", False: " ↓", None: ""}


def print_summary(summary: Summary) -> None:
    """Prints the means of all images with their intervals, the best in bold, then the differences to the reference.

    Args:
        summary (Summary): What to print.
    """
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    images = summary.overall.images
    title = f"Means over {images} image{'' if images == 1 else 's'}, 95 % bootstrap intervals, ↑ higher is better"
    console.print(_means(summary, title))
    if summary.overall.differences:
        reference = method_title(summary.reference)
        console.print(_differences(summary, f"Differences to {reference} on the same images: * the interval excludes 0"))
    if summary.errors:
        console.print(Text(f"{len(summary.errors)} failed; records/ and the report say what and why."))


def _means(summary: Summary, title: str) -> Table:
    table = _table(summary, title)
    best = {measure: best_methods(summary.overall, measure) for measure in summary.measures}
    for method, of_measure in summary.overall.means.items():
        cells = [
            _cell(estimate, _places(summary.overall.means, measure), "bold" if method in best[measure] else "")
            for measure, estimate in of_measure.items()
        ]
        table.add_row(Text(method_title(method)), *cells)
    return table


def _differences(summary: Summary, title: str) -> Table:
    table = _table(summary, title)
    for method, of_measure in summary.overall.differences.items():
        cells = [
            _cell(estimate, _places(summary.overall.means, measure), signed=True, marked=bool(verdict(estimate, measure)))
            for measure, estimate in of_measure.items()
        ]
        table.add_row(Text(method_title(method)), *cells)
    return table


def _table(summary: Summary, title: str) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("Method", no_wrap=True)
    for measure in summary.measures:
        counts = {of_measure[measure].n for of_measure in summary.overall.means.values()}
        n = "–".join(str(count) for count in sorted({min(counts), max(counts)}))
        heading = Text(f"{measure_title(measure)}{_ARROWS[higher_is_better(measure)]}\nn {n}")
        table.add_column(heading, justify="right")
    return table


def _cell(estimate: Estimate, places: int, style: str = "", *, signed: bool = False, marked: bool = False) -> Text:
    mean = number_text(estimate.mean, places, signed=signed) + "*" * marked
    return Text.assemble((mean, style), f"\n{interval_text(estimate, places)}")


def _places(means: Estimates, measure: str) -> int:
    return decimals(of_measure[measure].mean for of_measure in means.values())
