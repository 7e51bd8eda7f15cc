"""The command ``explain``: its table, its picture, and how it fails."""

from __future__ import annotations

import copy
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.command_line import explain, explanation_table
from captum_scorecam.engines import by_name
from tests.support import colour_classifier
from tests.support.command_line import COLOURS, help_of, invoke, options_of, panels_of, rows_of

pytestmark = pytest.mark.usefixtures("folder")


def test_the_table_lists_classes_probabilities_and_costs(folder: Path) -> None:
    result = invoke("explain", "colours.png", *COLOURS)
    assert result.exit_code == 0, result.output
    assert "tests.support.colour_classifier:with_names, weights DEFAULT, layer features" in result.output
    assert "Picture: scorecam.png" in result.output
    table = [row[:-1] for row in rows_of(result.output)]  # without the seconds
    assert table == [
        ["colours.png", "red (0)", "Grad-CAM", "1"],
        ["predicted, 93.6%", "Score-CAM", "2", "1 + 0 of 3"],
        ["green (1)", "Grad-CAM", "same"],
        ["runner-up, 4.7%", "Score-CAM", "same", "same"],
    ]
    assert sorted(os.listdir(folder)) == ["colours.png", "scorecam.png"]


def test_the_maps_show_where_the_colours_are(figures: list[Figure]) -> None:
    assert invoke("explain", "colours.png", *COLOURS).exit_code == 0
    image, red_grad_cam, red_score_cam, _, green_grad_cam, green_score_cam = panels_of(figures[0])
    np.testing.assert_allclose(at(image, 0.14, 0.14), [255, 0, 0], atol=1)
    np.testing.assert_allclose(at(image, 0.95, 0.95), [0, 255, 0], atol=1)
    for red, green in ((red_grad_cam, green_grad_cam), (red_score_cam, green_score_cam)):
        assert at(red, 0.14, 0.14).mean() > at(red, 0.95, 0.95).mean() + 100
        assert at(green, 0.95, 0.95).mean() > at(green, 0.56, 0.28).mean() + 100


def at(panel: NDArray[np.float64], down: float, right: float) -> NDArray[np.float64]:
    """The pixel at a fraction of a panel's height and width."""
    pixel: NDArray[np.float64] = panel[int(down * len(panel)), int(right * panel.shape[1])]
    return pixel


def test_the_table_has_a_row_for_each_class_and_method_in_the_given_order() -> None:
    methods = options_of("rise", "grad_cam", "mask", "score_cam", "rise", "grad_cam_plus_plus")
    result = invoke("explain", "colours.png", *COLOURS, *methods, "--n-masks", "20")
    assert result.exit_code == 0, result.output
    assert [row[:-1] for row in rows_of(result.output)] == [
        ["colours.png", "red (0)", "RISE", "20"],
        ["predicted, 93.6%", "Grad-CAM", "1"],
        ["Mask", "300"],
        ["Score-CAM", "2", "1 + 0 of 3"],
        ["Grad-CAM++", "1"],
        ["green (1)", "RISE", "same"],
        ["runner-up, 4.7%", "Grad-CAM", "same"],
        ["Mask", "same"],
        ["Score-CAM", "same", "same"],
        ["Grad-CAM++", "same"],
    ]


def test_the_table_of_one_method_names_class_and_probability() -> None:
    result = invoke("explain", "colours.png", *COLOURS, *options_of("grad_cam_plus_plus"))
    assert [row[:3] for row in rows_of(result.output)] == [
        ["colours.png", "red (0)", "Grad-CAM++"],
        ["predicted, 93.6%"],
        ["green (1)", "Grad-CAM++", "same"],
        ["runner-up, 4.7%"],
    ]


def test_columns_follow_the_order_of_the_methods(figures: list[Figure]) -> None:
    def drawn(*names: str, seed: int) -> list[NDArray[np.float64]]:
        options = [*options_of(*names), "--n-masks", "20", "--seed", str(seed)]
        assert invoke("explain", "colours.png", *COLOURS, *options).exit_code == 0
        return panels_of(figures[-1])

    image, *of_red, _, other_score_cam, other_rise, other_plus_plus = drawn(
        "score_cam", "rise", "grad_cam_plus_plus", seed=0
    )
    reordered = drawn("grad_cam_plus_plus", "score_cam", "rise", seed=0)
    np.testing.assert_array_equal(reordered[:4], [image, of_red[2], of_red[0], of_red[1]])
    for red, green in zip(of_red, (other_score_cam, other_rise, other_plus_plus), strict=True):
        assert np.abs(red - green).mean() > 5
    reseeded = drawn("score_cam", "rise", seed=1)
    np.testing.assert_array_equal(reseeded[1], of_red[0])
    assert np.abs(reseeded[2] - of_red[1]).mean() > 5


