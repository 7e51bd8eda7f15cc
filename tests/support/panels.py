"""Finds the panels of a picture, wherever the layout put them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Pixels = NDArray[np.float64]
_SMALLEST = 100  # no text is as high


def panels_in(pixels: Pixels) -> list[Pixels]:
    """Returns the panels of a picture on white, H×W×3 in [0, 255], from left to right and row by row.

    A panel is a connected area that is not white, at least 100 pixels wide and high; its outermost pixels are left out.
    """
    areas = ndimage.find_objects(ndimage.label((pixels < 255).any(axis=2))[0])
    areas = [area for area in areas if min(edge.stop - edge.start for edge in area) >= _SMALLEST]
    areas.sort(key=lambda area: area[0].stop)
    bottoms = [rows.stop for rows, _ in areas]
    row_numbers = np.cumsum(np.diff(bottoms, prepend=0) > _SMALLEST / 2)
    placed = sorted(
        (row, columns.start, rows, columns) for row, (rows, columns) in zip(row_numbers, areas, strict=True)
    )
    return [pixels[rows, columns][2:-2, 2:-2] for _, _, rows, columns in placed]


def panels_of_file(path: Path) -> list[Pixels]:
    """Returns the panels of a PNG file."""
    with Image.open(path) as picture:
        return panels_in(np.asarray(picture.convert("RGB")).astype(float))


def panels_of_figure(figure: Figure) -> list[Pixels]:
    """Returns the panels of a figure."""
    figure.canvas.draw()
    return panels_in(np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float))  # type: ignore[attr-defined]  # Agg
