"""How concentrated an attribution is: sparseness (Gini index) and complexity (entropy)."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.pixel_values import checked_maps


def sparseness(attributions: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the Gini index of an attribution's absolute values (arXiv 1810.06583); higher is more concentrated.

    Args:
        attributions (Tensor): N×1×spatial or N×C×spatial (summed over the channels).
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In [0, 1): 0 if all P pixels have the same absolute value, also for a zero map, and 1 − 1 / P if all but
        one are 0.

    Raises:
        TypeError: If `attributions` is not a floating-point tensor.
        ValueError: If it has another shape or no examples, or a value is not finite.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import sparseness
        >>> sparseness(torch.tensor([[[[0.0, 0.0], [1.0, 3.0]]]]))
        tensor(0.6250)
    """
    return reduce_examples(_sparseness_update(attributions), reduction)


def complexity(attributions: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the entropy of an attribution's share of each pixel, in nats (arXiv 2005.00631); lower is simpler.

    A share is a pixel's absolute value over the sum of all. The complexity of ADCC is another: :func:`l1_complexity`.

    Args:
        attributions, reduction: As for :func:`sparseness`, including the errors.

    Returns:
        Tensor: From 0, if a single pixel is not 0, to log P, if all P pixels have the same absolute value, also for a
        zero map. Only values for maps of the same size are comparable.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import complexity
        >>> complexity(torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]]]))
        tensor(0.6931)
    """
    return reduce_examples(_complexity_update(attributions), reduction)


def _sparseness_update(attributions: Tensor) -> Tensor:
    values = checked_maps(attributions).flatten(1).double().abs().sort(1).values
    n_pixels = values.shape[1]
    places = torch.arange(1, n_pixels + 1, dtype=torch.float64, device=values.device)
    total = values.sum(1)
    return ((2 * places - n_pixels - 1) * values).sum(1) / (n_pixels * torch.where(total > 0, total, 1.0))


def _complexity_update(attributions: Tensor) -> Tensor:
    values = checked_maps(attributions).flatten(1).double().abs()
    highest = values.amax(1, keepdim=True)
    values = torch.where(highest > 0, values / highest, 1.0)  # a zero map counts as constant; no sum overflows
    entropies: Tensor = torch.special.entr(values / values.sum(1, keepdim=True)).sum(1)
    return entropies
