"""The table printed by ``explain``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from rich.text import Text

from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.command_line.tables import plain_table, stdout_console
from captum_scorecam.evaluation import MethodRun
from captum_scorecam.evaluation.presentation import method_title

_COLUMNS = ("Image", "Class", "Method", "Forwards", "Skipped channels:\nconstant + shared", "Seconds")
_RIGHT = ("Forwards", "Seconds")
_WRAPPED = ("Image", "Class")
_AS_ABOVE = "same"
_WIDTH = 120  # if the output is not a terminal


def print_explanations(explanations: Sequence[ImageExplanation], heading: str) -> None:
    """Prints one row per class and method, with its cost.

    Args:
        explanations (sequence of ImageExplanation): The images.
        heading (str): The line above the table.
    """
    table = plain_table()
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in _WRAPPED)
    for explanation in explanations:
        for position, shown in enumerate(explanation.classes):
            for row in _rows(explanation, shown, first=position == 0):
                table.add_row(*(Text(cell) for cell in row))
        table.add_section()
    console = stdout_console(_WIDTH)
    console.print(Text(heading))
    console.print(table)


def _rows(explanation: ImageExplanation, shown: ClassExplanation, first: bool) -> Iterator[tuple[str, ...]]:
    labels = [f"{shown.name} ({shown.index})", shown.reason]
    runs = explanation.runs
    labels = ["\n".join(labels)] if len(runs) == 1 else labels + [""] * (len(runs) - 2)
    images = [explanation.image_name if first else ""] + [""] * (len(runs) - 1)
    for image, label, (method, run) in zip(images, labels, runs.items(), strict=True):
        cost = _cost(run)
        yield image, label, method_title(method), *(cost if first else (cell and _AS_ABOVE for cell in cost))


def _cost(run: MethodRun) -> tuple[str, str, str]:
    channels = run.channels
    skipped = "" if channels is None else f"{channels.constant} + {channels.shared} of {channels.channels}"
    return str(run.forwards), skipped, f"{run.seconds:.2f}"
