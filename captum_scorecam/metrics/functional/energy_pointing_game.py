"""The energy-based pointing game of the Score-CAM paper, and the original pointing game."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_scorecam._messages import check_at_least
from captum_scorecam.masking.scaling import varies
from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.pixel_values import checked_maps
from captum_scorecam.metrics.functional.regions import region_masks


def energy_pointing_game(
    attributions: Tensor, regions: Tensor | Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    """Computes the share of an attribution's positive energy on the object (arXiv 1910.01279, section 4.3).

    Args:
        attributions (Tensor): N×1×spatial or N×C×spatial (summed over the channels), at the image's size. Negative
            values count as 0.
        regions (sequence of Tensor or Tensor): The object in each image: a boolean tensor N×spatial, or N tensors M×4
            of boxes x1, y1, x2, y2 in pixels of the map, with exclusive right and bottom edges. The number of boxes M
            may vary, and the object is their union. A pixel is in a box if its centre is. Boxes may exceed the map by
            one pixel or 1 % of its size; clip others first.
        reduction (str): ``"mean"`` over the examples (default), or ``"none"`` for one value per example.

    Returns:
        Tensor: In [0, 1]; higher is better. 0 for attributions without positive values.

    Raises:
        ValueError: If shapes do not match, a value is not finite, boxes can't be corners in pixels of the map, or a
            region has no pixel in its image, which leaves the share undefined.
        TypeError: If `attributions` are not floating-point tensors, or `regions` are not tensors.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import energy_pointing_game
        >>> attributions = torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 0.0, 4.0]]]])
        >>> energy_pointing_game(attributions, [torch.tensor([[0, 0, 2, 1]])])
        tensor(0.5000)
    """
    return reduce_examples(_energy_pointing_game_update(attributions, regions), reduction)


def pointing_game(
    attributions: Tensor, regions: Tensor | Sequence[Tensor], *, tolerance: float = 15, reduction: Reduction = "mean"
) -> Tensor:
    """Computes the share of attributions whose maximum is on the object (Zhang et al., IJCV 2018, arXiv 1608.00507).

    The mean is taken over examples; some papers average within each class first.

    Args:
        attributions, regions, reduction: As for :func:`energy_pointing_game`. The first of equal maxima counts.
        tolerance (float): Largest distance between the maximum and the object that counts as a hit, in pixels between
            centres. Default: 15, as in the paper, for images of a few hundred pixels. 0 requires a hit on the object.

    Returns:
        Tensor: In [0, 1]; higher is better. Constant maps count as misses.

    Raises:
        ValueError, TypeError: Same as :func:`energy_pointing_game`, and if `tolerance` is negative or not finite.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import pointing_game
        >>> attributions = torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 0.0, 4.0]]]])
        >>> pointing_game(attributions, [torch.tensor([[0, 0, 2, 1]])], tolerance=0)
        tensor(0.)
    """
    return reduce_examples(_pointing_game_update(attributions, regions, tolerance), reduction)


def _energy_pointing_game_update(attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> Tensor:
    maps = checked_maps(attributions).double().relu()
    inside = (maps * region_masks(regions, maps)).flatten(1).sum(1)
    total = maps.flatten(1).sum(1)
    return inside / torch.where(total > 0, total, 1.0)


def _pointing_game_update(attributions: Tensor, regions: Tensor | Sequence[Tensor], tolerance: float = 15) -> Tensor:
    check_at_least("tolerance", tolerance, 0)
    maps = checked_maps(attributions)
    masks = region_masks(regions, maps).flatten(1)
    axes = [torch.arange(length, device=maps.device) for length in maps.shape[1:]]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    highest = pixels[maps.flatten(1).argmax(1)]
    squared_distances = (pixels - highest.unsqueeze(1)).pow(2).sum(2).float()
    hits = (masks & (squared_distances <= tolerance**2)).any(1)
    return (hits & varies(maps.unsqueeze(1)).squeeze(1)).double()
