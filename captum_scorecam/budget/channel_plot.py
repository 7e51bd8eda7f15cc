"""The strongest channels of a map as a picture: what each lets the model see, its score and its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from captum_scorecam._messages import check_whole_number
from captum_scorecam._palette import CURVE_COLORS, MAP_COLORS
from captum_scorecam.budget.map_errors import widening
from captum_scorecam.masking.scaling import min_max_normalize, resize
from captum_scorecam.overlay import as_array, overlay, pixels_of
from captum_scorecam.weighting import ChannelWeighting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from captum_scorecam.budget.channel_scores import ChannelScores

MOST_COLUMNS, COLUMN_WIDTH, TEXT_HEIGHT = 6, 1.8, 0.55  # inches
_INK, _PALE_INK = "#1a1a1a", "#6b6b6b"


def plot_channels(
    scores: ChannelScores,
    image: Any,
    n_channels: int,
    weighting: ChannelWeighting,
    example: int,
    target: int,
    figure: Figure | SubFigure | None,
) -> Figure | SubFigure:
    """Draws :meth:`ChannelScores.plot`."""
    rank = scores.activations.dim() - 2
    if rank == 3:
        raise ValueError("Expected `activations` of 1-D or 2-D maps, but got 3-D ones, which can't be drawn.")
    n_examples, n_targets = scores.unmasked_scores.shape
    example = check_whole_number("example", example, least=0, most=n_examples - 1)
    target = check_whole_number("target", target, least=0, most=n_targets - 1)
    shown = None if image is None else _displayable(image, rank)
    channels = scores.strongest_channels(n_channels, weighting)[0][example, :, target]
    channels = channels[scores.has_mask[example, channels]]
    size = scores.masks.sizes[0]
    total = resize(scores.maps(weighting)[example, target][None, None].float(), size)
    (masks, *_) = scores.masks[scores.masks.index[example, channels]]
    axes = _axes(1 + len(channels), size if shown is None else shown.shape[:2], rank, figure)
    _draw(axes[0], min_max_normalize(total)[0, 0], shown, is_map=True)
    _write(axes[0], "map", _summary(scores, weighting, example))
    for each, channel, mask in zip(axes[1:], channels.tolist(), masks[:, 0], strict=True):
        _draw(each, mask, shown)
        _write(each, f"channel {channel}", _caption(scores, weighting, example, channel, target))
    return axes[0].figure


def _displayable(image: Any, rank: int) -> np.ndarray[Any, Any]:
    """Checks the image, or the signal, and scales bytes to [0, 1]."""
    if rank == 2:
        return pixels_of(image)
    signal = as_array(image)
    if signal.size == 0:
        raise ValueError(f"Expected `image` to have values, but got an array of shape {signal.shape}.")
    if signal.ndim not in (1, 2):
        raise ValueError(f"Expected `image` to be a signal, L or L×C, but got an array of shape {signal.shape}.")
    return signal


def _axes(n_panels: int, size: tuple[int, ...], rank: int, figure: Figure | SubFigure | None) -> list[Axes]:
    """Returns a row of axes, or several, in the given figure or a new one, unknown to pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows = -(-n_panels // MOST_COLUMNS)
    n_columns = -(-n_panels // n_rows)
    if figure is None:
        aspect = size[0] / size[1] if rank == 2 else 0.6
        height = n_rows * (COLUMN_WIDTH * aspect + TEXT_HEIGHT)
        figure = Figure(figsize=(COLUMN_WIDTH * n_columns, height), layout="compressed", facecolor="white")
        FigureCanvasAgg(figure)
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for each in axes:
        each.set_axis_off()
    return axes[:n_panels]


def _draw(axes: Axes, values: Tensor, shown: np.ndarray[Any, Any] | None, is_map: bool = False) -> None:
    """Draws a map over the grey image, or what a mask leaves of it; both in [0, 1]."""
    drawn = values.cpu().numpy()
    if drawn.ndim == 1:
        _draw_curve(axes, drawn, shown, CURVE_COLORS[1 if is_map else 0])
    elif shown is None:
        axes.imshow(drawn, cmap=MAP_COLORS, vmin=0, vmax=1)
    elif is_map:
        axes.imshow(overlay(shown, values))
    else:
        height, width = shown.shape[:2]
        place: dict[str, Any] = {"extent": (-0.5, width - 0.5, height - 0.5, -0.5), "interpolation": "bilinear"}
        axes.imshow(shown, vmin=0, vmax=1)
        axes.imshow(np.zeros_like(drawn), cmap="gray", vmin=0, vmax=1, alpha=1 - drawn, **place)
    axes.set_anchor("NW")


def _draw_curve(axes: Axes, values: np.ndarray[Any, Any], signal: np.ndarray[Any, Any] | None, color: str) -> None:
    """Draws values in [0, 1] as an area from the bottom of the axes to the top, behind the signal."""
    length = len(values) if signal is None else len(signal)
    positions = (np.arange(len(values)) + 0.5) * length / len(values) - 0.5
    axes.fill_between(positions, 0, values, transform=axes.get_xaxis_transform(), color=color, alpha=0.5, linewidth=0)
    if signal is None:
        axes.axhline(0, color=_PALE_INK, linewidth=0.8)
        axes.set_ylim(0, 1)
    else:
        axes.plot(signal, color=_INK, linewidth=0.7)
    axes.margins(x=0)


def _summary(scores: ChannelScores, weighting: ChannelWeighting, example: int) -> str:
    rows = scores.masks.rows_of(example)
    n_run = len(rows) if scores.prediction is None else int(scores.prediction.run[rows].sum())
    return f"{weighting} weights\n{n_run} of {len(rows)} masks run"


def _caption(scores: ChannelScores, weighting: ChannelWeighting, example: int, channel: int, target: int) -> str:
    """The score and the weight of a channel, with the standard error of a predicted score."""
    row = scores.masks.index[example, channel]
    error = ""
    if scores.prediction is not None and not scores.prediction.run[row]:
        n_run = int(scores.prediction.run[scores.masks.rows_of(example)].sum())
        error = f" ± {widening(n_run) * float(scores.prediction.deviations[row, target]):.2g}"
    weight = float(scores.weights(weighting)[example, channel, target])
    return f"score {float(scores.mask_scores[row, target]):.4g}{error}\nweight {weight:.3g}"


def _write(axes: Axes, title: str, caption: str) -> None:
    """Writes a line in bold, and two below it, above the axes."""
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "baseline"}
    axes.annotate(title, (0, 1), (0, 28), weight="bold", fontsize=9, color=_INK, **place)
    for line, height in zip(caption.splitlines(), (16, 5), strict=True):
        axes.annotate(line, (0, 1), (0, height), fontsize=8, color=_PALE_INK, **place)
