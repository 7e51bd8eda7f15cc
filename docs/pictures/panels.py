"""Photographs and maps side by side, with a title above each, as small PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from captum.attr import visualization
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from captum_scorecam.masking.scaling import min_max_normalize

FOLDER = Path(__file__).parent
DPI = 96


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        title (str): The line above it.
        subtitle (str): A smaller line under the title.
        pixels (Tensor): H×W×3 or H×W, in [0, 1].
        values (Tensor, optional): A map H×W, drawn over the grey image. Default: None, the image alone.
        box (tuple of int, optional): x1, y1, x2, y2 of a frame. Default: None.
    """

    title: str
    subtitle: str
    pixels: Tensor
    values: Tensor | None = None
    box: tuple[int, int, int, int] | None = None


def draw_panels(panels: Sequence[Panel], columns: int) -> Figure:
    """Draws panels row by row, `columns` to a row."""
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(8, (8 / columns + 0.55) * rows), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, panel in zip(axes.flat, panels, strict=False):
        draw_panel(ax, panel)
    return figure


def draw_panel(ax: object, panel: Panel) -> None:
    """Draws one panel."""
    pixels = panel.pixels.numpy()
    if panel.values is None:
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=1)
    else:
        scaled = min_max_normalize(panel.values[None, None])[0, 0].unsqueeze(2).numpy()
        visualization.visualize_image_attr(
            scaled,
            np.ascontiguousarray(pixels),
            method="blended_heat_map",
            sign="positive",
            plt_fig_axis=(ax.figure, ax),
            cmap="inferno",
            alpha_overlay=0.6,
            use_pyplot=False,
        )
    if panel.box is not None:
        x1, y1, x2, y2 = panel.box
        ax.add_patch(Rectangle((x1, y1), x2 - x1 - 1, y2 - y1 - 1, fill=False, edgecolor="white", linewidth=1.5))
    ax.set_axis_off()
    ax.set_title(f"{panel.title}\n", loc="left", fontsize=9, fontweight="bold")
    ax.text(0, 1.03, panel.subtitle, transform=ax.transAxes, fontsize=8, color="#555555", parse_math=False)


def write(figure: Figure, name: str) -> None:
    """Writes a figure as a PNG of 256 colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB").quantize(256, kmeans=3)
    picture.save(FOLDER / f"{name}.png", optimize=True)
