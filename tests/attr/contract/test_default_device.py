"""Under a default device other than the model's, everything runs on the device of the inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam import LayerGradCamPlusPlus, ScoreCAM
from captum_scorecam.metrics import functional
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import Net, images

BOXES = [torch.tensor([[1.0, 1.0, 8.0, 9.0]])] * 2


@each(OURS)
@pytest.mark.parametrize("target", [2, [2, 3]])
def test_every_method_gives_the_same_maps(method: Method, target: Any) -> None:
    net, x = Net(), images()
    expected = method.explain(net, net.relu, x, target)
    with torch.device("meta"):
        actual = method.explain(net, net.relu, x, target)
    method.assert_close(actual, expected, tolerance=1e-12)


@pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])
@pytest.mark.parametrize("layer", ["auto", "relu"])
def test_layers_are_found(attribution: Any, layer: str) -> None:
    net, x = Net(), images()
    with torch.device("meta"):
        maps = attribution(net, layer).attribute(x, 2)
    torch.testing.assert_close(maps, attribution(net, net.relu).attribute(x, 2))


METRICS: dict[str, Callable[[Net, Tensor, Tensor], Any]] = {
    "masked_input_scores": lambda net, x, maps: functional.masked_input_scores(net, x, maps, 2),
    "insertion": lambda net, x, maps: functional.insertion(net, x, maps, 2, step=0.25).auc,
    "deletion": lambda net, x, maps: functional.deletion(net, x, maps, [2, 3], step=0.25).auc,
    "energy": lambda _net, _x, maps: functional.energy_pointing_game(maps.relu(), BOXES),
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_gives_the_same_values(name: str) -> None:
    net, x = Net(), images()
    maps = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))
    expected = METRICS[name](net, x, maps)
    with torch.device("meta"):
        actual = METRICS[name](net, x, maps)
    torch.testing.assert_close(actual, expected)
