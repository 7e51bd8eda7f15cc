"""ADCC: average drop, coherency and complexity in one number (Poppi et al., arXiv 2104.10252)."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_finite
from captum_scorecam.masking.baselines import BaselineOption, baseline_tensors, blend, resolve_baselines
from captum_scorecam.masking.scaling import min_max_normalize, varies
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.pixel_values import checked_maps, pixel_values
from captum_scorecam.scoring.masked_forward import checked_inputs


@overload
def explanation_map(inputs: Tensor, attributions: Tensor, *, baselines: BaselineOption = None) -> Tensor: ...


@overload
def explanation_map(inputs: Tensors, attributions: Tensors, *, baselines: BaselineOption = None) -> Tensors: ...


def explanation_map(
    inputs: Tensor | Tensors, attributions: Tensor | Tensors, *, baselines: BaselineOption = None
) -> Tensor | Tensors:
    """Masks inputs with their attributions, as coherency explains them: B + M ∘ (X − B).

    M is the map scaled to [0, 1]; a constant map becomes 0.

    Args:
        inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial.
        attributions (Tensor or tuple of Tensor): One per input tensor, N×1×spatial or N×C×spatial (summed over the
            channels). Maps smaller than the input are resized linearly; those of several inputs are scaled together.
        baselines: B, as for :func:`masked_input_scores`. Default: None, zeros.

    Returns:
        Tensor or tuple of Tensor: As `inputs`, detached.

    Raises:
        TypeError, ValueError: If an attribution or baseline does not match its input, or a value is not finite.
    """
    tensors = checked_inputs(inputs)
    filled = baseline_tensors(resolve_baselines(inputs, baselines), tensors)
    masks = min_max_normalize(pixel_values(attributions, tensors).unsqueeze(1)).squeeze(1)
    parts = torch.split(masks, [x[0, 0].numel() for x in tensors], dim=1)
    masked = tuple(
        blend(x, mask.reshape(len(x), 1, *x.shape[2:]), baseline)
        for x, mask, baseline in zip(tensors, parts, filled, strict=True)
    )
    return masked if isinstance(inputs, tuple) else masked[0]


def coherency(attributions: Tensor, masked_attributions: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the coherency, how little a map changes if what it explains is all that is left; higher is better.

    It is Pearson's correlation r of the map and the map of the masked input, as (r + 1) / 2 (arXiv 2104.10252).

    Args:
        attributions (Tensor): The maps, N×1×spatial or N×C×spatial (summed over the channels).
        masked_attributions (Tensor): The maps of the same class for :func:`explanation_map`, of the same spatial size.
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In [0, 1]. 0 if one of the maps is constant, which leaves r undefined.

    Raises:
        TypeError: If maps are not floating-point tensors.
        ValueError: If the shapes differ, there are no examples, or a value is not finite.
    """
    return reduce_examples(_coherency_update(attributions, masked_attributions), reduction)


def l1_complexity(attributions: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes the complexity of ADCC, the mean of the map scaled to [0, 1]; lower is better (arXiv 2104.10252).

    Args:
        attributions, reduction: As for :func:`coherency`, including the errors.

    Returns:
        Tensor: In [0, 1]; 0 for a constant map, which masks everything.
    """
    return reduce_examples(_l1_complexity_update(attributions), reduction)


def adcc(drops: Tensor, coherencies: Tensor, complexities: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Computes ADCC, the harmonic mean of coherency, 1 − complexity and 1 − drop, of each example; higher is better.

    Args:
        drops (Tensor): In percent, shape N: :func:`average_drop` of the whole soft map (``keep_fraction=None``), with
            ``reduction="none"``.
        coherencies (Tensor): Shape N: :func:`coherency` with ``reduction="none"``.
        complexities (Tensor): Shape N: :func:`l1_complexity` with ``reduction="none"``.
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In [0, 1]; 0 if one of the three terms is.

    Raises:
        TypeError: If an argument is not a floating-point tensor.
        ValueError: If the shapes differ, there are no examples, or a value is out of range.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import adcc
        >>> adcc(torch.tensor([50.0]), torch.tensor([1.0]), torch.tensor([0.5]))
        tensor(0.6000)
    """
    return reduce_examples(_adcc_update(drops, coherencies, complexities), reduction)


def _coherency_update(attributions: Tensor, masked_attributions: Tensor) -> Tensor:
    maps, others = checked_maps(attributions), checked_maps(masked_attributions, "masked_attributions")
    if maps.shape != others.shape:
        raise ValueError(
            "Expected maps before and after masking with the same examples and spatial size, "
            f"but got {tuple(maps.shape)} and {tuple(others.shape)}."
        )
    pairs = torch.stack([maps, others.to(maps)], 1)
    defined = varies(pairs).all(1)
    scaled = min_max_normalize(pairs).flatten(2).double()  # values of any size square without overflow
    centred = scaled - scaled.mean(2, keepdim=True)
    first, second = centred.unbind(1)
    norms = (first.square().sum(1) * second.square().sum(1)).sqrt()
    correlation = (first * second).sum(1) / torch.where(defined, norms, 1.0)
    return torch.where(defined, (correlation.clamp(-1, 1) + 1) / 2, 0.0)


def _l1_complexity_update(attributions: Tensor) -> Tensor:
    maps = checked_maps(attributions).unsqueeze(1)
    return min_max_normalize(maps.double()).flatten(1).mean(1) * varies(maps)[:, 0]


def _adcc_update(drops: Tensor, coherencies: Tensor, complexities: Tensor) -> Tensor:
    given = {"drops": (drops, 100), "coherencies": (coherencies, 1), "complexities": (complexities, 1)}
    for name, (values, _) in given.items():
        check_tensor(name, values, "of one value per example")
    shapes = [tuple(values.shape) for values, _ in given.values()]
    if len({*shapes}) > 1 or drops.dim() != 1 or len(drops) == 0:
        raise ValueError(
            "Expected drops, coherencies and complexities of the same shape N with at least one example, "
            f"but got shapes {', '.join(map(str, shapes))}."
        )
    for name, (values, most) in given.items():
        check_finite(name, values)
        if values.min() < 0 or values.max() > most * (1 + 1e-6):
            raise ValueError(
                f"Expected `{name}` in [0, {most}], but got {float(values.min())} to {float(values.max())}."
            )
    device = drops.device
    parts = [1 - drops.detach().double() / 100, coherencies.detach().double(), 1 - complexities.detach().double()]
    terms = torch.stack([part.to(device).clamp(min=0) for part in parts])
    return torch.where((terms > 0).all(0), 3 / terms.reciprocal().sum(0), 0.0)
