"""Captum's tools applied to ScoreCAM and its maps, with expected values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NoiseTunnel
from captum.attr import visualization as viz
from captum.metrics import infidelity, sensitivity_max
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from tests.support.score_cam import naive_score_cam
from tests.support.sequential_net import LAYER_METHODS, LayerMethod, arange_image, sequential_net
from tests.support.small_net import images


def method_over(form: str, method: LayerMethod, net: nn.Sequential) -> Attribution:
    layer_method = method(net, net[2])
    return InputSpaceAttribution(layer_method) if form == "input space" else layer_method


@pytest.mark.parametrize("form", ["layer", "input space"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_noise_tunnel_is_the_mean_of_the_maps_of_the_noisy_inputs(form: str, method: LayerMethod) -> None:
    net, x = sequential_net(), images()
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
            self.net = sequential_net()

        def forward(self, x: Tensor, y: Tensor) -> Any:
            return self.net(x + 2 * y)

    net, pair = Sum(), (images(seed=1), images(seed=2))
    call: dict[str, Any] = {"target": [3, 8], "baselines": (0.5, images(seed=3))}
    expected = naive_score_cam(net, net.net[2], pair, channel_weighting="increase", **call)
    score_cam = ScoreCAM(net, net.net[2], channel_weighting="increase")
    options: dict[str, Any] = {"nt_samples": 2, "stdevs": 0.0, "perturbations_per_eval": 3}
    actual = NoiseTunnel(score_cam).attribute(pair, **options, **call)
    torch.testing.assert_close(actual, expected)
    spread = NoiseTunnel(InputSpaceAttribution(score_cam)).attribute(pair, **options, **call)
    assert isinstance(spread, tuple)
    for one, x in zip(spread, pair, strict=True):
        upsampled = LayerAttribution.interpolate(expected, (12, 10), "bilinear")
        torch.testing.assert_close(one, upsampled.expand_as(x).contiguous())


def test_options_of_the_constructor_go_through_captums_tools_by_hand() -> None:
    # all four outputs are equal, so each probability is 1/4 and L = ReLU(A_0 + A_1) / 4, here upsampled
    net, image = BasicModel_ConvNet_One_Conv(), arange_image()
    score_cam = ScoreCAM(net, net.conv1, score="probability", channel_weighting="score")
    in_input_space = InputSpaceAttribution(score_cam)
    layer_map = torch.tensor([[[[0, 0], [37 / 4, 55 / 4]]]])
    weights = torch.tensor([0, 0.25, 0.75, 1])
    upsampled = torch.outer(weights, 37 / 4 + 18 / 4 * weights).view(1, 1, 4, 4)
    noise: dict[str, Any] = {"nt_samples": 2, "stdevs": 0.0, "target": 0}
    torch.testing.assert_close(NoiseTunnel(score_cam).attribute(image, **noise), layer_map)
    torch.testing.assert_close(in_input_space.attribute(image, target=0), upsampled)
    torch.testing.assert_close(NoiseTunnel(in_input_space).attribute(image, **noise), upsampled)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(inputs, 0.5), inputs - 0.5

    # f = 4 + 31 + 40 - 6 - 15 = 54; windows of 4.5 less: 26.5 + 35.5 - 1.5 - 10.5 = 50. The map sums to 2 · 46
    actual = infidelity(net, perturb, image, upsampled, target=0, n_perturb_samples=1)
    torch.testing.assert_close(actual, torch.tensor([(0.5 * 2 * 46 - 4.0) ** 2]))

    # an image of 1 more has windows of 9 more: A_0 + A_1 = [[-17, 1], [55, 73]]
    brighter = torch.tensor([[[[0, 1 / 4], [55 / 4, 73 / 4]]]])
    change = LayerAttribution.interpolate(brighter, (4, 4), "bilinear") - upsampled
    actual = sensitivity_max(
        in_input_space.attribute, image, perturb_func=lambda inputs: inputs + 1, n_perturb_samples=1, target=0
    )
    torch.testing.assert_close(actual, (change.norm() / upsampled.norm()).view(1))


@pytest.mark.parametrize("method", LAYER_METHODS)
def test_infidelity_of_a_tuple_of_inputs(method: LayerMethod) -> None:
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


def test_sensitivity_max_with_chunks_of_examples_and_baselines() -> None:
    net, x = sequential_net(), images(3)
    explainer = InputSpaceAttribution(ScoreCAM(net, net[2]))
    actual = sensitivity_max(
        explainer.attribute, x, perturb_func=lambda inputs: inputs, n_perturb_samples=4, max_examples_per_batch=6,
        target=[3, 8, 0], baselines=images(3, seed=4), perturbations_per_eval=5,
    )  # fmt: skip
    torch.testing.assert_close(actual, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)


def heat_map_of(layer_map: Tensor, size: tuple[int, int]) -> Any:
    upsampled = LayerAttribution.interpolate(layer_map, size, "bilinear")
    return upsampled[0].detach().permute(1, 2, 0).float().numpy()


@pytest.mark.parametrize("form", ["layer", "input space"])
@pytest.mark.parametrize("method", LAYER_METHODS)
def test_visualize_image_attr_draws_the_positive_part_of_the_map(form: str, method: LayerMethod) -> None:
    net, x = sequential_net(), images(1)
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
def test_visualize_image_attr_multiple_draws_image_and_maps(method: LayerMethod) -> None:
    net, x = sequential_net(), images(1)
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


def test_interpolate_accepts_the_map_unchanged() -> None:
    net = BasicModel_ConvNet_One_Conv()
    layer_map = ScoreCAM(net, net.conv1).attribute(arange_image(), target=0)
    nearest = LayerAttribution.interpolate(layer_map, (4, 4))
    expected = torch.tensor([[0.0, 0.0], [18.5, 27.5]]).repeat_interleave(2, 0).repeat_interleave(2, 1)
    torch.testing.assert_close(nearest, expected.view(1, 1, 4, 4))
