"""torchvision's detectors on a tiny backbone, with random weights whose scores depend on the image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from tests.conftest import photograph

SIZE, CLASSES = 64, 4
CHANNELS = 32  # as FCOS's group norm needs


class Backbone(nn.Sequential):
    """32 channels of 8×8 for images of 64×64."""

    def __init__(self, out_channels: int | list[int] = CHANNELS) -> None:
        super().__init__(nn.Conv2d(3, CHANNELS, 7, 4, 3), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, 2, 1), nn.ReLU())
        self.out_channels = out_channels  # read by torchvision


def _anchors(sizes: tuple[int, ...], ratios: tuple[float, ...] = (1.0,)) -> AnchorGenerator:
    return AnchorGenerator(sizes=(sizes,), aspect_ratios=(ratios,))


def _faster_rcnn() -> nn.Module:
    pool = MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=2)
    model: nn.Module = FasterRCNN(
        Backbone(), CLASSES, rpn_anchor_generator=_anchors((16, 32)), box_roi_pool=pool, min_size=SIZE, max_size=SIZE
    )
    return model


def _retinanet() -> nn.Module:
    model: nn.Module = RetinaNet(Backbone(), CLASSES, anchor_generator=_anchors((16, 32)), min_size=SIZE, max_size=SIZE)
    return model


def _fcos() -> nn.Module:
    model: nn.Module = FCOS(Backbone(), CLASSES, anchor_generator=_anchors((16,)), min_size=SIZE, max_size=SIZE)
    return model


def _ssd() -> nn.Module:
    boxes = DefaultBoxGenerator([[2]], scales=[0.3, 0.6])
    model: nn.Module = SSD(Backbone([CHANNELS]), boxes, (SIZE, SIZE), CLASSES)
    return model


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "Faster R-CNN": _faster_rcnn,
    "RetinaNet": _retinanet,
    "FCOS": _fcos,
    "SSD": _ssd,
}


def tiny_detector(name: str) -> nn.Module:
    """A detector in evaluation mode, in float64; its classification logits are made to vary over the image."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = DETECTORS[name]().eval()
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
        for part, module in model.named_modules():
            if part.endswith(("cls_logits", "cls_score", "classification_head.module_list.0")):
                module.weight.mul_(2)
                module.bias.normal_()
            if part.endswith(("bbox_reg", "bbox_pred", "regression_head.module_list.0")):
                module.weight.mul_(0.1)
            if part.endswith("bbox_reg"):
                module.bias.fill_(1)  # FCOS predicts the distances to the sides
    return model.double()


def pictures() -> Tensor:
    """A photograph and its mirror image upside down, 2×3×64×64 in [0, 1]."""
    image = (photograph(SIZE).double() * 128 + 127) / 255
    return torch.cat([image, image.flip(2, 3)])


def chosen_detections(detections: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The best detection of each image and the best of another class, N×2×4, and their labels."""
    boxes, labels = [], []
    for found in detections:
        sides = found["boxes"][:, 2:] - found["boxes"][:, :2]
        large = (sides > 6).all(1).nonzero()[:, 0]
        other = large[found["labels"][large] != found["labels"][large[0]]]
        chosen = torch.stack([large[0], other[0]])
        boxes.append(found["boxes"][chosen])
        labels.append(found["labels"][chosen])
    return torch.stack(boxes), torch.stack(labels)
