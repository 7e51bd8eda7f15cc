"""Sequential nets, and the layer methods that are compared with Captum's on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from captum.attr import LayerAttribution, LayerGradCam
from torch import Tensor, nn

from captum_scorecam import ScoreCAM

RELEASED_CODE: dict[str, Any] = {"score": "probability", "channel_weighting": "score"}


def score_cam_of_the_released_code(net: nn.Module, layer: nn.Module) -> ScoreCAM:
    """Options belong to the constructor, so Captum's tools need none."""
    return ScoreCAM(net, layer, **RELEASED_CODE)


LayerMethod: TypeAlias = Callable[[nn.Module, nn.Module], LayerAttribution]
LAYER_METHODS = [ScoreCAM, score_cam_of_the_released_code, LayerGradCam]


def sequential_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions, ten classes, float64; any spatial size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), head := nn.Linear(24, 10),
        )  # fmt: skip
    head.weight.data.mul_(20)
    return net.double()


def arange_image(negative_pixel: bool = False) -> Tensor:
    """The image of Captum's tests, 0, 1, …, 15."""
    image = torch.arange(16.0).view(1, 1, 4, 4)
    if negative_pixel:
        image[0, 0, 1, 1] = -4.0
    return image
