"""What Captum users do with LayerGradCam, done with ScoreCAM: the calls of Captum's own tests, targets, tools."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, LayerAttribution, LayerGradCam, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from captum.testing.helpers.basic_models import (
    BasicModel_ConvNet_One_Conv,
    BasicModel_MultiLayer,
)
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from tests.naive_reference import naive_score_cam

LAYER_METHODS = [ScoreCAM, LayerGradCam]


def arange_image(negative_pixel: bool = False) -> Tensor:
    image = torch.arange(16.0).view(1, 1, 4, 4)
    if negative_pixel:
        image[0, 0, 1, 1] = -4.0
    return image


def small_net(seed: int = 0) -> nn.Sequential:
    """Two convolutions, ten classes, float64; any spatial size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10),
        )  # fmt: skip
    net[-1].weight.data.mul_(20)
    return net.double()


def images(batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, 12, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- The calls of Captum's tests/attr/layer/test_grad_cam.py ---------------------------------------------------------

UPPER_ROW_EMPTY = [[[[0.0, 0.0], [18.5, 27.5]]]]  # by hand in test_hand_computed.py
PAIR = (arange_image(), torch.ones(1, 1, 4, 4))

CONVOLUTIONAL_CALLS: dict[str, tuple[str, Any, dict[str, Any], Any]] = {
    "conv": ("conv1", arange_image(), {}, UPPER_ROW_EMPTY),
    "conv, channels apart": (
        "conv1", arange_image(), {"attr_dim_summation": False}, [[[[0, 2], [15.5, 20]], [[0, 0], [3, 7.5]]]],
    ),
    "relu": (  # scores 20.2 and 6.1: the softmax gives the second channel e^-14.1 of the first
        "relu1", arange_image(), {}, [[[[0, 4], [31, 40]]]],
    ),
    "layer input": (
        "conv1", arange_image(True), {"attribute_to_layer_input": True, "relu_attributions": False}, arange_image(True),
    ),
    "layer input, relu": (
        "conv1", arange_image(True), {"attribute_to_layer_input": True, "relu_attributions": True},
        arange_image(True).clamp(min=0),
    ),
    "two inputs": ("conv1", PAIR, {}, [[[[0, 0.5], [27.5, 36.5]]]]),
}  # fmt: skip


@pytest.mark.parametrize("requires_grad", ["nothing", "parameters", "inputs"])
@pytest.mark.parametrize("name", CONVOLUTIONAL_CALLS)
def test_call_of_captums_grad_cam_tests(name: str, requires_grad: str) -> None:
    layer, inputs, options, expected = CONVOLUTIONAL_CALLS[name]
    net = BasicModel_ConvNet_One_Conv()
    net.requires_grad_(requires_grad == "parameters")
    inputs = tuple(x.clone() for x in inputs) if isinstance(inputs, tuple) else inputs.clone()
    for x in inputs if isinstance(inputs, tuple) else (inputs,):
        x.requires_grad_(requires_grad == "inputs")
    call = {"target": 0, "additional_forward_args": None, "grad_kwargs": None, **options}

    score_cam = ScoreCAM(net, getattr(net, layer))
    actual = score_cam.attribute(inputs, **call)
    grad_cam = LayerGradCam(net, getattr(net, layer)).attribute(inputs, **call)
    assert (actual.shape, actual.dtype, actual.device) == (grad_cam.shape, grad_cam.dtype, grad_cam.device)
    assert not actual.requires_grad
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-4)


def test_seven_parameters_stand_in_layer_grad_cams_order() -> None:
    ours, captums = (inspect.signature(method.attribute).parameters for method in LAYER_METHODS)
    assert list(ours)[: len(captums)] == list(captums)
    changed = [name for name in captums if ours[name].default != captums[name].default]
    assert changed == ["relu_attributions"]
    assert all(ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(captums) :])
    constructors = [list(inspect.signature(method).parameters) for method in LAYER_METHODS]
    assert constructors[0] == constructors[1] == ["forward_func", "layer", "device_ids"]

    net, image = BasicModel_ConvNet_One_Conv(), arange_image()
    positional = ScoreCAM(net, net.conv1, None).attribute(image, 0, None, False, False, False, None)
    torch.testing.assert_close(positional, torch.tensor([[[[-2.5, 2], [15.5, 20]], [[-15, -10.5], [3, 7.5]]]]))


