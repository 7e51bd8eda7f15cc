"""RISE and Grad-CAM++ one example at a time in plain steps, and layer maps in the inputs' shape.

As in `tests.naive_reference`, nothing here is the package's: what the package computes for a batch in chunks is
worked out in float64 with a forward for each example and mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.naive_reference import UPSAMPLING, target_of_example
from tests.support.grid_masks import naive_mask

Forward = Callable[..., Any]
Tensors = tuple[Tensor, ...]


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def examples(inputs: Tensors, additional: Any, baselines: Any) -> Iterator[tuple[Tensors, tuple[Any, ...], list[Any]]]:
    """Inputs, additional arguments and baselines of each example: what has as many rows as the inputs follows them."""
    batch = len(inputs[0])

    def of(value: Any, n: int) -> Any:
        follows = isinstance(value, Tensor) and value.dim() > 0 and len(value) == batch
        return value[n : n + 1] if follows else value

    for n in range(batch):
        arguments = () if additional is None else tuple(of(a, n) for a in as_tuple(additional))
        blank = as_tuple(baselines) if isinstance(baselines, tuple) else (baselines,) * len(inputs)
        yield tuple(x[n : n + 1].detach() for x in inputs), arguments, [0.0 if b is None else of(b, n) for b in blank]


def score_of(output: Tensor, score: Any, index: tuple[int, ...] | None) -> Tensor:
    """The class score of one example, a scalar."""
    if callable(score):
        output = score(output)
    elif score == "probability":
        output = output.double().softmax(1)
    return (output[0] if index is None else output[(0, *index)]).reshape(())


# --- RISE ------------------------------------------------------------------------------------------------------------


def naive_rise_terms(
    forward_func: Forward,
    inputs: Tensors,
    target: Any,
    grids: Tensor,
    shifts: Tensor,
    keep_probability: float,
    baselines: Any = None,
    additional: Any = None,
    score: Any = "probability",
) -> list[Tensor]:
    """f M / p of every mask and example: for each input M×N×1×spatial, of which RISE is the mean."""
    batch = len(inputs[0])
    terms = [torch.zeros(len(grids), batch, 1, *x.shape[2:], dtype=torch.float64) for x in inputs]
    for n, (example, arguments, blank) in enumerate(examples(inputs, additional, baselines)):
        for m in range(len(grids)):
            masks = [naive_mask(grids[m], shifts[m], tuple(x.shape[2:])) for x in inputs]
            masked = [(x * mask + b * (1 - mask)).to(x) for x, mask, b in zip(example, masks, blank, strict=True)]
            with torch.no_grad():
                value = score_of(forward_func(*masked, *arguments), score, target_of_example(target, n, batch))
            for term, mask in zip(terms, masks, strict=True):
                term[m, n, 0] = float(value) * mask / keep_probability
    return terms


# --- Grad-CAM++ ------------------------------------------------------------------------------------------------------


def equation_19(activations: Tensor, gradients: Tensor) -> Tensor:
    """The weights as the paper writes them, cell by cell in plain numbers; 0/0 is 0."""
    weights = torch.zeros(activations.shape[:2], dtype=torch.float64)
    for n, k in np.ndindex(*activations.shape[:2]):
        total = float(activations[n, k].double().sum())
        for g in gradients[n, k].double().flatten().tolist():
            alpha = g**2 / (2 * g**2 + total * g**3) if g != 0 else 0.0
            weights[n, k] += alpha * max(g, 0.0)
    return weights


def naive_grad_cam_plus_plus(
    forward_func: Forward,
    layer: nn.Module,
    inputs: Tensor | Tensors,
    target: Any,
    additional: Any = None,
    *,
    attribute_to_layer_input: bool = False,
    score: Any = "output",
) -> Tensor:
    """N×1×spatial, from a forward and a backward pass of its own for each example."""
    maps, seen, tensors = [], list[Tensor](), as_tuple(inputs)

    def keep(_: nn.Module, taken: Any, given: Any = None) -> None:
        seen.append(as_tuple(taken)[0] if attribute_to_layer_input else given)

    hook = layer.register_forward_pre_hook(keep) if attribute_to_layer_input else layer.register_forward_hook(keep)
    for n, (example, arguments, _) in enumerate(examples(tensors, additional, None)):
        own = [x.clone().requires_grad_() if x.is_floating_point() else x for x in example]
        value = score_of(forward_func(*own, *arguments), score, target_of_example(target, n, len(tensors[0])))
        (gradients,) = torch.autograd.grad(value, seen[-1])
        activations = seen[-1].detach().double()
        weights = equation_19(activations, gradients)
        weighted = activations * weights.view(*weights.shape, *[1] * (gradients.dim() - 2))
        maps.append(weighted.sum(1, keepdim=True))
    hook.remove()
    return torch.cat(maps)


# --- Layer maps in the inputs' shape ---------------------------------------------------------------------------------


def in_input_space(layer_map: Tensor, inputs: Tensors) -> Tensors:
    """The map at each input's size, in each of its channels."""
    summed, mode = layer_map.sum(1, keepdim=True), UPSAMPLING[layer_map.dim() - 2]
    return tuple(F.interpolate(summed, x.shape[2:], mode=mode, align_corners=False).expand_as(x) for x in inputs)
