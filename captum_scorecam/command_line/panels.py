"""The picture of explanations: the image and each method's map side by side, a row for each image and class."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from captum_scorecam import overlay
from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.evaluation import MethodRun
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.presentation import error_text, method_title
from captum_scorecam.masking.scaling import varies

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_MOST_PIXELS = 60_000  # Agg draws at most 2**16 in a direction
_INK, _PALE_INK = "#1a1a1a", "#6b6b6b"
_LEGEND = (
    "±: largest standard error, of the maximum · lines: half of the range is reached with 2 standard errors less "
    "(solid), more (dashed)"
)
_CHARACTERS = 16  # per inch, at most: where lines turn out wider than their column, they get fewer


@dataclass(frozen=True)
class Panel:
    """An image, or a map over the grey image.

    Attributes:
        title (str): The text above it, in bold.
        subtitle (str): The text between the title and the image.
        pixels (Tensor): The image, H×W×3 or H×W, in [0, 1].
        values (Tensor, optional): The map, H×W. Default: None, the image alone.
        errors (Tensor, optional): The standard error of each value, H×W. Default: None, the map is exact.
    """

    title: str
    subtitle: str
    pixels: Tensor
    values: Tensor | None = None
    errors: Tensor | None = None


def draw_explanations(explanations: Sequence[ImageExplanation], heading: str) -> Figure:
    """Draws the image and each method's map side by side, a row for each image and class.

    Args:
        explanations (sequence of ImageExplanation): The images, one or more, explained by the same methods.
        heading (str): Heading of the figure.

    Returns:
        Figure: A figure with its own Agg canvas, unknown to pyplot.
    """
    rows = [list(_row(explanation, shown)) for explanation in explanations for shown in explanation.classes]
    has_errors = any(panel.errors is not None for row in rows for panel in row)
    return draw_panels(rows, f"{heading} · {_LEGEND}" if has_errors else heading)


def _row(explanation: ImageExplanation, shown: ClassExplanation) -> Iterator[Panel]:
    reason = f"{shown.reason} · {_shortened(explanation.image_name, 30)}"
    yield Panel(shown.name, reason, explanation.pixels)
    for method, run in explanation.runs.items():
        values, error = shown.maps[method], shown.errors.get(method)
        constant = "" if _varies(values) else "constant map · "
        if error is None or error.values is None or constant:
            title, errors = method_title(method), None
        else:
            title, errors = f"{method_title(method)} {error_text(error.largest)}", error.values
        yield Panel(title, constant + _cost(explanation, run), explanation.pixels, values, errors)


def _cost(explanation: ImageExplanation, run: MethodRun) -> str:
    of_channels = "" if run.channels is None else f" of {run.channels.channels}"
    forwards = "forward" if run.forwards == 1 and not of_channels else "forwards"
    for_both = " for both classes" if len(explanation.classes) > 1 else ""
    return f"{run.forwards}{of_channels} {forwards}, {run.seconds:.2f} s{for_both}"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def draw_panels(
    rows: Sequence[Sequence[Panel]], heading: str = "", *, width: float = 3.2, fontsize: float = 11, dpi: float = 120
) -> Figure:
    """Draws panels in rows; those of a row show images of one shape.

    Maps are drawn by `overlay`, each from its own lowest value to its highest; absolute levels are not comparable:
    RISE's minimum, for example, is far from 0.

    Args:
        rows (sequence of sequence of Panel): The panels of each row, one or more.
        heading (str): Heading of the figure. Default: none.
        width (float): The width of a column, in inches. Default: 3.2.
        fontsize (float): Of the titles, in points. Default: 11.
        dpi (float): Pixels per inch, fewer where the picture would be too long to draw. Default: 120.

    Returns:
        Figure: A figure with its own Agg canvas, unknown to pyplot.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    ratios = [row[0].pixels.shape[0] / row[0].pixels.shape[1] for row in rows]
    size = (width * columns, width * sum(ratios) + 0.1 * fontsize * (len(rows) + 1))
    figure = Figure(figsize=size, dpi=min(dpi, _MOST_PIXELS / max(size)), facecolor="white")
    figure.set_layout_engine("compressed", w_pad=0, h_pad=0.1)  # the margins are added when it is written
    FigureCanvasAgg(figure)
    small = {"fontsize": 0.82 * fontsize, "color": _PALE_INK}
    if heading:
        _fit(figure.suptitle(heading, x=0, ha="left", parse_math=False, **small), size[0])
    full_width = {"left": 0, "right": 1, "wspace": 0.04}  # else text is wider than its panel before the layout
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=ratios, gridspec_kw=full_width)
    for row, row_axes in zip(rows, grid, strict=True):
        for axes in row_axes:
            axes.set_axis_off()
        for panel, axes in zip(row, row_axes, strict=False):
            _draw_panel(axes, panel)
            subtitle = _fit(_write(axes, "axes fraction", panel.subtitle, **small), width)
            _fit(_write(axes, subtitle, panel.title, fontsize=fontsize, weight="bold", color=_INK), width)
    return figure


def _draw_panel(axes: Axes, panel: Panel) -> None:
    if panel.values is None:
        axes.imshow(panel.pixels.numpy(), cmap="gray", vmin=0, vmax=1)
    else:
        axes.imshow(overlay(panel.pixels.numpy(), panel.values))
        if panel.errors is not None and _varies(panel.values):
            _draw_lines(axes, panel.values, panel.errors)
    axes.set_anchor("NW")


def _draw_lines(axes: Axes, values: Tensor, errors: Tensor) -> None:
    """Draws the middle of a map's range two standard errors down, as a solid line, and up, as a dashed one."""
    lowest, highest = values.aminmax()
    above_middle = values - (lowest + highest) / 2
    axes.autoscale(False)
    for edge, style in ((above_middle - 2 * errors, "solid"), (above_middle + 2 * errors, "dashed")):
        if edge.min() < 0 < edge.max():  # Matplotlib warns of a line that is nowhere
            axes.contour(edge.numpy(), levels=[0], colors="white", linewidths=1.2, linestyles=style)


def _varies(values: Tensor) -> bool:
    return bool(varies(values[None, None]))


def _write(axes: Axes, above: str | Text, text: str, **properties: Any) -> Text:
    """Writes text at the left end of an axes, above it or above other text."""
    return axes.annotate(
        text, (0, 1), (0, 4), xycoords=above, textcoords="offset points", parse_math=False, **properties
    )


def _fit(written: Text, width: float) -> Text:
    """Wraps text into at most two lines that are narrower than `width` inches."""
    text, characters = written.get_text(), int(_CHARACTERS * width)
    while True:
        written.set_text(textwrap.fill(text, characters, max_lines=2, placeholder="…"))
        excess = written.get_window_extent().width / (0.95 * width * written.figure.dpi)
        if excess <= 1:
            return written
        characters = int(characters / excess)


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, all or nothing; the target of a link is replaced, not the link.

    Raises:
        OSError: If the file can't be written; an old picture stays.
    """
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=figure.dpi, bbox_inches="tight", pad_inches=0.15)
    write_durably(path.resolve(), picture.getvalue())
