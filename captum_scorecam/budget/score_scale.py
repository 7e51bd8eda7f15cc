"""The scale on which scores are predicted, and what their uncertainty on it makes uncertain."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from captum_scorecam.masking.scaling import precise

LEAST_PROBABILITY = 1e-6
TINY_PROBABILITY = 1e-12  # to smaller ones, which `LEAST_PROBABILITY` would swallow, the scale is linear anyway


def to_latent(scores: Tensor, bounded: Tensor) -> Tensor:
    """Converts scores to the scale on which a Gaussian process describes them: logits if they are `bounded`.

    Probabilities are moved away from 0 and 1 by at most `LEAST_PROBABILITY`, so that all have finite logits.

    Args:
        scores (Tensor): Any shape whose last dimension is that of `bounded`.
        bounded (Tensor): Shape T, bool, whether the scores of each target are in [0, 1].
    """
    moved = LEAST_PROBABILITY + (1 - 2 * LEAST_PROBABILITY) * precise(scores).clamp(0, 1)
    return torch.where(bounded, moved.logit(), precise(scores))


def from_latent(mean: Tensor, variance: Tensor, bounded: Tensor) -> tuple[Tensor, Tensor]:
    """Converts means and variances of latent Gaussian scores to those of the scores.

    Args:
        mean (Tensor): Any shape whose last dimension is that of `bounded`.
        variance (Tensor): Same shape.
        bounded (Tensor): Shape T, bool, whether the latent scores of each target are logits of scores in [0, 1].

    Returns:
        tuple: Means and variances of the scores, by Gauss-Hermite quadrature for logits.
    """
    if not bounded.any():
        return mean, variance
    nodes, weights = _normal_quadrature(mean)
    moved = torch.sigmoid(mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * nodes)
    scores = ((moved - LEAST_PROBABILITY) / (1 - 2 * LEAST_PROBABILITY)).clamp(0, 1)
    expected = (scores * weights).sum(-1)
    spread = ((scores - expected.unsqueeze(-1)).square() * weights).sum(-1)
    return torch.where(bounded, expected, mean), torch.where(bounded, spread, variance)


def softmax_changes(logits: Tensor, rise: Tensor, deviations: Tensor, averages: Tensor) -> Tensor:
    """Computes how much a softmax-weighted mean varies with each of its logits alone, which may be very uncertain.

    Args:
        logits (Tensor): Shape P.
        rise (Tensor): Shape P, the difference between `logits` and their expectation.
        deviations (Tensor): Shape P, their standard deviations.
        averages (Tensor): P×D, what is averaged.

    Returns:
        Tensor: P×D, the root mean square of the change of the mean, with its direction.
    """
    nodes, weights = _normal_quadrature(logits)
    top = logits.argmax()
    others = logits.index_fill(0, top, -torch.inf)  # without it, the rest of the sum is a difference of equal numbers
    shares = logits.softmax(0)
    rest = logits.logsumexp(0) + torch.log1p(-shares)
    rest[top] = others.logsumexp(0)
    possible = torch.sigmoid((logits - rise - rest).unsqueeze(1) + deviations.unsqueeze(1) * nodes)
    change = ((possible - shares.unsqueeze(1)).square() * weights).sum(1).sqrt()
    from_rest = (averages - shares @ averages) / (1 - shares).unsqueeze(1)
    from_rest[top] = averages[top] - others.softmax(0) @ averages
    return change.unsqueeze(1) * from_rest


def _normal_quadrature(like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns nodes and weights of Gauss-Hermite quadrature, for expectations of a standard normal variable."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(21)
    return torch.from_numpy(nodes).to(like), torch.from_numpy(weights / weights.sum()).to(like)
