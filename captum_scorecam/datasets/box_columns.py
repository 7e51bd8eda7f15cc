"""Finds columns of a CSV file that contain boxes under other names or in another convention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from captum_scorecam.datasets.csv_rows import Row

_ONE_COLUMN = {"bbox", "bboxes", "bb", "box", "boxes", "bndbox", "boundingbox", "rect", "rectangle", "roi"}
_ABOUT_BOXES = _ONE_COLUMN | {
    *("bounding", "gt", "obj", "object"),
    *("px", "pixel", "pixels", "norm", "coord", "coords", "coordinate", "coordinates"),
}
_SIDES = {
    *("0", "1", "2", "min", "max", "start", "end", "left", "right", "top", "bottom"),
    *("tl", "br", "lt", "rb", "topleft", "bottomright", "upperleft", "lowerright"),
    *("c", "ctr", "center", "centre", "mid"),
}
_HORIZONTAL = {"x", "l", "left", "right", "r", "mincol", "maxcol", "colmin", "colmax"}
_VERTICAL = {"y", "t", "top", "bottom", "b", "upper", "lower", "minrow", "maxrow", "rowmin", "rowmax"}
_WIDTH, _HEIGHT = {"w", "width", "dx", "xsize", "xwidth"}, {"h", "height", "dy", "ysize", "yheight"}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def box_columns(rows: Sequence[Row]) -> list[str]:
    """Returns the columns that look like boxes, in their order, or none.

    A box is a column with four numbers and a name such as ``bbox``; four columns with such a name in common, such as
    ``bbox-0`` to ``bbox-3``; or numbers in columns that together give two horizontal and two vertical values, at least
    one position each, such as ``x, y, w, h`` or ``cx, cy, width, height``. Columns such as ``width`` and ``height``
    alone, a point ``x, y``, and columns without numbers are none.

    Args:
        rows (sequence of Row): The rows of the file.
    """
    columns = [column for column in rows[0].fields if column]
    for found in _candidates(columns):
        if any(_holds_box([row.fields[column] for column in found]) for row in rows):
            return found
    return []


def _candidates(columns: Sequence[str]) -> Iterator[list[str]]:
    words = {column: _words(column) for column in columns}
    yield from ([column] for column in columns if "".join(words[column]) in _ONE_COLUMN | {"boundingboxes"})
    core = {column: "".join(word for word in words[column] if word not in _ABOUT_BOXES) for column in columns}
    horizontal, vertical = (
        [column for column in columns if core[column] in names or _is_side(core[column], axis)]
        for names, axis in ((_HORIZONTAL, "x"), (_VERTICAL, "y"))
    )
    widths, heights = ([column for column in columns if core[column] in names] for names in (_WIDTH, _HEIGHT))
    if horizontal and vertical and len(horizontal + widths) > 1 and len(vertical + heights) > 1:
        yield sorted({*horizontal, *vertical, *widths, *heights}, key=columns.index)
    numbered = [column for column in columns if core[column].isdecimal() and set(words[column]) & _ABOUT_BOXES]
    if len(numbered) > 3:
        yield numbered


def _words(column: str) -> list[str]:
    """Splits a name such as ``bboxXMin``, ``x_min`` or ``BBox X1 (px)`` into lower-case words."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column.replace("BBox", "Bbox").replace("BndBox", "Bndbox"))
    return re.findall(r"[a-z]+|\d+", spaced.lower())


def _is_side(core: str, axis: str) -> bool:
    return any(core in (axis + side, side + axis) for side in _SIDES)


def _holds_box(texts: Iterable[str]) -> bool:
    """Checks for a number in each of several columns, or for four of them in one."""
    counts = [len(_NUMBER.findall(text)) if _is_list_of_numbers(text) else 0 for text in texts]
    return all(counts) and sum(counts) >= 4


def _is_list_of_numbers(text: str) -> bool:
    return not re.sub(r"[\s,;()\[\]{}]|[xywhXYWH]\w*['\"]?\s*[:=]|['\"]", "", _NUMBER.sub("", text))
