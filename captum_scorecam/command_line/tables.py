"""Tables on the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table


def stdout_console(width: int) -> Console:
    """Returns a console for stdout, as wide as the terminal, or `width` columns if stdout is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def plain_table() -> Table:
    """Returns a table without borders, with a line below the column names."""
    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
