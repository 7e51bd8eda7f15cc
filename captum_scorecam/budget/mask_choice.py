"""Chooses the masks to run: those that would leave the map most uncertain, and a few at random."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam.budget.gaussian_process import Kernel, MaskSpace


def most_informative(space: MaskSpace, kernel: Kernel, importance: Tensor, run: Tensor, n: int) -> Tensor:
    """Chooses masks one after the other, each where importance × standard deviation is largest given those before.

    This is the pivoted Cholesky decomposition of the scores' covariance. The scores themselves are not needed.

    Args:
        space (MaskSpace): The P masks.
        kernel (Kernel): The covariance of their scores.
        importance (Tensor): Shape P, what an error of a mask's score does to the map.
        run (Tensor): Rows of the masks that were run before.
        n (int): Number of further masks to choose.

    Returns:
        Tensor: Their rows, shape n.
    """
    known = run.tolist()
    covariance = space.covariance(kernel)
    variance = covariance.diagonal().clone()
    columns = variance.new_zeros(len(known) + n, len(variance))
    importance = importance.to(variance).clone()
    importance[run] = -1  # below all others, which are at least 0
    for i in range(len(known) + n):
        row = known[i] if i < len(known) else int((variance.sqrt() * importance).argmax())
        if i >= len(known):
            known.append(row)
            importance[row] = -1
        explained = covariance[row] - columns[:i].T @ columns[:i, row]
        columns[i] = explained / (explained[row].clamp_min(0) + kernel.nugget).sqrt()
        variance = (variance - columns[i].square()).clamp_min(0)
    return torch.tensor(known[len(run) :], dtype=torch.long, device=run.device)


def random_rows(weights: Tensor, run: Tensor, n: int, seed: int) -> Tensor:
    """Draws n masks that were not run, without replacement, with probabilities proportional to their weights.

    Args:
        weights (Tensor): Shape P, at least 0.
        run (Tensor): Rows of the masks that were run before.
        n (int): Number of masks to draw.
        seed (int): Of the generator; it is the function's own, on the CPU, so that all devices draw alike.

    Returns:
        Tensor: Their rows, shape n.
    """
    if n == 0:
        return run[:0]
    likely = weights.cpu().double() + torch.finfo(torch.float64).tiny
    likely = likely / likely.max() + 1e-9
    likely[run.cpu()] = 0
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.multinomial(likely, n, generator=generator).to(run.device)
