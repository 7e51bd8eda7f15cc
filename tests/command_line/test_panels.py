"""The picture: its panels, its text, and how it is written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from captum_scorecam import RunStatistics
from captum_scorecam.command_line import figures
from captum_scorecam.command_line.explanation import ClassExplanation, ImageExplanation
from captum_scorecam.command_line.panels import check_output, draw_explanations, write_png
from captum_scorecam.evaluation.methods import MethodRun

CORNER = torch.zeros(40, 40)
CORNER[:20, :20] = 3.0


TITLES = {
    "grad_cam": "LayerGradCam",
    "score_cam": "ScoreCAM",
    "grad_cam_plus_plus": "LayerGradCamPlusPlus",
    "rise": "RISE",
    "mask": "Mask",
}
MAPS = {"grad_cam": CORNER, "score_cam": CORNER.flip(0, 1)}
RUNS = {
    "grad_cam": MethodRun("LayerGradCam", 1, seconds=0.05),
    "score_cam": MethodRun("ScoreCAM", 6, RunStatistics(channels=10, constant=3, shared=1, rows=6), 1.5),
}


def class_explanation(name: str = "cat", **changes: object) -> ClassExplanation:
    shown = ClassExplanation(index=3, name=name, probability=0.254, role="predicted", maps=MAPS)
    return replace(shown, **changes)


def image_explanation(*classes: ClassExplanation, name: str = "image.png", height: int = 40) -> ImageExplanation:
    pixels = torch.full((height, 40, 3), 0.5)
    return ImageExplanation(name, pixels, classes or (class_explanation(),), RUNS)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def drawn(figure: Figure) -> list[np.ndarray]:
    """The pixels of each panel."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    boxes = [axes.get_window_extent() for axes in figure.axes]
    return [
        pixels[len(pixels) - int(b.y1) + 1 : len(pixels) - int(b.y0) - 1, int(b.x0) + 1 : int(b.x1) - 1] for b in boxes
    ]


def test_one_row_holds_the_image_and_both_maps() -> None:
    image, grad_cam, score_cam = drawn(draw_explanations([image_explanation()], "heading"))
    size = len(image) // 4
    np.testing.assert_allclose(image, 127, atol=1)
    for panel, hot, cold in ((grad_cam, size, -size), (score_cam, -size, size)):
        # 0.6 of inferno's ends, fcffa4 and 000004, over 0.4 of the grey image, which is all black to Captum
        difference = panel[hot, hot] - panel[cold, cold]
        np.testing.assert_allclose(difference, 0.6 * np.array([252, 255, 160]), atol=3)


def test_a_map_is_scaled_from_its_own_lowest_to_its_own_highest_value() -> None:
    faint = class_explanation(maps=MAPS | {"grad_cam": CORNER * 2**-20, "score_cam": MAPS["score_cam"] + 5})
    panels = drawn(draw_explanations([image_explanation(faint)], "heading"))
    strong = drawn(draw_explanations([image_explanation()], "heading"))
    for scaled, expected in zip(panels[1:], strong[1:], strict=True):
        np.testing.assert_array_equal(scaled, expected)


def test_the_text_tells_classes_probabilities_methods_and_cost() -> None:
    other = class_explanation("dog", role="runner-up", probability=0.1)
    figure = draw_explanations([image_explanation(class_explanation(), other)], "a model, a layer")
    methods = ["LayerGradCam", "1 forward, 0.05 s for both classes"]
    methods += ["ScoreCAM", "6 of 10 forwards, 1.50 s for both classes"]
    first = ["cat", "predicted, 25.4% · image.png", *methods]
    second = ["dog", "runner-up, 10.0% · image.png", *methods]
    assert texts(figure) == ["a model, a layer", *first, *second]


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_a_constant_map_is_told_and_shows_the_image(value: float) -> None:
    constant = class_explanation(maps=MAPS | {"score_cam": torch.full((40, 40), value)})
    figure = draw_explanations([image_explanation(constant)], "heading")
    assert texts(figure)[-1] == "constant map · 6 of 10 forwards, 1.50 s"
    assert drawn(figure)[2].std() == 0


