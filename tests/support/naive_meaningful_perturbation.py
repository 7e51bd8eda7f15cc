"""Mask one example at a time in plain steps: the circles, Adam and the blurs are the tests' own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import Generator, Tensor

from tests.naive_reference import UPSAMPLING, target_of_example
from tests.support.naive_methods import Forward, Tensors, examples, score_of


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
