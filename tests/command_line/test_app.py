"""The command line, in this process and as a command."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from captum_scorecam import cli
from captum_scorecam.command_line import commands
from captum_scorecam.models import load_classifier
from tests.support import colour_classifier

COLOURS = ("--model", "tests.support.colour_classifier:with_names")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with an image that is a quarter red and a sixteenth green."""
    colour_classifier.red_and_green().save(tmp_path / "colours.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands.commands, arguments)


def rows_of(output: str) -> list[list[str]]:
    """The cells of the table's lines, which stand two blanks or more apart."""
    table = output.split("─\n")[1].split("Picture:")[0]
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if line.strip()]


def panels(path: Path, rows: int, columns: int = 3) -> list[np.ndarray]:
    """The pixels of each panel, 3 inches at 120 dots, 0.25 from the border, 0.15 apart; square."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    row_height = 3.0 + 0.55 + 0.15
    height = 2 * 0.25 + 0.35 + rows * row_height - 0.15
    width = 2 * 0.25 + columns * 3.15 - 0.15
    assert pixels.shape[:2] == (int(round(height * 120, 6)), int(round(width * 120, 6)))
    found = []
    for row in range(rows):
        top = round((0.25 + 0.35 + 0.55 + row * row_height) * 120)
        for column in range(columns):
            left = round((0.25 + column * 3.15) * 120)
            found.append(pixels[top + 2 : top + 358, left + 2 : left + 358])
    return found


@pytest.mark.slow
def test_the_demo_explains_the_cat(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parent.parent)}
    command = [sys.executable, "-m", "captum_scorecam", "demo", "--output", "demo.png"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    check_demo(done.stdout, folder / "demo.png", channels=1280)


def test_the_demo_explains_the_cat_at_a_smaller_layer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "load_classifier", lambda name: replace(load_classifier(name), layer="_blocks.3"))
    result = invoke("demo", "--output", "demo.png")
    assert result.exit_code == 0, result.output
    check_demo(result.output, folder / "demo.png", channels=40)


def check_demo(output: str, picture: Path, channels: int) -> None:
    grad_cam, score_cam, other_grad_cam, other_score_cam = rows_of(output)
    assert grad_cam[:4] == ["chelsea", "tiger cat (282)", "LayerGradCam", "1"]
    assert score_cam[:2] == ["predicted, 39.5%", "ScoreCAM"]
    assert other_grad_cam == ["Egyptian cat (285)", "LayerGradCam", "same", "same"]
    assert other_score_cam == ["runner-up, 35.5%", "ScoreCAM", *["same"] * 3]
    forwards, constant, shared = int(score_cam[2]), *map(int, re.findall(r"\d+", score_cam[3])[:2])
    assert forwards + constant + shared == channels
    assert channels < 1280 or forwards <= 0.6 * channels  # the head's ReLU makes many maps all zero
    drawn = panels(picture, rows=2)
    np.testing.assert_array_equal(drawn[0], drawn[3])  # the image
    for first in range(6):
        for second in set(range(first + 1, 6)) - {first + 3 if first == 0 else -1}:
            assert np.abs(drawn[first] - drawn[second]).mean() > 1, (first, second)


def test_an_error_is_one_line_on_stderr_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["captum-scorecam", "explain", "colours.png", "--model", "resnet81"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("captum_scorecam", run_name="__main__")
    printed = capsys.readouterr()
    assert (exit_.value.code, printed.out) == (2, "")
    assert re.fullmatch(r"Error: Expected `--model` .* but got 'resnet81'\. Nearest: resnet18.*\.\n", printed.err)


def test_explain_prints_what_it_found_and_what_it_cost(folder: Path) -> None:
    result = invoke("explain", "colours.png", *COLOURS)
    assert result.exit_code == 0, result.output
    assert "tests.support.colour_classifier:with_names, weights DEFAULT, layer features" in result.output
    assert "Picture: scorecam.png" in result.output
    table = [row[:-1] for row in rows_of(result.output)]  # without the seconds
    assert table == [
        ["colours.png", "red (0)", "LayerGradCam", "1"],
        ["predicted, 93.6%", "ScoreCAM", "2", "1 + 0 of 3"],
        ["green (1)", "LayerGradCam", "same"],
        ["runner-up, 4.7%", "ScoreCAM", "same", "same"],
    ]
    assert sorted(os.listdir(folder)) == ["colours.png", "scorecam.png"]


def test_the_picture_shows_the_maps_where_the_colours_are(folder: Path) -> None:
    assert invoke("explain", "colours.png", *COLOURS).exit_code == 0
    image, red_grad_cam, red_score_cam, _, green_grad_cam, green_score_cam = panels(folder / "scorecam.png", rows=2)
    np.testing.assert_allclose(image[50, 50], [255, 0, 0], atol=1)
    np.testing.assert_allclose(image[340, 340], [0, 255, 0], atol=1)
    for red, green in ((red_grad_cam, green_grad_cam), (red_score_cam, green_score_cam)):
        assert red[50, 50].mean() > red[340, 340].mean() + 100
        assert green[340, 340].mean() > green[200, 100].mean() + 100


def test_the_table_has_a_row_for_each_class_and_method_in_the_given_order() -> None:
    methods = options_of("rise", "grad_cam", "mask", "score_cam", "rise", "grad_cam_plus_plus")
    result = invoke("explain", "colours.png", *COLOURS, *methods, "--n-masks", "20")
    assert result.exit_code == 0, result.output
    assert [row[:-1] for row in rows_of(result.output)] == [
        ["colours.png", "red (0)", "RISE", "20"],
        ["predicted, 93.6%", "LayerGradCam", "1"],
        ["Mask", "300"],
        ["ScoreCAM", "2", "1 + 0 of 3"],
        ["LayerGradCamPlusPlus", "1"],
        ["green (1)", "RISE", "same"],
        ["runner-up, 4.7%", "LayerGradCam", "same"],
        ["Mask", "same"],
        ["ScoreCAM", "same", "same"],
        ["LayerGradCamPlusPlus", "same"],
    ]


def test_the_table_of_one_method_names_class_and_probability() -> None:
    result = invoke("explain", "colours.png", *COLOURS, *options_of("grad_cam_plus_plus"))
    assert [row[:3] for row in rows_of(result.output)] == [
        ["colours.png", "red (0)", "LayerGradCamPlusPlus"],
        ["predicted, 93.6%"],
        ["green (1)", "LayerGradCamPlusPlus", "same"],
        ["runner-up, 4.7%"],
    ]


def test_a_column_shows_one_method_wherever_it_stands(folder: Path) -> None:
    def drawn(*names: str, seed: int) -> list[np.ndarray]:
        options = [*options_of(*names), "--n-masks", "20", "--seed", str(seed)]
        assert invoke("explain", "colours.png", *COLOURS, *options).exit_code == 0
        return panels(folder / "scorecam.png", rows=2, columns=1 + len(names))

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


def test_rise_and_mask_need_no_layer(folder: Path) -> None:
    command = ["explain", "colours.png", "--model", "tests.support.colour_classifier:without_maps", "--n-masks", "20"]
    result = invoke(*command, *options_of("rise"))
    assert result.exit_code == 0, result.output
    assert "layer none" in result.output
    assert len(panels(folder / "scorecam.png", rows=2, columns=2)) == 4
    result = invoke(*command, *options_of("rise", "score_cam"))
    assert (result.exit_code, "Expected a model with a layer" in result.output) == (2, True)


def options_of(*methods: str) -> list[str]:
    return [part for method in methods for part in ("--method", method)]


def test_several_images_make_more_rows(folder: Path) -> None:
    Image.new("RGB", (10, 10), "blue").save(folder / "[blue] \x1b.png")
    result = invoke("explain", "colours.png", "[blue] \x1b.png", *COLOURS, "--no-compare", "--output", "both.png")
    assert result.exit_code == 0, result.output
    assert [row[:2] for row in rows_of(result.output)[::2]] == [
        ["colours.png", "red (0)"],
        ["[blue] ?.png", "blue (2)"],
    ]
    drawn = panels(folder / "both.png", rows=2)
    np.testing.assert_allclose(drawn[3], np.broadcast_to([0.0, 0.0, 255.0], (356, 356, 3)), atol=1)


def test_a_map_of_zeros_is_warned_of_and_drawn(folder: Path) -> None:
    Image.new("RGB", (10, 10), "blue").save(folder / "blue.png")
    result = invoke("explain", "blue.png", *COLOURS)
    assert result.exit_code == 0
    assert len(re.findall("^Warning: .*constant", result.output, re.MULTILINE)) == 1
    assert rows_of(result.output)[1][:-1] == ["predicted, 100.0%", "ScoreCAM", "0", "3 + 0 of 3"]
    assert (folder / "scorecam.png").exists()


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


def test_target_layer_weights_and_chunks_are_used(folder: Path) -> None:
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
        (["colours.png", "none.png"], "there is no file 'none.png'"),
        (["colours.png"] * 51, "at most 50 images for one picture, but got 51"),
        (["colours.png", "--model", "vgg17"], "but got 'vgg17'. Nearest: vgg1"),
        (["colours.png", "--model", "nowhere:factory"], "No module named 'nowhere'"),
        (["colours.png", "--weights", "none.pt"], "there is no file 'none.pt'"),
        (["colours.png", "--weights", "text.png"], "'text.png' can't be read as one"),
        (["colours.png", "--layer", "feature"], "but got 'feature'. Nearest: features"),
        (["colours.png", "--layer", "score"], "but 'score' has shape (1, 3)"),
        (["colours.png", "--target", "3"], "Expected `--target` in 0..2, but got 3"),
        (["colours.png", "--target", "-1"], "Expected `--target` in 0..2, but got -1"),
        (["colours.png", "--target", "violet"], "'violet' fits none"),
        (["colours.png", "--target", "re"], "'re' fits 2: red (0), green (1)"),
        (
            ["colours.png", "--method", "rise", "--method", "smooth_grad"],
            "to be one of grad_cam, grad_cam_plus_plus, score_cam, rise, mask, but got 'smooth_grad'",
        ),
        (["colours.png", "--device", "cuda"], "PyTorch finds no CUDA device"),
        (["colours.png", "--output", "nowhere/out.png"], "in a folder that exists"),
        (["colours.png", "--output", "colours.png"], "another file than the images"),
        (["colours.png", "--output", "out.pdf"], "to end in .png"),
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


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain"],
        ["explain", "colours.png", "--perturbations-per-eval", "0"],
        ["explain", "colours.png", "--n-masks", "0"],
        ["explain", "colours.png", "--seed", "-1"],
        ["explode"],
        ["demo", "x"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2


def test_an_output_that_cannot_be_written_is_told_before_the_demo_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "load_classifier", lambda *_: pytest.fail("work was done"))
    result = invoke("demo", "--output", "nowhere/out.png")
    assert (result.exit_code, "in a folder that exists" in result.output) == (2, True)


def test_a_failure_of_the_model_is_one_line_and_status_1(folder: Path) -> None:
    (folder / "breaking.py").write_text(
        "import torch\n"
        "class Breaking(torch.nn.Conv2d):\n"
        "    def forward(self, inputs):\n"
        "        raise KeyError('two\\nlines')\n"
        "def model():\n"
        "    return Breaking(3, 2, 1)\n"
    )
    result = invoke("explain", "colours.png", "--model", "breaking:model")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: KeyError: [^\n]+\n", result.output)


def test_warnings_stay_as_they_were() -> None:
    filters, show = list(warnings.filters), warnings.showwarning
    invoke("explain", "colours.png", *COLOURS)
    assert (list(warnings.filters), warnings.showwarning) == (filters, show)


def test_help_names_every_option() -> None:
    result = CliRunner().invoke(commands.commands, ["explain", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    options = "model weights layer target compare no-compare method n-masks seed output perturbations-per-eval device"
    assert [option for option in options.split() if f"--{option}" not in result.output] == []
