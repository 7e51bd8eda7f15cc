"""The object in each image as a boolean mask, given as a mask or as boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_scorecam._messages import type_of

# Boxes in data sets often exceed their image by a pixel, which grows if a small image is enlarged.
BORDER_PIXELS, BORDER_FRACTION = 1, 0.01


def region_masks(regions: Tensor | Sequence[Tensor], maps: Tensor) -> Tensor:
    """Converts regions to boolean masks with the shape of the maps.

    Args:
        regions (Tensor or sequence of Tensor): Boolean masks N×spatial, or N tensors M×4 of boxes x1, y1, x2, y2.
        maps (Tensor): N×spatial.

    Raises:
        TypeError: If `regions` or a region is not a tensor.
        ValueError: If shapes do not match, boxes can't be corners in pixels of the map, or a region has no pixel.
    """
    _check_regions(regions, maps)
    if isinstance(regions, Tensor) and regions.dtype == torch.bool:
        masks = regions.to(maps.device)
    else:
        masks = _box_masks(regions, maps).to(maps.device)
    empty = ~masks.flatten(1).any(1)
    if empty.any():
        raise ValueError(
            f"Expected every region to contain at least one pixel of its image, but {int(empty.sum())} do not, "
            f"the first for example {int(empty.nonzero()[0])}."
        )
    return masks


def region_boxes(regions: Tensor | Sequence[Tensor], maps: Tensor) -> list[Tensor]:
    """Returns each example's boxes M×4, clipped to the map, float64, on the CPU.

    Args:
        regions (Tensor or sequence of Tensor): N tensors M×4 of boxes x1, y1, x2, y2.
        maps (Tensor): N×H×W.

    Raises:
        TypeError, ValueError: Same as `region_masks`, and if the regions are masks.
    """
    if isinstance(regions, Tensor) and regions.dtype == torch.bool:
        raise ValueError("Expected `regions` to be boxes, a tensor M×4 for each map, but got masks.")
    region_masks(regions, maps)  # checks them
    height, width = maps.shape[1:]
    largest = torch.tensor([width, height] * 2, dtype=torch.float64, device="cpu")
    return [boxes.cpu().double().clamp(min=0).minimum(largest) for boxes in regions]


def _check_regions(regions: object, maps: Tensor) -> None:
    """Checks that there is a mask, or a number of boxes, for each map."""
    boxes_fit = maps.dim() == 3
    boxes = f"or a tensor M×4 of boxes for each of {len(maps)} maps" if boxes_fit else "(boxes need maps N×C×H×W)"
    wanted = f"boolean masks of shape {tuple(maps.shape)} {boxes}"
    if isinstance(regions, Tensor):
        if regions.dtype == torch.bool:
            fits = regions.shape == maps.shape
        else:
            fits = boxes_fit and regions.dim() == 3 and len(regions) == len(maps)
        got = f"{regions.dtype} of shape {tuple(regions.shape)}"
    elif isinstance(regions, Sequence) and not isinstance(regions, str):
        fits, got = boxes_fit and len(regions) == len(maps), f"a {type(regions).__name__} of {len(regions)}"
    else:
        raise TypeError(f"Expected `regions` to be {wanted}, but got {type_of(regions)}.")
    if not fits:
        raise ValueError(f"Expected `regions` to be {wanted}, but got {got}.")


def _box_masks(regions: Tensor | Sequence[Tensor], maps: Tensor) -> Tensor:
    height, width = maps.shape[1:]
    for example, boxes in enumerate(regions):
        _check_numbers(boxes, example)
    if height * width > 1:
        _check_no_fractions(regions)
    for example, boxes in enumerate(regions):
        _check_corners(boxes, example, height, width)
    return torch.stack([_box_mask(boxes.cpu(), height, width) for boxes in regions])


def _check_numbers(boxes: object, example: int) -> None:
    if not isinstance(boxes, Tensor):
        raise TypeError(f"Expected `regions` to be tensors, but got {type_of(boxes)} for example {example}.")
    if boxes.dim() != 2 or boxes.shape[1] != 4 or boxes.dtype == torch.bool or boxes.is_complex():
        raise ValueError(
            f"Expected boxes of shape M×4, or one boolean tensor of masks N×spatial, "
            f"but got {boxes.dtype} of shape {tuple(boxes.shape)} for example {example}."
        )
    layout = getattr(getattr(boxes, "format", None), "value", "XYXY")  # of torchvision's BoundingBoxes
    if layout != "XYXY":
        raise ValueError(f"Expected boxes x1, y1, x2, y2 (XYXY) in `regions`, but got boxes of format {layout}.")


def _check_no_fractions(regions: Tensor | Sequence[Tensor]) -> None:
    """Checks that boxes are not fractions of the image's size. Whole numbers are pixels."""
    coordinates = torch.cat([boxes.flatten().cpu() for boxes in regions])
    in_unit_range = (coordinates > -1e-3) & (coordinates < 1 + 1e-3)  # fractions have rounding errors
    if len(coordinates) and coordinates.is_floating_point() and in_unit_range.all():
        raise ValueError(
            "Expected boxes in pixels of the map, but all coordinates are in [0, 1], as fractions of the image are. "
            "Multiply x by the map's width and y by its height."
        )


def _check_corners(boxes: Tensor, example: int, height: int, width: int) -> None:
    size = torch.tensor([width, height], dtype=torch.float32, device=boxes.device)
    first, last = boxes[:, :2].double(), boxes[:, 2:].double()
    # Clipping to the image leaves boxes without area at its border.
    clipped = (first == last) & ((first <= 0) | (first >= size))
    corners = ((first < last) | clipped).all(1) & boxes.isfinite().all(1)
    if not corners.all():
        raise ValueError(
            "Expected finite boxes x1, y1, x2, y2 with x1 < x2 and y1 < y2, "
            f"but got {boxes[~corners][0].tolist()} for example {example}."
        )
    border = (BORDER_FRACTION * size).clamp(min=BORDER_PIXELS)
    within = ((first >= -border) & (last <= size + border)).all(1)
    if not within.all():
        raise ValueError(
            f"Expected boxes within the {height}×{width} pixels of the map, "
            f"but got {boxes[~within][0].tolist()} for example {example}. "
            "Resize maps to the size of the images (LayerAttribution.interpolate); clip boxes to the image."
        )


def _box_mask(boxes: Tensor, height: int, width: int) -> Tensor:
    """Returns a mask H×W of the pixels whose centre is in one of the boxes M×4."""
    x1, y1, x2, y2 = boxes.double().unsqueeze(2).unbind(1)
    x, y = (torch.arange(size, dtype=torch.float64, device=boxes.device) + 0.5 for size in (width, height))
    columns, rows = (x1 <= x) & (x < x2), (y1 <= y) & (y < y2)
    return (rows.unsqueeze(2) & columns.unsqueeze(1)).any(0)
