"""Writes the folder of a small evaluation, as `captum-scorecam evaluate` leaves it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from captum_scorecam.evaluation import Curve, Failure, Record
from captum_scorecam.evaluation.pictures import GALLERY, picture_name
from captum_scorecam.evaluation.record_files import RECORDS, rank_file
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.evaluation.typed_json import to_json
from tests.support.run_records import SETTINGS

METHODS = ["grad_cam", "score_cam", "rise"]
METRICS = ["average_drop", "average_increase", "insertion", "deletion", "pointing_game", "sanity_check"]
CLASSES = ["tench", "tiger cat", "lakeside", "daisy"]
LAYERS = ["head", "blocks.2", "blocks.1", "stem"]
N_IMAGES, SIZE = 12, 64
UNREADABLE = "broken/notes.png"
HOSTILE = "<img src=x onerror=alert(1)>\"'</script><!--.png"

RUN_SETTINGS = replace(
    SETTINGS,
    data="/data/pictures",
    data_format="folder",
    images=N_IMAGES + 1,
    model="efficientnet_lite0",
    weights="DEFAULT",
    layer="_avg_pooling:input",
    methods=tuple(METHODS),
    metrics=tuple(METRICS),
)
VERSIONS = {"captum_scorecam": "0.1.0", "captum": "0.9.0", "torch": "2.14.1", "python": "3.11.2", "cpu": "znver4"}


def write_run(run: Path, *, hostile: bool = False) -> Path:
    """Writes a run of 12 images and 3 methods, with an unreadable image, a method that failed once, wrong predictions
    and metrics that are undefined on some images.

    Args:
        run (Path): The folder to make.
        hostile (bool): Give images, classes, layers and the data set names that are HTML. Default: False.

    Returns:
        Path: The folder.
    """
    for folder in (RECORDS, GALLERY):
        (run / folder).mkdir(parents=True)
    settings = replace(RUN_SETTINGS, data=f"/data/{HOSTILE}") if hostile else RUN_SETTINGS
    write_configuration(run, settings, VERSIONS)
    write_records(run, make_records(hostile=hostile))
    _draw_gallery(run / GALLERY, make_records(hostile=hostile))
    return run


def write_records(run: Path, records: list[Record]) -> None:
    """Writes records into a run's folder, as two ranks do."""
    for rank in range(2):
        lines = [to_json(record) for record in records if record.index % 2 == rank]
        rank_file(run, RECORDS, rank).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def make_records(*, hostile: bool = False) -> list[Record]:
    """Returns the records that `write_run` writes, in their order."""
    generator = np.random.default_rng(0)
    records = [
        _record(index, method, generator, hostile) for index in range(N_IMAGES) for method in range(len(METHODS))
    ]
    error = Failure("ValueError", f"Expected an image, but {UNREADABLE!r} is none.", "image")
    return [*records, Record(UNREADABLE, N_IMAGES, None, error)]


def _record(index: int, method: int, generator: np.random.Generator, hostile: bool) -> Record:
    predicted = index % len(CLASSES)
    label = predicted if index % 5 else (predicted + 1) % len(CLASSES)  # images 0, 5 and 10 are predicted wrongly
    image = HOSTILE if hostile and index == 1 else f"{CLASSES[label].replace(' ', '_')}/photo_{index:02d}.jpg"
    if (index, method) == (7, 2):
        message = f"Expected finite scores, but got NaN{' in ' + HOSTILE if hostile else ''}."
        return Record(image, index, METHODS[method], Failure("ValueError", message, "method"))
    noise = generator.normal(0, 1, 4)
    steps = np.linspace(0, 1, 21)
    insertion = np.clip(0.7 * steps ** (0.5 + 0.2 * method) + 0.03 * noise[0], 0, 1)
    deletion = np.clip(0.7 * (1 - steps) ** (3 - 0.4 * method) + 0.02 * noise[1], 0, 1)
    similarity = [round(float(value), 6) for value in 0.9 - (0.25 - 0.05 * method) * np.arange(len(LAYERS))]
    values = {
        "average_drop": round(float(np.clip(24 - 5 * method + 8 * noise[2], 0, 100)), 6),
        "average_increase": 100.0 if noise[3] > 0.6 else 0.0,
        "insertion": round(float(insertion.mean()), 6),
        "deletion": round(float(deletion.mean()), 6),
        "pointing_game": float(noise[2] > -0.5) if index % 3 else None,  # every third image has no box
        "sanity_check": similarity[-1] if index < 4 else None,
    }
    curves = {
        "insertion": Curve(steps.tolist(), insertion.round(6).tolist()),
        "deletion": Curve(steps.tolist(), deletion.round(6).tolist()),
    }
    if index < 4:
        curves["sanity_check"] = Curve([f"{name}{HOSTILE if hostile else ''}" for name in LAYERS], similarity)
    return Record(
        image,
        index,
        METHODS[method],
        error=None,
        target=predicted,
        target_name=HOSTILE if hostile else CLASSES[predicted],
        label=label,
        predicted=predicted,
        correct=label == predicted,
        probability=round(0.95 - 0.04 * index, 6),
        forwards=[1, 412, 2000][method],
        values=values,
        curves=curves,
        chunk_rows={"map": (1,)},
    )


def _draw_gallery(folder: Path, records: list[Record]) -> None:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for record in records:
        if record.method is None:
            continue
        index, method = record.index, METHODS.index(record.method)
        angle = index * 0.7
        place = 0.5 + 0.25 * np.array([np.sin(angle), np.cos(angle)])
        distance = np.hypot(rows - place[0], columns - place[1])
        pixels = np.stack([0.3 + 0.5 * rows, 0.5 + 0 * rows, 0.8 - 0.4 * columns], -1)
        pixels[distance < 0.2] = np.random.default_rng(index).uniform(0.4, 1, 3)
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / picture_name(index))
        if record.error is None:
            shifted = np.hypot(rows - place[0] - 0.02 * method * index, columns - place[1])
            heat = np.exp(-((shifted / (0.2 + 0.05 * method)) ** 2))
            scaled = (heat - heat.min()) / (heat.max() - heat.min())
            Image.fromarray((scaled * 255).astype(np.uint8)).save(folder / picture_name(index, record.method))
