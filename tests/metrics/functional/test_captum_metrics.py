"""Captum's infidelity and sensitivity of layer attributions in one call."""

from __future__ import annotations

from typing import Any

import captum.metrics
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.metrics.functional import infidelity, sensitivity_max
from tests.support.small_net import Net, nothing_changes
from tests.support.small_net import images as small_images

METHODS = [ScoreCAM, LayerGradCam]


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).eval()


class TwoInputs(nn.Module):
    """Two images of different sizes and a factor for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, image: Tensor, other: Tensor, factor: Tensor) -> Tensor:
        return self.net(image) * factor[:, None] + other.mean((1, 2, 3))[:, None]


def images(n: int = 2, *size: int) -> Tensor:
    return torch.randn(n, 3, *(size or (9, 7)), generator=torch.Generator().manual_seed(1))


def fixed_noise(x: Tensor) -> tuple[Tensor, Tensor]:
    noise = 0.1 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view_as(x)
    return noise, x - noise


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_is_captums(method: Any, normalize: bool) -> None:
    net, x = small_net(), images()
    cam = method(net, net[1])
    maps = InputSpaceAttribution(cam).attribute(x, target=2)
    expected = captum.metrics.infidelity(net, fixed_noise, x, maps, target=2, normalize=normalize)
    found = infidelity(cam, x, 2, perturb_func=fixed_noise, normalize=normalize)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("method", METHODS)
def test_sensitivity_is_captums(method: Any) -> None:
    net, x = small_net(), images()
    cam = method(net, net[1])
    drawn: list[Tensor] = []

    def kept_noise(values: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        drawn.append(values + 0.05 * (2 * torch.rand(values.shape, generator=generator) - 1))
        return drawn[-1]

    expected = captum.metrics.sensitivity_max(InputSpaceAttribution(cam).attribute, x, kept_noise, target=2)
    found = sensitivity_max(cam, x, 2, perturb_radius=0.05, generator=torch.Generator().manual_seed(3))
    assert found.shape == (2,)
    assert (drawn[0] - x.repeat_interleave(10, 0)).abs().max() <= 0.05
    torch.testing.assert_close(found, expected)


class InputItself(LayerAttribution):
    """Its map is the input, or zeros."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(lambda x: x.sum((1, 2, 3)), nn.Identity())
        self.factor = factor

    def attribute(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:  # noqa: ARG002
        return self.factor * (inputs[0] if isinstance(inputs, tuple) else inputs)


def test_sensitivity_by_hand() -> None:
    # The map moves as the input does: the largest norm of the noise over the norm of the input.
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    noise = 0.5 * (2 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 1)
    expected = noise.flatten(1).norm(dim=1).view(2, 3).amax(1) / x.flatten(1).norm(dim=1)
    found = sensitivity_max(
        InputItself(), x, perturb_radius=0.5, n_perturb_samples=3, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(found, expected)


def test_perfect_and_worst_explanation() -> None:
    # f(X) − f(X − I) is the sum of I: a map of ones says just that, a map of zeros nothing.
    noise = 0.1 * torch.randn(10, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    options = {"normalize": False, "generator": torch.Generator().manual_seed(0)}
    assert infidelity(InputItself(), torch.ones(1, 1, 2, 2), **options).item() == pytest.approx(0, abs=1e-12)
    options["generator"].manual_seed(0)
    worst = infidelity(InputItself(0.0), torch.ones(1, 1, 2, 2), **options).item()
    assert worst == pytest.approx(noise.sum((1, 2, 3)).square().mean().item())
    assert sensitivity_max(InputItself(0.0), torch.ones(1, 1, 2, 2)).item() == 0


@pytest.mark.parametrize("measure", [infidelity, sensitivity_max])
def test_the_noise_is_the_generators(measure: Any) -> None:
    net, x = small_net(), images()
    cam = LayerGradCam(net, net[1])
    random_state = torch.get_rng_state()
    first, again, other = (measure(cam, x, 2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    of_global, of_same = measure(cam, x, 2), measure(cam, x, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(of_global, of_same)
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_noise_of_infidelity_has_its_standard_deviation() -> None:
    # Zero maps, f the sum over P pixels: the infidelity is the mean square of the noise's sum, P σ².
    cam = ScoreCAM(net := nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(400, 1)), net[0])
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0 if parameter.dim() == 1 else 1)
    x, generator = torch.ones(1, 1, 20, 20), torch.Generator().manual_seed(0)
    with pytest.warns(UserWarning, match="constant"):  # a zero map
        found = infidelity(cam, x, 0, noise_std=0.3, n_perturb_samples=2000, generator=generator)
    assert found.item() == pytest.approx(400 * 0.3**2, rel=0.1)


@pytest.mark.parametrize("method", METHODS)
def test_several_inputs_and_arguments(method: Any) -> None:
    model, x = TwoInputs(), (images(2), images(2, 5, 4))
    cam = method(model, model.net[1])
    factor = torch.tensor([1.0, 2.0])
    options = {"additional_forward_args": factor, "generator": torch.Generator().manual_seed(0)}
    both = infidelity(cam, x, torch.tensor([0, 3]), normalize=False, noise_std=1e-3, **options)
    assert both.shape == (2,)
    maps = InputSpaceAttribution(cam).attribute(x, target=torch.tensor([0, 3]), additional_forward_args=factor)
    generator = torch.Generator().manual_seed(0)

    def noise(values: tuple[Tensor, Tensor]) -> Any:
        drawn = tuple(1e-3 * torch.randn(v.shape, generator=generator) for v in values)
        return drawn, tuple(v - e for v, e in zip(values, drawn, strict=True))

    expected = captum.metrics.infidelity(
        model, noise, x, maps, additional_forward_args=factor, target=torch.tensor([0, 3])
    )
    torch.testing.assert_close(both, expected)
    sensitivity = sensitivity_max(cam, x, torch.tensor([0, 3]), factor, n_perturb_samples=2)
    assert (sensitivity > 0).all()
    assert sensitivity.shape == (2,)


@pytest.mark.parametrize("measure", [infidelity, sensitivity_max])
def test_options_of_the_attribution(measure: Any) -> None:
    net, x = small_net(), images()
    cam, seed = ScoreCAM(net, net[1]), torch.Generator().manual_seed
    options = {"channel_weighting": "increase", "attribute_to_layer_input": True, "relu_attributions": False}
    assert not torch.allclose(measure(cam, x, 2, generator=seed(0)), measure(cam, x, 2, generator=seed(0), **options))
    with pytest.raises(ValueError, match="Expected `channel_weighting`"):
        measure(cam, x, 2, channel_weighting="none")


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("measure", [infidelity, sensitivity_max])
def test_attributions_of_the_inputs_shape_are_taken_as_they_are(measure: Any) -> None:
    net, x = small_net(), images()
    found = measure(Saliency(net), x, 2, generator=torch.Generator().manual_seed(0))
    if measure is infidelity:
        generator = torch.Generator().manual_seed(0)

        def noise(values: Tensor) -> tuple[Tensor, Tensor]:
            drawn = 0.1 * torch.randn(values.shape, generator=generator)
            return drawn, values - drawn

        expected = captum.metrics.infidelity(
            net, noise, x, Saliency(net).attribute(x, target=2), target=2, normalize=True
        )
        torch.testing.assert_close(found, expected)
    assert not x.requires_grad
    assert found.shape == (2,)


@pytest.mark.parametrize(("measure", "option"), [(infidelity, "noise_std"), (sensitivity_max, "perturb_radius")])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_noise_that_is_none(measure: Any, option: str, value: float) -> None:
    net = small_net()
    with pytest.raises(ValueError, match=f"Expected `{option}` to be positive, but got {value}"):
        measure(ScoreCAM(net, net[1]), images(), 2, **{option: value})


@pytest.mark.parametrize("measure", [infidelity, sensitivity_max])
def test_what_is_no_attribution(measure: Any) -> None:
    with pytest.raises(TypeError, match="Expected `attribution` to be an Attribution, but got Sequential"):
        measure(small_net(), images(), 2)


@pytest.mark.parametrize(("method", "compiled"), [(LayerGradCam, False), (ScoreCAM, False), (ScoreCAM, True)])
@pytest.mark.parametrize("measure", [infidelity, sensitivity_max])
def test_a_model_in_training_mode_keeps_its_statistics(method: Any, compiled: bool, measure: Any) -> None:
    net, x = Net().train(), small_images()
    forward_func = torch.compile(net, backend="eager") if compiled else net
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        measure(method(forward_func, net.relu), x, 2, n_perturb_samples=2)
    torch.compiler.reset()
