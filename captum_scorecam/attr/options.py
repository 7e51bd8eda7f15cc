"""Which values the options of Score-CAM may have, and together with which others."""

from __future__ import annotations

import warnings

from torch import Tensor

from captum_scorecam.class_scores import ScoreFunction, are_probabilities
from captum_scorecam.weighting import CHANNEL_WEIGHTINGS


def check_options(
    score: str | ScoreFunction, channel_weighting: str, max_channels: int | None, activation_transform: object | None
) -> None:
    """Checks the choice of score, weighting and channels, and warns where softmax meets probabilities.

    Raises:
        TypeError: If `max_channels` is not an integer or `activation_transform` is not callable.
        ValueError: If `channel_weighting` is unknown or `max_channels` is less than 1.
    """
    if activation_transform is not None and not callable(activation_transform):
        raise TypeError(f"Expected `activation_transform` to be callable, but got {activation_transform!r}.")
    if not isinstance(max_channels, (int, type(None))):
        raise TypeError(f"Expected `max_channels` to be an int, but got {max_channels!r}.")
    if channel_weighting not in CHANNEL_WEIGHTINGS:
        names = " or ".join(map(repr, CHANNEL_WEIGHTINGS))
        raise ValueError(f"Expected `channel_weighting` to be {names}, but got {channel_weighting!r}.")
    if max_channels is not None and max_channels < 1:
        raise ValueError(f"Expected `max_channels` to be at least 1, but got {max_channels}.")
    if score == "probability" and channel_weighting == "softmax":
        warnings.warn(
            "The softmax of probabilities hardly varies over the channels, so the map is close to their plain sum. Use "
            "score='output' with 'softmax', or score='probability' with 'score' or 'increase'.",
            stacklevel=5,
        )


def warn_of_probabilities(output: object, score: str | ScoreFunction, channel_weighting: str) -> None:
    """Warns where the softmax weighting meets a model whose output is probabilities already."""
    if (
        score == "output"
        and channel_weighting == "softmax"
        and isinstance(output, Tensor)
        and are_probabilities(output)
    ):
        warnings.warn(
            "The model's outputs are probabilities, whose softmax hardly varies over the channels, so the map is close "
            "to their plain sum. Use channel_weighting='score' or 'increase', or the model without its last softmax.",
            stacklevel=5,
        )


def check_tolerance(
    tolerance: float, score: object, channel_weighting: str, summed: bool, process_group: object | None
) -> None:
    """Checks that the bound holds for the options of a call.

    Raises:
        ValueError: If `tolerance` is not in (0, 1), or weights may leave [0, 1], or the channels are not summed, or the
            work is shared among ranks.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"Expected `tolerance` in (0, 1), but got {tolerance}.")
    if score != "probability" or channel_weighting != "score":
        raise ValueError(
            "Expected score='probability' and channel_weighting='score' with `tolerance`, whose bound needs weights in "
            f"[0, 1], but got {score!r} and {channel_weighting!r}."
        )
    if not summed or process_group is not None:
        raise ValueError("Expected neither attr_dim_summation=False nor a `process_group` with `tolerance`.")