def test_a_budget_stands_in_the_table_and_in_the_picture(figures: list[Figure]) -> None:
    result = invoke("explain", "colours.png", *COLOURS, "--max-forwards", "1")
    assert result.exit_code == 0, result.output
    grad_cam, score_cam, other_grad_cam, other_score_cam = rows_of(result.output)
    assert score_cam[:4] == ["predicted, 93.6%", "Score-CAM", "1", "1 + 0 of 3"]
    assert re.fullmatch(r"±\d+%", score_cam[-1])
    assert re.fullmatch(r"±\d+%", other_score_cam[-1])
    assert len(grad_cam) == len(other_grad_cam) + 1  # no error
    titles = [axes.texts[1].get_text() for axes in figures[0].axes]
    assert titles[2::3] == [f"Score-CAM {score_cam[-1]}", f"Score-CAM {other_score_cam[-1]}"]
    assert figures[0].axes[2].texts[0].get_text().startswith("1 of 3 forwards, ")


def test_a_budget_of_one_method_has_its_error_in_table_picture_and_files(figures: list[Figure], folder: Path) -> None:
    methods = ["--method", "small=score_cam:max_forwards=1", "--method", "score_cam"]
    result = invoke("explain", "colours.png", *COLOURS, *methods, "--save-maps", "maps")
    assert result.exit_code == 0, result.output
    error = rows_of(result.output)[0][-1]
    assert re.fullmatch(r"±\d+%", error)
    assert [axes.texts[1].get_text() for axes in figures[0].axes[1:3]] == [f"small {error}", "Score-CAM"]
    assert [path.name for path in sorted((folder / "maps").glob("*_error.npy"))] == [
        "000_colours_small_0_error.npy",
        "000_colours_small_1_error.npy",
    ]


def test_a_budget_that_is_not_reached_gives_the_exact_map(figures: list[Figure]) -> None:
    exact = invoke("explain", "colours.png", *COLOURS)
    assert exact.exit_code == 0
    for budget in (["--max-forwards", "1000"], ["--error", "1e-6"]):
        result = invoke("explain", "colours.png", *COLOURS, *budget)
        assert result.exit_code == 0, result.output
        assert [row[-1] for row in rows_of(result.output)[1::2]] == ["exact", "exact"]
        assert figures[-1].texts[0].get_text() == figures[0].texts[0].get_text()
        assert figures[-1].axes[2].texts[1].get_text() == "Score-CAM"
        np.testing.assert_allclose(panels_of(figures[-1])[2], panels_of(figures[0])[2], atol=1)


def test_mask_iterations_are_used() -> None:
    result = invoke("explain", "colours.png", *COLOURS, *options_of("mask"), "--mask-iterations", "7", "--no-compare")
    assert [row[:4] for row in rows_of(result.output)] == [
        ["colours.png", "red (0)", "Mask", "7"],
        ["predicted, 93.6%"],
    ]


def test_the_picture_is_written_before_the_table_is_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no terminal")

    monkeypatch.setattr(explain, "print_explanations", fail)
    assert invoke("explain", "colours.png", *COLOURS).exit_code == 2
    assert (folder / "scorecam.png").exists()


def test_rise_and_mask_need_no_layer(figures: list[Figure]) -> None:
    command = ["explain", "colours.png", "--model", "tests.support.colour_classifier:without_maps", "--n-masks", "20"]
    result = invoke(*command, *options_of("rise"))
    assert result.exit_code == 0, result.output
    assert "layer none" in result.output
    assert len(panels_of(figures[0])) == 4
    result = invoke(*command, *options_of("rise", "score_cam"))
    assert (result.exit_code, result.output.startswith("Error: Expected a model with a layer")) == (2, True)


def test_every_image_has_its_row(folder: Path, figures: list[Figure]) -> None:
    Image.new("RGB", (10, 10), "blue").save(folder / "[blue] \x1b.png")
    result = invoke("explain", "colours.png", "[blue] \x1b.png", *COLOURS, "--no-compare", "--output", "both.png")
    assert result.exit_code == 0, result.output
    assert [row[:2] for row in rows_of(result.output)[::2]] == [
        ["colours.png", "red (0)"],
        ["[blue] ?.png", "blue (2)"],
    ]
    blue = panels_of(figures[0])[3]
    np.testing.assert_allclose(blue, np.broadcast_to([0.0, 0.0, 255.0], blue.shape), atol=1)
    assert (folder / "both.png").exists()


