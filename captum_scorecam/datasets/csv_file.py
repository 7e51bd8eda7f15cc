"""Images listed in a CSV file, with labels and boxes."""

from __future__ import annotations

import re
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from captum_scorecam.datasets.box_columns import box_columns
from captum_scorecam.datasets.boxes import Box, largest_object
from captum_scorecam.datasets.csv_rows import Row, read_rows
from captum_scorecam.datasets.image_files import ImageFile, ImageFiles, listed_name
from captum_scorecam.datasets.sample import Label

_INDEX, _TEXTS = "class_index", ("label", "class_name", "wnid")
_EDGES = ("xmin", "ymin", "xmax", "ymax")


def open_csv(path: Path) -> ImageFiles:
    """Opens the images listed in a CSV file.

    The first line names the columns. ``file`` is a path, absolute or relative to the CSV file's folder. The label is
    the first non-empty value of ``class_index`` (a number), ``label``, ``class_name`` and ``wnid``. ``xmin``, ``ymin``,
    ``xmax`` and ``ymax`` are the left, top, right and bottom edges of a box in pixels of the upright image, counted
    from 0; the maxima are exclusive. Boxes given as fractions of the image, or as x, y, width, height, must be
    converted. Columns that look like boxes but have other names are an error; all others are ignored. An image may have
    several rows if each has a box; its label is then the one whose boxes have the largest total area.

    Raises:
        ValueError: If the file is malformed; the message names the line.
    """
    rows = read_rows(path, ["file"])
    _check_labels(rows[0].fields, path)
    _check_boxes(rows, path)
    rows_of_file: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        rows_of_file[listed_name(path.parent, row.text("file"))].append(row)
    return ImageFiles([_image_file(path.parent, name, rows) for name, rows in rows_of_file.items()])


def _check_labels(fields: Mapping[str, str], path: Path) -> None:
    """Raises ValueError if labels are in a column that would be ignored only for its spelling."""
    known = {name.replace("_", ""): name for name in (_INDEX, *_TEXTS)}
    if not fields.keys() & {*known.values()}:
        for column in fields:
            name = known.get(re.sub(r"[\W_]", "", column.lower()))
            if name:
                raise ValueError(f"Expected labels in a column {name!r} of {str(path)!r}, but got {column!r}.")


def _check_boxes(rows: Sequence[Row], path: Path) -> None:
    """Raises ValueError if boxes are in columns that would be ignored."""
    fields = rows[0].fields
    if fields.keys() >= {*_EDGES}:
        return
    found = box_columns(rows) or [column for column in fields if column.lower() in _EDGES]
    if found:
        raise ValueError(
            f"Expected boxes in columns {', '.join(_EDGES)} of {str(path)!r}, the left, top, right and bottom edges "
            f"in pixels, but got {', '.join(found)}. Convert and rename them; if they are no boxes, rename or remove "
            "them."
        )


def _image_file(folder: Path, name: str, rows: list[Row]) -> ImageFile:
    path = str(folder / name)
    labels, boxes = [_label(row) for row in rows], [_box(row) for row in rows]
    first: dict[tuple[Label | None, Box | None], Row] = {}
    for label, box, row in zip(labels, boxes, rows, strict=True):
        same = first.setdefault((label, None if box is None else Box(*box[:4])), row)
        if same is not row:
            raise ValueError(f"Expected each row once, but {row.place} repeats {same.place}, for {name!r}.")
    objects = [(label, box) for label, box in zip(labels, boxes, strict=True) if box is not None]
    if not objects and len(rows) == 1:
        return ImageFile(path, name, labels[0])
    if len(objects) < len(rows):
        raise ValueError(
            f"Expected one row for {name!r}, or a box in each of its {len(rows)} rows, "
            f"but {rows[boxes.index(None)].place} has none."
        )
    return ImageFile(path, name, *largest_object(objects))


def _label(row: Row) -> Label | None:
    if row.fields.get(_INDEX):
        return row.whole_number(_INDEX)
    return next((row.fields[column] for column in _TEXTS if row.fields.get(column)), None)


def _box(row: Row) -> Box | None:
    texts = [row.fields.get(edge, "") for edge in _EDGES]
    if not any(texts):
        return None
    source = f"{', '.join(reprlib.repr(text)[1:-1] or 'nothing' for text in texts)} in {row.place}"
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        left = top = right = bottom = float("nan")
    if not (all(map(isfinite, (left, top, right, bottom))) and left < right and top < bottom):
        raise ValueError(
            f"Expected {', '.join(_EDGES)} to be the edges of a box in pixels, numbers with xmin < xmax and "
            f"ymin < ymax, but got {source}. If a box is x, y, width, height, then xmax is x + width and ymax is "
            "y + height."
        )
    return Box(left, top, right, bottom, source)
