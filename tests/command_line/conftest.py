"""A folder to work in, and the figures that commands draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from captum_scorecam.command_line import explain, panels
from captum_scorecam.command_line.explanation import ImageExplanation
from captum_scorecam.command_line.panels import draw_explanations
from tests.support import colour_classifier


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with an image that is a quarter red and a sixteenth green; pictures get few pixels."""
    monkeypatch.setattr(panels, "_MOST_PIXELS", 400)
    colour_classifier.red_and_green().save(tmp_path / "colours.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that ``explain`` and ``demo`` draw during the test."""
    drawn: list[Figure] = []

    def draw(explanations: Sequence[ImageExplanation], heading: str) -> Figure:
        drawn.append(draw_explanations(explanations, heading))
        return drawn[-1]

    monkeypatch.setattr(explain, "draw_explanations", draw)
    return drawn
