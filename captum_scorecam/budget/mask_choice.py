"""Chooses the masks to run: those that would leave the map most uncertain, and a few at random."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam.budget.gaussian_process import Posterior


def most_informative(posterior: Posterior, importance: Tensor, n: int) -> Tensor:
    """Chooses masks one after the other, each where importance × standard deviation is largest given those before.

    This is the pivoted Cholesky decomposition of the scores' covariance. The scores themselves are not needed.

    Args:
        posterior (Posterior): What the masks that were run before say of all P.
        importance (Tensor): Shape P, what an error of a mask's score does to the map.
        n (int): Number of further masks to choose.

    Returns:
        Tensor: Their rows, shape n.
    """
    space, kernel, run, before = posterior.space, posterior.kernel, posterior.rows, posterior.projection
    columns = torch.cat([before, before.new_zeros(n, len(space))])
    variance = (space.variance(kernel) - before.square().sum(0)).clamp_min(0)
    # Masks that were chosen are below all others, which are at least 0.
    importance = importance.to(variance).index_fill(0, run, -1)
    chosen = [run[:0]]
    for i in range(len(run), len(columns)):
        row = (variance.sqrt() * importance).argmax().view(1)  # no number, for which a GPU would have to be waited for
        chosen.append(row)
        importance.index_fill_(0, row, -1)
        explained = space.covariance(kernel, row)[0] - columns[:i].T @ columns[:i, row][:, 0]
        columns[i] = explained / (explained[row].clamp_min(0) + kernel.nugget).sqrt()
        variance = (variance - columns[i].square()).clamp_min(0)
    return torch.cat(chosen)


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