@pytest.mark.parametrize("n_methods", [1, 2, 5])
def test_all_panels_have_one_size_and_all_text_stays_inside(n_methods: int) -> None:
    names = list(TITLES)[:n_methods]
    run = RunStatistics(channels=2048, rows=1024)
    runs = {name: MethodRun(TITLES[name], 1024, run if name == "score_cam" else None, 1234.5) for name in names}
    awkward = class_explanation("$W_{1}$" * 20 + "\\frac{", maps=dict.fromkeys(names, CORNER))
    wide = class_explanation(maps=dict.fromkeys(names, CORNER[:20]))
    explanations = [
        replace(image_explanation(awkward, replace(awkward, name=""), name="W" * 200 + ".png"), runs=runs),
        replace(image_explanation(wide, height=20), runs=runs),
    ]
    figure = draw_explanations(explanations, "m" * 300)
    assert len(figure.axes) == 3 * (1 + n_methods)
    figure.canvas.draw()
    widths = {round(axes.get_window_extent().width) for axes in figure.axes}
    assert widths == {360}
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
    columns = sorted({text.get_window_extent().x0 for text in figure.texts if text.get_text()})
    for text in figure.texts[1:]:
        beyond = [x for x in columns if x > text.get_window_extent().x0 + 1]
        assert not beyond or text.get_window_extent().x1 < beyond[0]


def test_a_long_picture_has_fewer_dots_per_inch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_MOST_PIXELS", 300)  # of 2 ** 16, so that a few rows are too many
    figure = draw_explanations([image_explanation()] * 3, "heading")
    assert figure.get_size_inches()[1] * figure.dpi == pytest.approx(300)


def test_matplotlib_stays_as_it_was() -> None:
    before, backend, numbers = dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()
    draw_explanations([image_explanation()], "heading")
    assert (dict(mpl.rcParams), mpl.get_backend(), plt.get_fignums()) == (before, backend, numbers)


def test_the_picture_is_written_in_its_full_size(tmp_path: Path) -> None:
    figure = draw_explanations([image_explanation()], "heading")
    write_png(figure, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (
            1176,
            528,
        )  # (2 · 0.25 + 3 · 3 + 2 · 0.15, 2 · 0.25 + 0.35 + 0.55 + 3) inches, 120 dots each
    assert os.listdir(tmp_path) == ["out.png"]


def test_an_old_picture_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    (tmp_path / "out.png").write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_png(draw_explanations([image_explanation()], "heading"), tmp_path / "out.png")
    monkeypatch.undo()
    assert (tmp_path / "out.png").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.png"]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "folder" / "out.png")
    check_output(tmp_path / "link.png")
    write_png(draw_explanations([image_explanation()], "heading"), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "folder" / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_new_file_and_an_old_picture_are_good_outputs(tmp_path: Path) -> None:
    check_output(tmp_path / "new.PNG")
    (tmp_path / "old.png").touch()
    check_output(tmp_path / "old.png", [tmp_path / "image.png"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("out.jpg", "to end in .png"),
        ("nowhere/out.png", "in a folder that exists, but there is no .*nowhere"),
        ("image.png/out.png", "in a folder that exists"),
        ("folder.png", "to be a new or a writable file"),
        ("image.png", "another file than the images"),
        ("link.png", "another file than the images"),
    ],
)
def test_a_bad_output_is_told(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "image.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "image.png")
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name, [tmp_path / "image.png"])


@pytest.mark.parametrize(("refused", "message"), [("folder", "a writable folder"), ("out.png", "a writable file")])
def test_what_may_not_be_written_is_told(
    refused: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "out.png").touch()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != refused and access(path, mode))
    with pytest.raises(ValueError, match=message):
        check_output(folder / "out.png")
