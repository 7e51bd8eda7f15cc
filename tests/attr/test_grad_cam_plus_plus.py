"""Grad-CAM++: equation 19 by hand and against grad-cam, and LayerGradCam's call with its promises."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam, NoiseTunnel
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, LayerGradCamPlusPlus, vit_activation_maps
from captum_scorecam.attr.grad_cam_plus_plus import grad_cam_plus_plus_weights
from tests.support.small_net import Net, assert_close, images, nothing_changes


def equation_19(activations: Tensor, gradients: Tensor) -> Tensor:
    """The weights as the paper writes them, cell by cell in plain numbers; 0/0 is 0."""
    weights = torch.zeros(activations.shape[:2], dtype=torch.float64)
    for n, k in np.ndindex(*activations.shape[:2]):
        total = float(activations[n, k].double().sum())
        for g in gradients[n, k].double().flatten().tolist():
            alpha = g**2 / (2 * g**2 + total * g**3) if g != 0 else 0.0
            weights[n, k] += alpha * max(g, 0.0)
    return weights


def expected_map(net: nn.Module, layer: nn.Module, x: Tensor, target: int) -> Tensor:
    """Grad-CAM++ of one target, from a forward and a backward pass of the tests' own."""
    seen: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _module, _taken, given: seen.append(given))
    own = x.detach().clone()
    output = net(own.requires_grad_() if own.is_floating_point() else own)
    (gradients,) = torch.autograd.grad(output[:, target].sum(), seen[0])
    hook.remove()
    weights = equation_19(seen[0].detach(), gradients)
    maps = seen[0].detach().double() * weights.view(*weights.shape, *[1] * (gradients.dim() - 2))
    return maps.sum(1, keepdim=True)


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
    net[3].weight.data.mul_(40)
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
    return LayerGradCamPlusPlus(net, getattr(net, layer)).attribute(inputs, 0, **options)


def test_map_by_hand() -> None:
    # The output adds the values of channel 0 and the first of channel 1, and takes the other three of channel 1 away.
    # Channel 0: g = 1, ΣA = 75: 4 · 1 / (2 + 75). Channel 1: g = 1 once, ΣA = 21: 1 / (2 + 21)
    expected = 4 / 77 * RELU_MAPS[0] + 1 / 23 * RELU_MAPS[1]
    torch.testing.assert_close(one_conv_map(), expected.view(1, 1, 2, 2))


def test_channels_apart_by_hand() -> None:
    expected = torch.stack([4 / 77 * RELU_MAPS[0], 1 / 23 * RELU_MAPS[1]]).unsqueeze(0)
    torch.testing.assert_close(one_conv_map(attr_dim_summation=False), expected)


def test_relu_is_off_unless_asked_for_as_in_layer_grad_cam() -> None:
    # conv1: A_0 = [[-5, 4], [31, 40]], A_1 = A_0 - 25. Through the ReLU, g of A_0 is 0 1 1 1, and of A_1 0 0 -1 -1:
    # channel 0: ΣA = 70: 3 / 72; channel 1 has no positive gradient
    expected = 3 / 72 * torch.tensor([[-5.0, 4.0], [31.0, 40.0]]).view(1, 1, 2, 2)
    torch.testing.assert_close(one_conv_map("conv1"), expected)
    torch.testing.assert_close(one_conv_map("conv1", relu_attributions=True), expected.clamp(min=0))


def test_layer_input_by_hand() -> None:
    # relu1's input is conv1's output
    torch.testing.assert_close(one_conv_map(attribute_to_layer_input=True), one_conv_map("conv1"))


def test_tuple_input_and_additional_arguments_are_handed_on() -> None:
    # the net adds its second tensor: A_0 = [[4, 13], [40, 49]], A_1 = [[0, 0], [15, 24]]; ΣA = 106 and 39
    expected = 4 / 108 * torch.tensor([[4.0, 13.0], [40.0, 49.0]]) + 1 / 41 * torch.tensor([[0.0, 0.0], [15.0, 24.0]])
    ones = torch.ones_like(ARANGE)
    torch.testing.assert_close(one_conv_map(inputs=(ARANGE, ones)), expected.view(1, 1, 2, 2))
    torch.testing.assert_close(one_conv_map(additional_forward_args=ones), expected.view(1, 1, 2, 2))


def test_signature_begins_with_layer_grad_cams() -> None:
    theirs = list(inspect.signature(LayerGradCam.attribute).parameters.values())
    ours = list(inspect.signature(LayerGradCamPlusPlus.attribute).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])
    assert LayerGradCamPlusPlus.get_name() == "Grad-CAM++"


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
    assert_close(actual, expected_map(net, net[1], x, 4))


