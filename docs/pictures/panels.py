"""The documentation's pictures as small files in true colour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from captum_scorecam.command_line.panels import Panel, draw_panels

FOLDER = Path(__file__).parent
WIDTH, DPI = 8, 192  # twice as many pixels as the widest column of text


def figure_of(panels: Sequence[Panel], columns: int) -> Figure:
    """Draws panels row by row, `columns` to a row, as `captum-scorecam explain` does."""
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    return draw_panels(rows, width=WIDTH / columns, fontsize=9, dpi=DPI)


def frame(figure: Figure, box: tuple[int, int, int, int]) -> Figure:
    """Draws a frame, x1, y1, x2 and y2, in every panel."""
    x1, y1, x2, y2 = box
    for axes in figure.axes:
        axes.add_patch(Rectangle((x1, y1), x2 - x1 - 1, y2 - y1 - 1, fill=False, edgecolor="white", linewidth=1.5))
    return figure


def write(figure: Figure, file: str) -> None:
    """Writes a figure to a file in this folder: photographs as JPEG, charts as PNG."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.05)
    Image.open(drawn).convert("RGB").save(FOLDER / file, quality=90, optimize=True)