@pytest.mark.parametrize(
    ("layer", "multi_input", "x"),
    [("linear0", False, [[0.0, 100.0, 0.0]]), ("multi_relu", True, [[0.0, 6.0, 0.0]])],
)
def test_layers_without_spatial_dimension_raise(layer: str, multi_input: bool, x: list[list[float]]) -> None:
    net = BasicModel_MultiLayer(multi_input_module=multi_input)
    with pytest.raises(ValueError, match=r"(?s)spatial.*\(1, [34]\)|\(1, [34]\).*spatial"):
        ScoreCAM(net, getattr(net, layer)).attribute(torch.tensor(x, requires_grad=True), target=0)


def test_unused_layer_with_grad_kwargs_warns_and_raises() -> None:
    net = BasicModel_MultiLayer(multi_input_module=True)
    score_cam, x = ScoreCAM(net, net.relu), torch.tensor([[0.0, 6.0, 0.0]], requires_grad=True)
    with pytest.warns(UserWarning, match="grad_kwargs"), pytest.raises(ValueError, match="spatial"):
        score_cam.attribute(inputs=x, target=0, grad_kwargs={"materialize_grads": True})


# --- Targets ---------------------------------------------------------------------------------------------------------

ONE_FOR_ALL: dict[str, Any] = {
    "int": 3,
    "0-d tensor": torch.tensor(3),
    "tensor of one": torch.tensor([3]),
    "tuple": (3,),
}
ONE_EACH: dict[str, Any] = {
    "list": [3, 8],
    "1-d tensor": torch.tensor([3, 8]),
    "list of tuples": [(3,), (8,)],
}


@pytest.mark.parametrize("form", [*ONE_FOR_ALL, *ONE_EACH])
def test_targets_of_a_two_dimensional_output(form: str) -> None:
    net, x = small_net(), images()
    classes = [3, 3] if form in ONE_FOR_ALL else [3, 8]
    expected = naive_score_cam(net, net[2], x, classes)
    other = naive_score_cam(net, net[2], x, [8, 8] if classes == [3, 3] else [3, 3])
    assert not torch.allclose(expected[1], other[1])
    target = {**ONE_FOR_ALL, **ONE_EACH}[form]
    actual = ScoreCAM(net, net[2]).attribute(x, target=target)
    assert actual.shape == LayerGradCam(net, net[2]).attribute(x, target=target).shape
    torch.testing.assert_close(actual, expected)


