"""Scores of chosen boxes against values computed by hand and plain loops, and detectors that keep all candidates."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from captum_scorecam import box_scores, with_all_detections
from tests.support.tiny_detectors import (
    CHANNELS,
    CLASSES,
    DETECTORS,
    SIZE,
    Backbone,
    chosen_detections,
    pictures,
    tiny_detector,
)

BOXES = torch.tensor([[[0.0, 0, 4, 4], [2, 0, 6, 4]], [[0, 0, 2, 2], [10, 10, 12, 14]]])
LABELS = torch.tensor([[1, 1], [2, 0]])


def found(boxes: Sequence[Sequence[float]], scores: Sequence[float], labels: Sequence[int]) -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor(boxes).reshape(-1, 4),
        "scores": torch.tensor(scores),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def naive_box_score(detection: Mapping[str, Tensor], box: Sequence[float], label: int) -> float:
    """The best IoU × probability, one detection at a time."""
    best = 0.0
    for index, (x1, y1, x2, y2) in enumerate(detection["boxes"].tolist()):
        width = max(0.0, min(x2, box[2]) - max(x1, box[0]))
        height = max(0.0, min(y2, box[3]) - max(y1, box[1]))
        union = (x2 - x1) * (y2 - y1) + (box[2] - box[0]) * (box[3] - box[1]) - width * height
        if "labels" in detection:
            probability = float(detection["scores"][index]) if int(detection["labels"][index]) == label else 0.0
        else:
            probability = float(detection["scores"][index, label])
        best = max(best, width * height / union * probability)
    return best


def naive_box_scores(detections: Sequence[Mapping[str, Tensor]], boxes: Tensor, labels: Tensor) -> Tensor:
    rows = zip(detections, boxes.tolist(), labels.tolist(), strict=True)
    return torch.tensor([[naive_box_score(row, b, c) for b, c in zip(bs, cs, strict=True)] for row, bs, cs in rows])


def test_by_hand() -> None:
    detections = [
        found([[0, 0, 4, 4], [1, 0, 5, 4], [0, 0, 4, 4]], [0.5, 0.9, 0.99], [1, 1, 3]),
        found([[0, 0, 2, 4], [10, 10, 12, 14]], [0.6, 0.8], [2, 2]),
    ]
    # Row 0: the second detection overlaps both boxes by 12 of 20 pixels and is better for both than the first, of
    # which they see 1 × 0.5 and 8 / 24 × 0.5; the third is of another class. Row 1: half of the first; no class 0.
    expected = torch.tensor([[0.6 * 0.9, 0.6 * 0.9], [0.5 * 0.6, 0.0]])
    torch.testing.assert_close(box_scores(detections, BOXES, LABELS), expected)


def test_scores_of_all_classes() -> None:
    detections = [
        {"boxes": torch.tensor([[0.0, 0, 4, 4], [1, 0, 5, 4]]), "scores": torch.tensor([[0.1, 0.5, 0], [0, 0.9, 0]])},
        {"boxes": torch.tensor([[0.0, 0, 2, 4]]), "scores": torch.tensor([[0.7, 0.2, 0.6]])},
    ]
    expected = torch.tensor([[0.6 * 0.9, 0.6 * 0.9], [0.5 * 0.6, 0.0]])
    torch.testing.assert_close(box_scores(detections, BOXES, LABELS), expected)


def test_an_image_without_detections_scores_zero() -> None:
    nothing = found([], [], [])
    assert torch.equal(box_scores([nothing, found([[0, 0, 2, 2]], [0.5], [2])], BOXES, LABELS)[0], torch.zeros(2))


def test_half_precision_detections_are_scored_in_float32() -> None:
    detection = {"boxes": torch.tensor([[0, 0, 400, 300]]).half(), "scores": torch.tensor([[0.5]]).half()}
    scores = box_scores([detection], torch.tensor([[[0, 0, 400, 600]]]), torch.tensor([[0]]))
    torch.testing.assert_close(scores, torch.tensor([[0.25]]))  # areas above float16's largest number


@pytest.mark.parametrize("name", DETECTORS)
def test_real_detections_equal_plain_loops(name: str) -> None:
    detector, images = tiny_detector(name), pictures()
    with torch.no_grad():
        detections = with_all_detections(detector)(images)
        boxes, labels = chosen_detections(detections)
        shifted = boxes + torch.tensor([3, -2, 5, 1])
        scores = box_scores(detections, shifted, labels)
    assert float(scores.min()) > 0.1
    torch.testing.assert_close(scores, naive_box_scores(detections, shifted, labels).double())


@pytest.mark.parametrize("name", DETECTORS)
def test_all_detections_are_kept(name: str) -> None:
    detector, images = tiny_detector(name), pictures()
    heads: Any = getattr(detector, "roi_heads", detector)
    before = copy.copy(vars(heads))
    with torch.no_grad():
        everything, usual = with_all_detections(detector)(images), detector(images)
        heads.score_thresh = 2.0
        assert all(len(each["boxes"]) == 0 for each in detector(images))
        again = with_all_detections(detector)(images)
        heads.score_thresh = before["score_thresh"]
    assert vars(heads) == before
    for all_of_image, some, same in zip(everything, usual, again, strict=True):
        assert len(all_of_image["boxes"]) > len(some["boxes"])
        assert {tuple(box) for box in some["boxes"].tolist()} <= {tuple(box) for box in all_of_image["boxes"].tolist()}
        assert torch.equal(all_of_image["scores"], same["scores"])


@pytest.mark.parametrize(("name", "candidates"), [("RetinaNet", 5), ("FCOS", 5), ("SSD", 5 * (CLASSES - 1))])
def test_as_many_candidates_are_kept_as_are_set(name: str, candidates: int) -> None:
    """RetinaNet and FCOS have one feature level here; SSD counts the candidates of each class but the background."""
    detector: Any = tiny_detector(name)
    images = pictures()
    detector.topk_candidates = 5
    twin: Any = with_all_detections(detector)
    with torch.no_grad():
        assert [len(each["boxes"]) for each in twin(images)] == [candidates] * 2
        twin.topk_candidates = 10**6
        everything = twin(images)
    anchors = {"RetinaNet": 2 * 64, "FCOS": 64, "SSD": 64 * 4}[name]
    classes = CLASSES - 1 if name == "SSD" else CLASSES
    assert [len(each["boxes"]) for each in everything] == [anchors * classes] * 2
    assert detector.topk_candidates == 5


def test_the_copy_shares_weights_and_hooks() -> None:
    detector = tiny_detector("Faster R-CNN")
    twin: Any = with_all_detections(detector)
    assert [p.data_ptr() for p in twin.parameters()] == [p.data_ptr() for p in detector.parameters()]
    assert list(twin.state_dict()) == list(detector.state_dict())
    assert dict(twin.named_modules())["backbone.3"] is dict(detector.named_modules())["backbone.3"]
    assert twin.roi_heads is not detector.roi_heads
    assert twin.roi_heads.box_head is detector.get_submodule("roi_heads.box_head")


def test_mask_rcnn_returns_boxes_only() -> None:
    anchors = AnchorGenerator(((32,),), ((1.0,),))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = MaskRCNN(
            Backbone(), CLASSES, min_size=SIZE, max_size=SIZE, rpn_anchor_generator=anchors,
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2), mask_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
        ).eval()  # fmt: skip
    with torch.no_grad():
        assert sorted(with_all_detections(detector)(pictures().float())[0]) == ["boxes", "labels", "scores"]
    assert detector.roi_heads.mask_roi_pool is not None


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"detections": {"boxes": BOXES[0]}}, TypeError, r"list with a dictionary for each image.* but got dict"),
        ({"detections": [BOXES[0]]}, TypeError, r"`detections` to be a list with a dictionary for each image"),
        (
            {"detections": [found([], [], [])] * 3},
            ValueError,
            r"of 3 rows, one for each .* but got 2\. .*additional_f",
        ),
        (
            {"detections": [{"boxes": BOXES[0], "scores": torch.ones(2)}] * 2},
            ValueError,
            r"'labels'\] each, but got \[",
        ),
        ({"detections": [{"pred": BOXES[0]}] * 2}, ValueError, r"with \['boxes', 'scores', 'labels'\] each, but got"),
        ({"boxes": BOXES[0]}, ValueError, r"`boxes` of shape rows×T×4, with .* but got \(2, 4\)"),
        ({"boxes": BOXES[:, :0]}, ValueError, r"with T of at least 1, but got \(2, 0, 4\)"),
        ({"boxes": BOXES[..., [2, 1, 0, 3]]}, ValueError, r"x1 < x2 and y1 < y2, but got \[4.0, 0.0, 0.0, 4.0\]"),
        ({"boxes": BOXES * float("nan")}, ValueError, r"x1 < x2 and y1 < y2, but got \[nan, nan"),
        ({"labels": LABELS[0]}, ValueError, r"`labels` of shape \(2, 2\), one for each box, but got \(2,\)"),
        ({"labels": LABELS.float()}, TypeError, r"`labels` to be integers, but got torch.float32"),
        ({"labels": LABELS - 1}, ValueError, r"`labels` to be at least 0, but got -1"),
        (
            {"detections": [{"boxes": BOXES[0], "scores": torch.ones(2, 2)}] * 2},
            ValueError,
            r"`labels` below 2, but got 2",
        ),
        (
            {"detections": [{"boxes": BOXES[0][:1], "scores": torch.ones(2), "labels": LABELS[0]}] * 2},
            ValueError,
            r"as many boxes D×4 as scores and labels, but got \[\(1, 4\), \(2,\), \(2,\)\]",
        ),
        (
            {"detections": [{"boxes": BOXES[0][:1], "scores": torch.ones(2, 3)}] * 2},
            ValueError,
            r"as many boxes D×4 as scores and labels, but got \[\(1, 4\), \(2, 3\)\]",
        ),
        (
            {"detections": [], "boxes": BOXES[:0], "labels": LABELS[:0]},
            ValueError,
            "of at least one image, but got none",
        ),
    ],
)
def test_bad_input_raises(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"detections": [found([[0, 0, 4, 4]], [0.5], [1])] * 2, "boxes": BOXES, "labels": LABELS}
    with pytest.raises(error, match=message):
        box_scores(**given | change)


def test_only_torchvisions_detectors_are_changed() -> None:
    with pytest.raises(ValueError, match="R-CNN, RetinaNet, FCOS or SSD of torchvision, but got Linear"):
        with_all_detections(nn.Linear(CHANNELS, 2))
    with pytest.raises(ValueError, match=r"Expected `detector` in evaluation mode: call `detector.eval\(\)`"):
        with_all_detections(tiny_detector("SSD").train())
    with pytest.raises(TypeError, match="Expected `detector` to be a module, but got 'fasterrcnn'"):
        with_all_detections("fasterrcnn")  # type: ignore[arg-type]
