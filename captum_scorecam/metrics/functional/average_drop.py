"""Average drop, increase and gain: how the class score changes if only the explained part of an input is kept.

Other sources use these names for variants, which correspond to these options of :func:`masked_input_scores`:

- Score-CAM paper (arXiv 1910.01279): the defaults. Grad-CAM++ paper (arXiv 1710.11063): ``keep_fraction=None``.
- torchcam's ``ClassificationMetric``: ``keep_fraction=None``; it returns fractions instead of percent.
- grad-cam's ``DropInConfidence`` and ``IncreaseInConfidence``: ``keep_fraction=None, score="output"``, then
  ``average_drop(..., relative=False)``; they return fractions instead of percent.
- Code that masks before normalisation, so that masked pixels are black, not the mean colour:
  ``baselines=lambda x: ((0 - mean) / std).expand_as(x)``.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_scorecam._captum import ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_choice, check_finite, check_flags, check_fraction
from captum_scorecam.masking.baselines import BaselineOption
from captum_scorecam.masking.pixel_masks import StoredMasks, pixel_ranks
from captum_scorecam.masking.scaling import min_max_normalize, varies
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.pixel_arguments import forward_and_pixel_values
from captum_scorecam.metrics.functional.pixel_scores import score_pixel_masks
from captum_scorecam.scoring.class_scores import Score

MaskKind: TypeAlias = Literal["soft", "binary"]

_ROUNDING = 1e-6


class MaskedInputScores(NamedTuple):
    """The class scores before and after masking, as taken by average drop, increase and gain.

    Attributes:
        original (Tensor): Y, shape N: the scores of the inputs.
        masked (Tensor): O, shape N: the scores of the inputs masked with their attributions.
    """

    original: Tensor
    masked: Tensor


def masked_input_scores(
    forward_func: ForwardFunction,
    inputs: Tensor | Tensors,
    attributions: Tensor | Tensors,
    target: TargetType = None,
    *,
    keep_fraction: float | None = 0.5,
    mask: MaskKind = "soft",
    baselines: BaselineOption = None,
    score: Score = "probability",
    additional_forward_args: object | None = None,
    perturbations_per_eval: int | None = None,
) -> MaskedInputScores:
    """Scores inputs before and after masking them with their attributions: f^c(X) and f^c(B + M ∘ (X − B)).

    By default, as in the Score-CAM paper (arXiv 1910.01279, section 4.2), M is the map scaled to [0, 1], with the
    lower half of its pixels set to 0. A constant map does not rank pixels, so none are kept.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial.
        attributions (Tensor or tuple of Tensor): One per input tensor, N×1×spatial or N×C×spatial (summed over the
            channels). Maps smaller than the input, such as layer maps, are resized linearly. The pixels of several
            inputs are scaled and ranked together.
        target: The class, in any form that Captum accepts. Default: None, for one output per example.
        keep_fraction (float, optional): Fraction of pixels to keep, highest attributions first, in (0, 1]. At least one
            pixel is kept, and ties go to the earlier pixel. None keeps all pixels (Grad-CAM++). Default: 0.5.
        mask (str): M on the kept pixels: ``"soft"`` (default), the map scaled to [0, 1], including negative values, or
            ``"binary"``, ones.
        baselines: B, as in Captum, ``"blur"``, or a callable that takes an input tensor. Default: None, zeros.
        score (str or callable): f: ``"probability"`` (default), ``"sigmoid"``, ``"output"`` or a callable, as for
            :class:`~captum_scorecam.ScoreCAM`.
        additional_forward_args (optional): Arguments of `forward_func` after the inputs; not masked.
        perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.

    Returns:
        MaskedInputScores: `original` and `masked`, shape N each.

    Raises:
        TypeError: If an argument has the wrong type, or an attribution is not a floating-point tensor.
        ValueError: If an option is invalid, an attribution does not match its input, or an attribution or score is not
            finite.
    """
    _check_options(keep_fraction, mask)
    forward, values = forward_and_pixel_values(
        forward_func, inputs, attributions, target, baselines, score, additional_forward_args
    )
    masks = _masks(values, keep_fraction, mask)
    # Both versions of an example run through the same kernels, so that equal inputs get equal scores.
    pairs = torch.stack([torch.ones_like(masks), masks], 1).flatten(0, 1)
    examples = torch.arange(len(masks), device=forward.device).repeat_interleave(2)
    scores = score_pixel_masks(forward, StoredMasks(pairs, examples, forward.sizes), perturbations_per_eval)
    return MaskedInputScores(scores[0::2], scores[1::2])


def average_drop(
    original_scores: Tensor, masked_scores: Tensor, *, relative: bool = True, reduction: Reduction = "mean"
) -> Tensor:
    """Computes the average drop, the mean of max(0, Y − O) / Y, in percent; lower is better (arXiv 1710.11063).

    Args:
        original_scores (Tensor): Y, one per example, of any shape; non-negative if `relative`.
        masked_scores (Tensor): O, of the same shape.
        relative (bool): Whether to divide by Y. Default: True. If False, returns the mean of max(0, Y − O).
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In percent, from 0 to 100 for probabilities. The drop is 0 if Y is 0 and O is not negative.

    Raises:
        TypeError: If scores are not floating-point tensors.
        ValueError: If the shapes differ, there are no examples, a score is not finite, or a relative drop is undefined
            (Y is negative, or Y is 0 and O is negative).

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import average_drop
        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
        tensor(37.5000)
    """
    return reduce_examples(_average_drop_update(original_scores, masked_scores, relative), reduction)


def average_increase(original_scores: Tensor, masked_scores: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the average increase, the percentage of examples with Y < O; higher is better (arXiv 1910.01279).

    Defined in section 4.2 of the paper. Arguments and errors are those of :func:`average_drop`; scores may be negative.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import average_increase
        >>> average_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.6]))
        tensor(50.)
    """
    return reduce_examples(_average_increase_update(original_scores, masked_scores), reduction)