def test_a_constant_map_gives_a_warning_and_is_drawn(folder: Path) -> None:
    Image.new("RGB", (10, 10), "blue").save(folder / "blue.png")
    result = invoke("explain", "blue.png", *COLOURS)
    assert result.exit_code == 0
    assert len(re.findall("^Warning: .*constant", result.output, re.MULTILINE)) == 1
    assert rows_of(result.output)[1][:-1] == ["predicted, 100.0%", "Score-CAM", "0", "3 + 0 of 3"]
    assert (folder / "scorecam.png").exists()


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (["--method", "grad_cam", "--perturbations-per-eval", "8"], ["`--perturbations-per-eval` has no effect"]),
        (["--method", "grad_cam", "--engine", "compile"], ["`--engine` has no effect"]),
        (["--method", "rise", "--n-masks", "9", "--layer", "nonsense"], ["`--layer` has no effect"]),
        (["--method", "rise", "--n-masks", "9", "--perturbations-per-eval", "8"], []),
        (["--method", "captum:LayerIntegratedGradients", "--perturbations-per-eval", "8"], []),
    ],
)
def test_an_option_that_nothing_uses_is_warned_of(
    options: list[str], warnings: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "twin_by_name", lambda *_: None)
    Image.new("RGB", (10, 10), "blue").save(folder / "blue.png")
    result = invoke("explain", "blue.png", *COLOURS, *options)
    assert result.exit_code == 0
    found = [line for line in result.output.splitlines() if line.startswith("Warning: ")]
    assert [line.removeprefix("Warning: ").partition(":")[0] for line in found] == warnings


def test_characters_that_the_font_lacks_are_not_warned_of(folder: Path) -> None:
    Image.new("RGB", (10, 10), "blue").save(folder / "\u732b.png")
    result = invoke("explain", "\u732b.png", *COLOURS)
    assert (result.exit_code, "Glyph" in result.output) == (0, False)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK", "I;16"])
def test_every_kind_of_image_is_explained(mode: str, folder: Path) -> None:
    picture = colour_classifier.red_and_green()
    if mode == "I;16":
        grey = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    else:
        grey = picture.convert(mode)
    name = f"image.{'tiff' if mode in ('CMYK', 'I;16') else 'png'}"
    grey.save(folder / name)
    result = invoke("explain", name, *COLOURS, "--target", "red", "--no-compare")
    assert result.exit_code == 0, result.output
    assert rows_of(result.output)[0][:2] == [name, "red (0)"]


