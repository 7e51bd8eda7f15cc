"""The documentation's pictures: in true colour, light, sharp, and all of them used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = sorted(path for path in (DOCS / "pictures").iterdir() if path.suffix in (".png", ".jpg"))
SHARP = 1200  # pixels across, of a column of at most 736


@pytest.mark.parametrize(
    "path",
    [*PICTURES, DOCS / "two_classes.jpg"],
    ids=lambda path: path.name,
)
def test_picture_is_light_and_sharp_in_true_colour(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert picture.width > SHARP
    assert path.stat().st_size < 300_000


def test_every_picture_is_used_and_every_used_one_is_there() -> None:
    pages = [page.read_text(encoding="utf-8") for page in DOCS.rglob("*.rst")]
    used = {name for page in pages for name in re.findall(r"/pictures/(\S+)", page)}
    assert used == {path.name for path in PICTURES}
