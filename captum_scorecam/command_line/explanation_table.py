"""The table printed by ``explain``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeAlias

from rich.text import Text

from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.command_line.tables import PlainTable, plain_table, stdout_console
from captum_scorecam.evaluation import MethodRun
from captum_scorecam.evaluation.presentation import error_text, method_title

_COLUMNS = ("Image", "Class", "Method", "Forwards", "Skipped channels:\nconstant + shared", "Seconds")
_OF_PREDICTED_SCORES = "Error"
_RIGHT = ("Forwards", "Seconds", _OF_PREDICTED_SCORES)
_WRAPPED = ("Image", "Class")
_AS_ABOVE = "same"
Rows: TypeAlias = Callable[[ImageExplanation, ClassExplanation, bool], Iterator[tuple[str, ...]]]
_WIDTH = 120  # if the output is not a terminal


def print_explanations(explanations: Sequence[ImageExplanation], heading: str) -> None:
    """Prints one row per class and method, with its cost.

    Args:
        explanations (sequence of ImageExplanation): The images.
        heading (str): The line above the table.
    """
    console = stdout_console(_WIDTH)
    table = _table(explanations, _rows)
    console.print(Text(heading))
    console.print(table if table.fits(console) else _table(explanations, _rows_of_list))


def _table(explanations: Sequence[ImageExplanation], rows: Rows) -> PlainTable:
    table = plain_table()
    has_errors = any(shown.errors for explanation in explanations for shown in explanation.classes)
    columns = (*_COLUMNS, _OF_PREDICTED_SCORES) if has_errors else _COLUMNS
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in _WRAPPED)
    for explanation in explanations:
        for position, shown in enumerate(explanation.classes):
            for row in rows(explanation, shown, position == 0):
                table.add_row(*(Text(cell) for cell in row[: len(columns)]))
        table.add_section()
    return table


def _rows(explanation: ImageExplanation, shown: ClassExplanation, first: bool) -> Iterator[tuple[str, ...]]:
    """Yields rows of which the first names the image and the class, and the second the class's score."""
    labels = [f"{shown.name} ({shown.index})", shown.reason]
    runs = explanation.runs
    labels = ["\n".join(labels)] if len(runs) == 1 else labels + [""] * (len(runs) - 2)
    images = [explanation.image_name if first else ""] + [""] * (len(runs) - 1)
    for image, label, (method, run) in zip(images, labels, runs.items(), strict=True):
        yield image, label, method_title(method), *_cost(run, first), _error(shown, method)


def _rows_of_list(explanation: ImageExplanation, shown: ClassExplanation, first: bool) -> Iterator[tuple[str, ...]]:
    """Yields rows that each name the image, the class and its score, as the lines of a list are far apart."""
    label = f"{shown.name} ({shown.index}), {shown.reason}"
    for method, run in explanation.runs.items():
        yield explanation.image_name, label, method_title(method), *_cost(run, first), _error(shown, method)


def _cost(run: MethodRun, first: bool) -> tuple[str, ...]:
    """Returns the cost of a run, which explains all classes of an image, in the columns of its first class."""
    channels = run.channels
    skipped = "" if channels is None else f"{channels.constant} + {channels.shared} of {channels.channels}"
    cost = (str(run.forwards), skipped, f"{run.seconds:.2f}")
    return cost if first else tuple(cell and _AS_ABOVE for cell in cost)


def _error(shown: ClassExplanation, method: str) -> str:
    return error_text(shown.errors[method].largest) if method in shown.errors else ""
