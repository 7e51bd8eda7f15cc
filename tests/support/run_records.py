"""Records and settings of a run for tests, with common defaults."""

from __future__ import annotations

from typing import Any

from captum_scorecam.evaluation import Failure, Record, RunSettings

SETTINGS = RunSettings(
    model="tiny",
    weights_digest="0123456789abcdef",
    layer="features",
    dtype="float32",
    device="cpu",
    threads=1,
    classes=8,
    images=3,
    images_digest="fedcba9876543210",
    images_available=16,
    methods=("grad_cam", "score_cam"),
    metrics=("insertion", "average_drop"),
    target="predicted",
    gallery=100,
    n_masks=20,
    mask_iterations=3,
    perturbations_per_eval=4,
    seed=0,
)


def record(index: int, method: str, values: dict[str, float | None], **changed: Any) -> Record:
    """The record of a method that ran on an image of class 0, tench, whose label is unknown."""
    described: dict[str, Any] = {
        "target": 0,
        "target_name": "tench",
        "predicted": 0,
        "probability": 0.75,
        "forwards": 1,
        "values": values,
        "chunk_rows": {"map": (1,)},
    }
    return Record(f"{index}.png", index, method, None, **(described | changed))


def failure(index: int, method: str | None = None, message: str = "text") -> Record:
    """The record of an image that can't be read, or of a method that failed on it."""
    error = Failure("ValueError", message, "image" if method is None else "method")
    return Record(f"{index}.png", index, method, error)
