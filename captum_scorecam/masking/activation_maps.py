"""Converts a layer's activations to maps N×K×spatial and checks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_callable, check_whole_number


def vit_activation_maps(tokens: Tensor, prefix_tokens: int = 1, grid_size: Sequence[int] | None = None) -> Tensor:
    """Reshapes the patch tokens of a Vision Transformer to maps, for use as ``activation_transform``.

    Args:
        tokens (Tensor): N×(P + cells)×K; the first P are class or register tokens, the others patches in row-major
            order.
        prefix_tokens (int): P, the number of tokens before the patches. Default: 1, the class token.
        grid_size (sequence of int, optional): The patches along each spatial dimension of the input, whose product is
            the number of cells: (h, w), (t, h, w) for video, (t,) for signals. Default: None, a square (h, h), which
            attributions refuse for images that are not square.

    Returns:
        Tensor: N×K×grid.

    Raises:
        TypeError: If `prefix_tokens` or a side of the grid is not an int, or the grid is one number.
        ValueError: If `tokens` is not 3-D, an option is out of range, or the patch tokens do not fill the grid.
    """
    check_whole_number("prefix_tokens", prefix_tokens, 0)
    if isinstance(grid_size, int):
        raise TypeError(f"Expected `grid_size` to be a sequence of ints, one for each dimension, but got {grid_size}.")
    for side in grid_size or ():
        check_whole_number("grid_size", side, 1)
    if tokens.dim() != 3:
        raise ValueError(f"Expected tokens of shape N×S×K, but got {tuple(tokens.shape)}.")
    if prefix_tokens >= tokens.shape[1]:
        raise ValueError(f"Expected `prefix_tokens` below the {tokens.shape[1]} tokens, but got {prefix_tokens}.")
    patches = tokens[:, prefix_tokens:]
    grid = tuple(grid_size or (math.isqrt(patches.shape[1]),) * 2)
    if math.prod(grid) != patches.shape[1]:
        raise ValueError(
            f"Expected {'×'.join(map(str, grid))} patch tokens, but got {patches.shape[1]} "
            f"(after {prefix_tokens} prefix tokens); set `grid_size` for a different grid."
        )
    return torch.unflatten(patches, 1, grid).movedim(-1, 1)


def swin_activation_maps(tokens: Tensor, grid_size: Sequence[int] | None = None) -> Tensor:
    """Moves the channels of a Swin Transformer's tokens first, for use as ``activation_transform``.

    Args:
        tokens (Tensor): N×h×w×K (torchvision, timm), N×t×h×w×K (video), or N×cells×K (Hugging Face).
        grid_size (sequence of int, optional): The grid of flat tokens, as in :func:`vit_activation_maps`. Default:
            None, a square.

    Returns:
        Tensor: N×K×grid.

    Raises:
        TypeError: If a side of the grid is not an int.
        ValueError: If `tokens` has other dimensions, or flat tokens do not fill the grid.
    """
    if tokens.dim() in (4, 5):
        return tokens.movedim(-1, 1)
    return vit_activation_maps(tokens, prefix_tokens=0, grid_size=grid_size)


def check_activation_transform(transform: object) -> None:
    """Raises TypeError if an ``activation_transform`` is neither None nor callable."""
    if transform is not None:
        check_callable("activation_transform", transform)


def checked_activation_maps(
    activations: Tensors,
    inputs: Tensors,
    transform: Callable[[Tensor], Tensor] | None = None,
    are_gradients: bool = False,
) -> Tensors:
    """Transforms a layer's activations and checks that the results are finite maps that match the inputs.

    Quantised activations are dequantised first.

    Args:
        activations (tuple of Tensor): The layer's activation, one or more tensors.
        inputs (tuple of Tensor): N examples, each N×C×spatial.
        transform (callable, optional): Converts an activation to maps.
        are_gradients (bool): Whether they are the gradients of activations, which the message then says. Default:
            False.

    Returns:
        tuple of Tensor: Each N×K×spatial, with the spatial rank of the inputs.

    Raises:
        TypeError: If the layer or the transform returns anything other than floating-point tensors.
        ValueError: If an activation is not a map, differs from the inputs in spatial rank or number of examples, or is
            not finite.
    """
    values = tuple(_dequantised(activation) for activation in activations)
    maps = values if transform is None else tuple(transform(activation) for activation in values)
    for activation in maps:
        _check_map(activation, inputs)
        _check_finite(activation, are_gradients)
    return maps


def _dequantised(activation: Tensor) -> Tensor:
    is_quantised = isinstance(activation, Tensor) and activation.is_quantized
    return activation.dequantize() if is_quantised else activation


def _check_map(activation: Tensor, inputs: Tensors) -> None:
    shape = tuple(getattr(activation, "shape", ()))
    if not isinstance(activation, Tensor) or not activation.is_floating_point():
        found = activation.dtype if isinstance(activation, Tensor) else type(activation).__name__
        raise TypeError(f"Expected the layer to return floating-point tensors, but got {found}.")
    is_dense = activation.layout == torch.strided
    if not is_dense or activation.dtype.itemsize < 2:
        got = activation.dtype if is_dense else activation.layout
        raise TypeError(f"Expected the layer to return dense tensors of at least 16 bits per value, but got {got}.")
    if len(shape) not in (3, 4, 5):
        raise ValueError(
            "Expected the layer to return maps of shape N×K×spatial (1 to 3 spatial dimensions), "
            f"but got shape {shape}."
        )
    ranks = sorted({x.dim() - 2 for x in inputs if x.dim() > 2} - {len(shape) - 2})
    if ranks:
        raise ValueError(
            f"Expected maps with {ranks[0]} spatial dimensions, as the inputs have, but got shape {shape}; "
            "use `activation_transform` to convert activations to maps (see `vit_activation_maps`)."
        )
    if 0 in shape[1:]:
        raise ValueError(
            f"Expected the layer to return maps with at least one channel and cell, but got shape {shape}."
        )
    if shape[0] != len(inputs[0]):
        raise ValueError(f"Expected activations of {len(inputs[0])} examples, but got shape {shape}.")


def _check_finite(activation: Tensor, is_gradient: bool) -> None:
    if activation.isfinite().all():
        return
    shape = tuple(activation.shape)
    if is_gradient:
        raise ValueError(
            "Expected finite gradients, but got NaN or Inf in the gradient of the layer's activation, "
            f"of shape {shape}."
        )
    raise ValueError(f"Expected finite activations, but got NaN or Inf in the layer's activation of shape {shape}.")
