"""The command ``demo``."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

import captum_scorecam
from captum_scorecam.command_line import demo
from captum_scorecam.command_line.options import load_on_device
from tests.support.command_line import invoke, panels_of, rows_of


@pytest.mark.slow
def test_the_demo_explains_the_cat(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(captum_scorecam.__file__).parent.parent)}
    command = [sys.executable, "-m", "captum_scorecam", "demo", "--output", "demo.png"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    check_table(done.stdout, channels=1280)
    with Image.open(folder / "demo.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(float)
    rows, columns = len(pixels) // 2, pixels.shape[1] // 3
    check_all_differ([pixels[i * rows :][:rows, j * columns :][:, :columns] for i in range(2) for j in range(3)])


def test_the_demo_explains_the_cat_at_a_smaller_layer(
    folder: Path, figures: list[Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "load_on_device", lambda name: replace(load_on_device(name), layer="_blocks.3"))
    result = invoke("demo", "--output", "demo.png")
    assert result.exit_code == 0, result.output
    check_table(result.output, channels=40)
    assert (folder / "demo.png").exists()
    drawn = panels_of(figures[0])
    np.testing.assert_array_equal(drawn[0], drawn[3])  # the image
    check_all_differ(drawn)


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_demo_takes_a_budget(figures: list[Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_on_device", lambda name: replace(load_on_device(name), layer="_blocks.3"))
    result = invoke("demo", "--max-forwards", "20", "--error", "0.001")
    assert result.exit_code == 0, result.output
    _, score_cam, _, other_score_cam = rows_of(result.output)
    assert score_cam[2] == "20"
    titles = [figures[0].axes[panel].texts[1].get_text() for panel in (2, 5)]
    assert titles == [f"Score-CAM {row[-1]}" for row in (score_cam, other_score_cam)]


def check_all_differ(panels: list[NDArray[np.float64]]) -> None:
    """Checks two rows of three panels: all differ, except the image, which is in both rows."""
    for first, second in itertools.combinations(range(6), 2):
        assert (first, second) == (0, 3) or np.abs(panels[first] - panels[second]).mean() > 1, (first, second)


def check_table(output: str, channels: int) -> None:
    grad_cam, score_cam, other_grad_cam, other_score_cam = rows_of(output)
    assert grad_cam[:4] == ["chelsea", "tiger cat (282)", "Grad-CAM", "1"]
    assert score_cam[:2] == ["predicted, 39.5%", "Score-CAM"]
    assert other_grad_cam == ["Egyptian cat (285)", "Grad-CAM", "same", "same"]
    assert other_score_cam == ["runner-up, 35.5%", "Score-CAM", *["same"] * 3]
    forwards, constant, shared = int(score_cam[2]), *map(int, re.findall(r"\d+", score_cam[3])[:2])
    assert forwards + constant + shared == channels
    assert channels < 1280 or forwards <= 0.6 * channels  # the head's ReLU makes many maps all zero


def test_a_bad_output_fails_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_on_device", lambda _: pytest.fail("the model was loaded"))
    result = invoke("demo", "--output", "nowhere/out.png")
    assert result.exit_code == 2
    assert result.output.startswith("Error: Expected `--output` to be in a folder that exists")
