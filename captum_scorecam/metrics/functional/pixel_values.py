"""Converts attributions to one value per pixel, as used by all metrics of maps."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors, as_tensors
from captum_scorecam._messages import check_finite
from captum_scorecam.masking.scaling import resize, working_dtype
from captum_scorecam.metrics.functional.arguments import check_tensor


def channel_sums(attributions: Tensor, name: str = "attributions") -> Tensor:
    """Sums attributions N×C×spatial over their channels.

    Args:
        attributions (Tensor): Floating point.
        name (str): Their name in an error message.

    Returns:
        Tensor: N×1×spatial, float32 (float64 for float64), detached.

    Raises:
        ValueError: If an attribution is NaN or infinite.
    """
    check_finite(name, attributions)
    return attributions.detach().to(working_dtype(attributions.dtype)).sum(1, keepdim=True)


def checked_maps(attributions: Tensor, name: str = "attributions") -> Tensor:
    """Sums attributions N×C×spatial to maps N×spatial.

    Args:
        attributions (Tensor): Floating point.
        name (str): Their name in an error message.

    Returns:
        Tensor: N×spatial, float32 (float64 for float64), detached.

    Raises:
        TypeError: If the attributions are not a floating-point tensor.
        ValueError: If they have another shape or no examples, or a value is NaN or infinite.
    """
    check_tensor(name, attributions, "N×C×spatial")
    if attributions.dim() not in (3, 4, 5) or attributions.numel() == 0:
        raise ValueError(
            f"Expected {name} of shape N×C×spatial (1 to 3 spatial dimensions), at least one, "
            f"but got shape {tuple(attributions.shape)}."
        )
    return channel_sums(attributions, name).squeeze(1)


def pixel_values(attributions: Tensor | Tensors, inputs: Tensors) -> Tensor:
    """Returns the value of each pixel of the inputs, resizing smaller attributions linearly.

    Args:
        attributions (Tensor or tuple of Tensor): One per input tensor, N×1×spatial or N×C×spatial (summed over the
            channels), of the input's spatial size or smaller.
        inputs (tuple of Tensor): Each N×C×spatial.

    Returns:
        Tensor: N×P, float32 (float64 for float64), with the pixels of all inputs concatenated.

    Raises:
        TypeError: If an attribution is not a floating-point tensor.
        ValueError: If an attribution does not match its input, or is not finite.
    """
    given = as_tensors("attributions", attributions)
    if len(given) != len(inputs):
        raise ValueError(f"Expected an attribution for each of {len(inputs)} inputs, but got {len(given)}.")
    return torch.cat([_values_of_input(maps, x).flatten(1) for maps, x in zip(given, inputs, strict=True)], dim=1)


def _values_of_input(attributions: Tensor, inputs: Tensor) -> Tensor:
    check_tensor("attributions", attributions, "N×C×spatial")
    given, wanted = tuple(attributions.shape), tuple(inputs.shape)
    if (
        len(given) != len(wanted)
        or given[0] != wanted[0]
        or given[1] not in (1, wanted[1])
        or any(not 0 < have <= most for have, most in zip(given[2:], wanted[2:], strict=True))
    ):
        raise ValueError(
            f"Expected attributions of shape N×1×spatial or N×C×spatial, not larger than the input {wanted}, "
            f"but got shape {given}."
        )
    return resize(channel_sums(attributions).to(inputs.device), inputs.shape[2:])
