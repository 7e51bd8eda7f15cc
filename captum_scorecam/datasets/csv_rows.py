"""Reads the rows of a CSV file, with errors that name the line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """A row of a CSV file.

    Attributes:
        place (str): Location for error messages, such as ``line 3 of 'labels.csv'``.
        fields (dict of str to str): The fields by column, stripped of surrounding whitespace.
    """

    place: str
    fields: dict[str, str]

    def text(self, column: str) -> str:
        """Returns a field; raises ValueError if it is empty."""
        if not self.fields[column]:
            raise ValueError(f"Expected `{column}` in {self.place}, but got nothing.")
        return self.fields[column]

    def whole_number(self, column: str) -> int:
        """Returns a field as an integer; raises ValueError if it isn't a non-negative integer."""
        text = self.text(column)
        if not text.isdecimal():
            raise ValueError(f"Expected `{column}` to be a non-negative integer in {self.place}, but got {text!r}.")
        return int(text)


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Reads a UTF-8 CSV file with fields separated by commas, semicolons or tabs, skipping empty lines.

    Args:
        path (Path): The file. Its first line names the columns.
        required (sequence of str): The required columns.

    Raises:
        ValueError: If the file can't be read, a required column is missing, a row has a different number of fields
            than the first line, or there are no rows.
    """
    (_, columns), *lines = _lines(path) or [("", [])]
    if not set(required) <= set(columns) or len(set(columns)) < len(columns):
        raise ValueError(
            f"Expected columns {', '.join(required)}, without duplicates, in {str(path)!r}, "
            f"but got {', '.join(columns) or 'none'}."
        )
    if not lines:
        raise ValueError(f"Expected rows in {str(path)!r}, but found none.")
    for place, fields in lines:
        if len(fields) != len(columns):
            raise ValueError(f"Expected {len(columns)} fields in {place}, but got {len(fields)}.")
    return [Row(place, dict(zip(columns, fields, strict=True))) for place, fields in lines]


def _lines(path: Path) -> list[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            return [
                (f"line {reader.line_num} of {path.name!r}", [field.strip() for field in fields])
                for fields in reader
                if fields
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"Expected a CSV file in UTF-8, but {str(path)!r} can't be read as one: {error}.") from error
