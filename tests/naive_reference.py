"""Score-CAM, one channel and one example at a time: Algorithm 1 of arXiv 1910.01279 in plain loops.

The tests compare the package with this file, so it shares nothing with it: its own hook, its own upsampling call, its
own selection of targets, one forward pass per channel and example, a batch of one in each, every mask in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UPSAMPLING = {1: "linear", 2: "bilinear", 3: "trilinear"}


def naive_score_cam(
    forward_func: Callable[..., Tensor],
    layer: nn.Module,
    inputs: Tensor | tuple[Tensor, ...],
    target: Any = None,
    additional_forward_args: Any = None,
    attribute_to_layer_input: bool = False,
    relu_attributions: bool = True,
    attr_dim_summation: bool = True,
    *,
    baselines: Any = None,
    score: str | Callable[[Tensor], Tensor] = "output",
    channel_weighting: str = "softmax",
    max_channels: int | None = None,
    activation_transform: Callable[[Tensor], Tensor] | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """The map of every example, worked out alone; a tuple where the layer gives several tensors."""
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    args = () if additional_forward_args is None else additional_forward_args
    args = args if isinstance(args, tuple) else (args,)
    baselines = baselines if isinstance(baselines, tuple) else (baselines,) * len(inputs)
    batch = inputs[0].shape[0]

    maps_of_examples = []
    for n in range(batch):
        example = tuple(tensor[n : n + 1].detach() for tensor in inputs)
        blank = tuple(_baseline_of(value, tensor, n, batch) for value, tensor in zip(baselines, example, strict=True))
        arguments = tuple(
            a[n : n + 1] if isinstance(a, Tensor) and a.dim() and a.shape[0] == batch else a for a in args
        )
        index = target_of_example(target, n, batch)

        def score_of(*tensors: Tensor, arguments: tuple[Any, ...] = arguments, index: Any = index) -> float:
            output = forward_func(*tensors, *arguments)
            if score == "probability":
                output = torch.softmax(output.double(), dim=1)
            elif callable(score):
                output = score(output)
            return float(output[0] if index is None else output[(0, *index)])

        with torch.no_grad():
            maps_of_examples.append(
                tuple(
                    _map_of_one_tensor(
                        activations if activation_transform is None else activation_transform(activations),
                        example, blank, score_of, channel_weighting, max_channels, relu_attributions,
                        attr_dim_summation,
                    )
                    for activations in read_activations(
                        forward_func, layer, (*example, *arguments), attribute_to_layer_input
                    )
                )
            )  # fmt: skip
    maps = tuple(torch.cat(rows) for rows in zip(*maps_of_examples, strict=True))
    return maps if len(maps) > 1 else maps[0]


def _map_of_one_tensor(
    activations: Tensor,
    example: tuple[Tensor, ...],
    blank: tuple[Tensor, ...],
    score_of: Callable[..., float],
    channel_weighting: str,
    max_channels: int | None,
    relu_attributions: bool,
    attr_dim_summation: bool,
) -> Tensor:
    maps = activations[0].double()
    chosen = range(len(maps))
    if max_channels is not None:
        spread = [float(channel.std(correction=0)) for channel in maps]
        chosen = sorted(chosen, key=lambda k: spread[k], reverse=True)[:max_channels]

    rounding = 2 * torch.finfo(activations.dtype).eps
    scores: dict[int, float] = {}
    for k in chosen:
        resized = [upsample(maps[k], tuple(tensor.shape[2:])) for tensor in example]
        constant = [float(r.max() - r.min()) <= rounding * float(r.abs().max()) for r in resized]
        if all(constant):
            continue  # a constant map has no min-max normalisation: no mask, no score, no weight
        masked = []
        for r, is_constant, tensor, baseline in zip(resized, constant, example, blank, strict=True):
            # constant at the size of this input only: nothing of this input is left
            mask = torch.zeros_like(r) if is_constant else (r - r.min()) / (r.max() - r.min())
            kept = baseline.double() + mask * (tensor.double() - baseline.double())
            masked.append(kept.to(tensor.dtype))
        scores[k] = score_of(*masked)

    weights = torch.zeros(len(maps), dtype=torch.float64)
    if scores:
        values = torch.tensor(list(scores.values()), dtype=torch.float64)
        if channel_weighting == "softmax":
            values = torch.softmax(values, dim=0)
        elif channel_weighting == "increase":
            values = values - score_of(*blank)
        weights[list(scores)] = values

    weighted = weights.view(-1, *[1] * (maps.dim() - 1)) * maps
    result = weighted.sum(dim=0, keepdim=True) if attr_dim_summation else weighted
    return F.relu(result)[None] if relu_attributions else result[None]


def upsample(channel: Tensor, size: tuple[int, ...]) -> Tensor:
    """One channel's map at the input's spatial size (smaller or larger)."""
    return F.interpolate(channel[None, None], size=size, mode=UPSAMPLING[len(size)], align_corners=False)[0, 0]


def read_activations(
    forward_func: Callable[..., Tensor],
    layer: nn.Module,
    arguments: tuple[Any, ...],
    attribute_to_layer_input: bool = False,
) -> tuple[Tensor, ...]:
    """What the layer gives (or takes), as a tuple; the last call counts, and a copy survives in-place operations."""
    seen: list[tuple[Tensor, ...]] = []

    def keep(_: nn.Module, taken: tuple[Tensor, ...], given: Tensor | tuple[Tensor, ...] | None = None) -> None:
        tensors = taken if attribute_to_layer_input else given
        tensors = tensors if isinstance(tensors, tuple) else (tensors,)
        seen.append(tuple(tensor.detach().clone() for tensor in tensors))

    hook = layer.register_forward_pre_hook(keep) if attribute_to_layer_input else layer.register_forward_hook(keep)
    with torch.no_grad():
        forward_func(*arguments)
    hook.remove()
    return seen[-1]


def target_of_example(target: Any, n: int, batch: int) -> tuple[int, ...] | None:
    """The index into one example's output, from any of Captum's forms of target."""
    if target is None:
        return None
    if isinstance(target, Tensor):
        target = target.reshape(-1).tolist()
        target = target[0] if len(target) == 1 else target
    if isinstance(target, list):
        assert len(target) == batch
        target = target[n]
    return target if isinstance(target, tuple) else (target,)


def _baseline_of(value: Any, tensor: Tensor, n: int, batch: int) -> Tensor:
    if value is None:
        return torch.zeros_like(tensor)
    if isinstance(value, Tensor):
        return (value[n : n + 1] if value.dim() and value.shape[0] == batch else value).expand_as(tensor).detach()
    return torch.full_like(tensor, value)
