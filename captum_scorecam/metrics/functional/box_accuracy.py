"""MaxBoxAcc (arXiv 2001.07437): how often the box around the map's largest component matches a box of the object."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from captum_scorecam._messages import check_choice, check_fraction
from captum_scorecam.masking.scaling import min_max_normalize
from captum_scorecam.metrics.functional.example_mean import _mean_compute, _mean_update
from captum_scorecam.metrics.functional.pixel_values import checked_maps
from captum_scorecam.metrics.functional.regions import region_boxes

Components: TypeAlias = Literal["largest", "all"]

N_THRESHOLDS = 100


class BoxAccuracy(NamedTuple):
    """Which maps give a box that matches one of the object, at each threshold.

    Attributes:
        thresholds (Tensor): Shape T, shares of the map's range: 0, 0.01, …, 0.99.
        hits (Tensor): N×T, 1 where the box matches, else 0.
        max_box_acc (Tensor): Scalar, the largest mean of the hits over the examples, over all thresholds.
    """

    thresholds: Tensor
    hits: Tensor
    max_box_acc: Tensor


def max_box_acc(
    attributions: Tensor,
    regions: Tensor | Sequence[Tensor],
    *,
    iou_threshold: float = 0.5,
    components: Components = "largest",
) -> BoxAccuracy:
    """Computes MaxBoxAcc (Choe et al., arXiv 2001.07437): the accuracy of boxes at the best threshold of the maps.

    At each threshold, the predicted box is the tightest around the largest connected component, diagonals included, of
    the pixels whose value, scaled to [0, 1] by the map's lowest and highest, is above the threshold. It is a hit if its
    intersection over union with any of the example's boxes reaches `iou_threshold`. One threshold counts, the best for
    all examples together, so the result is not a mean of values of single examples.

    Args:
        attributions (Tensor): N×1×H×W or N×C×H×W (summed over the channels), at the image's size.
        regions (sequence of Tensor): N tensors M×4 of boxes, as for :func:`energy_pointing_game`, clipped to the map.
            Not masks.
        iou_threshold (float): The paper's δ, in (0, 1]. Default: 0.5.
        components (str): ``"largest"`` (default), by number of pixels, the first of equal ones; or ``"all"``: the box
            of any component may match. MaxBoxAccV2 is the mean of ``"all"`` at δ = 0.3, 0.5 and 0.7.

    Returns:
        BoxAccuracy: `thresholds` T, `hits` N×T and `max_box_acc`, in [0, 1]; higher is better. Constant maps have no
        hit.

    Raises:
        ValueError: Same as :func:`energy_pointing_game`, and if an option is invalid or `regions` are masks.
        TypeError: Same as :func:`energy_pointing_game`.
        ModuleNotFoundError: If SciPy, which finds the components, is not installed.

    Example:
        >>> import torch
        >>> from captum_scorecam.metrics.functional import max_box_acc
        >>> attributions = torch.tensor([[[[3.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]])
        >>> max_box_acc(attributions, [torch.tensor([[0, 0, 3, 1]])]).max_box_acc
        tensor(1.)
    """
    hits = _box_hits_update(attributions, regions, iou_threshold, components)
    return BoxAccuracy(_thresholds(hits.dtype).to(hits.device), hits, _mean_compute(*_mean_update(hits)).max())


def _thresholds(dtype: torch.dtype) -> Tensor:
    return torch.arange(N_THRESHOLDS, dtype=dtype, device="cpu") / N_THRESHOLDS


def _box_hits_update(
    attributions: Tensor,
    regions: Tensor | Sequence[Tensor],
    iou_threshold: float = 0.5,
    components: Components = "largest",
) -> Tensor:
    """Returns the hits of each example at each threshold, N×T."""
    check_box_options(iou_threshold, components)
    maps = checked_maps(attributions)
    boxes = region_boxes(regions, maps)
    scaled = min_max_normalize(maps.unsqueeze(1)).squeeze(1).cpu()
    thresholds = _thresholds(scaled.dtype)
    hits = torch.zeros(len(maps), len(thresholds), dtype=maps.dtype, device="cpu")
    for example, truth in enumerate(boxes):
        found, numbers = _component_boxes(scaled[example] > thresholds[:, None, None], components)
        hits[example, numbers[(box_iou(found, truth) >= iou_threshold).any(1)]] = 1
    return hits.to(maps.device)


def check_box_options(iou_threshold: float, components: Components) -> None:
    """Checks the options of `max_box_acc`, and that SciPy is installed."""
    check_fraction("iou_threshold", iou_threshold, with_one=True)
    check_choice("components", components, Components)
    if find_spec("scipy") is None:
        raise ModuleNotFoundError("max_box_acc needs scipy: pip install scipy.", name="scipy")


def _component_boxes(pixels: Tensor, components: Components) -> tuple[Tensor, Tensor]:
    """Returns the boxes K×4 of the connected components of masks T×H×W, and the mask of each, shape K."""
    from scipy import ndimage

    within_masks = np.zeros((3, 3, 3))
    within_masks[1] = 1
    labels, _ = ndimage.label(pixels.numpy(), within_masks)
    slices = ndimage.find_objects(labels)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for _, y, x in slices], dtype=float).reshape(-1, 4)
    masks = np.array([t.start for t, _, _ in slices], dtype=np.int64)
    if components == "largest":
        largest_first = np.lexsort((-np.bincount(labels.ravel())[1:], masks))
        kept = largest_first[np.unique(masks[largest_first], return_index=True)[1]]
        boxes, masks = boxes[kept], masks[kept]
    return torch.from_numpy(boxes), torch.from_numpy(masks)
