"""Images listed in a CSV file, with labels and boxes."""

from __future__ import annotations

from collections import defaultdict
from math import isfinite
from pathlib import Path

from captum_scorecam.datasets.csv_rows import Row, read_rows
from captum_scorecam.datasets.image_files import Box, ImageFile, ImageFiles, largest_object
from captum_scorecam.datasets.sample import Label

_INDEX, _TEXTS = "class_index", ("label", "class_name", "wnid")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def open_csv(path: Path) -> ImageFiles:
    """Opens the images listed in a CSV file.

    The first line names the columns. ``file`` is a path, absolute or relative to the CSV file's folder. The label is
    the first non-empty value of ``class_index`` (a number), ``label``, ``class_name`` and ``wnid``. ``xmin``, ``ymin``,
    ``xmax`` and ``ymax`` define a box in pixels of the upright image, counted from 0; the maxima are exclusive. Other
    columns are ignored. An image may have several rows if each has a box; its label is then the one whose boxes have
    the largest total area.

    Raises:
        ValueError: If the file is malformed; the message names the line.
    """
    rows_of_file: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(path, ["file"]):
        rows_of_file[Path(row.text("file")).as_posix()].append(row)
    return ImageFiles([_image_file(path.parent, name, rows) for name, rows in rows_of_file.items()])


def _image_file(folder: Path, name: str, rows: list[Row]) -> ImageFile:
    path = str(folder / name)
    objects = [(_label(row), box) for row in rows for box in [_box(row)] if box is not None]
    if not objects and len(rows) == 1:
        return ImageFile(path, name, _label(rows[0]))
    if len(objects) < len(rows):
        without = next(row.place for row in rows if _box(row) is None)
        raise ValueError(f"Expected a box in each of the {len(rows)} rows of {name!r}, but {without} has none.")
    return ImageFile(path, name, *largest_object(objects))


def _label(row: Row) -> Label | None:
    if row.fields.get(_INDEX):
        return row.whole_number(_INDEX)
    return next((row.fields[column] for column in _TEXTS if row.fields.get(column)), None)


def _box(row: Row) -> Box | None:
    texts = [row.fields.get(edge, "") for edge in _EDGES]
    if not any(texts):
        return None
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        left = top = right = bottom = float("nan")
    if not (all(map(isfinite, (left, top, right, bottom))) and left < right and top < bottom):
        raise ValueError(
            f"Expected {', '.join(_EDGES)} to be numbers with xmin < xmax and ymin < ymax in {row.place}, "
            f"but got {', '.join(text or 'nothing' for text in texts)}."
        )
    return left, top, right, bottom