class Pixelwise(nn.Module):
    """N×4×h×w, N×4×h or N values for N images."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.body, self.dimensions = small_net()[:3], dimensions

    def forward(self, x: Tensor) -> Tensor:
        maps = 9 * torch.tanh(self.body(x))[:, :4]
        return {4: maps, 3: maps.sum(dim=3), 1: maps.sum(dim=(1, 2, 3))}[self.dimensions]


@pytest.mark.parametrize(
    ("dimensions", "target"),
    [(4, (1, 2, 0)), (4, [(1, 2, 0), (3, 5, 4)]), (3, (2, 1)), (3, [(2, 1), (0, 5)]), (1, None)],
)
def test_targets_of_outputs_of_other_ranks(dimensions: int, target: Any) -> None:
    net, x = Pixelwise(dimensions), images()
    expected = naive_score_cam(net, net.body[2], x, target)
    actual = ScoreCAM(net, net.body[2]).attribute(x, target)
    assert actual.shape == LayerGradCam(net, net.body[2]).attribute(x, target).shape
    torch.testing.assert_close(actual, expected)


def test_output_of_one_value_per_example_in_a_column_needs_no_target() -> None:
    net, x = small_net(), images()

    def one_column(x: Tensor) -> Tensor:
        return net(x)[:, 4:5]

    actual = ScoreCAM(one_column, net[2]).attribute(x, target=0)
    torch.testing.assert_close(actual, naive_score_cam(net, net[2], x, 4))


@pytest.mark.parametrize(
    ("targets", "columns"),
    [
        ([3, 8, 0], [[3, 3], [8, 8], [0, 0]]),
        ([3, [8, 1]], [[3, 3], [8, 1]]),
        ((torch.tensor(3), torch.tensor([8, 1])), [[3, 3], [8, 1]]),
        (torch.tensor([[3, 8, 0], [4, 1, 5]]), [[3, 4], [8, 1], [0, 5]]),
    ],
)
def test_attribute_targets_takes_what_attribute_takes(targets: Any, columns: list[list[int]]) -> None:
    net, x = small_net(), images()
    expected = torch.cat([naive_score_cam(net, net[2], x, column) for column in columns], dim=1)
    torch.testing.assert_close(ScoreCAM(net, net[2]).attribute_targets(x, targets), expected)


# --- Captum's tools on what comes back -------------------------------------------------------------------------------


def method_over(form: str, method: type[LayerAttribution], net: nn.Sequential) -> Attribution:
    layer_method = method(net, net[2])
    return InputSpaceAttribution(layer_method) if form == "input space" else layer_method


@pytest.mark.parametrize("form", ["layer", "input space"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_noise_tunnel_without_noise_is_the_plain_call(form: str, method: type[LayerAttribution]) -> None:
    net, x = small_net(), images()
    explainer = method_over(form, method, net)
    plain = explainer.attribute(x, target=[3, 8]).detach()
    tunnel = NoiseTunnel(explainer)
    options: dict[str, Any] = {"nt_samples": 3, "stdevs": 0.0, "target": [3, 8]}
    assert float(plain.abs().max()) > 0.01
    torch.testing.assert_close(tunnel.attribute(x, **options).detach(), plain)
    torch.testing.assert_close(tunnel.attribute(x, **options, nt_samples_batch_size=1).detach(), plain)
    torch.testing.assert_close(tunnel.attribute(x, nt_type="smoothgrad_sq", **options).detach(), plain**2)
    variance = tunnel.attribute(x, nt_type="vargrad", **options).detach()
    torch.testing.assert_close(variance, torch.zeros_like(plain), atol=1e-10, rtol=0)


@pytest.mark.parametrize("form", ["layer", "input space"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_noise_tunnel_is_the_mean_of_the_maps_of_the_noisy_inputs(form: str, method: type[LayerAttribution]) -> None:
    net, x = small_net(), images()
    explainer = method_over(form, method, net)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        noise = torch.normal(0, torch.full((6, *x.shape[1:]), 0.3))  # the draw that NoiseTunnel makes
        torch.manual_seed(0)
        actual = NoiseTunnel(explainer).attribute(x, nt_samples=3, stdevs=0.3, target=8).detach()
    noisy = x.repeat_interleave(3, dim=0) + noise
    expected = explainer.attribute(noisy, target=8).detach().unflatten(0, (2, 3)).mean(dim=1)
    torch.testing.assert_close(actual, expected)


def test_noise_tunnel_passes_keywords_baselines_and_tuples_on() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.net(x + 2 * y)

    net, pair = Sum(), (images(seed=1), images(seed=2))
    call: dict[str, Any] = {"target": [3, 8], "baselines": (0.5, images(seed=3)), "channel_weighting": "increase"}
    expected = naive_score_cam(net, net.net[2], pair, **call)
    options: dict[str, Any] = {"nt_samples": 2, "stdevs": 0.0, "perturbations_per_eval": 3}
    actual = NoiseTunnel(ScoreCAM(net, net.net[2])).attribute(pair, **options, **call)
    torch.testing.assert_close(actual, expected)
    spread = NoiseTunnel(InputSpaceAttribution(ScoreCAM(net, net.net[2]))).attribute(pair, **options, **call)
    assert isinstance(spread, tuple)
    for one, x in zip(spread, pair, strict=True):
        upsampled = LayerAttribution.interpolate(expected, (12, 10), "bilinear")
        torch.testing.assert_close(one, upsampled.expand_as(x).contiguous())


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_infidelity_is_its_formula(method: type[LayerAttribution]) -> None:
    net, x = small_net(), images()
    attributions = InputSpaceAttribution(method(net, net[2])).attribute(x, target=[3, 8]).detach()
    step = 0.1 * images(seed=9)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return step, inputs - step

    with torch.no_grad():
        drop = net(x)[[0, 1], [3, 8]] - net(x - step)[[0, 1], [3, 8]]
    expected = ((step * attributions).flatten(1).sum(dim=1) - drop) ** 2  # the mean over one perturbation
    actual = infidelity(net, perturb, x, attributions, target=[3, 8], n_perturb_samples=1)
    torch.testing.assert_close(actual, expected)

    local = infidelity_perturb_func_decorator(multiply_by_inputs=False)(lambda inputs: inputs - step)
    torch.testing.assert_close(infidelity(net, local, x, attributions, target=[3, 8], n_perturb_samples=1), expected)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_infidelity_of_a_tuple_of_inputs(method: type[LayerAttribution]) -> None:
    net, pair = BasicModel_ConvNet_One_Conv(), (arange_image() + 3, torch.ones(1, 1, 4, 4))
    attributions = InputSpaceAttribution(method(net, net.conv1)).attribute(pair, target=0)
    assert isinstance(attributions, tuple)
    attributions = tuple(a.detach() for a in attributions)

    def perturb(inputs: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        steps = tuple(torch.full_like(x, 0.5) for x in inputs)
        return steps, tuple(x - step for x, step in zip(inputs, steps, strict=True))

    # unperturbed windows of the sum, 4 more than 45, 54, 81, 90, are 81, 90, 117, 126 (9 · 4 each): channel 0 gives
    # 31 + 40 + 67 + 76 = 214, channel 1 6 - 15 - 42 - 51 = -102. Less 9 each: 178, and 0 - 6 - 33 - 42 = -81.
    # f = 112 before and 97 after
    explained = 0.5 * sum(float(a.sum()) for a in attributions)
    actual = infidelity(net, perturb, pair, attributions, target=0, n_perturb_samples=1)
    torch.testing.assert_close(actual, torch.tensor([(explained - 15) ** 2]))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_sensitivity_max_is_zero_without_a_perturbation(batch: int, method: type[LayerAttribution]) -> None:
    net, x = small_net(), images(batch)
    explainer = InputSpaceAttribution(method(net, net[2]))
    options: dict[str, Any] = {"n_perturb_samples": 2, "target": [3, 8, 0][:batch]}
    still = sensitivity_max(explainer.attribute, x, perturb_func=lambda inputs: inputs, **options)
    torch.testing.assert_close(still, torch.zeros(batch, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_sensitivity_max_is_its_formula(method: type[LayerAttribution]) -> None:
    net, x = small_net(), images(3)
    explainer = InputSpaceAttribution(method(net, net[2]))
    step = 0.2 * images(3, seed=9)
    before, after = (explainer.attribute(z, target=8).detach().flatten(1) for z in (x, x + step))
    expected = (after - before).norm(dim=1) / before.norm(dim=1)
    assert float(expected.min()) > 1e-3
    actual = sensitivity_max(
        explainer.attribute, x, perturb_func=lambda inputs: inputs + step, n_perturb_samples=1, target=8
    )
    torch.testing.assert_close(actual, expected)


def test_sensitivity_max_with_chunks_of_examples_and_baselines() -> None:
    net, x = small_net(), images(3)
    explainer = InputSpaceAttribution(ScoreCAM(net, net[2]))
    actual = sensitivity_max(
        explainer.attribute, x, perturb_func=lambda inputs: inputs, n_perturb_samples=4, max_examples_per_batch=6,
        target=[3, 8, 0], baselines=images(3, seed=4), perturbations_per_eval=5,
    )  # fmt: skip
    torch.testing.assert_close(actual, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", LAYER_METHODS)
@pytest.mark.parametrize("as_tuple", [False, True])
def test_input_space_attribution_is_the_upsampled_map_in_every_channel(
    method: type[LayerAttribution], as_tuple: bool
) -> None:
    net, x = small_net(), images()
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
            self.net = small_net()

        def forward(self, x: Tensor, small: Tensor) -> Tensor:
            return self.net(x) * small.flatten(1).mean(dim=1, keepdim=True)

    net, x, small = TwoSizes(), images(), images(seed=2)[:, :1, :5, :4] + 3
    layer_map = naive_score_cam(net, net.net[2], (x, small), 3)
    actual = InputSpaceAttribution(ScoreCAM(net, net.net[2])).attribute((x, small), target=3)
    for each, tensor in zip(actual, (x, small), strict=True):
        upsampled = LayerAttribution.interpolate(layer_map, tuple(tensor.shape[2:]), "bilinear")
        torch.testing.assert_close(each, upsampled.expand_as(tensor).contiguous())


def heat_map_of(layer_map: Tensor, size: tuple[int, int]) -> np.ndarray:
    upsampled = LayerAttribution.interpolate(layer_map, size, "bilinear")
    return upsampled[0].detach().permute(1, 2, 0).float().numpy()


@pytest.mark.parametrize("form", ["layer", "input space"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_visualize_image_attr_draws_the_positive_part_of_the_map(form: str, method: type[LayerAttribution]) -> None:
    net, x = small_net(), images(1)
    attribution = method_over(form, method, net).attribute(x, target=3)
    heat = heat_map_of(attribution, (12, 10))
    figure, axes = viz.visualize_image_attr(
        heat, x[0].permute(1, 2, 0).numpy(), method="blended_heat_map", sign="positive", outlier_perc=0,
        use_pyplot=False,
    )  # fmt: skip
    drawn = np.asarray(axes.images[1].get_array())
    positive = np.maximum(heat.sum(axis=2), 0)
    assert positive.max() > 0.01
    np.testing.assert_allclose(drawn, positive / positive.max(), rtol=1e-5, atol=1e-6)
    assert figure.axes[0] is axes


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_visualize_image_attr_multiple_draws_image_and_maps(method: type[LayerAttribution]) -> None:
    net, x = small_net(), images(1)
    heat = heat_map_of(method(net, net[2]).attribute(x, target=3), (12, 10))
    picture = x[0].permute(1, 2, 0).sigmoid().numpy()
    figure, axes = viz.visualize_image_attr_multiple(
        heat, picture, ["original_image", "heat_map", "masked_image"], ["all", "absolute_value", "positive"],
        titles=["image", "map", "masked"], use_pyplot=False, outlier_perc=0,
    )  # fmt: skip
    assert [each.get_title() for each in axes] == ["image", "map", "masked"]
    np.testing.assert_allclose(np.asarray(axes[0].images[0].get_array()), (255 * picture).astype(int))
    absolute = np.abs(heat[..., 0])
    np.testing.assert_allclose(np.asarray(axes[1].images[0].get_array()), absolute / absolute.max(), atol=1e-6)
    assert len(figure.axes) == 3


def test_interpolate_takes_the_map_as_it_is() -> None:
    net = BasicModel_ConvNet_One_Conv()
    layer_map = ScoreCAM(net, net.conv1).attribute(arange_image(), target=0)
    nearest = LayerAttribution.interpolate(layer_map, (4, 4))
    expected = torch.tensor([[0.0, 0.0], [18.5, 27.5]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(nearest, expected.view(1, 1, 4, 4))


@pytest.mark.parametrize("make", [lambda m: m, InputSpaceAttribution], ids=["layer", "input space"])
def test_has_captums_attribution_protocol(make: Callable[[Attribution], Attribution]) -> None:
    net = BasicModel_ConvNet_One_Conv()
    explainer = make(ScoreCAM(net, net.conv1))
    assert isinstance(explainer, Attribution)
    assert explainer.forward_func is net
    assert explainer.has_convergence_delta() is False
    assert explainer.attribute.__wrapped__(explainer, arange_image(), target=0).sum() > math.pi
    assert isinstance(explainer.get_name(), str)


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_map_is_a_local_attribution(method: type[LayerAttribution]) -> None:
    """Captum's test of LayerGradCam asserts it; `infidelity` wants real-valued perturbations for such a map."""
    net = BasicModel_ConvNet_One_Conv()
    assert method(net, net.conv1).multiplies_by_inputs is False
    assert InputSpaceAttribution(method(net, net.conv1)).multiplies_by_inputs is False
