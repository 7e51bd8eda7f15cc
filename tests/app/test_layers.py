"""The layers that are offered: the one found, then earlier ones of other sizes."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from captum_scorecam.app.layers import layers_by_depth
from captum_scorecam.models import Classifier, load_classifier
from tests.support.tiny_classifier import TinyClassifier, preprocess


class Stages(nn.Module):
    """Three stages of halved size, each of a convolution and its activation, in a list."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = [3, 4, 6, 8]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()) for a, b in pairwise(widths)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


INPUTS = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.4


def test_layers_of_other_sizes_follow_the_last_one() -> None:
    found = layers_by_depth(Classifier("stages", Stages().eval(), preprocess), INPUTS)
    assert [layer.name for layer in found] == ["stages.2", "stages.1", "stages.0"]


def test_one_layer_may_be_all() -> None:
    found = layers_by_depth(Classifier("tiny", TinyClassifier().eval(), preprocess), INPUTS)
    assert [layer.name for layer in found] == ["features"]


def test_a_model_without_maps_has_no_layers() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)).eval()
    assert layers_by_depth(Classifier("flat", flat, preprocess), INPUTS) == []


@pytest.mark.slow
def test_the_demo_model() -> None:
    classifier = load_classifier("efficientnet_lite0", "none")
    found = layers_by_depth(classifier, INPUTS.repeat(1, 1, 3, 3))
    assert [layer.name for layer in found] == ["_avg_pooling:input", "_blocks.10", "_blocks.4", "_blocks.2"]
    assert found[0].of_input
