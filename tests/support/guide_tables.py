"""Reads the tables of the guide."""

from __future__ import annotations

import re
from pathlib import Path

_GUIDE = Path(__file__).parents[2] / "docs" / "guide"


def rows_below(page: str, heading: str) -> list[tuple[set[str], str]]:
    """Each row of the first table of two columns below a heading: the names in its first cell, and its second cell."""
    below = (_GUIDE / page).read_text(encoding="utf-8").partition(f"\n{heading}\n")[2]
    (table,) = re.findall(r"\.\. list-table::\n(.*?)\n(?=\S)", below, re.DOTALL)[:1]
    rows = (row.partition("\n     - ") for row in re.split(r"^   \* - ", table, flags=re.MULTILINE)[1:])
    return [({*re.findall("``(.*?)``", names)}, text) for names, _, text in rows]
