"""What the page shows, as HTML: nothing of it is a file, pictures and downloads are part of the text."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from torch import Tensor

from captum_scorecam import overlay
from captum_scorecam.app.runs import Column, Progress
from captum_scorecam.evaluation.presentation import error_text
from captum_scorecam.models import Classifier, Prediction, class_name

N_TOP, N_CHANNELS = 5, 8


@dataclass(frozen=True, eq=False)
class Shown:
    """A visitor's maps and what they explain.

    Attributes:
        pixels (Tensor): The image as the model sees it, H×W×3 in [0, 1].
        classes (tuple of int): The explained classes.
        names (dict of int to str): Their names.
        notes (dict of int to str): Their scores as text.
        columns (tuple of Column): The maps so far.
        code (str): The Python code that makes them. Default: empty.
        running (bool): Whether they change; then there are no downloads. Default: False.
        complete_for (optional): The choices whose maps are all there, to be compared. Default: None, some are missing.
    """

    pixels: Tensor
    classes: tuple[int, ...]
    names: dict[int, str]
    notes: dict[int, str]
    columns: tuple[Column, ...]
    code: str = ""
    running: bool = False
    complete_for: object = None


@cache
def _environment() -> Environment:
    return Environment(loader=PackageLoader("captum_scorecam.app"), autoescape=True)


def _html(template: str, **values: Any) -> str:
    return _environment().get_template(f"{template}.html.j2").render(**values)


def status_html(text: str, kind: str = "", notes: Sequence[str] = ()) -> str:
    """Returns a line that says what happens; its kind is "" or "problem"."""
    return _html("status", text=text, kind=kind, notes=notes, done=0, total=0)


def progress_html(progress: Progress) -> str:
    """Returns the line and the bar of a run."""
    return _html("status", text=progress.text, kind="", notes=(), done=progress.done, total=progress.total)


def score_text(prediction: Prediction, index: int) -> str:
    """Returns a class's probability as a percentage, or its score if it is none."""
    value = float(prediction.probabilities[index])
    return f"{value:.1%}" if prediction.has_probabilities else f"{value:.4g}"


def top_classes(prediction: Prediction) -> list[int]:
    """Returns the classes with the highest scores, the highest first."""
    scores = prediction.scores  # which differ where probabilities round to the same
    return [int(index) for index in scores.topk(min(N_TOP, len(scores))).indices]


def seen_html(pixels: Tensor, classifier: Classifier, prediction: Prediction, engine: str) -> str:
    """Returns the picture as the model sees it, and the classes with the highest scores."""
    top = [
        (
            class_name(index, classifier.class_names),
            score_text(prediction, index),
            round(100 * float(prediction.probabilities[index]), 1) if prediction.has_probabilities else None,
        )
        for index in top_classes(prediction)
    ]
    picture = _png(Image.fromarray((255 * pixels).round().byte().numpy()))
    return _html("seen", picture=picture, model=classifier.name, engine=engine, top=top)


def maps_html(shown: Shown) -> str:
    """Returns the maps: of several classes, a row for each method and layer with the difference of the first two."""
    cells = [_cells(shown, column, number) for number, column in enumerate(shown.columns)]
    if len(shown.classes) == 1:
        (index,) = shown.classes
        titled = [
            {**cell, "title": column.title, "layer": column.layer, "note": ""}
            for (cell,), column in zip(cells, shown.columns, strict=True)
        ]
        rows: list[dict[str, Any]] = [{"title": shown.names[index], "note": shown.notes[index], "cells": titled}]
    else:
        rows = [
            {"title": column.title, "layer": column.layer, "cells": [*of_column, _difference(shown, column)]}
            for column, of_column in zip(shown.columns, cells, strict=True)
        ]
    code = "" if shown.running else shown.code
    return _html("maps", rows=rows, running=shown.running, code=code, code_file=_data("text/x-python", code.encode()))


def _cells(shown: Shown, column: Column, number: int) -> list[dict[str, Any]]:
    """A cell for the map of each class."""
    cells: list[dict[str, Any]] = []
    for place, index in enumerate(shown.classes):
        cells.append({"title": shown.names[index], "note": shown.notes[index], "failure": column.failure})
        if column.maps is not None:
            cells[-1] |= {
                "picture": _png(overlay(shown.pixels, column.maps[place])),
                "array": "" if shown.running else _npy(column.maps[place]),
                "caption": column.captions[place],
                "stem": _stem(column, str(index)),
                "key": "" if column.scores is None else f"{number}:{place}",
            }
    return cells


def _difference(shown: Shown, column: Column) -> dict[str, Any]:
    """A cell for the difference of the maps of the first two classes, each scaled to a largest value of 1."""
    first_name, second_name = (shown.names[index] for index in shown.classes[:2])
    cell = {"title": f"{first_name} − {second_name}"}
    if column.maps is None:
        return cell | {"failure": column.failure}
    first, second = (values / values.abs().max().clamp_min(1e-30) for values in column.maps[:2])
    possible = 1 if min(first.min(), second.min()) >= 0 else 2
    size = f"largest difference {float((first - second).abs().max()):.2g} of {possible}"
    if any(column.errors[:2]):
        size += f", errors of the maps {' and '.join(map(error_text, column.errors[:2]))}"
    return cell | {
        "caption": f"{size} · orange: more of the first, blue: more of the second",
        "picture": _png(overlay(shown.pixels, first - second)),
        "array": "" if shown.running else _npy(first - second),
        "stem": _stem(column, "-minus-".join(map(str, shown.classes[:2]))),
    }


def channels_html(shown: Shown, key: str) -> str:
    """Returns the strongest channels of a map: what each keeps of the picture, its score and its weight.

    Args:
        shown (Shown): The maps.
        key (str): The number of the column and the place of the class, as in the page: "0:1".

    Raises:
        ValueError: If there is no such map with channels.
    """
    number, _, place_text = key.partition(":")
    if not (number.isdecimal() and place_text.isdecimal()):
        raise ValueError("Choose a map of Score-CAM.")
    place = int(place_text)
    column = shown.columns[int(number)] if int(number) < len(shown.columns) else None
    if column is None or column.scores is None or place >= len(shown.classes):
        raise ValueError("Choose a map of Score-CAM.")
    scores = column.scores
    indices, weights = scores.strongest_channels(N_CHANNELS, column.weighting)
    channels = []
    for channel, weight in zip(indices[0, :, place].tolist(), weights[0, :, place].tolist(), strict=True):
        if not scores.has_mask[0, channel]:
            continue
        (mask, *_) = scores.masks[scores.masks.index[0, channel].view(1)]
        kept = shown.pixels * mask[0, 0].float().cpu().unsqueeze(2)
        channels.append(
            {
                "number": channel,
                "picture": _png(Image.fromarray((255 * kept).round().byte().numpy())),
                "score": f"{float(scores.scores[0, channel, place]):.4g}",
                "weight": f"{weight:.3g}",
                "was_run": bool(scores.was_run[0, channel]),
            }
        )
    name = shown.names[shown.classes[place]]
    whole = f"{float(scores.unmasked_scores[0, place]):.4g}"
    return _html("channels", layer=column.layer, name=name, weighting=column.weighting, whole=whole, channels=channels)


def _stem(column: Column, classes: str) -> str:
    return "-".join(filter(None, [column.method, column.layer.replace(":", "_"), classes]))


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=3)
    return _data("image/png", file.getvalue())


def _npy(values: Tensor) -> str:
    file = io.BytesIO()
    np.save(file, values.numpy())
    return _data("application/octet-stream", file.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
