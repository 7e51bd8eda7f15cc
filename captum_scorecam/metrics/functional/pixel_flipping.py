"""MoRF and LeRF curves and their difference, the symmetric relevance gain (arXiv 2401.06654)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_fraction
from captum_scorecam.masking.baselines import BaselineOption
from captum_scorecam.masking.pixel_masks import shared_ranks
from captum_scorecam.metrics.functional.insertion_deletion import PerturbationCurve, _auc_update, score_orders
from captum_scorecam.metrics.functional.pixel_arguments import forward_and_pixel_values
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.masked_forward import MaskedForward


class RelevanceGain(NamedTuple):
    """The class score as the most and as the least relevant pixels are removed first.

    Attributes:
        fractions (Tensor): Shape S, the fraction of pixels removed, from 0 to 1.
        morf (Tensor): N×S, the class score at each fraction, most relevant pixels first.
        lerf (Tensor): N×S, the same, least relevant pixels first.
        srg (Tensor): Shape N, the area under the LeRF curve minus that under the MoRF curve (trapezoidal rule).
    """

    fractions: Tensor
    morf: Tensor
    lerf: Tensor
    srg: Tensor


def morf(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType = None,
    *,
    step: float = 0.01,
    baselines: BaselineOption = None,
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> PerturbationCurve:
    """Replaces the input's pixels with the baseline, most relevant first (MoRF); a lower AUC is better.

    Pixels of equal value have no order among them: they fade to the baseline together, so that the same share of their
    values is removed as of their number. Without ties this is :func:`deletion`.

    Args:
        baselines: The end point, as for :func:`insertion`. Default: None, zeros, the data set's mean if inputs are
            normalised.
        forward_func, inputs, attributions, target, step, score, additional_forward_args, perturbations_per_eval: Same
            as for :func:`insertion`, including the errors.

    Returns:
        PerturbationCurve: `fractions` S, `scores` N×S and `auc` N.
    """
    check_fraction("step", step, with_one=True)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    return _curve(forward, values, step, perturbations_per_eval)


def lerf(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType = None,
    *,
    step: float = 0.01,
    baselines: BaselineOption = None,
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> PerturbationCurve:
    """Replaces the input's pixels with the baseline, least relevant first (LeRF); a higher AUC is better.

    Args:
        forward_func, inputs, attributions, target, step, baselines, score, additional_forward_args,
            perturbations_per_eval: Same as for :func:`morf`, including ties and errors.

    Returns:
        PerturbationCurve: `fractions` S, `scores` N×S and `auc` N.
    """
    check_fraction("step", step, with_one=True)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    return _curve(forward, -values, step, perturbations_per_eval)


def srg(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType = None,
    *,
    step: float = 0.01,
    baselines: BaselineOption = None,
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> RelevanceGain:
    """Computes the symmetric relevance gain, the area between the LeRF and the MoRF curve; higher is better.

    What the baseline does to the score alike in both orders cancels. A constant map has a gain of 0 (arXiv 2401.06654).

    Args:
        forward_func, inputs, attributions, target, step, baselines, score, additional_forward_args,
            perturbations_per_eval: Same as for :func:`morf`, including ties and errors.

    Returns:
        RelevanceGain: `fractions` S, `morf` and `lerf` N×S and `srg` N, from −1 to 1 for probabilities.
    """
    check_fraction("step", step, with_one=True)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    # Both orders of an example run through the same kernels, so that equal masks get equal scores.
    orders = torch.stack([values, -values], 1).flatten(0, 1)
    fractions, scores = score_orders(forward, shared_ranks(orders), orders.dtype, step, perturbations_per_eval)
    most, least = scores[0::2], scores[1::2]
    return RelevanceGain(fractions, most, least, _gain_update(fractions, most, least))


def _curve(
    forward: MaskedForward, values: Tensor, step: float, perturbations_per_eval: int | None
) -> PerturbationCurve:
    fractions, scores = score_orders(forward, shared_ranks(values), values.dtype, step, perturbations_per_eval)
    return PerturbationCurve(fractions, scores, _auc_update(fractions, scores))


def _gain_update(fractions: Tensor, morf_scores: Tensor, lerf_scores: Tensor) -> Tensor:
    """Returns each example's gain, shape N; raises as :func:`_auc_update` does."""
    lost, gained = _auc_update(fractions, morf_scores, "morf"), _auc_update(fractions, lerf_scores, "lerf")
    if len(gained) != len(lost):
        raise ValueError(f"Expected as many LeRF as MoRF curves, but got {len(gained)} and {len(lost)}.")
    return gained - lost
