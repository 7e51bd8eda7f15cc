"""Reads the rows of a CSV file, with errors that name the line."""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from captum_scorecam.datasets.text_files import read_text


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
        """Returns a field as an integer; raises ValueError if it isn't a non-negative integer of at most 18 digits."""
        text = self.text(column)
        if not text.isdecimal() or len(text) > 18:
            raise ValueError(
                f"Expected `{column}` to be a non-negative integer in {self.place}, but got {reprlib.repr(text)}."
            )
        return int(text)


def read_rows(path: Path, required: Sequence[str]) -> list[Row]:
    """Reads a UTF-8 CSV file with fields separated by commas, semicolons or tabs, skipping empty lines.

    Args:
        path (Path): The file. Its first line names the columns.
        required (sequence of str): The required columns.

    Raises:
        ValueError: If the file can't be read, a required column is missing or two columns have the same name, a row
            has a different number of fields than the first line, or there are no rows.
    """
    (_, columns), *lines = list(_lines(path)) or [("", [])]
    missing = [column for column in required if column not in columns]
    if missing:
        found = reprlib.repr(columns) if columns else "nothing"
        raise ValueError(f"Expected a column {missing[0]!r} in the first line of {str(path)!r}, but got {found}.")
    twice = [column for column, count in Counter(filter(None, columns)).items() if count > 1]
    if twice:
        raise ValueError(
            f"Expected each column once in the first line of {str(path)!r}, but got {twice[0]!r} more than once."
        )
    if not lines:
        raise ValueError(f"Expected rows in {str(path)!r}, but found none.")
    for place, fields in lines:
        if len(fields) != len(columns):
            raise ValueError(f"Expected {len(columns)} fields in {place}, but got {len(fields)}.")
    return [Row(place, dict(zip(columns, fields, strict=True))) for place, fields in lines]


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    file = io.StringIO(read_text(path, "a CSV file"), newline="")
    separator = max(",;\t", key=re.sub('"[^"]*"', "", file.readline()).count)
    file.seek(0)
    reader = csv.reader(file, delimiter=separator, strict=True)
    try:
        for fields in reader:
            stripped = [field.strip() for field in fields]
            if any(stripped):
                yield f"line {reader.line_num} of {path.name!r}", stripped
    except csv.Error as error:
        raise ValueError(
            f"Expected a CSV file, but line {reader.line_num} of {str(path)!r} can't be read as one: {error}."
        ) from error
