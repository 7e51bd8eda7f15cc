"""The picture: its panels, its text, and how it is written."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from captum_scorecam import RunStatistics
from captum_scorecam.command_line import panels
from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation, MapError
from captum_scorecam.command_line.options import check_writable
from captum_scorecam.command_line.panels import Panel, draw_explanations, draw_panels, write_png
from captum_scorecam.evaluation import MethodRun
from tests.support.panels import panels_of_figure

CORNER = torch.zeros(40, 40)
CORNER[:20, :20] = 3.0
METHODS = ["grad_cam", "score_cam", "grad_cam_plus_plus", "rise", "mask"]
MAPS = {"grad_cam": CORNER, "score_cam": CORNER.flip(0, 1)}
RUNS = {
    "grad_cam": MethodRun(forwards=1, seconds=0.05),
    "score_cam": MethodRun(forwards=6, channels=RunStatistics(channels=10, constant=3, shared=1, rows=6), seconds=1.5),
}


def class_explanation(name: str = "cat", **changes: Any) -> ClassExplanation:
    shown = ClassExplanation(index=3, name=name, score=0.254, is_probability=True, role="predicted", maps=MAPS)
    return replace(shown, **changes)


def image_explanation(*classes: ClassExplanation, name: str = "image.png", height: int = 40) -> ImageExplanation:
    pixels = torch.full((height, 40, 3), 0.5)
    return ImageExplanation(name, pixels, classes or (class_explanation(),), RUNS, "probability")


def texts(figure: Figure) -> list[Text]:
    """The texts that show something: the heading, then title and subtitle of each panel."""
    found = [text for axes in figure.axes for text in reversed(axes.texts)]
    return [text for text in [*figure.texts, *found] if text.get_text()]


def test_one_row_holds_the_image_and_both_maps() -> None:
    image, grad_cam, score_cam = panels_of_figure(draw_explanations([image_explanation()], "heading"))
    size = len(image) // 4
    np.testing.assert_allclose(image, 127, atol=1)
    for panel, hot, cold in ((grad_cam, size, -size), (score_cam, -size, size)):
        # 0.6 of inferno's ends, fcffa4 and 000004, over 0.4 of the grey image, which is all black to Captum
        difference = panel[hot, hot] - panel[cold, cold]
        np.testing.assert_allclose(difference, 0.6 * np.array([252, 255, 160]), atol=3)


def test_a_map_is_scaled_from_its_own_lowest_to_its_own_highest_value() -> None:
    faint = class_explanation(maps=MAPS | {"grad_cam": CORNER * 2**-20, "score_cam": MAPS["score_cam"] + 5})
    scaled = panels_of_figure(draw_explanations([image_explanation(faint)], "heading"))
    strong = panels_of_figure(draw_explanations([image_explanation()], "heading"))
    for panel, expected in zip(scaled[1:], strong[1:], strict=True):
        np.testing.assert_array_equal(panel, expected)


def test_lines_show_where_a_map_is_half_of_its_range_two_standard_errors_down_and_up() -> None:
    ramp = torch.arange(40.0).expand(40, 40)  # half of its range is 19.5
    errors = torch.full((40, 40), 2.5)
    shown = class_explanation(maps=MAPS | {"score_cam": ramp}, errors={"score_cam": MapError(0.064, errors)})
    figure = draw_explanations([image_explanation(shown)], "heading")
    axes = figure.axes[2]
    solid, dashed = axes.collections
    for line, place, is_dashed in ((solid, 24.5, False), (dashed, 14.5, True)):
        np.testing.assert_allclose(np.asarray(line.get_paths()[0].vertices)[:, 0], place)
        assert [dashes is not None for _, dashes in np.asarray(line.get_linestyle(), dtype=object)] == [is_dashed]
    assert axes.get_xlim() == (-0.5, 39.5)
    assert texts(figure)[-2].get_text() == "Score-CAM ±6.4%"
    assert " ".join(texts(figure)[0].get_text().split()).startswith("heading · ±: largest standard error")
    assert not figure.axes[1].collections


@pytest.mark.parametrize("error", [MapError(0.0, None), MapError(float("inf"), torch.ones(40, 40))])
def test_an_exact_or_constant_map_has_no_lines(error: MapError) -> None:
    values = CORNER if error.values is None else torch.zeros(40, 40)
    shown = class_explanation(maps=MAPS | {"score_cam": values}, errors={"score_cam": error})
    figure = draw_explanations([image_explanation(shown)], "heading")
    assert not figure.axes[2].collections
    assert texts(figure)[-2].get_text() == "Score-CAM"
    assert texts(figure)[0].get_text() == "heading"


def test_an_error_larger_than_the_map_draws_no_line() -> None:
    shown = class_explanation(errors={"score_cam": MapError(3.0, torch.full((40, 40), 9.0))})
    figure = draw_explanations([image_explanation(shown)], "heading")
    assert not figure.axes[2].collections
    assert texts(figure)[-2].get_text() == "Score-CAM ±300%"


def test_the_text_names_classes_probabilities_methods_and_cost() -> None:
    other = class_explanation("dog", role="runner-up", score=0.1)
    figure = draw_explanations([image_explanation(class_explanation(), other)], "a model, a layer")
    methods = ["Grad-CAM", "1 forward, 0.05 s for both classes"]
    methods += ["Score-CAM", "6 of 10 forwards, 1.50 s for both classes"]
    first = ["cat", "predicted, 25.4% · image.png", *methods]
    second = ["dog", "runner-up, 10.0% · image.png", *methods]
    assert [text.get_text() for text in texts(figure)] == ["a model, a layer", *first, *second]


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_map_is_marked_and_shows_the_image(value: float) -> None:
    constant = class_explanation(maps=MAPS | {"score_cam": torch.full((40, 40), value)})
    figure = draw_explanations([image_explanation(constant)], "heading")
    assert texts(figure)[-1].get_text() == "constant map · 6 of 10 forwards, 1.50 s"
    assert panels_of_figure(figure)[2].std() == 0


@pytest.mark.parametrize("n_methods", [1, 2, 5])
def test_images_keep_their_shape_and_no_text_is_cut_off_or_covers_anything(n_methods: int) -> None:
    methods = METHODS[:n_methods]
    runs = {name: MethodRun(1024, RunStatistics(channels=2048, rows=1024), seconds=1234.5) for name in methods}
    classes = [
        class_explanation(name, maps=dict.fromkeys(methods, CORNER))
        for name in (
            "$W_{1}$" * 20 + "\\frac{",
            "",
            "W" * 100,
            "American Staffordshire terrier, pit bull terrier, " * 3,
        )
    ]
    flat, tall = (class_explanation(maps=dict.fromkeys(methods, torch.eye(n, 40))) for n in (20, 80))
    explanations = [
        replace(image_explanation(*classes, name="W" * 200 + ".png"), runs=runs),
        replace(image_explanation(flat, height=20), runs=runs),
        replace(image_explanation(tall, height=80), runs=runs),
    ]
    figure = draw_explanations(explanations, "m" * 300)
    figure.canvas.draw()
    assert len(figure.axes) == 6 * (1 + n_methods)
    images = [axes.get_window_extent() for axes in figure.axes]
    assert {round(box.width) for box in images} == {round(images[0].width)}
    shapes = [box.height / box.width for box in images[:: 1 + n_methods]]
    np.testing.assert_allclose(shapes, [1, 1, 1, 1, 0.5, 2], rtol=1e-6)
    written = [text.get_window_extent() for text in texts(figure)]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height for box in written)
    apart = [box.padded(-1) for box in [*images, *written]]  # lines of text touch
    overlapping = [(a, b) for a, b in combinations(apart, 2) if a.overlaps(b)]
    assert overlapping == []


@pytest.mark.parametrize("n_rows", [1, 12])
def test_panels_are_as_large_however_many_rows_there_are(n_rows: int) -> None:
    figure = draw_explanations([image_explanation()] * n_rows, "heading")
    figure.canvas.draw()
    assert {round(axes.get_window_extent().height) for axes in figure.axes} == {374}


def test_a_long_picture_has_fewer_dots_per_inch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panels, "_MOST_PIXELS", 300)  # of 2 ** 16, so that a few rows are too many
    figure = draw_explanations([image_explanation()] * 3, "heading")
    assert figure.get_size_inches()[1] * figure.dpi == pytest.approx(300)


def test_rows_may_have_fewer_panels_and_a_picture_no_heading() -> None:
    panel = Panel("title", "subtitle", torch.full((30, 40), 0.5))
    figure = draw_panels([[panel, panel], [panel]])
    assert [text.get_text() for text in texts(figure)] == ["title", "subtitle"] * 3
    assert len(panels_of_figure(figure)) == 3


def test_matplotlib_is_unchanged() -> None:
    before, backend, numbers = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    draw_explanations([image_explanation()], "heading")
    assert (dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()) == (before, backend, numbers)


def test_the_picture_is_written_whole_without_empty_borders(tmp_path: Path) -> None:
    figure = draw_explanations([image_explanation()], "heading")
    write_png(figure, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        inked = np.argwhere((np.asarray(picture.convert("RGB")) < 255).any(axis=2))
        borders = [*inked.min(axis=0), *np.subtract(picture.size[::-1], 1 + inked.max(axis=0))]
    np.testing.assert_allclose(borders, 18, atol=3)  # 0.15 inches of 120 dots
    assert os.listdir(tmp_path) == ["out.png"]


def test_an_old_picture_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError("No space left on device")

    (tmp_path / "out.png").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_png(draw_explanations([image_explanation()], "heading"), tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "folder" / "out.png")
    check_writable(tmp_path / "link.png", ".png")
    write_png(draw_explanations([image_explanation()], "heading"), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "folder" / "out.png").read_bytes().startswith(b"\x89PNG")
