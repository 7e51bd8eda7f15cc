"""Scores of chosen boxes from what a detector finds in each image."""

from __future__ import annotations

import copy
import reprlib
import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam.masking.scaling import working_dtype

Detections = Sequence[Mapping[str, Tensor]]


def box_scores(detections: Detections, boxes: Tensor, labels: Tensor) -> Tensor:
    """Returns the score of each chosen box: the best IoU × class probability over all detections of its image.

    Call it in `forward_func`, and pass `boxes` and `labels` in `additional_forward_args`, so that they follow their
    example through the chunks of masked inputs. Box t is then target t. On a GPU, each call waits for the checks of its
    arguments.

    Args:
        detections (sequence of mapping): One per row, as torchvision's detectors return them: ``"boxes"`` D×4,
            ``"scores"`` D and ``"labels"`` D. D may vary and be 0. For the raw output of YOLO or DETR, ``"scores"`` is
            D×classes, without ``"labels"``.
        boxes (Tensor): R×T×4, the chosen boxes of each row as (x1, y1, x2, y2), in the coordinates of the detections.
        labels (Tensor): R×T, the class index of each box.

    Returns:
        Tensor: R×T, in [0, 1] if the class probabilities are, in float32 (float64 for float64); 0 where no detection of
        the class overlaps the box.

    Raises:
        TypeError: If `detections` is not a sequence of mappings, or `labels` are not integers.
        ValueError: If shapes do not match, a detection has other keys, or a chosen box is empty.

    Example:
        >>> import torch
        >>> from captum_scorecam import box_scores
        >>> cat = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.tensor([0.9]), "labels": torch.tensor([2])}
        >>> box_scores([cat], torch.tensor([[[0.0, 0, 4, 2], [0, 0, 4, 4]]]), torch.tensor([[2, 1]]))
        tensor([[0.4500, 0.0000]])
    """
    _check_chosen(boxes, labels)
    _check_detections(detections, len(boxes))
    rows = [_scores_of_row(*row) for row in zip(detections, boxes, labels, strict=True)]
    return torch.stack(rows)


def with_all_detections(detector: Module) -> Module:
    """Returns a detector that shares the layers of `detector`, but keeps all of its candidates, however improbable.

    A detector drops what scores below a threshold, overlaps a better detection, or is not among the best hundred. So
    the score of a masked input would jump to 0 where it should decrease gradually. `detector` itself stays as it is.
    Mask and Keypoint R-CNN return boxes only.

    Candidates are every class of the proposals of an R-CNN, and the best ``topk_candidates`` of each feature level
    (RetinaNet, FCOS: 1000 boxes with a class) or class (SSD: 400, SSDlite: 300). A box that is not among them still
    scores 0. Set ``topk_candidates`` of the returned detector to keep more; its run time grows with their square.

    Args:
        detector (torch.nn.Module): A Faster, Mask or Keypoint R-CNN, RetinaNet, FCOS, SSD or SSDlite of torchvision.

    Raises:
        TypeError: If `detector` is not a module.
        ValueError: If it is not one of torchvision's detectors, or in training mode, where they return losses.
    """
    if not isinstance(detector, Module):
        raise TypeError(f"Expected `detector` to be a module, but got {reprlib.repr(detector)}.")
    twin = selecting = _twin(detector)
    roi_heads = getattr(detector, "roi_heads", None)
    if isinstance(roi_heads, Module):
        twin.roi_heads = selecting = _twin(roi_heads)
    if not all(hasattr(selecting, name) for name in _KEEP_ALL):
        raise ValueError(
            "Expected `detector` to be an R-CNN, RetinaNet, FCOS or SSD of torchvision, "
            f"but got {type(detector).__name__}."
        )
    if detector.training:
        raise ValueError("Expected `detector` in evaluation mode: call `detector.eval()`.")
    for name, value in _KEEP_ALL.items():
        setattr(selecting, name, value)
    for name in ("mask_roi_pool", "keypoint_roi_pool"):  # or masks would be predicted for thousands of boxes
        if hasattr(selecting, name):
            setattr(selecting, name, None)
    return twin


_KEEP_ALL = {"score_thresh": 0.0, "nms_thresh": 1.0, "detections_per_img": sys.maxsize}


def _twin(module: Module) -> Module:
    """Returns a shallow copy with its own table of the same submodules."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin


def _scores_of_row(detection: Mapping[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    from torchvision.ops import box_iou  # here, since it takes a second to import

    found, scores = detection["boxes"], detection["scores"]
    dtype = working_dtype(scores.dtype)
    if scores.dim() == 2:
        if int(labels.max()) >= scores.shape[1]:
            raise ValueError(f"Expected `labels` below {scores.shape[1]}, but got {int(labels.max())}.")
        probabilities = scores.to(dtype).T[labels.to(scores.device)]
    else:
        probabilities = scores.to(dtype) * (detection["labels"] == labels.to(scores.device).unsqueeze(1))
    overlaps = box_iou(boxes.to(found.device, dtype), found.to(dtype))
    nothing = overlaps.new_zeros(len(boxes), 1)
    return torch.cat([overlaps * probabilities, nothing], 1).amax(1)


def _check_chosen(boxes: Tensor, labels: Tensor) -> None:
    if boxes.dim() != 3 or boxes.shape[2] != 4 or boxes.shape[1] == 0:
        raise ValueError(f"Expected `boxes` of shape rows×T×4, with T of at least 1, but got {tuple(boxes.shape)}.")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"Expected `labels` to be integers, but got {labels.dtype}.")
    if (labels < 0).any():
        raise ValueError(f"Expected `labels` to be at least 0, but got {int(labels.min())}.")
    if labels.shape != boxes.shape[:2]:
        raise ValueError(
            f"Expected `labels` of shape {tuple(boxes.shape[:2])}, one for each box, but got {tuple(labels.shape)}."
        )
    empty = ~(boxes[..., 2:] > boxes[..., :2]).all(2)
    if empty.any():
        box = [round(value, 2) for value in boxes[empty][0].tolist()]
        raise ValueError(f"Expected `boxes` as (x1, y1, x2, y2) with x1 < x2 and y1 < y2, but got {box}.")


def _check_detections(detections: Detections, n_rows: int) -> None:
    if not isinstance(detections, Sequence) or not all(isinstance(each, Mapping) for each in detections):
        raise TypeError(
            "Expected `detections` to be a list with a dictionary for each image, as torchvision's detectors return in "
            f"evaluation mode, but got {type(detections).__name__}."
        )
    if len(detections) == 0:
        raise ValueError("Expected `detections` of at least one image, but got none.")
    if len(detections) != n_rows:
        raise ValueError(
            f"Expected `boxes` of {len(detections)} rows, one for each of `detections`, but got {n_rows}. Pass them in "
            "`additional_forward_args`, so that they follow their example."
        )
    for each in detections:
        of_all_classes = getattr(each.get("scores"), "ndim", 1) == 2
        needed = ["boxes", "scores"] if of_all_classes else ["boxes", "scores", "labels"]
        if not each.keys() >= set(needed):
            raise ValueError(f"Expected `detections` with {needed} each, but got {list(each)}.")
        shapes = [tuple(each[name].shape) for name in needed]
        n = shapes[0][:1]
        expected = [(*n, 4), (*n, *shapes[1][1:]), *([n] if len(needed) == 3 else [])]
        if shapes != expected:
            raise ValueError(f"Expected `detections` of as many boxes D×4 as scores and labels, but got {shapes}.")
