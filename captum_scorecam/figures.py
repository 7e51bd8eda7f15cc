"""The picture of explanations: image, LayerGradCam and ScoreCAM side by side, one row per image and class."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from captum_scorecam.explanation import ClassExplanation, ImageExplanation

_PANEL = 3.0  # inches
_GAP, _MARGIN, _ROW_TITLE, _HEADER = 0.15, 0.25, 0.62, 0.35
_DPI = 120
_MOST_PIXELS = 60_000  # Agg draws at most 2 ** 16 in one direction


def draw_explanations(explanations: Sequence[ImageExplanation]) -> Figure:
    raise NotImplementedError
