"""Resolves baselines given by value, by name or as a function, and blends inputs with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, Tensors
from captum_scorecam._messages import check_choice, check_dense, check_positive, type_of
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


def baseline_tensors(baselines: BaselineType, inputs: Tensors) -> Tensors:
    """Returns one baseline per input, with its dtype and on its device.

    Args:
        baselines: As in Captum: None for zeros, a number or a tensor, or a tuple with one for each input. A tensor
            holds one value, or one example or N, and is broadcast to the input.
        inputs (tuple of Tensor): Each N×C×spatial.

    Returns:
        tuple of Tensor: Each of shape (), 1×C×spatial or N×C×spatial.

    Raises:
        TypeError: If a baseline is neither a number nor a dense tensor of real numbers.
        ValueError: If the number of baselines, or the shape of one, does not match the inputs, or a value is not
            finite in their dtype.
    """
    given = (0,) * len(inputs) if baselines is None else baselines if isinstance(baselines, tuple) else (baselines,)
    for baseline in given:
        _check_baseline(baseline)
    if len(given) != len(inputs):
        raise ValueError(f"Expected `baselines` to match the number of inputs, {len(inputs)}, but got {len(given)}.")
    return tuple(_baseline_of(x, baseline) for x, baseline in zip(inputs, given, strict=True))


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


def _check_baseline(baseline: object) -> None:
    if isinstance(baseline, Tensor):
        check_dense("baselines", baseline)
        if baseline.is_complex() or baseline.dtype == torch.bool:
            raise TypeError(f"Expected `baselines` to hold real numbers, but got a tensor of {baseline.dtype}.")
    elif not isinstance(baseline, Real) or isinstance(baseline, bool):
        got = baseline if isinstance(baseline, (bool, complex)) else type_of(baseline)
        raise TypeError(f"Expected `baselines` to be a number or a tensor for each input, but got {got}.")


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:  # an int beyond the range of floats
        return math.inf


def _baseline_of(inputs: Tensor, baseline: Tensor | float) -> Tensor:
    number_or_tensor = baseline if isinstance(baseline, Tensor) else _as_float(baseline)
    values = torch.as_tensor(number_or_tensor, dtype=inputs.dtype, device=inputs.device)
    if not values.isfinite().all():
        raise ValueError(f"Expected `baselines` to be finite in {inputs.dtype}, but got NaN or Inf.")
    if values.dim() == 0:
        return values
    n_rows = len(values)
    fits = n_rows == 1 or (n_rows == len(inputs) and values.dim() == inputs.dim())
    sizes = zip(reversed(values.shape), reversed(inputs.shape), strict=False)
    if not fits or values.dim() > inputs.dim() or any(size not in (1, whole) for size, whole in sizes):
        raise ValueError(
            f"Expected `baselines` to be one value, or one or {len(inputs)} examples that match inputs of shape "
            f"{tuple(inputs.shape)}, but got shape {tuple(values.shape)}."
        )
    # The inputs are contiguous when they are blended, and stay so if the baselines are.
    return values.contiguous().expand(n_rows, *inputs.shape[1:])
