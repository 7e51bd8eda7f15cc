"""Curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from captum_scorecam._messages import type_of
from captum_scorecam._palette import curve_style
from captum_scorecam.metrics.functional.insertion_deletion import PerturbationCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_NAMES, _LONGEST_NAME = 20, 24  # under an axis


class CurvePoints(Protocol):
    """A curve over numbers, or over names such as those of layers."""

    @property
    def x(self) -> Sequence[float | str]:
        """Positions or names of the points."""

    @property
    def y(self) -> Sequence[float]:
        """Their values."""


def plot_curves(
    curves: Mapping[str, PerturbationCurve | CurvePoints],
    *,
    xlabel: str = "share of pixels",
    ylabel: str = "class score",
    styles: Mapping[str, Mapping[str, Any]] | None = None,
    axes: Axes | None = None,
) -> Figure:
    """Plots a curve for each method, with a legend above the axes.

    Args:
        curves (mapping of str to PerturbationCurve or CurvePoints): What
            :func:`~captum_scorecam.metrics.functional.insertion` or
            :func:`~captum_scorecam.metrics.functional.deletion` returned, by method: the mean over the examples is
            plotted, and the legend shows the mean AUC. Or any object with points ``x`` and ``y``.
        xlabel (str): The label of the horizontal axis, such as "share of pixels inserted".
        ylabel (str): The label of the vertical axis.
        styles (mapping of str to mapping, optional): Properties of curves' ``Line2D``, by method. Default: None, the
            colours that all pictures of this package share.
        axes (Axes, optional): Where to plot. Default: None, a new figure, unknown to pyplot.

    Returns:
        Figure: The figure of the axes.

    Raises:
        TypeError: If `curves` is not a mapping, or a curve has no points.
        ValueError: If there is no curve, a curve does not have as many ``x`` as ``y``, or some curves are over numbers
            and others over names.
    """
    if not isinstance(curves, Mapping):
        raise TypeError(f"Expected `curves` to be a mapping of names to curves, but got {type_of(curves)}.")
    if not curves:
        raise ValueError("Expected at least one curve, but got none.")
    axes = _new_axes(len(curves)) if axes is None else axes
    points = [_points(name, curve) for name, curve in curves.items()]
    names = _names([x for x, _ in points])
    place: dict[float | str, int] = {name: number for number, name in enumerate(names)}
    lines = []
    for number, (name, (x, y)) in enumerate(zip(curves, points, strict=True)):
        style = curve_style(number) | dict((styles or {}).get(name, {}))
        lines += axes.plot([place[point] for point in x] if names else x, y, **style)
    if names:
        every = -(-len(names) // _MOST_NAMES)
        shown = [name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}" for name in names[::every]]
        axes.set_xticks(range(0, len(names), every), shown, rotation=45, ha="right", rotation_mode="anchor")
    axes.margins(x=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    labels = [_label(name, curve) for name, curve in curves.items()]
    axes.legend(lines, labels, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, frameon=False)
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("Expected `axes` to belong to a figure, but got axes without one.")
    return figure


def _points(name: str, curve: PerturbationCurve | CurvePoints) -> tuple[Sequence[float | str], Sequence[float]]:
    if isinstance(curve, PerturbationCurve):
        return curve.fractions.tolist(), curve.scores.mean(0).tolist()
    if not (hasattr(curve, "x") and hasattr(curve, "y")):
        raise TypeError(f"Expected `curves` to hold curves with `x` and `y`, but got {type_of(curve)} for {name!r}.")
    if len(curve.x) != len(curve.y):
        raise ValueError(
            f"Expected `curves` with as many `x` as `y`, but got {len(curve.x)} and {len(curve.y)} for {name!r}."
        )
    return curve.x, curve.y


def _names(x_of_curves: Sequence[Sequence[float | str]]) -> list[str]:
    """Returns the names that curves are over, each once; none where they are over numbers."""
    places = dict.fromkeys(place for x in x_of_curves for place in x)
    names = [place for place in places if isinstance(place, str)]
    if names and len(names) < len(places):
        raise ValueError("Expected curves with either numeric or named x values, but got both.")
    return names


def _label(name: str, curve: PerturbationCurve | CurvePoints) -> str:
    return f"{name} (AUC {float(curve.auc.mean()):.3f})" if isinstance(curve, PerturbationCurve) else name


def _new_axes(n_curves: int) -> Axes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2 + 0.2 * n_curves), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()
