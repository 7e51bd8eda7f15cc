"""The tables of a summary on the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    overall = summary.overall
    title = f"Means, images: {overall.images}; 95 % bootstrap intervals; ↑ higher is better, the best in bold"
    console.print(_filled(_table(summary, title), summary, overall.means))
    if overall.differences:
        title = f"Differences to {method_title(summary.reference)} on the same images; * the interval excludes 0"
        console.print(_filled(_table(summary, title), summary, overall.differences, signed=True))
    if summary.errors:
        console.print(Text(f"Failed: {len(summary.errors)}. The records and the report say what and why."))


def _filled(table: Table, summary: Summary, rows: Estimates, *, signed: bool = False) -> Table:
    means = summary.overall.means
    places = {m: decimals(of_measure[m].mean for of_measure in means.values()) for m in summary.measures}
    best = {} if signed else {measure: best_methods(summary.overall, measure) for measure in summary.measures}
    for method, of_measure in rows.items():
        cells = []
        for measure, estimate in of_measure.items():
            mark = "*" if signed and verdict(estimate, measure) else ""
            text = number_text(estimate.mean, places[measure], signed=signed) + mark
            style = "bold" if method in best.get(measure, ()) else ""
            cells.append(Text.assemble((text, style), f"\n{interval_text(estimate, places[measure])}"))
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
