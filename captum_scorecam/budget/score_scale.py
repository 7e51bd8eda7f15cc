"""The scale on which scores are predicted: probabilities as logits, all others as they are."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from captum_scorecam.budget.gaussian_process import precise

LEAST_PROBABILITY = 1e-6


def to_latent(scores: Tensor, bounded: bool) -> Tensor:
    """Converts scores to the scale on which a Gaussian process describes them: logits if they are `bounded`."""
    return precise(scores).logit(LEAST_PROBABILITY) if bounded else precise(scores)


def from_latent(mean: Tensor, variance: Tensor, bounded: bool) -> tuple[Tensor, Tensor]:
    """Converts means and variances of latent Gaussian scores to those of the scores.

    Args:
        mean (Tensor): Any shape.
        variance (Tensor): Same shape.
        bounded (bool): Whether the latent scores are logits of scores in [0, 1].

    Returns:
        tuple: Means and variances of the scores, by Gauss-Hermite quadrature for logits.
    """
    if not bounded:
        return mean, variance
    nodes, weights = (torch.from_numpy(values).to(mean) for values in numpy.polynomial.hermite_e.hermegauss(21))
    weights = weights / weights.sum()
    scores = torch.sigmoid(mean.unsqueeze(-1) + variance.sqrt().unsqueeze(-1) * nodes)
    expected = (scores * weights).sum(-1)
    return expected, ((scores - expected.unsqueeze(-1)).square() * weights).sum(-1)
