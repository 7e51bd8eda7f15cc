"""CONTRIBUTING.md names files and folders that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`([\w./-]+(?:/|\.(?:py|rst|txt)))`", TEXT)))


def test_the_page_names_paths() -> None:
    assert len(PATHS) > 20
    assert "scoring/chunks.py" in PATHS


def test_paths_exist() -> None:
    assert [path for path in PATHS if not any((ROOT / top / path).exists() for top in ("", "captum_scorecam"))] == []
