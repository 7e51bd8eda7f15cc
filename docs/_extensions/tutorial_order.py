"""The order of the tutorials in the gallery."""

from __future__ import annotations

from pathlib import Path

TUTORIALS = (
    "from_grad_cam_to_score_cam.py",
    "which_explanation_to_trust.py",
    "debugging_a_classifier.py",
    "beyond_image_classifiers.py",
    "a_score_of_your_own.py",
    "in_a_second.py",
    "fast.py",
    "with_quantus.py",
)


def position(filename: str) -> int:
    """Returns the place of a tutorial; a file that is not listed is an error."""
    return TUTORIALS.index(Path(filename).name)
