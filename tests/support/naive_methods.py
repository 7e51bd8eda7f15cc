"""RISE, Mask and Grad-CAM++ one example at a time in plain steps, and layer maps in the inputs' shape.

As in `tests.naive_reference`, nothing here is the package's: what the package computes for a batch in chunks is
worked out in float64 with a forward for each example and mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import Generator, Tensor, nn

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


# --- Mask ------------------------------------------------------------------------------------------------------------


def naive_meaningful_perturbation(
    forward_func: Forward,
    inputs: Tensors,
    target: Any,
    additional: Any = None,
    *,
    perturbation: str = "blur",
    n_iterations: int,
    grid_size: int,
    mask_blur: float,
    jitter: int = 4,
    baselines: Any = None,
    score: Any = "probability",
    generator: Generator | None = None,
) -> Tensors:
    """Mask with the weights that the authors released: for each input N×1×spatial, 1 − U(m)."""
    draws = generator or torch.default_generator
    state, batch, rank = draws.get_state(), len(inputs[0]), inputs[0].dim() - 2
    maps = []
    for n, (example, arguments, blank) in enumerate(examples(inputs, additional, baselines)):
        draws.set_state(state)  # all examples share what is drawn
        low = -(jitter // 2)
        offsets = torch.randint(low, low + max(jitter, 1), (n_iterations, rank), generator=draws).tolist()
        after_deletion = partial(
            score_after_deletion,
            forward_func=lambda *tensors, others=arguments: forward_func(*tensors, *others),
            example=example,
            perturbed=perturbed_inputs(perturbation, example, blank, draws),
            mask_blur=mask_blur,
            select=partial(score_of, score=score, index=target_of_example(target, n, batch)),
        )
        cells = [min(grid_size, max(pixels)) for pixels in zip(*[x.shape[2:] for x in example], strict=True)]
        mask = descended(after_deletion, smallest_circle(after_deletion, cells), offsets)
        maps.append([1 - upsampled(mask, x.shape[2:], mask_blur) for x in example])
    draws.set_state(state)
    return tuple(torch.cat(each) for each in zip(*maps, strict=True))


def score_after_deletion(
    mask: Tensor,
    offset: Sequence[int],
    forward_func: Forward,
    example: Tensors,
    perturbed: Callable[[], list[Tensor]],
    mask_blur: float,
    select: Callable[[Tensor], Tensor],
) -> Tensor:
    """f^c of B + U(m) ∘ (X − B), moved by the offset."""
    kept = [upsampled(mask, x.shape[2:], mask_blur).to(x) for x in example]
    blended = [x * m + b * (1 - m) for x, m, b in zip(example, kept, perturbed(), strict=True)]
    return select(forward_func(*[moved(x, offset) for x in blended])).double()


def descended(
    after_deletion: Callable[[Tensor, Sequence[int]], Tensor], mask: Tensor, offsets: Sequence[Sequence[int]]
) -> Tensor:
    """Adam (arXiv 1412.6980, Algorithm 1) with a step of 0.1 for each offset, the mask kept in [0, 1]."""
    mean, square = torch.zeros_like(mask), torch.zeros_like(mask)
    for step, offset in enumerate(offsets, start=1):
        mask.requires_grad_()
        roughness = torch.stack([(mask.diff(dim=d).abs() ** 3).sum() for d in range(2, mask.dim())]).sum()
        loss = after_deletion(mask, offset) + 1e-4 * (1 - mask).abs().sum() + 1e-2 * roughness
        (slope,) = torch.autograd.grad(loss, mask)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        root = (square / (1 - 0.999**step)).sqrt() + 1e-8
        mask = (mask.detach() - 0.1 * mean / (1 - 0.9**step) / root).clamp(0, 1)
    return mask


def perturbed_inputs(kind: str, example: Tensors, blank: Sequence[Any], draws: Generator) -> Callable[[], list[Tensor]]:
    """B of each input, as a function: only noise is new each time."""

    def drawn() -> list[Tensor]:
        return [perturbed_input(kind, x, b, draws) for x, b in zip(example, blank, strict=True)]

    if kind == "noise":
        return drawn
    once = drawn()
    return lambda: once


def perturbed_input(kind: str, x: Tensor, baseline: Any, draws: Generator) -> Tensor:
    channels = range(x.shape[1])
    spatial = tuple(range(2, x.dim()))
    if kind == "blur":
        blurred = [gaussian_filter(x[0, c].numpy(), 10.0, mode="nearest", truncate=3.0) for c in channels]
        return torch.from_numpy(np.stack(blurred))[None].to(x)
    if kind == "baseline":
        return torch.as_tensor(baseline).to(x).expand_as(x)
    mean = x.mean(spatial, keepdim=True).expand_as(x)
    if kind == "constant":
        return mean
    return mean + x.std(spatial, correction=0, keepdim=True) * torch.randn(x.shape[1:], generator=draws).to(x)


def upsampled(mask: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """U: interpolated, then blurred along each dimension by the matrix that blurs its unit vectors."""
    mask = F.interpolate(mask, tuple(size), mode=UPSAMPLING[len(size)], align_corners=False)
    for dimension, pixels in enumerate(size, start=2):
        mask = (mask.movedim(dimension, -1) @ blur_matrix(pixels, sigma).T.to(mask)).movedim(-1, dimension)
    return mask


@cache
def blur_matrix(pixels: int, sigma: float) -> Tensor:
    return torch.from_numpy(gaussian_filter1d(np.eye(pixels), sigma, axis=0, mode="nearest", truncate=3.0))


def moved(x: Tensor, offset: Sequence[int]) -> Tensor:
    """Position i shows what was at i + offset, or the edge's value."""
    for dimension, (step, pixels) in enumerate(zip(offset, x.shape[2:], strict=True), start=2):
        if step != 0:
            shown = [min(max(i + step, 0), pixels - 1) for i in range(pixels)]
            x = torch.stack([x.select(dimension, i) for i in shown], dimension)
    return x


def smallest_circle(after_deletion: Callable[[Tensor, Sequence[int]], Tensor], cells: Sequence[int]) -> Tensor:
    """The mask without the smallest of 16 circles that takes 99 % of what the largest takes."""
    circles = []
    for step in range(16):
        mask = torch.zeros(1, 1, *cells, dtype=torch.float64)
        for place in product(*map(range, cells)):
            centres = [(2 * i + 1) / n - 1 for i, n in zip(place, cells, strict=True)]
            mask[(0, 0, *place)] = float(sum(c * c for c in centres) / len(cells) >= (step / 15) ** 2)
        circles.append(mask)
    with torch.no_grad():
        scores = [float(after_deletion(mask, [0] * len(cells))) for mask in circles]
    enough = [score - scores[-1] <= 0.01 * (scores[0] - scores[-1]) for score in scores]
    return circles[enough.index(True)]


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
