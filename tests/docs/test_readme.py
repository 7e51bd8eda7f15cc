"""README.md: its code draws its picture, and its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
LINKS = sorted(set(re.findall(r"\]\((?!https:)([^)#]+)", TEXT)))
PICTURE = ROOT / "docs" / "two_classes.jpg"


def pixels(path: Path) -> NDArray[np.float64]:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture).astype(np.float64)


@pytest.mark.parametrize("link", LINKS)
def test_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_there_are_links_and_the_picture_is_one() -> None:
    assert len(LINKS) > 10
    assert PICTURE.relative_to(ROOT).as_posix() in LINKS
    assert PICTURE.stat().st_size < 300_000


@pytest.mark.slow
def test_the_code_draws_the_picture(tmp_path: Path) -> None:
    command = [sys.executable, "docs/pictures/readme.py", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    drawn, shown = pixels(tmp_path / PICTURE.name), pixels(PICTURE)
    assert drawn.shape == shown.shape
    np.testing.assert_allclose(drawn, shown, atol=8)  # other kernels' rounding, and JPEG's
    assert np.abs(drawn - shown).mean() < 0.5
