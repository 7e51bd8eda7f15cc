"""Values and dtype of the result for every precision, autocast, and layers whose dtype differs from the input's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from tests.support.attributions import METHODS, OURS, Method, each
from tests.support.small_net import Net, images

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@each(METHODS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_models_of_every_precision(method: Method, dtype: torch.dtype) -> None:
    net, x, tolerance = Net(gain=8), images(dtype=dtype), TOLERANCES[dtype]
    if method.gradients and dtype == torch.float16:
        tolerance *= 2  # the model's own gradients are in float16 too
    expected = method.expected(net, net.relu, x.double(), 2)
    other_class = method.expected(net, net.relu, x.double(), 6)
    actual = method.explain(net.to(dtype), net.relu, x, 2)
    method.assert_close(actual, expected, max(tolerance, method.rounding))
    for one, other in zip(expected, other_class, strict=True):
        difference = (one / one.abs().max() - other / other.abs().max()).abs().max()
        assert float(difference) > 3 * tolerance  # another class's map would show

    at_input = bool(method.call.get("attribute_to_layer_input"))
    grad_cam = LayerGradCam(net, net.relu).attribute(x, 2, attribute_to_layer_input=at_input)
    convention = x if method.in_input_space else grad_cam
    channels = 2 if method.of_several_targets else convention.shape[1]
    for tensor in actual:
        assert (tensor.dtype, tensor.device) == (convention.dtype, convention.device)
        assert tensor.shape == (2, channels, *convention.shape[2:])
        assert tensor.is_contiguous()


class Mixed(Net):
    """Float32 inputs and outputs, with another precision at the ReLU."""

    def __init__(self, layer_dtype: torch.dtype) -> None:
        super().__init__(gain=4)
        self.layer_dtype = layer_dtype
        self.float()

    def forward(self, x: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        z = self.relu(self.norm(self.conv(x)).to(self.layer_dtype)).float()
        scores: Tensor = self.fc(F.adaptive_avg_pool2d(z, 2).flatten(1))
        return scores


@each(METHODS)
@pytest.mark.parametrize(("layer_dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float64, 2e-5)])
def test_layer_of_another_precision_than_the_input(method: Method, layer_dtype: torch.dtype, tolerance: float) -> None:
    net, x = Mixed(layer_dtype), images(dtype=torch.float32)
    actual = method.explain(net, net.relu, x, 2)
    assert {tensor.dtype for tensor in actual} == {torch.float32 if method.in_input_space else layer_dtype}
    method.assert_close(actual, method.expected(net, net.relu, x, 2), tolerance)


# --- Autocast --------------------------------------------------------------------------------------------------------


class Squares(nn.Module):
    """Has no operations that autocast would round, so that any rounding comes from the method."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.maps(torch.cat([x, x.flip(3)], dim=1).square()).pow(1.5).flatten(2).sum(2) / 40
        return scores


@each(METHODS)
def test_autocast_does_not_round_the_methods_own_values(method: Method) -> None:
    net, x = Squares(), images(dtype=torch.float32)
    expected = method.expected(net, net.maps, x.double(), 2)
    with torch.autocast("cpu", torch.bfloat16):
        actual = method.explain(net, net.maps, x, 2)
    assert {tensor.dtype for tensor in actual} == {torch.float32}
    method.assert_close(actual, expected, 1e-5)


@each(METHODS)
def test_model_under_autocast(method: Method) -> None:
    net, x = Net(gain=4).float(), images(dtype=torch.float32)
    precise = method.expected(net, net.relu, x, 2)
    taken: set[torch.dtype] = set()
    net.register_forward_pre_hook(lambda _module, given: taken.add(given[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = method.explain(net, net.relu, x, 2)
        assert taken == {torch.float32}  # masked inputs keep the input's precision
        grad_cam = LayerGradCam(net, net.relu).attribute(x, 2)
        expected = method.expected(net, net.relu, x, 2)
        assert torch.is_autocast_enabled("cpu")
    assert {tensor.dtype for tensor in actual} == {x.dtype if method.in_input_space else grad_cam.dtype}
    method.assert_close(actual, expected, 3e-2)
    method.assert_close(actual, precise, 5e-2)


class CoarseScores(nn.Module):
    """Float32 maps, and bfloat16 scores that are multiples of 1/8, hence exact: any loss happens afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        z = self.maps(F.avg_pool2d(x, 2).float())
        scores: Tensor = ((8 * z.flatten(2).amax(dim=2)).round() / 8).to(torch.bfloat16)
        return scores


@each(OURS, lambda method: not method.gradients)  # a rounded score has no gradient
@pytest.mark.parametrize("autocast", [False, True])
def test_scores_and_weights_are_float32_if_the_model_returns_bfloat16(method: Method, autocast: bool) -> None:
    net = CoarseScores()
    x = torch.rand(2, 9, 8, 8, generator=torch.Generator().manual_seed(4)) * torch.linspace(0.5, 4, 9).view(9, 1, 1)
    expected = method.expected(net, net.maps, x, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        actual = method.explain(net, net.maps, x, 3)
    assert {tensor.dtype for tensor in actual} == {torch.float32}
    method.assert_close(actual, expected, 1e-5)


@each(OURS)
def test_parameters_get_gradients_from_a_forward_pass_after_a_map_under_autocast(
    method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x, clear, cleared = Net().float(), images(dtype=torch.float32), torch.clear_autocast_cache, list[None]()

    def noted() -> None:
        cleared.append(clear())

    monkeypatch.setattr(torch, "clear_autocast_cache", noted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.explain(net, net.relu, x, 2)
        assert cleared  # early versions of PyTorch keep rounded weights without a graph
        loss = net(x).float().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
