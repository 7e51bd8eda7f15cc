"""Curves as a picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from captum_scorecam._palette import CURVE_COLORS, curve_style
from captum_scorecam.metrics import plot_curves
from captum_scorecam.metrics.functional import PerturbationCurve, insertion
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst

PERFECT_INSERTION, WORST_INSERTION = [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]
LAYERS = [f"encoder.layers.encoder_layer_{number}.self_attention" for number in range(30)]


@dataclass(frozen=True)
class Points:
    x: Sequence[float | str]
    y: Sequence[float]


def curves() -> dict[str, PerturbationCurve]:
    options: dict[str, Any] = {"step": 0.25, "baselines": 0, "score": "output"}
    return {
        "perfect": insertion(EvidenceModel(), ones(2), perfect(2), 0, **options),
        "worst": insertion(EvidenceModel(), ones(), worst(), 0, **options),
    }


def axes_of(*args: Any, **kwargs: Any) -> Any:
    return plot_curves(*args, **kwargs).axes[0]


def tick_labels(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def test_the_plot_shows_the_mean_curves_and_their_areas() -> None:
    axes = axes_of(curves(), xlabel="share inserted")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["perfect (AUC 0.875)", "worst (AUC 0.125)"]
    assert [line.get_ydata().tolist() for line in axes.lines] == [PERFECT_INSERTION, WORST_INSERTION]
    assert axes.lines[0].get_xdata().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert axes.get_xlabel() == "share inserted"
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (curves()["perfect"], TypeError, "Expected `curves` to be a mapping of names to curves, but got PerturbationC"),
        ([curves()["perfect"]], TypeError, "Expected `curves` to be a mapping of names to curves, but got list"),
        ({"a": [0.5, 1.0]}, TypeError, "Expected `curves` to hold curves with `x` and `y`, but got list for 'a'"),
        ({"a": Points([0.0, 1.0], [1.0])}, ValueError, "with as many `x` as `y`, but got 2 and 1 for 'a'"),
    ],
)
def test_other_objects_are_no_curves(wrong: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_curves(wrong)


def test_a_curve_is_the_mean_over_its_examples() -> None:
    fractions, scores = torch.tensor([0.0, 1.0]), torch.tensor([[0.0, 0.5], [0.5, 1.0]])
    axes = axes_of({"": PerturbationCurve(fractions, scores, torch.tensor([0.25, 0.75]))})
    assert axes.lines[0].get_ydata().tolist() == [0.25, 0.75]
    assert axes.get_legend().get_texts()[0].get_text() == " (AUC 0.500)"


def test_curves_over_names_share_an_axis_of_all_names() -> None:
    axes = axes_of({"a": Points(["fc", "conv"], [0.5, 0.25]), "b": Points(["fc", "stem"], [0.75, 0.0])}, ylabel="rank")
    assert tick_labels(axes) == ["fc", "conv", "stem"]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0, 1], [0, 2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_ylabel() == "rank"


def test_some_of_many_names_are_shown_by_their_ends() -> None:
    axes = axes_of({"a": Points(LAYERS, [0.0] * 30)})
    assert tick_labels(axes) == [f"…{name[-23:]}" for name in LAYERS[::2]]
    assert axes.lines[0].get_xdata().tolist() == list(range(30))


def test_the_plot_goes_into_the_given_axes() -> None:
    figure, both = plt.subplots(1, 2)
    assert plot_curves(curves(), axes=both[1]) is figure
    assert (len(both[0].lines), len(both[1].lines)) == (0, 2)
    plt.close(figure)


def test_32_curves_have_32_styles_and_the_first_8_differ_in_colour() -> None:
    styles = [curve_style(number) for number in range(32)]
    assert [style["color"] for style in styles[:8]] == list(CURVE_COLORS)
    assert len({(style["color"], style["linestyle"]) for style in styles}) == 32
    lines = axes_of({f"{number}": Points([0.0, 1.0], [0.0, number]) for number in range(32)}).lines
    assert [{"color": line.get_color(), "linestyle": line.get_linestyle()} for line in lines] == styles


def test_styles_of_single_curves_change_them_only() -> None:
    axes = axes_of(curves(), styles={"worst": {"linewidth": 4, "color": "black"}})
    assert [line.get_color() for line in axes.lines] == [CURVE_COLORS[0], "black"]
    assert [line.get_linewidth() for line in axes.lines] == [mpl.rcParams["lines.linewidth"], 4]


@pytest.mark.parametrize("n_curves", [2, 12])
@pytest.mark.parametrize("x", [[0.0, 0.5, 1.0], LAYERS[:3]], ids=["numbers", "names"])
def test_the_legend_is_inside_the_figure_and_covers_nothing(n_curves: int, x: list[Any]) -> None:
    figure = plot_curves({f"_method {n}": Points(x, [1.0, n / 12, 0.0]) for n in range(n_curves)})
    figure.canvas.draw()
    axes: Any = figure.axes[0]
    legend, plotted = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert len(axes.get_legend().get_texts()) == n_curves
    assert legend.y0 >= plotted.y1
    assert figure.bbox.y1 >= legend.y1
    assert plotted.height > 0.3 * figure.bbox.height


def test_a_plot_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expected at least one curve, but got none"):
        plot_curves({})


@pytest.mark.parametrize("mixed", [[["fc"], [0.5]], [["fc", 0.5]]])
def test_names_and_numbers_on_one_axis_are_an_error(mixed: list[list[Any]]) -> None:
    with pytest.raises(ValueError, match="Expected curves with either numeric or named x values, but got both"):
        plot_curves({str(number): Points(x, [0.0] * len(x)) for number, x in enumerate(mixed)})


def test_matplotlib_and_warning_filters_are_unchanged() -> None:
    before = mpl.rcParams.copy(), list(warnings.filters), plt.get_fignums(), mpl.get_backend()
    plot_curves(curves())
    assert (mpl.rcParams.copy(), list(warnings.filters), plt.get_fignums(), mpl.get_backend()) == before


def luminance(color: str) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(color)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


@pytest.mark.parametrize("background", ["#ffffff", "#16181b"])
@pytest.mark.parametrize("color", CURVE_COLORS)
def test_colours_of_curves_have_contrast_on_light_and_on_dark(color: str, background: str) -> None:
    dark, light = sorted((luminance(color), luminance(background)))
    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG 2.2, non-text contrast
