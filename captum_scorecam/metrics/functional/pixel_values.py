"""Converts attributions to one value per pixel, as used by all metrics of maps."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam.masking.scaling import resize, working_dtype


def channel_sums(attributions: Tensor) -> Tensor:
    """Sums attributions N×C×spatial over their channels.

    Returns:
        Tensor: N×1×spatial, float32 (float64 for float64), detached.

    Raises:
        ValueError: If an attribution is NaN or infinite.
    """
    finite = attributions.isfinite().flatten(1).all(1)
    if not finite.all():
        raise ValueError(
            f"Expected finite attributions, but got NaN or Inf for {int((~finite).sum())} of {len(finite)} examples, "
            f"the first for example {int((~finite).nonzero()[0])}."
        )
    return attributions.detach().to(working_dtype(attributions.dtype)).sum(1, keepdim=True)


def pixel_values(attributions: Tensor | Tensors, inputs: Tensors) -> Tensor:
    """Returns the value of each pixel of the inputs, resizing smaller attributions linearly.

    Args:
        attributions (Tensor or tuple of Tensor): One per input tensor, N×1×spatial or N×C×spatial (summed over the
            channels), of the input's spatial size or smaller.
        inputs (tuple of Tensor): Each N×C×spatial.

    Returns:
        Tensor: N×P, float32 (float64 for float64), with the pixels of all inputs concatenated.

    Raises:
        ValueError: If an attribution does not match its input, or is not finite.
    """
    given = _captum.format_inputs(attributions)
    if len(given) != len(inputs):
        raise ValueError(f"Expected an attribution for each of {len(inputs)} inputs, but got {len(given)}.")
    return torch.cat([_values_of_input(maps, x).flatten(1) for maps, x in zip(given, inputs, strict=True)], dim=1)


def _values_of_input(attributions: Tensor, inputs: Tensor) -> Tensor:
    given, wanted = tuple(attributions.shape), tuple(inputs.shape)
    if (
        len(given) != len(wanted)
        or given[0] != wanted[0]
        or given[1] not in (1, wanted[1])
        or any(have > most for have, most in zip(given[2:], wanted[2:], strict=True))
    ):
        raise ValueError(
            f"Expected attributions of shape N×1×spatial or N×C×spatial, not larger than the input {wanted}, "
            f"but got shape {given}."
        )
    return resize(channel_sums(attributions).to(inputs.device), inputs.shape[2:])