def test_target_layer_weights_and_chunk_size_are_used(folder: Path) -> None:
    torch.save({"score.weight": torch.eye(3).flip(0) * 16}, folder / "weights.pt")  # red and blue change places
    options = ["--weights", "weights.pt", "--layer", "features", "--perturbations-per-eval", "1", "--device", "cpu"]
    result = invoke("explain", "colours.png", *COLOURS, "--target", "GREEN", *options)
    assert result.exit_code == 0, result.output
    assert "weights weights.pt, layer features" in result.output
    rows = rows_of(result.output)
    assert rows[0][:2] == ["colours.png", "green (1)"]
    assert [row[0] for row in rows[1:]] == ["chosen, 4.7%", "blue (2)", "predicted, 93.6%"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "there is no file 'none.png'"),
        (["text.png"], "'text.png' can't be read as one"),
        (["."], "Expected `IMAGE` to be image files, but '.' is a folder: name its files"),
        (["colours.png", "none.png"], "there is no file 'none.png'"),
        (["colours.png"] * 51, "at most 50 images for one picture, but got 51"),
        (["colours.png", "--model", "vgg17"], "or package.module:factory, but got 'vgg17'. Closest matches: vgg1"),
        (["colours.png", "--model", "nowhere:factory"], "but there is no module named 'nowhere'"),
        (
            ["colours.png", "--weights", "none.pt"],
            "`--weights` to be DEFAULT, none or a file, but there is no file 'none.pt'",
        ),
        (["colours.png", "--weights", "text.png"], "but 'text.png' is a text file"),
        (
            ["colours.png", "--layer", "feature"],
            "`--layer` to name a module of the model, but got 'feature'. Closest matches: features",
        ),
        (["colours.png", "--layer", "score"], "Expected `--layer` to have N×K×h×w maps, but 'score' has shape (1, 3)"),
        (["colours.png", "--target", "3"], "Expected `--target` in 0..2, but got 3"),
        (["colours.png", "--target", "-1"], "Expected `--target` in 0..2, but got -1"),
        (["colours.png", "--target", "violet"], "Expected `--target` to name a class, but 'violet' matches none"),
        (
            ["colours.png", "--target", "re"],
            "`--target` to name one class, but 're' matches 2: red (0), green (1)",
        ),
        (
            ["colours.png", "--method", "rise", "--method", "smooth_grad"],
            "of `--method` to be one of grad_cam, grad_cam_plus_plus, score_cam, rise, mask, captum:CLASS, but got "
            "'smooth_grad'",
        ),
        (["colours.png", "--method", "scorecam"], "but got 'scorecam'. Closest matches: score_cam."),
        (["colours.png", "--method", "GradCAM"], "but got 'GradCAM'. Closest matches: grad_cam"),
        (
            ["colours.png", "--method", "rise", "--method", "grad_cam", "--max-forwards", "5"],
            "Expected `--method` to include score_cam, the only method with `--max-forwards`, but got rise, grad_cam.",
        ),
        (["colours.png", "--target", "9" * 23], "matches none"),
        (["colours.png", "--target", "9" * 5000], "but '999999999999...9999999999999' matches none"),
        (
            ["colours.png", "--device", "cuda"],
            "`--device` to be cpu or auto, since PyTorch finds no CUDA device",
        ),
        (["colours.png", "--output", "nowhere/out.png"], "Expected `--output` to be in a folder that exists"),
        (["colours.png", "--output", "./colours.png"], "Expected `--output` to be another file than the images"),
        (["colours.png", "--output", "out.pdf"], "Expected `--output` to end in .png"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "text.png").write_text("no image")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before = (folder / "colours.png").read_bytes()
    result = invoke("explain", *COLOURS, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert re.fullmatch(r"Error: [^\n]+\n", result.output)
    assert sorted(os.listdir(folder)) == ["colours.png", "text.png"]
    assert (folder / "colours.png").read_bytes() == before


def test_help_names_every_option() -> None:
    text = help_of("explain", columns=200)
    options = (
        "model weights layer target compare no-compare method n-masks mask-iterations seed output "
        "perturbations-per-eval max-forwards error device save-maps"
    )
    assert [option for option in options.split() if f"--{option}" not in text] == []


ONE_LOGIT = ("explain", "picture.png", "--model", "tests.support.colour_classifier:one_logit")


def test_the_score_of_one_logit_is_chosen(folder: Path) -> None:
    colour_classifier.red_and_green().save(folder / "picture.png")
    result = invoke(*ONE_LOGIT, "--score", "sigmoid", *options_of("score_cam", "rise", "mask"), "--n-masks", "20")
    assert result.exit_code == 0, result.output
    rows = rows_of(result.output)
    assert [row[:2] for row in rows[:1]] == [["picture.png", "redder (0)"]]
    assert "95.3%" in rows[1][0]  # the sigmoid of 3
    assert len(rows) == 3  # there is no other class


def test_one_logit_without_a_score_names_the_option(folder: Path) -> None:
    colour_classifier.red_and_green().save(folder / "picture.png")
    result = invoke(*ONE_LOGIT)
    assert result.exit_code == 2
    assert "Expected `--score` to be 'sigmoid' or 'output' for a model with one output" in " ".join(
        result.output.split()
    )


def test_scores_of_several_labels_are_not_a_softmax(folder: Path) -> None:
    colour_classifier.red_and_green().save(folder / "picture.png")
    result = invoke("explain", "picture.png", *COLOURS, "--score", "sigmoid", *options_of("score_cam"))
    assert result.exit_code == 0, result.output
    assert "98.2%" in result.output  # the sigmoid of 4
    assert "73.1%" in result.output  # the sigmoid of 1


@pytest.mark.parametrize("methods", [("grad_cam",), ("grad_cam", "score_cam")])
def test_a_list_on_a_narrow_terminal_names_class_and_score_with_each_method(
    methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explanation_table, "_WIDTH", 60)
    lines = invoke("explain", "colours.png", *COLOURS, *options_of(*methods)).stdout.splitlines()
    classes = ["Class: red (0), predicted, 93.6%", "Class: green (1), runner-up, 4.7%"]
    assert [line for line in lines if line.startswith("Class")] == [each for each in classes for _ in methods]
    assert lines.count("Image: colours.png") == 2 * len(methods)
    assert lines.count("Forwards: same") == len(methods)


@pytest.mark.parametrize(
    ("model", "scores"),
    [
        ("with_names", ["predicted, 4", "runner-up, 1"]),
        ("with_probabilities", ["predicted, 93.6%", "runner-up, 4.7%"]),
        ("with_sigmoid", ["predicted, 98.2%", "runner-up, 73.1%"]),  # as in records and in the app
    ],
)
def test_outputs_that_are_no_probabilities_are_no_percentages(
    model: str, scores: list[str], figures: list[Figure]
) -> None:
    model = f"tests.support.colour_classifier:{model}"
    result = invoke("explain", "colours.png", "--model", model, "--score", "output", *options_of("grad_cam"))
    assert result.exit_code == 0, result.output
    assert [row[0] for row in rows_of(result.output)[1::2]] == scores
    subtitles = [axes.texts[0].get_text() for axes in figures[0].axes[::2]]
    assert subtitles == [f"{score} · colours.png" for score in scores]


def test_probabilities_of_a_sigmoid_are_recognised() -> None:
    model = ("--model", "tests.support.colour_classifier:with_sigmoid")
    result = invoke("explain", "colours.png", *model, *options_of("score_cam"))
    assert (result.exit_code, result.stderr) == (0, "")
    assert [row[0] for row in rows_of(result.output)[1::2]] == ["predicted, 98.2%", "runner-up, 73.1%"]


@pytest.mark.parametrize(
    ("model", "returns"),
    [
        ("with_a_tuple", "tuple (item 0, of shape (1, 3); item 1, of shape (1, 3, 8, 8))"),
        ("with_a_dict", "dict (key 'scores', of shape (1, 3))"),
    ],
)
def test_a_model_without_scores_is_one_line(model: str, returns: str) -> None:
    model = f"tests.support.colour_classifier:{model}"
    result = invoke("explain", "colours.png", "--model", model, "--layer", "colours.features")
    assert result.exit_code == 2
    assert result.output == (
        f"Error: Expected a model that returns N×classes scores or an object with `logits`, but {model} returns "
        f"{returns}. Wrap it in a module that returns the scores; package.module:factory loads that.\n"
    )


# --- Engines ---------------------------------------------------------------------------------------------------------


def test_masked_images_run_through_the_engine_that_the_heading_names(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    def twin_by_name(engine: str, model: nn.Module, _inputs: Tensor) -> nn.Module:
        assert engine == "onnxruntime"
        twin = copy.deepcopy(model)
        twin.register_forward_pre_hook(lambda _, taken: rows.append(len(taken[0])))
        return twin

    eager = invoke("explain", "colours.png", *COLOURS)
    monkeypatch.setattr(explain, "twin_by_name", twin_by_name)
    monkeypatch.setattr(explain, "check_engine", lambda _: None)
    result = invoke("explain", "colours.png", *COLOURS, "--engine", "onnxruntime")
    assert result.exit_code == 0, result.output
    assert "weights DEFAULT, layer features, engine onnxruntime" in result.output
    assert "engine" not in eager.output
    assert [row[:-1] for row in rows_of(result.output)] == [row[:-1] for row in rows_of(eager.output)]
    assert sum(rows) >= 1 + 3 + 2  # the image, a batch to compare, two masks


def test_a_wrong_or_missing_engine_is_an_error_of_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = invoke("explain", "colours.png", *COLOURS, "--engine", "onnxruntime")
    assert result.exit_code == 2
    assert 'Error: The engine needs onnxruntime: pip install "captum-scorecam[onnx]".' in result.stderr
    monkeypatch.setattr(explain, "check_engine", lambda _: None)
    monkeypatch.setattr(by_name, "openvino", lambda _model, _inputs: lambda x: torch.zeros(len(x), 3))
    result = invoke("explain", "colours.png", *COLOURS, "--engine", "openvino")
    assert result.exit_code == 2
    assert "Error: Expected `--engine` to give what the model gives, but for the unmasked inputs they" in result.stderr
    assert not Path("scorecam.png").exists()


def test_an_unknown_class_is_an_error_before_an_engine_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    def exported(*_: object) -> None:
        raise AssertionError("exported")

    monkeypatch.setattr(explain, "twin_by_name", exported)
    monkeypatch.setattr(explain, "check_engine", lambda _: None)
    result = invoke("explain", "colours.png", *COLOURS, "--engine", "onnxruntime", "--target", "violet")
    assert result.exit_code == 2
    assert "'violet'" in result.stderr
