"""The random-logit test: how much a map depends on the class (Sixt et al., arXiv 1912.09818)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_scorecam._messages import check_choice, check_whole_number, type_of
from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.map_similarity import cosine, rank_correlation, structural_similarity
from captum_scorecam.metrics.functional.pixel_values import checked_maps
from captum_scorecam.model_state import own_generator

Similarity: TypeAlias = Literal["ssim", "spearman", "cosine"]


def random_logit(
    attributions: Tensor, other_attributions: Tensor, *, similarity: Similarity = "ssim", reduction: Reduction = "mean"
) -> Tensor:
    """Computes the similarity of the maps of a class and of another, random one; lower is better.

    A map that is the same for every class does not explain a class. ``ScoreCAM.attribute_targets`` computes both maps
    from one set of forwards; :func:`other_classes` draws the other class.

    Args:
        attributions (Tensor): The maps of the explained class, N×1×spatial or N×C×spatial (summed over the channels).
        other_attributions (Tensor): The maps of the other class, of the same spatial size.
        similarity (str): ``"ssim"`` (default, as in the paper), the structural similarity of the maps scaled to
            [0, 1], in uniform windows of 7 pixels; ``"spearman"``, the rank correlation; or ``"cosine"``.
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In [−1, 1]; 1 for maps that are the same. The rank correlation is 0 if one of the maps is constant.

    Raises:
        TypeError: If maps are not floating-point tensors.
        ValueError: If the shapes differ, there are no examples, a value is not finite, or `similarity` is unknown.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import random_logit
        >>> maps, others = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]]), torch.tensor([[[[3.0, 2.0], [1.0, 0.0]]]])
        >>> random_logit(maps, others, similarity="spearman")
        tensor(-1.)
    """
    return reduce_examples(_random_logit_update(attributions, other_attributions, similarity), reduction)


def other_classes(targets: Tensor, n_classes: int, generator: torch.Generator | None = None) -> Tensor:
    """Draws a class for each example, each of the others with the same probability.

    Args:
        targets (Tensor): The explained class of each example, shape N, integers in [0, n_classes).
        n_classes (int): The number of classes, at least 2.
        generator (torch.Generator, optional): Draws the classes. Default: None, a copy of PyTorch's global generator,
            whose state is left unchanged.

    Returns:
        Tensor: Shape N, int64, on the device of `targets`.

    Raises:
        TypeError: If an argument has another type.
        ValueError: If `n_classes` is less than 2, or a target is out of range.
    """
    check_whole_number("n_classes", n_classes, 2)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.is_complex() or targets.dim() != 1:
        got = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else type_of(targets)
        raise TypeError(f"Expected `targets` to be a tensor of integers of shape N, but got {got}.")
    if len(targets) and not (int(targets.min()) >= 0 and int(targets.max()) < n_classes):
        raise ValueError(f"Expected `targets` in [0, {n_classes}), but got {targets.tolist()}.")
    draws = own_generator(generator)
    shifts = torch.randint(1, n_classes, targets.shape, generator=draws, device=draws.device)
    return (targets + shifts.to(targets.device)) % n_classes


def _random_logit_update(attributions: Tensor, other_attributions: Tensor, similarity: Similarity = "ssim") -> Tensor:
    check_choice("similarity", similarity, Similarity)
    maps, others = checked_maps(attributions), checked_maps(other_attributions, "other_attributions")
    if maps.shape != others.shape:
        raise ValueError(
            "Expected maps of both classes with the same examples and spatial size, "
            f"but got {tuple(maps.shape)} and {tuple(others.shape)}."
        )
    others = others.to(maps)
    if similarity == "ssim":
        return structural_similarity(maps.unsqueeze(1), others.unsqueeze(1))
    return (rank_correlation if similarity == "spearman" else cosine)(maps.flatten(1), others.flatten(1))
