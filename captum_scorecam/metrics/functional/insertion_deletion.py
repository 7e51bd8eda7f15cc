"""Insertion and deletion (RISE, arXiv 1806.07421): the class score as the highest pixels are inserted or deleted."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_finite, check_fraction
from captum_scorecam.masking.baselines import BaselineOption
from captum_scorecam.masking.pixel_masks import RankMasks, pixel_ranks
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.pixel_arguments import forward_and_pixel_values
from captum_scorecam.metrics.functional.pixel_scores import score_pixel_masks
from captum_scorecam.scoring.class_scores import Score
from captum_scorecam.scoring.masked_forward import MaskedForward


class PerturbationCurve(NamedTuple):
    """The class score as a function of the fraction of pixels inserted or deleted.

    Attributes:
        fractions (Tensor): Shape S, the fraction of pixels inserted or deleted, from 0 to 1.
        scores (Tensor): N×S, the class score of each example at each fraction.
        auc (Tensor): Shape N, the area under each example's curve (trapezoidal rule).
    """

    fractions: Tensor
    scores: Tensor
    auc: Tensor


def insertion(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType = None,
    *,
    step: float = 0.01,
    baselines: BaselineOption = "blur",
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> PerturbationCurve:
    """Inserts the input's pixels into the baseline, highest attribution first; a higher AUC is better.

    It runs one row per example and step, including both ends. Ties go to the earlier pixel, so a constant map inserts
    the image line by line.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial. Pixels are inserted in all channels.
        attributions (Tensor or tuple of Tensor): One per input tensor, N×1×spatial or N×C×spatial (summed over the
            channels). Maps smaller than the input, such as layer maps, are resized linearly. The pixels of several
            inputs are ranked together.
        target: The class, in any form that Captum accepts. Default: None, for one output per example.
        step (float): Fraction of pixels per step, in (0, 1]; at least one pixel. Default: 0.01.
        baselines: The starting point: as in Captum, ``"blur"`` (a Gaussian of 11 pixels with σ = 5, as in RISE), or a
            callable that takes an input tensor. Default: ``"blur"``.
        score (str or callable): ``"probability"`` (default), ``"sigmoid"``, ``"output"`` or a callable, as for
            :class:`~captum_scorecam.ScoreCAM`.
        additional_forward_args (optional): Arguments of `forward_func` after the inputs; never changed.
        perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.

    Returns:
        PerturbationCurve: `fractions` S, `scores` N×S and `auc` N.

    Raises:
        TypeError: If an argument has the wrong type, or an attribution is not a floating-point tensor.
        ValueError: If an option is invalid, an attribution does not match its input, or an attribution or score is not
            finite.
    """
    check_fraction("step", step, with_one=True)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    return _curve(forward, values, step, perturbations_per_eval, keeps_first=True)


def deletion(
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
    """Replaces the input's pixels with the baseline, highest attribution first; a lower AUC is better.

    Args:
        baselines: The end point, as for :func:`insertion`. Default: None, zeros.
        forward_func, inputs, attributions, target, step, score, additional_forward_args, perturbations_per_eval: Same
            as for :func:`insertion`, including the errors.

    Returns:
        PerturbationCurve: `fractions` S, `scores` N×S and `auc` N.
    """
    check_fraction("step", step, with_one=True)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    return _curve(forward, values, step, perturbations_per_eval, keeps_first=False)


def _curve(
    forward: MaskedForward, values: Tensor, step: float, perturbations_per_eval: int | None, keeps_first: bool
) -> PerturbationCurve:
    ranks = pixel_ranks(values)
    without_ties = ranks, torch.ones_like(ranks[:, :1])
    fractions, scores = score_orders(forward, without_ties, values.dtype, step, perturbations_per_eval, keeps_first)
    return PerturbationCurve(fractions, scores, _auc_update(fractions, scores))


def score_orders(
    forward: MaskedForward,
    ranks: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    step: float,
    perturbations_per_eval: int | None,
    keeps_first: bool = False,
) -> tuple[Tensor, Tensor]:
    """Returns the fractions of pixels, S, and the scores R×S as the first of each of R orders are kept or removed.

    `ranks`, `dtype` and `keeps_first` are those of :class:`RankMasks`; the orders of an example are consecutive.
    """
    before, sharing = ranks
    counts = pixel_counts(before.shape[1], step).to(before.device)
    n_examples = len(forward.inputs[0])
    examples = torch.arange(n_examples, device=before.device).repeat_interleave(len(before) // n_examples)
    masks = RankMasks(before, sharing, counts, examples, keeps_first, forward.sizes, dtype)
    scores = score_pixel_masks(forward, masks, perturbations_per_eval).reshape(len(before), len(counts))
    return counts.to(scores.dtype) / before.shape[1], scores


def pixel_counts(n_pixels: int, step: float) -> Tensor:
    """Returns the number of pixels changed at each step, strictly ascending from 0 to `n_pixels`."""
    step = max(step, 1 / n_pixels)
    fractions = (torch.arange(math.ceil(1 / step) + 1, dtype=torch.float64, device="cpu") * step).clamp(max=1)
    # The offset rounds halves of a pixel, such as 3 · 0.1 · 35, up despite rounding errors.
    counts: Tensor = torch.unique((fractions * n_pixels + 0.5 + 1e-6).floor().long())
    return counts


def _auc_update(fractions: Tensor, scores: Tensor, name: str = "scores") -> Tensor:
    """Returns the area under each example's curve, shape N.

    Raises:
        TypeError: If the fractions or scores are not floating-point tensors.
        ValueError: If the shapes do not match, there is no example, the fractions do not rise from 0 to 1, or a score
            is not finite.
    """
    check_tensor("fractions", fractions, "of shape S")
    check_tensor(name, scores, "N×S")
    if fractions.dim() != 1 or scores.dim() != 2 or scores.shape[1] != len(fractions) or len(scores) == 0:
        raise ValueError(
            f"Expected fractions of shape S and {name} of shape N×S, for at least one example, "
            f"but got {tuple(fractions.shape)} and {tuple(scores.shape)}."
        )
    if len(fractions) < 2 or fractions[0] != 0 or fractions[-1] != 1 or not (fractions.diff() > 0).all():
        raise ValueError(f"Expected `fractions` to rise from 0 to 1, but got {fractions.tolist()}.")
    check_finite(name, scores)
    return torch.trapezoid(scores, fractions, dim=1)
