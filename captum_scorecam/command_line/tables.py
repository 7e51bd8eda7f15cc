"""Tables on the terminal."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

_FOLDED = 12  # columns, to which longer words, such as file names, may be folded


def stdout_console(width: int) -> Console:
    """Returns a console for stdout, as wide as the terminal, or `width` columns if stdout is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def printable(text: str) -> str:
    """Returns text with unprintable characters replaced by question marks."""
    return "".join(character if character.isprintable() else "?" for character in text)


def plain_table() -> PlainTable:
    """Returns a table without borders, with a line below the column names.

    If the terminal is too narrow for all columns, a list of "column: cell" lines takes its place.
    """
    return PlainTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)


class PlainTable(Table):
    """A table that never cuts a number or a name, as Rich does if there is too little space."""

    def fits(self, console: Console) -> bool:
        """Checks whether the console is wide enough for all columns."""
        return self._spare(console, self._narrowest(console)) >= 0

    def _narrowest(self, console: Console) -> list[int]:
        return [_narrowest(column, console) for column in self.columns]

    def _spare(self, console: Console, widths: list[int]) -> int:
        return console.width - sum(widths) - (2 * len(widths) - 1)  # a space after each column and one between

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = self._narrowest(console)
        spare = self._spare(console, widths)
        if spare < 0:
            yield from self._list()
            return
        wanted = [_measures(column, console)[1] for column in self.columns]
        for _ in range(spare):
            missing = [most - width for most, width in zip(wanted, widths, strict=True)]
            if max(missing) > 0:
                widths[missing.index(max(missing))] += 1
        for column, width in zip(self.columns, widths, strict=True):
            column.width = width
        yield from super().__rich_console__(console, options)

    def _list(self) -> RenderResult:
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            for column, cell in zip(self.columns, cells, strict=True):
                if text := _on_one_line(cell):
                    yield Text.assemble(_on_one_line(column.header), ": ", text)
            yield Text()


def _narrowest(column: Column, console: Console) -> int:
    """Returns the least width at which no word is cut that may not be folded."""
    least, most = _measures(column, console)
    if column.no_wrap:
        return most
    return min(least, _FOLDED) if column.overflow == "fold" else least


def _measures(column: Column, console: Console) -> tuple[int, int]:
    """Returns the widths of a column's longest word and of its longest line."""
    texts = [column.header, *column.cells]
    measured = [console.measure(text, options=console.options.update(max_width=1000)) for text in texts]
    return max(each.minimum for each in measured), max(each.maximum for each in measured)


def _on_one_line(cell: RenderableType) -> Text:
    text = cell if isinstance(cell, Text) else Text(str(cell))
    return Text(" ").join(text.split("\n"))
