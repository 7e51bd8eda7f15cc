"""Runs the command line in this process, and reads what it prints and draws."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from captum_scorecam.command_line.app import commands

COLOURS = ("--model", "tests.support.colour_classifier:with_names")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments)


def help_of(*command: str, columns: int = 80) -> str:
    return CliRunner().invoke(commands, [*command, "--help"], env={"COLUMNS": str(columns), "TERM": "dumb"}).output


def options_of(*methods: str) -> list[str]:
    return [part for method in methods for part in ("--method", method)]


def rows_of(output: str) -> list[list[str]]:
    """The cells of the table's lines, which are separated by two spaces or more."""
    table = output.split("─\n")[1].split("Picture:")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


def panels_of(figure: Figure) -> list[NDArray[np.float64]]:
    """The colours of each panel, 0 to 255, at the resolution of the image."""
    return [_colours(axes) for axes in figure.axes]


def _colours(axes: Axes) -> NDArray[np.float64]:
    """Blends the images of one panel, the last one on top."""
    blended = np.zeros(1)
    for image in axes.images:
        alpha = image.get_alpha() or 1.0
        colours = image.to_rgba(np.asarray(image.get_array()), bytes=True)[..., :3].astype(float)
        blended = (1 - alpha) * blended + alpha * colours
    return blended
