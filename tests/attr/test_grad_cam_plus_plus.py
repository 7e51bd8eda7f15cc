"""Grad-CAM++: equation 19 by hand and against grad-cam, and maps by hand through LayerGradCam's call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from captum_scorecam import LayerGradCamPlusPlus, vit_activation_maps
from captum_scorecam.attr.grad_cam_plus_plus import grad_cam_plus_plus_weights
from tests.support.naive_methods import equation_19, naive_grad_cam_plus_plus
from tests.support.small_net import Net, assert_close, images

# --- The formula -----------------------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    # ΣA = 10. g = 0.1: α = 0.01 / (0.02 + 0.01) = 1/3; g = 0.2: α = 0.04 / (0.08 + 0.08) = 1/4; the others have ReLU 0
    activations = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    gradients = torch.tensor([[0.1, 0.0], [-1.0, 0.2]]).view(1, 1, 2, 2)
    weights = grad_cam_plus_plus_weights(activations, gradients)
    torch.testing.assert_close(weights, torch.tensor([[0.1 / 3 + 0.2 / 4]]))


@pytest.mark.parametrize("size", [(7,), (3, 4), (2, 3, 2)])
def test_weights_are_those_of_equation_19(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(len(size))
    activations = torch.randn(2, 5, *size, generator=generator, dtype=torch.float64).relu()
    gradients = torch.randn(2, 5, *size, generator=generator, dtype=torch.float64)
    gradients[0, 0] = 0
    expected = equation_19(activations, gradients)
    assert float(expected[0, 0]) == 0 < float(expected[1].min())
    torch.testing.assert_close(grad_cam_plus_plus_weights(activations, gradients), expected)


def test_weights_are_finite_where_gradients_vanish() -> None:
    # g = 1e-30 has no g² in float32; the limit of α is 1/2. A channel without any gradient has weight 0
    gradients = torch.tensor([[0.0, 0.0], [1e-30, 0.0]]).view(1, 2, 2)
    weights = grad_cam_plus_plus_weights(torch.full((1, 2, 2), 3.0), gradients)
    torch.testing.assert_close(weights, torch.tensor([[0.0, 0.5e-30]]), rtol=1e-5, atol=0)


def test_pole_of_negative_activations_has_no_weight() -> None:
    # ΣA = -2: g = 1 makes 2 + g ΣA = 0, and g = 0.5 has 0.5 / (2 - 1)
    weights = grad_cam_plus_plus_weights(torch.full((1, 1, 2), -1.0), torch.tensor([[[1.0, 0.5]]]))
    torch.testing.assert_close(weights, torch.tensor([[0.5]]))


def test_half_precision_is_weighted_in_float32() -> None:
    # 200 cells of 400 sum to 80000, which float16 does not have
    weights = grad_cam_plus_plus_weights(torch.full((1, 1, 200), 400.0).half(), torch.ones(1, 1, 200).half())
    torch.testing.assert_close(weights, torch.tensor([[200 / 80002]]))


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_equal_grad_cams_where_those_are_finite(seed: int) -> None:
    # grad-cam adds 1e-6 to the denominator, so gradients far from zero are compared
    generator = torch.Generator().manual_seed(seed)
    activations = torch.rand(2, 4, 5, 6, generator=generator)
    gradients = 1 + torch.rand(2, 4, 5, 6, generator=generator)
    gradients[:, ::2] *= -1
    gradients[0, 1, 0] *= -1
    peer = GradCAMPlusPlus(Net(), [Net().relu])
    theirs = peer.get_cam_weights(None, None, None, activations.numpy(), gradients.numpy())
    ours = grad_cam_plus_plus_weights(activations, gradients)
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=1e-5, atol=1e-6)


def test_map_equals_grad_cams() -> None:
    # grad-cam scales each map to [0, 1] after its ReLU; the layer has the input's size, so that it resizes nothing
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 12 * 10, 7)).eval()
    net.state_dict()["3.weight"].mul_(40)
    x = images(2, torch.float32)
    with GradCAMPlusPlus(net, [net[1]]) as peer:
        theirs = torch.from_numpy(peer(x, [ClassifierOutputTarget(2), ClassifierOutputTarget(5)]))
    ours = LayerGradCamPlusPlus(net, net[1]).attribute(x, [2, 5], relu_attributions=True)[:, 0]
    ours = ours - ours.amin((1, 2), keepdim=True)
    torch.testing.assert_close(ours / ours.amax((1, 2), keepdim=True), theirs, rtol=1e-3, atol=1e-3)


# --- LayerGradCam's call ---------------------------------------------------------------------------------------------


ARANGE = torch.arange(16.0).view(1, 1, 4, 4)
RELU_MAPS = torch.tensor([[[0.0, 4.0], [31.0, 40.0]], [[0.0, 0.0], [6.0, 15.0]]])


def one_conv_map(layer: str = "relu1", inputs: Any = ARANGE, **options: Any) -> Tensor:
    net = BasicModel_ConvNet_One_Conv()
    maps: Tensor = LayerGradCamPlusPlus(net, getattr(net, layer)).attribute(inputs, 0, **options)
    return maps


def test_map_by_hand() -> None:
    # The output adds the values of channel 0 and the first of channel 1, and takes the other three of channel 1 away.
    # Channel 0: g = 1, ΣA = 75: 4 · 1 / (2 + 75). Channel 1: g = 1 once, ΣA = 21: 1 / (2 + 21)
    expected = 4 / 77 * RELU_MAPS[0] + 1 / 23 * RELU_MAPS[1]
    torch.testing.assert_close(one_conv_map(), expected.view(1, 1, 2, 2))


def test_channels_apart_by_hand() -> None:
    expected = torch.stack([4 / 77 * RELU_MAPS[0], 1 / 23 * RELU_MAPS[1]]).unsqueeze(0)
    torch.testing.assert_close(one_conv_map(attr_dim_summation=False), expected)


def test_relu_is_off_by_default_as_in_layer_grad_cam() -> None:
    # conv1: A_0 = [[-5, 4], [31, 40]], A_1 = A_0 - 25. Through the ReLU, g of A_0 is 0 1 1 1, and of A_1 0 0 -1 -1:
    # channel 0: ΣA = 70: 3 / 72; channel 1 has no positive gradient
    expected = 3 / 72 * torch.tensor([[-5.0, 4.0], [31.0, 40.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(one_conv_map("conv1"), expected)
    torch.testing.assert_close(one_conv_map("conv1", relu_attributions=True), expected.clamp(min=0))


def test_layer_input_by_hand() -> None:
    # relu1's input is conv1's output
    torch.testing.assert_close(one_conv_map(attribute_to_layer_input=True), one_conv_map("conv1"))


def test_tuple_inputs_and_additional_arguments_are_passed_on() -> None:
    # the net adds its second tensor: A_0 = [[4, 13], [40, 49]], A_1 = [[0, 0], [15, 24]]; ΣA = 106 and 39
    expected = 4 / 108 * torch.tensor([[4.0, 13.0], [40.0, 49.0]]) + 1 / 41 * torch.tensor([[0.0, 0.0], [15.0, 24.0]])
    ones = torch.ones_like(ARANGE)
    torch.testing.assert_close(one_conv_map(inputs=(ARANGE, ones)), expected.view(1, 1, 2, 2))
    torch.testing.assert_close(one_conv_map(additional_forward_args=ones), expected.view(1, 1, 2, 2))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maps_of_every_rank(rank: int) -> None:
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    with torch.random.fork_rng():
        torch.manual_seed(rank)
        net = nn.Sequential(convolution(2, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)).double()
        x = torch.randn(3, 2, *(9, 7, 5)[:rank], dtype=torch.float64)
        net(x)
    actual = LayerGradCamPlusPlus(net, net[1]).attribute(x, 4)
    assert tuple(actual.shape) == (3, 1, *(4, 3, 2)[:rank])
    assert_close(actual, naive_grad_cam_plus_plus(net, net[1], x, 4))


def test_tuple_layer_returns_a_map_for_each_tensor() -> None:
    class TwoScales(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z + 2, F.avg_pool2d(z + 2, 2)

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = TwoScales()

        def forward(self, x: Tensor) -> Tensor:
            fine, coarse = self.split(torch.sin(x))
            scores: Tensor = fine.flatten(2).sum(2) * 0.5 + coarse.flatten(2).square().sum(2)
            return scores

    net, x = Heads(), images()
    fine, coarse = LayerGradCamPlusPlus(net, net.split).attribute(x, [0, 2])
    # fine: g = 1/2 at each of 120 cells of the target's channel; coarse: g = 2 A
    for n, channel in enumerate((0, 2)):
        first = torch.sin(x[n, channel]) + 2
        assert_close(fine[n, 0], first * (120 * 0.5 / (2 + 0.5 * first.sum())))
        second = F.avg_pool2d(first[None], 2)[0]
        assert_close(coarse[n, 0], second * (2 * second / (2 + 2 * second * second.sum())).sum())


def test_activation_transform_turns_tokens_into_maps() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            patches = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
            tokens: Tensor = self.tokens(torch.cat([patches.mean(1, keepdim=True), patches], 1).tanh())
            return tokens.square().sum(1)

    class Maps(Tokens):
        """The same model with the patches as maps at the layer."""

        def forward(self, x: Tensor) -> Tensor:
            patches = F.avg_pool2d(x, 2)
            first = patches.flatten(2).mean(2).tanh().square()
            kept: Tensor = self.tokens(patches.tanh())
            return first + kept.square().flatten(2).sum(2)

    tokens, maps, x = Tokens(), Maps(), images()[..., :10, :]
    explained = LayerGradCamPlusPlus(
        tokens, tokens.tokens, activation_transform=lambda t: vit_activation_maps(t, grid_size=(5, 5))
    )
    actual = explained.attribute(x, 1)
    assert_close(actual, naive_grad_cam_plus_plus(maps, maps.tokens, x, 1))


def test_token_ids_may_be_the_input() -> None:
    class TextNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.embedding, self.conv = nn.Embedding(9, 4), nn.Conv1d(4, 5, 3)
                self.fc = nn.Linear(5, 3)

        def forward(self, ids: Tensor) -> Tensor:
            scores: Tensor = self.fc(self.conv(self.embedding(ids).transpose(1, 2)).tanh().mean(2))
            return scores

    net, ids = TextNet().double(), torch.tensor([[1, 2, 3, 4, 5, 6], [8, 7, 0, 1, 2, 3]])
    explained = LayerGradCamPlusPlus(net, net.conv)
    assert_close(explained.attribute(ids, 2), naive_grad_cam_plus_plus(net, net.conv, ids, 2))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater than actual input size"):
        explained.attribute(ids[:, :2], 2)


# --- Training mode, compiled models, bad gradients -------------------------------------------------------------------


def test_map_in_training_mode_has_the_statistics_of_the_batch() -> None:
    net, other, x = Net().train(), Net().train(), images()
    activations = other.relu(other.norm(other.conv(x)))
    output = other.fc(F.adaptive_avg_pool2d(activations, 2).flatten(1))
    (gradients,) = torch.autograd.grad(output[:, 2].sum(), activations)
    weights = equation_19(activations.detach(), gradients)
    with pytest.warns(UserWarning, match="training mode"):
        actual = LayerGradCamPlusPlus(net, net.relu).attribute(x, 2)
    assert_close(actual, torch.einsum("nk,nkhw->nhw", weights, activations.detach()).unsqueeze(1))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_forward_func_is_explained() -> None:
    net, x = Net(), images()
    compiled = torch.compile(net, backend="eager")
    assert_close(
        LayerGradCamPlusPlus(compiled, net.relu).attribute(x, 2), naive_grad_cam_plus_plus(net, net.relu, x, 2)
    )


def test_infinite_gradient_raises() -> None:
    class Root(Net):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x) * 0).sqrt()

    net = Root()
    with pytest.raises(ValueError, match="Expected finite gradients, but got NaN or Inf in the gradient of"):
        LayerGradCamPlusPlus(net, net.relu).attribute(images(), 2)


def test_targets_may_be_made_in_inference_mode() -> None:
    net, x = Net(), images()
    with torch.inference_mode():
        target = torch.tensor([2, 3])
    assert_close(
        LayerGradCamPlusPlus(net, net.relu).attribute(x, target),
        LayerGradCamPlusPlus(net, net.relu).attribute(x, [2, 3]),
    )
