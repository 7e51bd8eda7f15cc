"""InputSpaceAttribution: the layer's map at the size of each input, in every channel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from torch import Tensor, nn

from captum_scorecam import RISE, InputSpaceAttribution, ScoreCAM
from tests.support.score_cam import naive_score_cam
from tests.support.sequential_net import LAYER_METHODS, LayerMethod, arange_image, sequential_net
from tests.support.small_net import Net, images


def assert_map(actual: Tensor, expected: Any) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(actual, expected.reshape(actual.shape), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("as_tuple", [False, True])
def test_input_space_attribution_is_the_upsampled_map_in_every_channel(method: LayerMethod, as_tuple: bool) -> None:
    net, x = sequential_net(), images()
    layer_map = method(net, net[2]).attribute(x, target=3).detach()
    actual = InputSpaceAttribution(method(net, net[2])).attribute((x,) if as_tuple else x, target=3)
    assert isinstance(actual, tuple) is as_tuple
    actual = actual[0] if as_tuple else actual
    assert actual.is_contiguous()
    assert actual.dtype == x.dtype
    expected = LayerAttribution.interpolate(layer_map, (12, 10), "bilinear").expand(2, 3, 12, 10)
    torch.testing.assert_close(actual.detach(), expected)


def test_input_space_attribution_of_tensors_of_different_sizes() -> None:
    class TwoSizes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = sequential_net()

        def forward(self, x: Tensor, small: Tensor) -> Any:
            return self.net(x) * small.flatten(1).mean(dim=1, keepdim=True)

    net, x, small = TwoSizes(), images(), images(seed=2)[:, :1, :5, :4] + 3
    layer_map = naive_score_cam(net, net.net[2], (x, small), 3)
    actual = InputSpaceAttribution(ScoreCAM(net, net.net[2])).attribute((x, small), target=3)
    for each, tensor in zip(actual, (x, small), strict=True):
        upsampled = LayerAttribution.interpolate(layer_map, tuple(tensor.shape[2:]), "bilinear")
        torch.testing.assert_close(each, upsampled.expand_as(tensor).contiguous())


def test_input_space_map_is_the_layer_map_upsampled() -> None:
    # bilinear from [[0, 0], [18.5, 27.5]]: row weights 0, 1/4, 3/4, 1 times 18.5 + 9 (0, 1/4, 3/4, 1)
    net = BasicModel_ConvNet_One_Conv()
    actual = InputSpaceAttribution(ScoreCAM(net, net.conv1)).attribute(arange_image(), target=0)
    last_row = torch.tensor([18.5, 20.75, 25.25, 27.5])
    assert_map(actual, torch.outer(torch.tensor([0, 0.25, 0.75, 1]), last_row))


def test_input_space_map_with_captums_nearest_interpolation() -> None:
    net = BasicModel_ConvNet_One_Conv()
    actual = InputSpaceAttribution(ScoreCAM(net, net.conv1), interpolate_mode="nearest").attribute(
        arange_image(), target=0
    )
    lower = [18.5, 18.5, 27.5, 27.5]
    assert_map(actual, [[0.0] * 4, [0.0] * 4, lower, lower])


def test_input_space_map_of_layer_grad_cam() -> None:
    # Captum's own expected value for this call is [[11.25, 13.5], [20.25, 22.5]] = 11.25 + 9 u + 2.25 v at the corners
    net = BasicModel_ConvNet_One_Conv()
    actual = InputSpaceAttribution(LayerGradCam(net, net.conv1)).attribute(arange_image(), target=0)
    weights = torch.tensor([0, 0.25, 0.75, 1])
    assert_map(actual, 11.25 + 9 * weights[:, None] + 2.25 * weights)


def test_attribution_without_a_layer_raises() -> None:
    with pytest.raises(TypeError, match="Expected `attribution` to be a LayerAttribution, but got RISE"):
        InputSpaceAttribution(RISE(sequential_net()))


def test_layer_with_several_tensors_raises() -> None:
    class Halves(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z[:, :3], z[:, 3:]

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.halves = sequential_net(), Halves()

        def forward(self, x: Tensor) -> Any:
            return self.net[3:](torch.cat(self.halves(self.net[:3](x)), dim=1))

    net = Joined()
    with pytest.raises(ValueError, match="Expected one map from the layer, but got 2"):
        InputSpaceAttribution(ScoreCAM(net, net.halves)).attribute(images(), target=0)


def test_map_with_another_rank_than_the_input_raises() -> None:
    class Vector(LayerAttribution):
        def attribute(self, inputs: Tensor, **_: Any) -> Tensor:
            return inputs.new_ones(len(inputs), 1, 5)

    net = sequential_net()
    message = r"map with the spatial dimensions of the input \(2, 3, 12, 10\), but got shape \(2, 1, 5\)"
    with pytest.raises(ValueError, match=message):
        InputSpaceAttribution(Vector(net, net[2])).attribute(images(), target=0)


def test_a_map_of_integer_inputs_keeps_its_dtype() -> None:
    net, x = sequential_net(), (images() * 50 + 120).clamp(0, 255).byte()

    def of_bytes(x: Tensor) -> Any:
        return net(x.double() / 255)

    actual = InputSpaceAttribution(LayerGradCam(of_bytes, net[2])).attribute(x, target=0)
    expected = InputSpaceAttribution(LayerGradCam(net, net[2])).attribute(x.double() / 255, target=0)
    torch.testing.assert_close(actual, expected)


def test_maps_beyond_the_range_of_the_inputs_are_refused() -> None:
    net = Net().float()
    score_cam = ScoreCAM(lambda inputs: 1e7 * net(inputs.float()), net.relu, channel_weighting="score")
    with pytest.raises(ValueError, match=r"Expected maps within the range of the inputs' torch\.float16, but values"):
        InputSpaceAttribution(score_cam).attribute(images(dtype=torch.float16), 2)
