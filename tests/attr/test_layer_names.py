"""A layer is given as a module, by its name in the model, or as "auto"."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_scorecam import (
    InputSpaceAttribution,
    LayerGradCamPlusPlus,
    ScoreCAM,
    swin_activation_maps,
    vit_activation_maps,
)
from captum_scorecam.metrics.functional import infidelity
from tests.naive_reference import naive_score_cam
from tests.support.small_net import Net, assert_close, images

BOTH = pytest.mark.parametrize("attribution", [ScoreCAM, LayerGradCamPlusPlus])


class ChannelsLast(Net):
    """Its layer `last` returns N×h×w×K."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        z = self.last(self.relu(self.norm(self.conv(x))).movedim(1, -1)).movedim(-1, 1)
        scores: Tensor = self.fc(nn.functional.adaptive_avg_pool2d(z, 2).flatten(1))
        return scores


@BOTH
@pytest.mark.parametrize("wrap", [lambda net: net, nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_a_name_means_the_module(attribution: Any, wrap: Any) -> None:
    net, x = Net(), images()
    actual = attribution(wrap(net), "relu").attribute(x, 2)
    assert_close(actual, attribution(net, net.relu).attribute(x, 2))


@BOTH
def test_a_name_with_input_means_the_modules_input(attribution: Any) -> None:
    net, x = Net(), images()
    expected = attribution(net, net.relu).attribute(x, 2, attribute_to_layer_input=True)
    assert_close(attribution(net, "relu:input").attribute(x, 2), expected)
    assert_close(attribution(net, "relu").attribute(x, 2, attribute_to_layer_input=True), expected)


class ChannelsLastInside(Net):
    """Its layer `permute` takes N×h×w×K and returns N×K×h×w, and `pool` returns no maps."""

    def __init__(self) -> None:
        super().__init__()
        self.permute, self.pool = Permuted(), nn.AdaptiveAvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.permute(self.relu(self.norm(self.conv(x))).movedim(1, -1))
        scores: Tensor = self.fc(self.pool(z).flatten(1))
        return scores


class Permuted(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z.movedim(-1, 1)


@BOTH
@pytest.mark.parametrize("name", ["permute", "pool", "auto"])
def test_the_input_of_a_named_layer_has_a_layout_of_its_own(attribution: Any, name: str) -> None:
    net, x = ChannelsLastInside(), images()
    expected = attribution(net, net.relu).attribute(x, 2)
    assert_close(attribution(net, name).attribute(x, 2, attribute_to_layer_input=True), expected)
    assert_close(attribution(net, name).attribute(x, 2, attribute_to_layer_input=True), expected)


@BOTH
def test_auto_finds_the_last_maps_of_each_model(attribution: Any) -> None:
    net, x = Net(), images()
    assert_close(attribution(net, "auto").attribute(x, 2), attribution(net, net.relu).attribute(x, 2))


def test_maps_of_named_tokens_and_channels_last_equal_the_naive_reference() -> None:
    net, x = ChannelsLast(), images()
    expected: Any = naive_score_cam(net, net.relu, x, 2)
    for layer in ("last", "auto"):
        assert_close(ScoreCAM(net, layer).attribute(x, 2), expected)
    transform = lambda z: z.movedim(-1, 1)  # noqa: E731
    assert_close(ScoreCAM(net, "last", activation_transform=transform).attribute(x, 2), expected)


def test_each_size_of_image_is_looked_up_once() -> None:
    net = ChannelsLast()
    score_cam = ScoreCAM(net, "auto")
    for size in (12, 16, 12):
        before = net.forwards
        score_cam.attribute(torch.rand(1, 3, size, size, dtype=torch.float64), 2)
        first, net.forwards = net.forwards - before, 0
    assert first < 10  # the second time, only the unmasked and the masked inputs are run


def test_a_layer_assigned_later_is_explained() -> None:
    net, x = Net(), images()
    score_cam = ScoreCAM(net, "relu")
    score_cam.layer = net.conv
    assert_close(score_cam.attribute(x, 2), ScoreCAM(net, net.conv).attribute(x, 2))


@pytest.mark.parametrize("layer", ["auto", "relu"])
def test_a_module_or_a_model_in_anothers_place_is_found_anew(layer: str) -> None:
    net, x = Net(), images()
    score_cam = ScoreCAM(net, layer)
    score_cam.attribute(x, 2)
    net.register_module("relu", nn.ReLU6())
    assert_close(score_cam.attribute(x, 2), ScoreCAM(net, net.relu).attribute(x, 2))
    other = Net(channels=9)
    score_cam.forward_func = other
    assert_close(score_cam.attribute(x, 2), ScoreCAM(other, other.relu).attribute(x, 2))


def test_captums_tools_take_an_attribution_of_a_named_layer() -> None:
    net, x = Net(), images()
    torch.testing.assert_close(
        infidelity(ScoreCAM(net, "relu"), x, 2, generator=torch.Generator().manual_seed(0)),
        infidelity(ScoreCAM(net, net.relu), x, 2, generator=torch.Generator().manual_seed(0)),
    )
    shaped = InputSpaceAttribution(ScoreCAM(net, "relu")).attribute(x, 2)
    assert isinstance(shaped, Tensor)
    assert shaped.shape == x.shape


@BOTH
def test_a_name_of_no_module_has_near_misses_and_a_function_has_no_names(attribution: Any) -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"Expected `layer` to name a module .* got 'rellu'\. Closest matches: relu"):
        attribution(net, "rellu")
    with pytest.raises(TypeError, match=r"`forward_func` to be a module, in which the layer 'relu' .* got function"):
        attribution(lambda x: net(x), "relu")
    with pytest.raises(ValueError, match="no `activation_transform` with layer='auto'"):
        attribution(net, "auto", activation_transform=vit_activation_maps)


@BOTH
def test_auto_refuses_a_model_without_maps_before_any_masked_forward(attribution: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 20), nn.ReLU(), nn.Linear(20, 7)).double().eval()
    with pytest.raises(ValueError, match="Expected a model with a layer that is certain to hold the last maps"):
        attribution(model, "auto").attribute(images(), 2)


def test_the_swap_for_grad_cam_holds_with_a_name() -> None:
    net, x = Net(), images()
    assert ScoreCAM(net, "relu").attribute(x, 2).shape == LayerGradCam(net, net.relu).attribute(x, 2).shape


def test_a_session_is_no_function() -> None:
    class Session:
        def run(self) -> None: ...

    with pytest.raises(
        TypeError, match=r"but got Session\. Wrap its `run` in a function that also returns the activat"
    ):
        ScoreCAM(Session(), "auto")  # type: ignore[arg-type]


class Patches(nn.Module):
    """Tokens of square patches of 4 pixels, in row-major order, as a Vision Transformer has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)

    def forward(self, inputs: Tensor) -> Tensor:
        pooled: Tensor = self.norm(self.stem(inputs).flatten(2).mT).mean(1)
        return pooled


@BOTH
@pytest.mark.parametrize("by_name", [False, True])
def test_tokens_of_an_oblong_image_are_no_square(attribution: Any, by_name: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Patches().double().eval(), torch.rand(2, 3, 8, 32, dtype=torch.float64)
    layer: Any = "norm" if by_name else model.norm

    def explained(transform: Any) -> Tensor:
        maps: Tensor = attribution(model, layer, activation_transform=transform).attribute(x, 1)
        return maps

    with pytest.raises(ValueError, match="Expected `grid_size` for images of 8×32 pixels, since their 16 patch"):
        explained(swin_activation_maps)
    assert explained(partial(swin_activation_maps, grid_size=(2, 8))).shape == (2, 1, 2, 8)
    assert explained(partial(swin_activation_maps, grid_size=(4, 4))).shape == (2, 1, 4, 4)  # if that is what they are
