"""How uncertain a map is whose scores are partly predicted. Pure functions of tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from captum_scorecam.budget.gaussian_process import Posterior
from captum_scorecam.budget.score_scale import softmax_changes
from captum_scorecam.masking.scaling import precise
from captum_scorecam.weighting import ChannelWeighting

WIDENING = 1.8  # of the standard errors of scores and maps, and further of maps, in `map_widening`; see the method page
MOST_CHANGES = 2**24  # of values of maps by scores of masks, that are held at once
LEAST_SHARE = 0.05  # of the masks; the factor of a softmax was not measured for fewer
MOST_LOG_VARIANCE = 2.0  # of a score in an exponent; the lognormal mean of a wider one would decide the map


def map_errors(
    posterior: Posterior,
    scores: Tensor,
    deviations: Tensor,
    sums: Tensor,
    n_sharing: Tensor,
    weighting: ChannelWeighting,
) -> Tensor:
    r"""Computes the standard error of each value of the maps of one example.

    An error ε of the predicted scores changes the map by Σ_p J_p ε_p. The Gaussian process gives the correlations R
    of these errors, so the variance of the map is J' R J, with J_p scaled by the standard deviation of score p.

    Args:
        posterior (Posterior): What the masks that were run say of all P.
        scores (Tensor): S, P×T, run or predicted.
        deviations (Tensor): Their standard deviations, P×T.
        sums (Tensor): P×D, the sum of the channels of each mask.
        n_sharing (Tensor): Shape P, the number of channels of each mask.
        weighting (str): Channel weights from scores.

    Returns:
        Tensor: T×D.
    """
    predicted = torch.ones_like(n_sharing, dtype=torch.bool).index_fill(0, posterior.rows, False).nonzero()[:, 0]
    scores, deviations, sums = precise(scores), precise(deviations), precise(sums)
    n_at_once, variances = max(1, MOST_CHANGES // sums.numel()), []
    for start in range(0, scores.shape[1], n_at_once):
        some = slice(start, start + n_at_once)
        changes = _changes(scores[:, some], deviations[:, some], sums, precise(n_sharing), weighting)
        variances.append(posterior.variance_of_sums(predicted, changes[predicted].flatten(1)))
    factor = map_widening(weighting, len(posterior.rows), len(n_sharing))
    return factor * torch.cat(variances).sqrt().view(-1, sums.shape[1])


def _changes(
    scores: Tensor, deviations: Tensor, sums: Tensor, n_sharing: Tensor, weighting: ChannelWeighting
) -> Tensor:
    """Computes the standard deviation of the maps that each mask's score causes, P×T×D."""
    if weighting != "softmax":
        return deviations.unsqueeze(2) * sums.unsqueeze(1)
    per_target = zip(scores.T, deviations.T, strict=True)
    return torch.stack([_softmax_changes(*each, sums, n_sharing) for each in per_target], 1)


def in_dtype(errors: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts errors to another dtype. One that would underflow to 0, which means exact, becomes the least number."""
    converted = errors.to(dtype)
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
    return converted.masked_fill((errors > 0) & (converted == 0), smallest)


def map_widening(weighting: ChannelWeighting, n_run: int, n_masks: int) -> float:
    """Returns the factor of a map's standard errors.

    The values of a map share the error of the Gaussian process's variance, so where one is wrong, most are. It matters
    most with few scores. The exponential weights of a softmax, where these are very uncertain, vary less than their
    variance says. The numbers were chosen on images; see the method page.

    Args:
        weighting (str): Channel weights from scores.
        n_run (int): Number of masks of the example that were run.
        n_masks (int): Number of its masks.
    """
    if weighting == "softmax":
        return widening(n_run) * 1.08 * math.pow(max(n_run / n_masks, LEAST_SHARE) / 0.1, 0.28)
    return widening(n_run) * 1.24 * (1 + 9 / n_run)


def widening(n_run: int) -> float:
    """Returns the factor of the standard errors of scores, given the number of masks of an example that were run.

    A variance that is estimated from few scores is uncertain, so errors follow Student's t distribution. Two of them
    make the 95 % interval, by the quantile's expansion in powers of the degrees of freedom.
    """
    freedom = n_run - 1 + 1 / n_run
    return WIDENING * (1 + 1.21 / freedom + 1.44 / freedom**2 + 1.304 / freedom**3 + 0.811 / freedom**4)


def expected_rise(deviations: Tensor) -> Tensor:
    """Computes by how much the logarithm of the mean of exp(S) exceeds the mean of S: half of the variance."""
    return deviations.square().clamp(max=MOST_LOG_VARIANCE) / 2


def _softmax_changes(scores: Tensor, deviations: Tensor, sums: Tensor, n_sharing: Tensor) -> Tensor:
    """Computes the standard deviation of the softmax-weighted map that each mask's score causes, P×D."""
    rise = expected_rise(deviations)
    logits, averages = scores + rise + n_sharing.log(), sums / n_sharing.unsqueeze(1)
    shares = logits.softmax(0)
    lognormal = shares * (2 * rise).expm1().sqrt()
    change = lognormal.unsqueeze(1) * (averages - shares @ averages)
    wide = deviations.square() > MOST_LOG_VARIANCE
    if wide.any():
        change[wide] = softmax_changes(logits, rise, deviations, averages)[wide]
    return change
