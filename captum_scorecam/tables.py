"""The table of explanations on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from captum_scorecam.explanation import LAYER_GRAD_CAM, TOKEN_GRAD_CAM, ClassExplanation, ImageExplanation

_COLUMNS = ("Image", "Class", "Method", "Forwards", "Skipped:\nconstant + shared", "Seconds")
_RIGHT = ("Forwards", "Seconds")
_WRAPPED = ("Image", "Class")
_AS_ABOVE = "same"
_GRAD_CAM_FORWARDS = {LAYER_GRAD_CAM: "1", TOKEN_GRAD_CAM: "2"}
_WIDTH = 120  # where the output goes to a file


def print_explanations(explanations: Sequence[ImageExplanation], heading: str) -> None:
    """Prints what was explained and what it cost: two rows, LayerGradCam's and ScoreCAM's, for each class.

    Args:
        explanations (sequence of ImageExplanation): The images.
        heading (str): The line above the table.
    """
    table = Table(title=Text(heading), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "right" if column in _RIGHT else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in _WRAPPED)
    for explanation in explanations:
        for position, shown in enumerate(explanation.classes):
            for row in _rows(explanation, shown, first=position == 0):
                table.add_row(*(Text(cell) for cell in row))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else _WIDTH).print(table)


def _rows(explanation: ImageExplanation, shown: ClassExplanation, first: bool) -> list[tuple[str, ...]]:
    run = explanation.run
    image = explanation.image_name if first else ""
    cost = (str(run.rows), f"{run.constant} + {run.shared} of {run.channels}", f"{explanation.score_cam_seconds:.2f}")
    grad_cam_cost = (_GRAD_CAM_FORWARDS[explanation.grad_cam_name], "", f"{shown.grad_cam_seconds:.2f}")
    return [
        (image, f"{shown.name} ({shown.index})", explanation.grad_cam_name, *grad_cam_cost),
        ("", f"{shown.role}, {shown.probability:.1%}", "ScoreCAM", *(cost if first else (_AS_ABOVE,) * 3)),
    ]
