"""The picture of explanations: the image and each method's map side by side, a row for each image and class."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.evaluation.methods import MethodRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _GAP, _MARGIN, _TITLES, _HEADING = 3.0, 0.15, 0.25, 0.55, 0.35  # inches, whole dots at 120 per inch
_DPI, _MOST_PIXELS = 120, 60_000  # Agg draws at most 2**16 pixels in a direction
_HEADING_CHARACTERS = 13  # per inch; more would be too small to read
_INK, _PALE_INK = "#1a1a1a", "#6b6b6b"


def draw_explanations(explanations: Sequence[ImageExplanation], heading: str) -> Figure:
    """Draws the image and each method's map side by side, a row for each image and class.

    The maps are drawn by Captum's ``visualize_image_attr``, each scaled to [0, 1] from its lowest value to its
    highest: the lowest value of RISE's map, say, is far from 0, and means nothing.

    Args:
        explanations (sequence of ImageExplanation): The images, one or more, explained by the same methods.
        heading (str): The line above all.

    Returns:
        Figure: A figure with its own Agg canvas, unknown to pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [(explanation, shown) for explanation in explanations for shown in explanation.classes]
    height = _PANEL * max(explanation.pixels.shape[0] / explanation.pixels.shape[1] for explanation in explanations)
    row_height = height + _TITLES + _GAP
    n_columns = 1 + len(explanations[0].runs)
    width = 2 * _MARGIN + n_columns * (_PANEL + _GAP) - _GAP
    size = (width, 2 * _MARGIN + _HEADING + len(rows) * row_height - _GAP)
    figure = Figure(figsize=size, dpi=min(_DPI, _MOST_PIXELS / max(size)), facecolor="white")
    FigureCanvasAgg(figure)
    most = int(_HEADING_CHARACTERS * width)
    _write(figure, _shortened(heading, most), (_MARGIN, size[1] - _MARGIN - 0.12), width - 2 * _MARGIN, color=_PALE_INK)
    for row, (explanation, shown) in enumerate(rows):
        bottom = size[1] - _MARGIN - _HEADING - (row + 1) * row_height + _GAP
        _draw_row(figure, explanation, shown, bottom, height)
    return figure


def _draw_row(
    figure: Figure, explanation: ImageExplanation, shown: ClassExplanation, bottom: float, height: float
) -> None:
    probability = f"{shown.role}, {shown.probability:.1%} · {_shortened(explanation.image_name, 30)}"
    panels: list[tuple[Tensor | None, str, str]] = [(None, shown.name, probability)]
    panels += [(shown.maps[method], run.title, _cost(explanation, run)) for method, run in explanation.runs.items()]
    width, full_height = figure.get_size_inches()
    for column, (values, title, subtitle) in enumerate(panels):
        left = _MARGIN + column * (_PANEL + _GAP)
        axes = figure.add_axes((left / width, bottom / full_height, _PANEL / width, height / full_height))
        if values is not None and not values.max() > values.min():
            subtitle = f"constant map · {subtitle}"
        _draw_panel(axes, explanation.pixels, values)
        _write(figure, _shortened(title, 40), (left, bottom + height + 0.27), _PANEL, weight="bold", fontsize=11)
        _write(figure, subtitle, (left, bottom + height + 0.08), _PANEL, color=_PALE_INK)


def _cost(explanation: ImageExplanation, run: MethodRun) -> str:
    of_channels = "" if run.channels is None else f" of {run.channels.channels}"
    forwards = "forward" if run.forwards == 1 else "forwards"
    for_both = " for both classes" if len(explanation.classes) > 1 else ""
    return f"{run.forwards}{of_channels} {forwards}, {run.seconds:.2f} s{for_both}"


def _draw_panel(axes: Axes, pixels: Tensor, values: Tensor | None) -> None:
    from captum.attr import visualization

    image = pixels.numpy()
    if values is None or not values.max() > values.min():  # Captum can't scale a constant map
        axes.imshow(image if values is None else image.mean(axis=2), cmap="gray")
        axes.set(xticks=[], yticks=[])
    else:
        scaled = (values - values.min()) / (values.max() - values.min())
        visualization.visualize_image_attr(
            scaled.unsqueeze(2).numpy(),
            image,
            method="blended_heat_map",
            sign="positive",
            plt_fig_axis=(axes.figure, axes),
            cmap="inferno",
            alpha_overlay=0.6,
            use_pyplot=False,
        )
    axes.set_anchor("NW")
    axes.spines[:].set_visible(False)


def _write(
    figure: Figure,
    text: str,
    position: tuple[float, float],
    most_width: float,
    *,
    color: str = _INK,
    fontsize: float = 9,
    weight: str = "normal",
) -> None:
    """Writes one line at a position in inches, in a smaller font where it would be wider than `most_width`."""
    width, height = figure.get_size_inches()
    written = figure.text(
        position[0] / width,
        position[1] / height,
        text,
        color=color,
        fontsize=fontsize,
        weight=weight,
        va="bottom",
        parse_math=False,
    )
    needed = written.get_window_extent().width / figure.dpi
    if needed > most_width:
        written.set_fontsize(0.97 * fontsize * most_width / needed)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def check_output(path: Path, images: Sequence[Path] = ()) -> None:
    """Checks, before any work, that the picture can be written and that no file but an old picture is replaced.

    Args:
        path (Path): Where the picture goes.
        images (sequence of Path): The images that are explained, which it must not replace.

    Raises:
        ValueError: If the path does not end in .png, its folder is missing or not writable, it is something other
            than a writable file, or it is one of the images.
    """
    path, folder = path.resolve(), path.resolve().parent
    if path.suffix.lower() != ".png":
        raise ValueError(f"Expected `--output` to end in .png, but got {str(path)!r}.")
    if not folder.is_dir():
        raise ValueError(f"Expected `--output` to be in a folder that exists, but there is no {str(folder)!r}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"Expected `--output` to be in a writable folder, but {str(folder)!r} is not.")
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        raise ValueError(f"Expected `--output` to be a new or a writable file, but {str(path)!r} is not.")
    if path in [image.resolve() for image in images]:
        raise ValueError(f"Expected `--output` to be another file than the images, but got {str(path)!r}.")


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, all or nothing: what stood there is replaced when the new picture is complete.

    Raises:
        OSError: If the file can't be written; what stood there is as it was.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi)
    path = path.resolve()
    unfinished = path.with_name(f".captum-scorecam.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(picture.getvalue())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