def test_tuple_layer_gives_a_map_for_each_tensor() -> None:
    class TwoScales(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z + 2, F.avg_pool2d(z + 2, 2)

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.split = TwoScales()

        def forward(self, x: Tensor) -> Tensor:
            fine, coarse = self.split(torch.sin(x))
            return fine.flatten(2).sum(2) * 0.5 + coarse.flatten(2).square().sum(2)

    net, x = Heads(), images()
    fine, coarse = LayerGradCamPlusPlus(net, net.split).attribute(x, [0, 2])
    # fine: g = 1/2 at each of 120 cells of the target's channel; coarse: g = 2 A
    for n, channel in enumerate((0, 2)):
        first = torch.sin(x[n, channel]) + 2
        assert_close(fine[n, 0], first * (120 * 0.5 / (2 + 0.5 * first.sum())))
        second = F.avg_pool2d(first[None], 2)[0]
        assert_close(coarse[n, 0], second * (2 * second / (2 + 2 * second * second.sum())).sum())


@pytest.mark.parametrize("target", [[1, 4], torch.tensor([1, 4]), [(1,), (4,)]])
def test_batch_is_example_by_example_for_every_form_of_target(target: Any) -> None:
    net, x = Net(), images()
    actual = LayerGradCamPlusPlus(net, net.relu).attribute(x, target)
    for n, c in enumerate((1, 4)):
        assert_close(actual[n : n + 1], expected_map(net, net.relu, x[n : n + 1], c))


def test_tokens_are_explained_as_the_maps_that_a_transform_makes_of_them() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            patches = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
            return self.tokens(torch.cat([patches.mean(1, keepdim=True), patches], 1).tanh()).square().sum(1)

    class Maps(Tokens):
        """The same model with the patches as maps at the layer."""

        def forward(self, x: Tensor) -> Tensor:
            patches = F.avg_pool2d(x, 2)
            first = patches.flatten(2).mean(2).tanh().square()
            return first + self.tokens(patches.tanh()).square().flatten(2).sum(2)

    tokens, maps, x = Tokens(), Maps(), images()[..., :10, :]
    explained = LayerGradCamPlusPlus(tokens, tokens.tokens)
    actual = explained.attribute(x, 1, activation_transform=lambda t: vit_activation_maps(t, grid_size=(5, 5)))
    assert_close(actual, expected_map(maps, maps.tokens, x, 1))


def test_token_ids_may_be_the_input() -> None:
    class TextNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.embedding, self.conv = nn.Embedding(9, 4), nn.Conv1d(4, 5, 3)
                self.fc = nn.Linear(5, 3)

        def forward(self, ids: Tensor) -> Tensor:
            return self.fc(self.conv(self.embedding(ids).transpose(1, 2)).tanh().mean(2))

    net, ids = TextNet().double(), torch.tensor([[1, 2, 3, 4, 5, 6], [8, 7, 0, 1, 2, 3]])
    assert_close(LayerGradCamPlusPlus(net, net.conv).attribute(ids, 2), expected_map(net, net.conv, ids, 2))


# --- Promises --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad_mode", [True, False])
@pytest.mark.parametrize("at_input", [False, True])
def test_nothing_of_the_users_is_changed(grad_mode: bool, at_input: bool) -> None:
    net, x = Net(), images()
    net.conv.bias.requires_grad_(False)
    with torch.set_grad_enabled(grad_mode), nothing_changes(net, x):
        LayerGradCamPlusPlus(net, net.conv).attribute(x, 2, attribute_to_layer_input=at_input)
    assert not x.requires_grad  # Captum sets the flag on a tensor that is the layer's input


def test_nothing_of_the_users_is_changed_when_the_model_raises() -> None:
    net, x = Net(), images().requires_grad_()
    net.fails_at = 1
    with nothing_changes(net, x), pytest.raises(RuntimeError, match="no more"):
        LayerGradCamPlusPlus(net, net.relu).attribute(x, 2)
    assert_close(LayerGradCamPlusPlus(net, net.relu).attribute(x, 2), expected_map(net, net.relu, x, 2))


def test_model_that_overwrites_its_input_gets_a_copy() -> None:
    class Overwriting(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.sub_(0.3))

    net, plain, x = Overwriting(), Net(), images()
    expected = expected_map(plain, plain.relu, x - 0.3, 2)
    with nothing_changes(net, x):
        actual = LayerGradCamPlusPlus(net, net.relu).attribute(x, 2)
    assert_close(actual, expected)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("made_inside", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_every_grad_mode(context: Callable[[], AbstractContextManager[Any]], made_inside: bool, frozen: bool) -> None:
    net, x = Net().requires_grad_(not frozen), images()
    expected = expected_map(net, net.relu, x, 2)
    with context():
        actual = LayerGradCamPlusPlus(net, net.relu).attribute(images() if made_inside else x, 2)
    assert_close(actual, expected)
    assert not actual.requires_grad


def test_training_mode_warns_and_keeps_statistics() -> None:
    net, other, x = Net().train(), Net().train(), images()
    expected = expected_map(other, other.relu, x, 2)
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        actual = LayerGradCamPlusPlus(net, net.relu).attribute(x, 2)
    assert_close(actual, expected)


@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_in_place_operation_after_the_layer_does_not_reach_the_map(layer: str) -> None:
    plain, net, x = Net(), Net(inplace=True), images()
    expected = expected_map(plain, getattr(plain, layer), x, 2)
    assert_close(LayerGradCamPlusPlus(net, getattr(net, layer)).attribute(x, 2), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_models_of_every_precision(dtype: torch.dtype, tolerance: float) -> None:
    net, x = Net(gain=8), images(dtype=dtype)
    expected = expected_map(net, net.relu, x.double(), 2)
    actual = LayerGradCamPlusPlus(net.to(dtype), net.relu).attribute(x, 2)
    assert actual.dtype == dtype
    assert_close(actual, expected, tolerance)


def test_autocast_weighs_in_float32() -> None:
    class Squares(nn.Module):
        """Nothing that autocast would round, so that what is left of its rounding would be the map's own."""

        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return self.maps(x.square()).pow(1.5).flatten(2).sum(2)

    net, x = Squares(), images(dtype=torch.float32)
    expected = expected_map(net, net.maps, x, 2)
    with torch.autocast("cpu", torch.bfloat16):
        actual = LayerGradCamPlusPlus(net, net.maps).attribute(x, 2)
    assert_close(actual, expected, 1e-5)


def test_compiled_forward_func_is_explained() -> None:
    net, x = Net(), images()
    compiled = torch.compile(net, backend="eager")
    assert_close(LayerGradCamPlusPlus(compiled, net.relu).attribute(x, 2), expected_map(net, net.relu, x, 2))
    torch.compiler.reset()


def test_layer_that_runs_twice_warns_and_is_explained_at_its_last_call() -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.relu(x) + 0.1)

    class Once(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.relu(x) + 0.1)

    net, once, x = Twice(), Once(), images()
    with pytest.warns(UserWarning, match="ran 2 times"):
        actual = LayerGradCamPlusPlus(net, net.relu).attribute(x, 2)
    assert_close(actual, expected_map(once, once.relu, x, 2))


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_bad_input_is_refused() -> None:
    net, x = Net(), images()
    with pytest.raises(ValueError, match=r"N×K×spatial.*got shape \(2, 7\)"):
        LayerGradCamPlusPlus(net, net.fc).attribute(x, 2)
    with pytest.raises(ValueError, match=r"to run in the forward.*ReLU\(\) never ran"):
        LayerGradCamPlusPlus(net, nn.ReLU()).attribute(x, 2)
    with pytest.raises(ValueError, match=r"2 spatial dimensions.*activation_transform"):
        LayerGradCamPlusPlus(net, net.relu).attribute(x, 2, activation_transform=lambda maps: maps.flatten(2))
    with pytest.raises(AssertionError, match="Target not provided"):
        LayerGradCamPlusPlus(net, net.relu).attribute(x)
    with pytest.raises(IndexError, match="out of bounds"):
        LayerGradCamPlusPlus(net, net.relu).attribute(x, 7)
    with pytest.raises(ValueError, match="finite activations"):
        LayerGradCamPlusPlus(net, net.relu).attribute(x / 0, 2)


def test_infinite_gradient_is_refused() -> None:
    class Root(Net):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x) * 0).sqrt()

    net = Root()
    with pytest.raises(ValueError, match="NaN or Inf"):
        LayerGradCamPlusPlus(net, net.relu).attribute(images(), 2)


