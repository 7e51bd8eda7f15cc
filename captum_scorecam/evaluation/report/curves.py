"""The report's charts of mean curves."""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

from markupsafe import Markup

from captum_scorecam._palette import curve_style
from captum_scorecam.evaluation.mean_curves import MeanCurve
from captum_scorecam.evaluation.presentation import curve_axes, method_title, title_and_unit
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.metrics import plot_curves

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_METADATA = ("Creator", "Date", "Format", "Type")
_MOST_SIDE_BY_SIDE = 3
_LONGEST_TEXT, _LONGEST_LINE = 48, 24
_NO_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STYLE = {
    "font.size": 11,
    "lines.linewidth": 2,
    "svg.fonttype": "none",
    "path.simplify": False,
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Chart:
    """The mean curves of a metric.

    Attributes:
        title (str): The metric's title, without its unit.
        n (str): The number of images, or its range over the methods.
        svg (Markup): An ``<svg>`` element.
    """

    title: str
    n: str
    svg: Markup


def make_charts(
    curves: Mapping[str, Mapping[str, MeanCurve]], methods: Sequence[str], metrics: Sequence[str]
) -> list[Chart]:
    """Draws a chart for each metric that has curves, in the order of the metrics."""
    return [_chart(metric, curves[metric], methods) for metric in metrics if curves.get(metric)]


def _chart(metric: str, curves: Mapping[str, MeanCurve], methods: Sequence[str]) -> Chart:
    title, svg = title_and_unit(metric)[0], _plot(curves, methods, *curve_axes(metric))
    titles = ", ".join(_plain_text(method_title(method)) for method in methods if method in curves)
    return Chart(title, _number_of_images(curves), _for_page(svg, f"{title}: mean curves of {titles}"))


def _number_of_images(curves: Mapping[str, MeanCurve]) -> str:
    counts = sorted({curve.n for curve in curves.values()})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _plot(curves: Mapping[str, MeanCurve], methods: Sequence[str], xlabel: str, ylabel: str) -> str:
    """Plots curves in their methods' colours, as an SVG that does not depend on the settings of matplotlib."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has the glyphs
        figure = Figure(figsize=(5, 3.2 + 0.2 * len(curves)), layout="constrained")
        _draw(curves, methods, xlabel, ylabel, figure.subplots())
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    return svg.getvalue()


def _draw(curves: Mapping[str, MeanCurve], methods: Sequence[str], xlabel: str, ylabel: str, axes: Axes) -> None:
    shown = {method: _plain(curves[method]) for method in methods if method in curves}
    styles = {method: curve_style(methods.index(method)) for method in shown}
    plot_curves(shown, xlabel=_plain_text(xlabel), ylabel=_plain_text(ylabel), styles=styles, axes=axes)
    legend = axes.get_legend()
    for text in legend.get_texts() if legend else ():
        text.set_text(textwrap.fill(_plain_text(method_title(text.get_text())), _LONGEST_LINE))
    axes.tick_params(length=0, pad=6)
    axes.set_ylim(bottom=min(0.0, *(min(curve.y) for curve in shown.values())))


def draw_curves(
    curves: Mapping[str, Mapping[str, MeanCurve]],
    methods: Sequence[str],
    metrics: Sequence[str],
    kind: Literal["svg", "pdf"],
) -> bytes:
    """Draws the curves of all metrics under one legend, for a paper: an SVG or PDF with its own fonts.

    Raises:
        ValueError: If no metric has curves.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    drawn = [metric for metric in metrics if curves.get(metric)]
    if not drawn:
        raise ValueError(f"Expected a run of metrics with curves, but got {', '.join(metrics)}.")
    handles: dict[str, tuple[Artist, str]] = {}  # by method
    with style.context(["default", _STYLE | {"svg.fonttype": "path", "pdf.fonttype": 42, "svg.hashsalt": "curves"}]):
        columns = min(len(drawn), _MOST_SIDE_BY_SIDE)
        rows = -(-len(drawn) // columns)
        figure = Figure(layout="constrained")
        cells = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in cells[len(drawn) :]:
            axes.remove()
        for metric, axes in zip(drawn, cells, strict=False):
            xlabel, ylabel = curve_axes(metric)
            title, _ = title_and_unit(metric)
            ylabel = ylabel.lower() if ylabel[1:].islower() else ylabel  # but for abbreviations
            _draw(curves[metric], methods, xlabel, f"{title}: {ylabel}" if ylabel else title, axes)
            axes.set_title(f"n = {_number_of_images(curves[metric])}", fontsize="small")
            legend = axes.get_legend()
            if legend is not None:
                shown = [method for method in methods if method in curves[metric]]
                for method, text, line in zip(shown, legend.get_texts(), axes.lines, strict=True):
                    handles[method] = line, text.get_text()
                legend.remove()
        of_legend = min(len(handles), 2 * columns)
        figure.set_size_inches(4.2 * columns, 3.2 * rows + 0.2 * -(-len(handles) // of_legend))
        figure.legend(*zip(*handles.values(), strict=True), loc="outside upper left", ncols=of_legend, frameon=False)
        file = io.BytesIO()
        undated = dict.fromkeys(_METADATA) if kind == "svg" else {"CreationDate": None}
        figure.savefig(file, format=kind, metadata=undated)
    return file.getvalue()


def _plain(curve: MeanCurve) -> Curve:
    return Curve([_plain_text(x) if isinstance(x, str) else x for x in curve.x], curve.y)


def _plain_text(text: str) -> str:
    """Shortens a text and replaces the characters that no XML can have."""
    return _NO_XML.sub("\ufffd", text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…")


def _for_page(svg: str, label: str) -> Markup:
    """Converts an SVG figure for inlining: it inherits font and colour, and ids are removed to avoid clashes."""
    root = ElementTree.fromstring(svg)
    for definitions in root.findall("{*}defs"):
        root.remove(definitions)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib.pop("clip-path", None)
        if "id" in element.attrib:
            element.set("class", element.attrib.pop("id"))
        if "style" in element.attrib:
            without_font = re.sub(r"font-family: [^;]*; ", "", element.attrib["style"])
            element.set("style", without_font.replace("#000000", "currentColor"))
    viewport = root.attrib["viewBox"]
    root.attrib = {"viewBox": viewport, "fill": "currentColor", "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))
