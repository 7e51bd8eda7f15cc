"""The command line, in this process and as a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import colour_classifier
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from captum_scorecam import cli, commands

COLOURS = ("--model", "colour_classifier:with_names")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with an image that is a quarter red and a sixteenth green."""
    colour_classifier.red_and_green().save(tmp_path / "colours.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands.commands, arguments)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    package = Path(cli.__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(Path(__file__).parent)])}
    command = [sys.executable, "-m", "captum_scorecam", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def rows_of(table: str) -> list[list[str]]:
    """The cells of the table's lines, which stand two blanks or more apart."""
    return [re.split(r"\s{2,}", line.strip()) for line in table.splitlines() if "CAM" in line or "Cam" in line]


def panels(path: Path, rows: int) -> list[np.ndarray]:
    """The pixels of each panel, 3 inches at 120 dots, 0.25 from the border, 0.15 apart; square."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    row_height = 3.0 + 0.55 + 0.15
    height = 2 * 0.25 + 0.35 + rows * row_height - 0.15
    assert pixels.shape[:2] == (int(height * 120), int((2 * 0.25 + 3 * 3.0 + 2 * 0.15) * 120))
    found = []
    for row in range(rows):
        top = round((0.25 + 0.35 + 0.55 + row * row_height) * 120)
        for column in range(3):
            left = round((0.25 + column * 3.15) * 120)
            found.append(pixels[top + 2 : top + 358, left + 2 : left + 358])
    return found


def test_the_demo_explains_the_cat(folder: Path) -> None:
    done = run("demo", "--output", "demo.png")
    assert (done.returncode, done.stderr) == (0, "")
    grad_cam, score_cam, other_grad_cam, other_score_cam = rows_of(done.stdout)
    assert grad_cam[:4] == ["chelsea", "tiger cat (282)", "LayerGradCam", "1"]
    assert score_cam[:2] == ["predicted, 39.5%", "ScoreCAM"]
    assert other_grad_cam[:3] == ["Egyptian cat (285)", "LayerGradCam", "1"]
    assert other_score_cam == ["runner-up, 35.5%", "ScoreCAM", *["same"] * 3]
    forwards, constant, shared = int(score_cam[2]), *map(int, re.findall(r"\d+", score_cam[3])[:2])
    assert forwards + constant + shared == 1280
    assert forwards <= 0.6 * 1280
    drawn = panels(folder / "demo.png", rows=2)
    np.testing.assert_array_equal(drawn[0], drawn[3])  # the image
    for first in range(6):
        for second in set(range(first + 1, 6)) - {first + 3 if first == 0 else -1}:
            assert np.abs(drawn[first] - drawn[second]).mean() > 1, (first, second)


def test_an_error_is_one_line_on_stderr_and_status_2() -> None:
    done = run("explain", "colours.png", "--model", "resnet81")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: Expected `--model` .* but got 'resnet81'\. Nearest: resnet18.*\.\n", done.stderr)


def test_explain_prints_what_it_found_and_what_it_cost(folder: Path) -> None:
    result = invoke("explain", "colours.png", *COLOURS)
    assert result.exit_code == 0, result.output
    assert "colour_classifier:with_names, weights DEFAULT, layer features" in result.output
    assert "Picture: scorecam.png" in result.output
    table = [row[:-1] for row in rows_of(result.output)]  # without the seconds
    assert table == [
        ["colours.png", "red (0)", "LayerGradCam", "1"],
        ["predicted, 93.6%", "ScoreCAM", "2", "1 + 0 of 3"],
        ["green (1)", "LayerGradCam", "1"],
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
    "arguments", [["explain"], ["explain", "colours.png", "--perturbations-per-eval", "0"], ["explode"], ["demo", "x"]]
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
    options = "model weights layer target compare no-compare output perturbations-per-eval device"
    assert [option for option in options.split() if f"--{option}" not in result.output] == []