# --- Captum's tools --------------------------------------------------------------------------------------------------


def test_sensitivity_of_an_unmoved_input_is_zero_and_of_a_moved_one_is_not() -> None:
    net, x = Net(), images()
    explained = InputSpaceAttribution(LayerGradCamPlusPlus(net, net.relu))
    still = sensitivity_max(explained.attribute, x, perturb_func=lambda inputs, _radius: inputs, target=2)
    assert still.tolist() == [0, 0]
    moved = sensitivity_max(explained.attribute, x, perturb_func=lambda inputs, _radius: inputs + 0.1, target=2)
    maps, others = (explained.attribute(inputs, target=2).flatten(1) for inputs in (x, x + 0.1))
    torch.testing.assert_close(moved, (others - maps).norm(dim=1) / maps.norm(dim=1))


def test_infidelity_takes_the_map() -> None:
    @infidelity_perturb_func_decorator(False)
    def darken(inputs: Tensor) -> Tensor:
        return inputs * 0.9

    net, x = Net(), images()
    maps = InputSpaceAttribution(LayerGradCamPlusPlus(net, net.relu)).attribute(x, target=2)
    actual = infidelity(net, darken, x, maps, target=2, n_perturb_samples=1)
    with torch.no_grad():
        expected = ((0.1 * x * maps).flatten(1).sum(1) - (net(x) - net(x * 0.9))[:, 2]).square()
    torch.testing.assert_close(actual, expected)


def test_noise_tunnel_without_noise_gives_the_map() -> None:
    net, x = Net(), images()
    explained = InputSpaceAttribution(LayerGradCamPlusPlus(net, net.relu))
    actual = NoiseTunnel(explained).attribute(x, nt_type="smoothgrad", nt_samples=2, stdevs=0.0, target=2)
    torch.testing.assert_close(actual, explained.attribute(x, target=2))
