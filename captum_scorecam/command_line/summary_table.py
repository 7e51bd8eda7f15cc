"""The tables printed by ``evaluate``."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from captum_scorecam.command_line.tables import plain_table, printable, stdout_console
from captum_scorecam.evaluation import Difference, Failure, Record, Summary
from captum_scorecam.evaluation.presentation import (
    budget_texts,
    decimals,
    evidence_text,
    interval_text,
    method_title,
    metric_title,
    number_text,
    title_and_unit,
)
from captum_scorecam.evaluation.statistics import FEWEST_TESTED
from captum_scorecam.evaluation.summary import Differences, Estimates
from captum_scorecam.evaluation.verdicts import higher_is_better, verdict

_WIDTH = 160  # if the output is not a terminal
_MOST_FAILURES = 5
_ARROWS = {True: " ↑", False: " ↓", None: ""}


def print_summary(summary: Summary) -> None:
    """Prints the means over all images with intervals, the differences from the reference method, and failures."""
    console = stdout_console(_WIDTH)
    overall = summary.overall
    if overall.images > 0 or not summary.errors:
        has_bold = console.is_terminal and any(summary.leading.values())
        bold = "; in bold the best, and those that no test finds worse" if has_bold else ""
        console.print(Text(f"Means over {overall.images} images with 95 % intervals; ↑ higher is better{bold}"))
        console.print(_table(summary, overall.means))
        if overall.differences:
            reference = method_title(summary.reference)
            console.print(Text(f"Differences from {reference} on the same images; {_test(summary)}"))
            console.print(_table(summary, overall.differences, signed=True))
        for line in budget_texts(summary):
            console.print(Text(line))
    for line in _failures(summary):
        console.print(Text(line))


def _test(summary: Summary) -> str:
    if summary.tests == 0:
        return f"not tested, which takes {FEWEST_TESTED} images"
    corrected = f", Holm-corrected for {summary.tests} comparisons" if summary.tests > 1 else ""
    return f"d in standard deviations, p of a paired test{corrected}; * p ≤ 0.05"


def _failures(summary: Summary) -> Iterator[str]:
    """Yields the first failures, or only the first if everything failed, as the others are likely the same."""
    failures = summary.failures
    if not failures:
        return
    if summary.overall.images == 0:
        yield f"All images failed. The first: {_failure(*failures[0])}"
    else:
        yield f"Failed: {len(failures)}"
        yield from (f"  {_failure(*failed)}" for failed in failures[:_MOST_FAILURES])
        if len(failures) > _MOST_FAILURES:
            yield f"  and {len(failures) - _MOST_FAILURES} more; `captum-scorecam report --format csv` lists all"
    yield "To try again, run the same command with --retry-errors."


def _failure(record: Record, metric: str | None, failure: Failure) -> str:
    parts = [record.image]
    parts += [] if record.method is None else [method_title(record.method)]
    parts += [] if metric is None else [title_and_unit(metric)[0]]
    return printable(f"{', '.join(parts)}: {failure.message or failure.type}")


def _table(summary: Summary, rows: Estimates | Differences, *, signed: bool = False) -> Table:
    table = _empty_table(summary, rows)
    means = summary.overall.means
    places = {m: decimals(of_metric[m].mean for of_metric in means.values()) for m in summary.metrics}
    best = {} if signed else summary.leading
    for method, of_metric in rows.items():
        cells = []
        for metric, estimate in of_metric.items():
            mark = "*" if isinstance(estimate, Difference) and verdict(estimate, metric) else ""
            text = number_text(estimate.mean, places[metric], signed=signed) + mark
            style = "bold" if method in best.get(metric, ()) else ""
            evidence = evidence_text(estimate) if isinstance(estimate, Difference) else ""
            lines = [line for line in (interval_text(estimate, places[metric]), evidence) if line]
            cells.append(Text.assemble((text, style), *(f"\n{line}" for line in lines)))
        table.add_row(Text(method_title(method)), *cells)
    return table


def _empty_table(summary: Summary, rows: Estimates | Differences) -> Table:
    table = plain_table()
    table.add_column("Method", no_wrap=True)
    for metric in summary.metrics:
        counts = {of_metric[metric].n for of_metric in rows.values()}
        n = "–".join(str(count) for count in sorted({min(counts), max(counts)}))
        heading = Text(f"{metric_title(metric)}{_ARROWS[higher_is_better(metric)]}\nn {n}")
        table.add_column(heading, justify="right")
    return table
