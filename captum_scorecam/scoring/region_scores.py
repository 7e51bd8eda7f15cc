"""Scores of regions from the output of a segmentation model."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam._messages import type_of
from captum_scorecam.masking.scaling import working_dtype


def region_scores(output: Tensor, regions: Tensor) -> Tensor:
    """Returns the mean of each class over a region of each row, such as the pixels predicted as one class.

    Call it in `forward_func`, and pass `regions` in `additional_forward_args`, so that they follow their example
    through the chunks of masked inputs. Fix the regions beforehand: computed from each masked input, they would define
    a different score for each. On a GPU, each call waits for the checks of its arguments.

    Args:
        output (Tensor): R×C×spatial, logits or probabilities of C classes at each pixel.
        regions (Tensor): R×1×spatial, bool, or weights that are at least 0.

    Returns:
        Tensor: R×C, in float32 (float64 for float64).

    Raises:
        TypeError: If an argument is not a tensor of real numbers.
        ValueError: If shapes do not match, or a region is empty.

    Example:
        >>> import torch
        >>> from captum_scorecam import region_scores
        >>> region_scores(torch.tensor([[[[1.0, 2, 3]], [[4, 5, 6]]]]), torch.tensor([[[[True, False, True]]]]))
        tensor([[2., 5.]])
    """
    _check("output", output, "R×C×spatial")
    _check("regions", regions, "R×1×spatial")
    expected = (len(output), 1, *output.shape[2:])
    if tuple(regions.shape) != expected:
        raise ValueError(
            f"Expected `regions` of shape {expected} for an output of shape {tuple(output.shape)}, "
            f"but got {tuple(regions.shape)}."
        )
    dtype, spatial = working_dtype(output.dtype), tuple(range(2, output.dim()))
    weights = regions.to(output.device, dtype)
    if not (weights >= 0).all():
        raise ValueError("Expected `regions` of weights that are at least 0, but some are negative or NaN.")
    total = weights.sum(spatial)
    empty = int((total <= 0).sum())
    if empty:
        raise ValueError(f"Expected `regions` with at least one pixel each, but {empty} of {len(regions)} are empty.")
    # Outside of a region, an infinite value times 0 would be NaN.
    return torch.sum((output.to(dtype) * weights).masked_fill(weights == 0, 0), spatial) / total


def _check(name: str, value: object, shape: str) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"Expected `{name}` to be a tensor {shape}, but got {type_of(value)}.")
    if value.is_complex():
        raise TypeError(f"Expected `{name}` to be a tensor {shape} of real numbers, but got {value.dtype}.")
    if value.dim() < 3:
        raise ValueError(f"Expected `{name}` to be a tensor {shape}, but got shape {tuple(value.shape)}.")
