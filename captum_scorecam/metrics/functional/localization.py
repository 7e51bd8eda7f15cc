"""Agreement of an attribution with the object: relevance mass and rank accuracy, and intersection over union."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from captum_scorecam._messages import check_fraction
from captum_scorecam.masking.scaling import min_max_normalize, varies
from captum_scorecam.metrics.functional.energy_pointing_game import _energy_pointing_game_update
from captum_scorecam.metrics.functional.example_mean import Reduction, reduce_examples
from captum_scorecam.metrics.functional.pixel_values import checked_maps
from captum_scorecam.metrics.functional.regions import region_masks


def relevance_mass(
    attributions: Tensor, regions: Tensor | Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    """Computes the relevance mass accuracy, the share of positive relevance on the object (arXiv 2003.07258).

    This is :func:`energy_pointing_game` under the name that papers on localisation use. Arguments, result and errors
    are the same.
    """
    return reduce_examples(_energy_pointing_game_update(attributions, regions), reduction)


def relevance_rank(
    attributions: Tensor, regions: Tensor | Sequence[Tensor], *, reduction: Reduction = "mean"
) -> Tensor:
    """Computes the relevance rank accuracy, the share of the K highest pixels on the object (arXiv 2003.07258).

    K is the object's number of pixels. Of equal values at the K-th place, a random choice would put as many on the
    object as is their share there: this expected value counts, so a constant map scores the object's share of the area.

    Args:
        attributions, regions, reduction: As for :func:`energy_pointing_game`, including the errors; negative values
            rank below 0.

    Returns:
        Tensor: In [0, 1]; higher is better.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import relevance_rank
        >>> attributions = torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 0.0, 4.0]]]])
        >>> relevance_rank(attributions, [torch.tensor([[0, 0, 2, 1]])])
        tensor(0.5000)
    """
    return reduce_examples(_relevance_rank_update(attributions, regions), reduction)


def iou(
    attributions: Tensor,
    regions: Tensor | Sequence[Tensor],
    *,
    threshold: float = 0.2,
    reduction: Reduction = "mean",
) -> Tensor:
    """Computes the intersection over union of the object and the map's pixels above a share of its range.

    Args:
        attributions, regions, reduction: As for :func:`energy_pointing_game`, including the errors.
        threshold (float): The pixels that count have a value, scaled to [0, 1] by the map's lowest and highest, above
            this; in (0, 1). Default: 0.2, as CAM's boxes (arXiv 1512.04150).

    Returns:
        Tensor: In [0, 1]; higher is better. 0 for constant maps.

    Raises:
        ValueError, TypeError: Same as :func:`energy_pointing_game`, and if `threshold` is not in (0, 1).

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import iou
        >>> attributions = torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 0.0, 4.0]]]])
        >>> iou(attributions, [torch.tensor([[0, 0, 2, 1]])], threshold=0.5)
        tensor(0.3333)
    """
    return reduce_examples(_iou_update(attributions, regions, threshold), reduction)


def _relevance_rank_update(attributions: Tensor, regions: Tensor | Sequence[Tensor]) -> Tensor:
    maps = checked_maps(attributions)
    masks, values = region_masks(regions, maps).flatten(1), maps.flatten(1)
    n_object = masks.sum(1)
    last = values.sort(1, descending=True).values.gather(1, n_object.unsqueeze(1) - 1)
    above, tied = values > last, values == last
    places_left = n_object - above.sum(1)
    expected = (above & masks).sum(1) + places_left * (tied & masks).sum(1).double() / tied.sum(1)
    return expected / n_object


def _iou_update(attributions: Tensor, regions: Tensor | Sequence[Tensor], threshold: float = 0.2) -> Tensor:
    check_fraction("threshold", threshold)
    maps = checked_maps(attributions)
    masks = region_masks(regions, maps).flatten(1)
    found = varies(maps.unsqueeze(1)) & (min_max_normalize(maps.double().unsqueeze(1)).flatten(1) > threshold)
    return (found & masks).sum(1).double() / (found | masks).sum(1)
