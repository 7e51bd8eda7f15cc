"""Insertion and deletion curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from captum_scorecam.metrics.functional.insertion_deletion import PerturbationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_curves(
    curves: Mapping[str, PerturbationCurve],
    *,
    xlabel: str = "share of pixels",
    ylabel: str = "class score",
    axes: Axes | None = None,
) -> Figure:
    """Draws the mean curve of each method, with its mean AUC in the legend.

    Args:
        curves (mapping of str to PerturbationCurve): What
            :func:`~captum_scorecam.metrics.functional.insertion` or
            :func:`~captum_scorecam.metrics.functional.deletion` returned, by method.
        xlabel (str): The label of the horizontal axis, such as "share of pixels inserted".
        ylabel (str): The label of the vertical axis.
        axes (Axes, optional): Where to draw. Default: None, a new figure, unknown to pyplot.

    Returns:
        Figure: The figure that was drawn on.

    Raises:
        ValueError: If there is no curve.
    """
    if not curves:
        raise ValueError("Expected at least one curve, but got none.")
    axes = _new_axes() if axes is None else axes
    for name, curve in curves.items():
        label = f"{name} (AUC {float(curve.auc.mean()):.3f})"
        axes.plot(curve.fractions.tolist(), curve.scores.mean(0).tolist(), label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1))
    axes.legend()
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("Expected `axes` to belong to a figure, but got axes without one.")
    return figure


def _new_axes() -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()
