"""Regions of images as text."""

from __future__ import annotations

from PIL import Image


def white(region: Image.Image | None) -> list[str]:
    """Returns a string for each row of a region, with "#" for white pixels and "." for black ones."""
    assert region is not None
    assert region.mode == "L"
    assert set(region.tobytes()) <= {0, 255}
    rows = [region.crop((0, row, region.width, row + 1)).tobytes() for row in range(region.height)]
    return ["".join(".#"[value == 255] for value in row) for row in rows]
