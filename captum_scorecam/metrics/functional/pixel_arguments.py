"""The arguments of metrics that mask pixels: average drop, insertion, deletion, MoRF and LeRF."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_callable
from captum_scorecam.masking.baselines import BaselineOption, resolve_baselines
from captum_scorecam.metrics.functional.pixel_values import pixel_values
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.masked_forward import MaskedForward


def forward_and_pixel_values(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType,
    baselines: BaselineOption,
    score: Score,
    additional_forward_args: object | None,
) -> tuple[MaskedForward, Tensor]:
    """Checks a metric's arguments; returns the forward pass to run and the value of each pixel, N×P.

    Raises:
        TypeError, ValueError: If an argument is invalid, or an attribution does not match its input or is not finite.
    """
    check_callable("forward_func", forward_func)
    resolved = resolve_baselines(inputs, baselines)
    forward = MaskedForward.from_call(forward_func, inputs, [target], additional_forward_args, resolved, score)
    return forward, pixel_values(attributions, forward.inputs)
