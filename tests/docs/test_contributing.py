"""CONTRIBUTING.md names files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = sorted(set(re.findall(r"`([\w./-]+(?:/|\.(?:py|rst|txt)))`", (ROOT / "CONTRIBUTING.md").read_text())))


def test_the_page_names_paths() -> None:
    assert len(PATHS) > 20
    assert "scoring/chunks.py" in PATHS


@pytest.mark.parametrize("path", PATHS)
def test_path_exists(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "captum_scorecam" / path).exists()
