"""Pictures for a run's report: each image as seen by the model, and each method's map."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from torch import Tensor

from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.image_evaluation import Outcome
from captum_scorecam.masking.scaling import min_max_normalize

GALLERY = "gallery"


def picture_name(index: int, method: str | None = None) -> str:
    """Returns the file name in ``gallery`` of an image's picture, or of a method's map for it."""
    return f"{index:06d}.png" if method is None else f"{index:06d}-{method}.png"


def write_pictures(run: Path, outcome: Outcome) -> None:
    """Writes the picture of an image, unless it exists, and of its map, from black (lowest) to white (highest).

    Raises:
        OSError: If a file can't be written.
    """
    if outcome.pixels is None or outcome.map is None:
        return
    index, method = outcome.record.index, outcome.record.method
    if not (run / GALLERY / picture_name(index)).exists():
        write_durably(run / GALLERY / picture_name(index), _png(outcome.pixels))
    write_durably(run / GALLERY / picture_name(index, method), _png(min_max_normalize(outcome.map[None, None])[0, 0]))


def _png(values: Tensor) -> bytes:
    """Encodes values in [0, 1], H×W or H×W×3, as an 8-bit PNG."""
    picture = io.BytesIO()
    Image.fromarray((values * 255).round().byte().numpy()).save(picture, format="PNG", compress_level=1)
    return picture.getvalue()