def average_gain(original_scores: Tensor, masked_scores: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the average gain, the mean of max(0, O − Y) / (1 − Y), in percent; higher is better (arXiv 2301.07002).

    The metric is from Opti-CAM. Arguments and errors are those of :func:`average_drop`; scores must be probabilities.
    The gain is 0 if Y is 1.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import average_gain
        >>> average_gain(torch.tensor([0.75, 0.5]), torch.tensor([0.25, 0.625]))
        tensor(12.5000)
    """
    return reduce_examples(_average_gain_update(original_scores, masked_scores), reduction)


def _average_drop_update(original_scores: Tensor, masked_scores: Tensor, relative: bool = True) -> Tensor:
    check_flags(relative=relative)
    original, masked = _checked_scores(original_scores, masked_scores)
    if not relative:
        return 100 * (original - masked).clamp(min=0)
    original, masked = _without_rounding(original, lowest=0), _without_rounding(masked, lowest=0)
    drop = (original - masked).clamp(min=0)
    undefined = (original < 0) | ((original == 0) & (masked < 0))
    if undefined.any():
        raise ValueError(
            "Expected non-negative scores for a relative drop, "
            f"but got {float(original[undefined][0])} before and {float(masked[undefined][0])} after masking. "
            "Use score='probability' or relative=False."
        )
    return 100 * drop / torch.where(original > 0, original, 1.0)


def _average_increase_update(original_scores: Tensor, masked_scores: Tensor) -> Tensor:
    original, masked = _checked_scores(original_scores, masked_scores)
    return 100.0 * (original < masked).double()


def _average_gain_update(original_scores: Tensor, masked_scores: Tensor) -> Tensor:
    original, masked = (
        _without_rounding(scores, lowest=0, highest=1) for scores in _checked_scores(original_scores, masked_scores)
    )
    lowest, highest = float(torch.min(original, masked).amin()), float(torch.max(original, masked).amax())
    if lowest < 0 or highest > 1:
        raise ValueError(f"Expected probabilities in [0, 1] for a gain, but got scores from {lowest} to {highest}.")
    return 100 * (masked - original).clamp(min=0) / torch.where(original < 1, 1 - original, 1.0)


def _without_rounding(scores: Tensor, lowest: float, highest: float = math.inf) -> Tensor:
    """Returns scores with those that leave a range by a rounding error put at its end."""
    bounded = scores.clamp(lowest, highest)
    return torch.where((scores - bounded).abs() < _ROUNDING, bounded, scores)


def _checked_scores(original: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    scores = {"original_scores": original, "masked_scores": masked}
    for name, values in scores.items():
        check_tensor(name, values, "of one score per example")
    if original.shape != masked.shape or original.numel() == 0:
        raise ValueError(
            "Expected original and masked scores of the same shape with at least one example, "
            f"but got shapes {tuple(original.shape)} and {tuple(masked.shape)}."
        )
    for name, values in scores.items():
        check_finite(name, values)
    return original.detach().double().flatten(), masked.detach().double().flatten()


def _masks(values: Tensor, keep_fraction: float | None, mask: MaskKind) -> Tensor:
    """Returns the masks N×P of pixel values N×P."""
    masks = min_max_normalize(values.unsqueeze(1)).squeeze(1) if mask == "soft" else torch.ones_like(values)
    if keep_fraction is not None:
        # The offset corrects rounding errors: 0.29 · 100 is 28.999…
        n_kept = max(1, math.floor(keep_fraction * values.shape[1] + 1e-6))
        masks = masks * (pixel_ranks(values) < n_kept)
    return masks * varies(values.unsqueeze(1))


def _check_options(keep_fraction: float | None, mask: MaskKind) -> None:
    check_choice("mask", mask, MaskKind)
    if keep_fraction is None and mask == "binary":
        raise ValueError("Expected a `keep_fraction` with mask='binary', which otherwise masks nothing, but got None.")
    if keep_fraction is not None:
        check_fraction("keep_fraction", keep_fraction, with_one=True)
