"""Writes the folder of a small evaluation, as `captum-scorecam evaluate` leaves it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

METHODS = ["grad_cam", "score_cam", "rise"]
MEASURES = ["average_drop", "average_increase", "insertion", "deletion", "pointing_game", "sanity_check"]
CLASSES = ["tench", "tiger cat", "lakeside", "daisy"]
LAYERS = ["head", "blocks.2", "blocks.1", "stem"]
N_IMAGES, SIZE = 12, 64
UNREADABLE = "broken/notes.png"
HOSTILE = "<img src=x onerror=alert(1)>\"'</script><!--.png"

CONFIGURATION: dict[str, Any] = {
    "asked": {
        "data": "/data/pictures",
        "data_format": "folder",
        "images": N_IMAGES + 1,
        "model": "efficientnet_lite0",
        "weights": "DEFAULT",
        "layer": "_avg_pooling:input",
        "methods": METHODS,
        "measures": MEASURES,
        "target": "predicted",
        "seed": 0,
    },
    "versions": {"captum_scorecam": "0.1.0", "captum": "0.9.0", "torch": "2.14.1", "python": "3.11.2"},
}


def write_run(run: Path, *, hostile: bool = False) -> Path:
    """Writes a run of 12 images and 3 methods, with an unreadable image, a method that failed once, wrong predictions
    and measures that do not apply everywhere.

    Args:
        run (Path): The folder to make.
        hostile (bool): Give images, classes and the data set names that are HTML. Default: False.

    Returns:
        Path: The folder.
    """
    for folder in ("records", "gallery"):
        (run / folder).mkdir(parents=True)
    configuration = json.loads(json.dumps(CONFIGURATION))
    if hostile:
        configuration["asked"]["data"] = f"/data/{HOSTILE}"
    (run / "configuration.json").write_text(json.dumps(configuration))
    records = make_records(hostile=hostile)
    for rank in range(2):
        lines = [json.dumps(record, sort_keys=True) for record in records if record["index"] % 2 == rank]
        (run / "records" / f"rank-00{rank}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    _draw_gallery(run / "gallery", records)
    return run


def make_records(*, hostile: bool = False) -> list[dict[str, Any]]:
    """Returns the records that `write_run` writes, in their order."""
    generator = np.random.default_rng(0)
    names = [HOSTILE if hostile else name for name in CLASSES]
    records = [
        _record(index, method, names, generator, hostile) for index in range(N_IMAGES) for method in range(len(METHODS))
    ]
    error = {"type": "ValueError", "message": f"Expected an image, but {UNREADABLE!r} is none.", "stage": "image"}
    return [*records, {"image": UNREADABLE, "index": N_IMAGES, "method": None, "error": error}]


def _record(index: int, method: int, names: list[str], generator: np.random.Generator, hostile: bool) -> dict[str, Any]:
    predicted = index % len(CLASSES)
    label = predicted if index % 5 else (predicted + 1) % len(CLASSES)  # images 0, 5 and 10 are predicted wrongly
    image = HOSTILE if hostile and index == 1 else f"{CLASSES[label].replace(' ', '_')}/photo_{index:02d}.jpg"
    record = {"image": image, "index": index, "method": METHODS[method], "error": None}
    if (index, method) == (7, 2):
        message = f"Expected finite scores, but got NaN{' in ' + HOSTILE if hostile else ''}."
        return record | {"error": {"type": "ValueError", "message": message, "stage": "method"}}
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
        "insertion": {"x": steps.tolist(), "y": insertion.round(6).tolist()},
        "deletion": {"x": steps.tolist(), "y": deletion.round(6).tolist()},
    }
    if index < 4:
        curves["sanity_check"] = {"x": LAYERS, "y": similarity}
    return record | {
        "target": predicted,
        "target_name": names[predicted],
        "label": label,
        "predicted": predicted,
        "correct": label == predicted,
        "probability": round(0.95 - 0.04 * index, 6),
        "forwards": [1, 412, 2000][method],
        "values": values,
        "curves": curves,
    }


def _draw_gallery(folder: Path, records: list[dict[str, Any]]) -> None:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    for record in records:
        if record["method"] is None:
            continue
        index, method = record["index"], METHODS.index(record["method"])
        angle = index * 0.7
        place = 0.5 + 0.25 * np.array([np.sin(angle), np.cos(angle)])
        distance = np.hypot(rows - place[0], columns - place[1])
        pixels = np.stack([0.3 + 0.5 * rows, 0.5 + 0 * rows, 0.8 - 0.4 * columns], -1)
        pixels[distance < 0.2] = np.random.default_rng(index).uniform(0.4, 1, 3)
        Image.fromarray((pixels * 255).astype(np.uint8)).save(folder / f"{index:06d}.png")
        if not record["error"]:
            shifted = np.hypot(rows - place[0] - 0.02 * method * index, columns - place[1])
            heat = np.exp(-((shifted / (0.2 + 0.05 * method)) ** 2))
            scaled = (heat - heat.min()) / (heat.max() - heat.min())
            Image.fromarray((scaled * 255).astype(np.uint8)).save(folder / f"{index:06d}-{record['method']}.png")
