"""Resolves baselines given by value, by name or as a function, and blends inputs with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, Tensors
from captum_scorecam._messages import check_choice, check_positive
from captum_scorecam.masking.scaling import working_dtype

BaselineFunction: TypeAlias = Callable[[Tensor], Tensor]
NamedBaseline: TypeAlias = Literal["blur"]
BaselineOption: TypeAlias = BaselineType | NamedBaseline | BaselineFunction


def gaussian_blur(inputs: Tensor, kernel_size: int = 11, sigma: float = 5.0) -> Tensor:
    """Blurs inputs along every spatial dimension; the defaults are those of RISE's insertion (arXiv 1806.07421).

    Edges are replicated. (RISE's code pads with zeros, which darkens the border.)

    Args:
        inputs (Tensor): Shape N×C×spatial.
        kernel_size (int): Width of the truncated Gaussian in pixels; odd. Default: 11.
        sigma (float): Standard deviation in pixels. Default: 5.

    Returns:
        Tensor: Blurred inputs, with the shape and dtype of `inputs`.

    Raises:
        ValueError: If `kernel_size` is not odd and positive, or `sigma` is not positive.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"Expected `kernel_size` to be odd and positive, but got {kernel_size}.")
    check_positive("sigma", sigma)
    dtype = working_dtype(inputs.dtype)
    offsets = torch.arange(kernel_size, device=inputs.device, dtype=dtype) - kernel_size // 2
    kernel = (-(offsets**2) / (2 * sigma**2)).softmax(0)
    blurred = inputs.to(dtype)
    # Autocast would run the convolutions in half precision.
    with torch.autocast(inputs.device.type, enabled=False):
        for dim in range(2, inputs.dim()):
            blurred = _blur_along(blurred, dim, kernel)
    return blurred.to(inputs.dtype)


def resolve_baselines(inputs: Tensor | Tensors, baselines: BaselineOption) -> BaselineType:
    """Converts named and callable baselines to values that Captum accepts.

    Args:
        inputs (Tensor or tuple of Tensor): Each N×C×spatial.
        baselines: ``"blur"`` for :func:`gaussian_blur`, a callable that takes an input tensor and returns its baseline,
            or any form that Captum accepts, which is returned unchanged.

    Raises:
        ValueError: If `baselines` is any other string.
    """
    if isinstance(baselines, str):
        check_choice("baselines", baselines, NamedBaseline, otherwise="a number, tensor, tuple or callable")
        baselines = gaussian_blur
    if not callable(baselines):
        return baselines
    computed = tuple(baselines(x.detach()) for x in _captum.format_inputs(inputs))
    return computed if isinstance(inputs, tuple) else computed[0]


def blend(inputs: Tensor, masks: Tensor, baselines: Tensor) -> Tensor:
    """Blends inputs with baselines: B + H ∘ (X − B).

    Args:
        inputs (Tensor): X, shape R×C×spatial.
        masks (Tensor): H, shape R×1×spatial, in [0, 1]: 1 keeps the input, 0 replaces it with the baseline.
        baselines (Tensor): B, broadcastable to `inputs`, with the same dtype.

    Returns:
        Tensor: Masked inputs, with the shape and dtype of `inputs`.
    """
    return torch.lerp(baselines, inputs, masks.to(inputs.dtype))


def _blur_along(inputs: Tensor, dim: int, kernel: Tensor) -> Tensor:
    lines = inputs.movedim(dim, -1)
    half = len(kernel) // 2
    padded = F.pad(lines.reshape(-1, 1, lines.shape[-1]), (half, half), mode="replicate")
    return F.conv1d(padded, kernel.view(1, 1, -1)).reshape(lines.shape).movedim(-1, dim)
