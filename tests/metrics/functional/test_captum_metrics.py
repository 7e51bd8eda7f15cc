"""Captum's infidelity and sensitivity of any attribution in one call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from threading import Lock
from types import SimpleNamespace
from typing import Any

import captum.metrics
import numpy as np
import pytest
import torch
from captum.attr import Attribution, LayerAttribution, LayerGradCam, Saliency
from torch import Tensor, nn

from captum_scorecam import RISE, InputSpaceAttribution, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from captum_scorecam.metrics.functional import infidelity, sensitivity_max
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.small_net import Net, nothing_changes
from tests.support.small_net import images as small_images

METRICS = [infidelity, sensitivity_max]

# Configured in the constructor, away from the defaults.
METHODS: dict[str, Callable[[nn.Module, nn.Module], Attribution]] = {
    "ScoreCAM": lambda net, layer: ScoreCAM(net, layer, score="probability", channel_weighting="increase"),
    "RISE": lambda net, _: RISE(net, n_masks=20, grid_size=3, score="output"),
    "MeaningfulPerturbation": lambda net, _: MeaningfulPerturbation(net, n_iterations=3, grid_size=4),
    "LayerGradCamPlusPlus": lambda net, layer: LayerGradCamPlusPlus(net, layer, score="probability"),
    "LayerGradCam": LayerGradCam,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
layer_methods = pytest.mark.parametrize("method", [ScoreCAM, LayerGradCam])


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5)).eval()


class TwoInputs(nn.Module):
    """Takes two images of different sizes, and a factor for each example."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, image: Tensor, other: Tensor, factor: Tensor) -> Tensor:
        scores: Tensor = self.net(image)
        return scores * factor[:, None] + other.mean((1, 2, 3))[:, None]


class ConstantFactor(LayerAttribution):
    """Its map is the input times a factor, its model sums the input, and ``rows`` lists the rows per forward pass."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(self.summed, nn.Identity())
        self.factor = factor
        self.rows: list[int] = []

    def summed(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x.sum((1, 2, 3))

    def attribute(self, inputs: Tensor | tuple[Tensor, ...], target: Any = None) -> Tensor:  # noqa: ARG002
        return self.factor * (inputs[0] if isinstance(inputs, tuple) else inputs)


class FixedMap(ConstantFactor):
    """Its map ignores the input."""

    def attribute(self, inputs: Any, target: Any = None) -> Tensor:
        return super().attribute(inputs, target) * 0 + 1


class Oscillating(ConstantFactor):
    """Its map changes sign with every call."""

    def attribute(self, inputs: Any, target: Any = None) -> Tensor:
        self.factor *= -1
        return self.factor * torch.ones_like(super().attribute(inputs, target))


def images(n: int = 2, *size: int) -> Tensor:
    return torch.randn(n, 3, *(size or (9, 7)), generator=torch.Generator().manual_seed(1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_input_shape(attribution: Attribution) -> Attribution:
    return InputSpaceAttribution(attribution) if isinstance(attribution, LayerAttribution) else attribution


# --- Agreement with Captum --------------------------------------------------------------------------------------------


def fixed_noise(x: Tensor) -> tuple[Tensor, Tensor]:
    noise = 0.1 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view_as(x)
    return noise, x - noise


@every_method
@pytest.mark.parametrize("normalize", [True, False])
def test_infidelity_is_captums(method: Any, normalize: bool) -> None:
    net, x = small_net(), images()
    attribution = method(net, net[1])
    maps = of_input_shape(attribution).attribute(x, target=2)
    expected = captum.metrics.infidelity(net, fixed_noise, x, maps, target=2, normalize=normalize)
    found = infidelity(attribution, x, 2, perturb_func=fixed_noise, normalize=normalize)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected)


@every_method
def test_sensitivity_is_captums(method: Any) -> None:
    net, x = small_net(), images()
    attribution = method(net, net[1])
    drawn: list[Tensor] = []

    def kept_noise(values: Tensor) -> Tensor:
        drawn.append(values + 0.05 * (2 * torch.rand(values.shape, generator=seeded(3)) - 1))
        return drawn[-1]

    expected = captum.metrics.sensitivity_max(of_input_shape(attribution).attribute, x, kept_noise, target=2)
    found = sensitivity_max(attribution, x, 2, perturb_radius=0.05, generator=seeded(3))
    assert found.shape == (2,)
    assert (drawn[0] - x.repeat_interleave(10, 0)).abs().max() <= 0.05
    assert (found > 0).all()
    torch.testing.assert_close(found, expected)


@layer_methods
def test_several_inputs_and_arguments(method: Any) -> None:
    model, x = TwoInputs(), (images(2), images(2, 5, 4))
    cam = method(model, model.net[1])
    factor = torch.tensor([1.0, 2.0])
    targets = torch.tensor([0, 3])
    both = infidelity(cam, x, targets, factor, normalize=False, noise_std=1e-3, generator=seeded())
    assert both.shape == (2,)
    maps = InputSpaceAttribution(cam).attribute(x, target=targets, additional_forward_args=factor)
    generator = seeded()

    def noise(values: tuple[Tensor, Tensor]) -> Any:
        drawn = tuple(1e-3 * torch.randn(v.shape, generator=generator) for v in values)
        return drawn, tuple(v - e for v, e in zip(values, drawn, strict=True))

    expected = captum.metrics.infidelity(model, noise, x, maps, additional_forward_args=factor, target=targets)
    torch.testing.assert_close(both, expected)
    sensitivity = sensitivity_max(cam, x, targets, factor, n_perturb_samples=2)
    assert (sensitivity > 0).all()
    assert sensitivity.shape == (2,)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("metric", METRICS)
def test_attributions_of_the_inputs_shape_are_not_resized(metric: Any) -> None:
    net, x = small_net(), images()
    found = metric(Saliency(net), x, 2, generator=seeded())
    if metric is infidelity:
        generator = seeded()

        def noise(values: Tensor) -> tuple[Tensor, Tensor]:
            drawn = 0.1 * torch.randn(values.shape, generator=generator)
            return drawn, values - drawn

        maps = Saliency(net).attribute(x, target=2)
        expected = captum.metrics.infidelity(net, noise, x, maps, target=2, normalize=True)
        torch.testing.assert_close(found, expected)
    assert not x.requires_grad
    assert found.shape == (2,)


# --- Values by hand ---------------------------------------------------------------------------------------------------


def test_perfect_and_worst_infidelity() -> None:
    # f(X) − f(X − I) is the sum of I, exactly what a map of ones predicts; a map of zeros predicts no change.
    x = torch.ones(1, 1, 2, 2)
    noise = 0.1 * torch.randn(10, 1, 2, 2, generator=seeded())
    assert infidelity(ConstantFactor(), x, normalize=False, generator=seeded()).item() == pytest.approx(0, abs=1e-12)
    worst = infidelity(ConstantFactor(0.0), x, normalize=False, generator=seeded()).item()
    assert worst == pytest.approx(noise.sum((1, 2, 3)).square().mean().item())


def test_perfect_and_worst_sensitivity() -> None:
    # A map that never changes, and one that turns into its opposite.
    assert sensitivity_max(FixedMap(), images(2)).tolist() == [0, 0]
    assert sensitivity_max(Oscillating(), images(2)).tolist() == pytest.approx([2, 2])


def test_sensitivity_of_a_zero_map() -> None:
    assert sensitivity_max(ConstantFactor(0.0), torch.ones(1, 1, 2, 2)).item() == 0


def test_sensitivity_by_hand() -> None:
    # The map changes as the input does: the largest norm of the noise over the norm of the input.
    x = torch.arange(8.0).reshape(2, 1, 2, 2)
    noise = 0.5 * (2 * torch.rand(6, 1, 2, 2, generator=seeded()) - 1)
    expected = noise.flatten(1).norm(dim=1).view(2, 3).amax(1) / x.flatten(1).norm(dim=1)
    found = sensitivity_max(ConstantFactor(), x, perturb_radius=0.5, n_perturb_samples=3, generator=seeded())
    torch.testing.assert_close(found, expected)


def test_the_noise_of_infidelity_has_its_standard_deviation() -> None:
    # Zero maps, f the sum over P pixels: the infidelity is the mean square of the noise's sum, P σ².
    cam = ScoreCAM(net := nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(400, 1)), net[0])
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0 if parameter.dim() == 1 else 1)
    x = torch.ones(1, 1, 20, 20)
    with pytest.warns(UserWarning, match="All channels of the layer are constant"):  # a zero map
        found = infidelity(cam, x, 0, noise_std=0.3, n_perturb_samples=2000, generator=seeded())
    assert found.item() == pytest.approx(400 * 0.3**2, rel=0.1)


# --- Randomness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_the_generator_draws_the_noise(metric: Any) -> None:
    net, x = small_net(), images()
    cam = LayerGradCam(net, net[1])
    random_state = torch.get_rng_state()
    first, again, other = (metric(cam, x, 2, generator=seeded(seed)) for seed in (1, 1, 2))
    of_global, of_same = metric(cam, x, 2), metric(cam, x, 2)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(of_global, of_same)
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        of_one = metric(cam, x, 2)
        torch.manual_seed(2)
        assert not torch.equal(metric(cam, x, 2), of_one)


@other_default_dtypes
@pytest.mark.parametrize("metric", METRICS)
def test_noise_does_not_depend_on_the_default_dtype(metric: Any, dtype: torch.dtype) -> None:
    net, x = small_net(), images()
    cam = LayerGradCam(net, net[1])
    expected = metric(cam, x, 2, generator=seeded())
    with default_dtype(dtype):
        found = metric(cam, x, 2, generator=seeded())
    torch.testing.assert_close(found, expected, check_dtype=False)


@pytest.mark.parametrize("generator", [None, seeded()], ids=["global", "own"])
def test_noise_leaves_the_masks_of_rise_alone(generator: torch.Generator | None) -> None:
    # A constant score makes the map the mean of the masks, so it differs only if they do.
    rise = RISE(lambda x: x.new_ones(len(x), 2), n_masks=20, score="output")
    assert sensitivity_max(rise, images(), 0, generator=generator).tolist() == [0, 0]


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_options_of_attribute(metric: Any) -> None:
    net, x = small_net(), images()
    cam = ScoreCAM(net, net[1])
    options = {"attribute_to_layer_input": True, "relu_attributions": False}
    expected = metric(cam, x, 2, generator=seeded())
    assert not torch.allclose(metric(cam, x, 2, generator=seeded(), **options), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_baselines_for_each_example(metric: Any) -> None:
    net, x = small_net(), images()
    cam = ScoreCAM(net, net[1])
    expected = metric(cam, x, 2, generator=seeded(), baselines=0.5)
    found = metric(cam, x, 2, generator=seeded(), baselines=torch.full_like(x, 0.5))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(metric(cam, x, 2, generator=seeded()), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_a_baseline_for_all_pixels_of_each_example(metric: Any) -> None:
    net, x = small_net(), images()
    cam, colours = ScoreCAM(net, net[1]), images(2, 1, 1)
    expected = metric(cam, x, 2, generator=seeded(), baselines=colours.expand_as(x).contiguous())
    torch.testing.assert_close(metric(cam, x, 2, generator=seeded(), baselines=colours), expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n", [1, 2])
def test_arguments_without_a_row_per_example_are_not_repeated(metric: Any, n: int) -> None:
    net, x, mixture = small_net(), images(n), torch.rand(4, 5, generator=seeded())

    def of_texts(x: Tensor, texts: Tensor) -> Tensor:
        assert texts.shape == (4, 5)
        scores: Tensor = net(x) @ texts.T
        return scores

    found = metric(ScoreCAM(of_texts, net[1]), x, 3, mixture, generator=seeded())
    bound = metric(ScoreCAM(lambda x: of_texts(x, mixture), net[1]), x, 3, generator=seeded())
    torch.testing.assert_close(found, bound)


@pytest.mark.parametrize("metric", METRICS)
def test_arguments_may_have_a_gradient(metric: Any) -> None:
    model, x = TwoInputs(), (images(2), images(2, 5, 4))
    factor = torch.tensor([1.0, 2.0])
    cam = ScoreCAM(model, model.net[1])
    expected = metric(cam, x, 2, factor, generator=seeded())
    found = metric(cam, x, 2, (factor.clone().requires_grad_() * 1), generator=seeded())
    torch.testing.assert_close(found, expected)


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("method", [captum.attr.Saliency, captum.attr.InputXGradient])
def test_maps_may_be_channels_last(metric: Any, method: Any) -> None:
    net, x = small_net(), images()
    expected = metric(method(net), x, 2, generator=seeded())
    found = metric(method(net), x.to(memory_format=torch.channels_last), 2, generator=seeded())
    torch.testing.assert_close(found, expected)


class WithLock(ConstantFactor):
    """Takes an option that cannot be copied."""

    def attribute(self, inputs: Any, target: Any = None, lock: Any = None) -> Tensor:
        assert lock is LOCK
        return super().attribute(inputs, target)


LOCK = Lock()


@pytest.mark.parametrize("metric", METRICS)
def test_options_are_not_copied(metric: Any) -> None:
    assert metric(WithLock(), images(), lock=LOCK).isfinite().all()


@pytest.mark.parametrize(("rows", "expected"), [(None, [2, 8, 2]), (100, [2, 8, 2]), (5, [2, 4, 2, 4, 2])])
def test_rows_of_a_forward(rows: int | None, expected: list[int]) -> None:
    # One forward before, then each chunk of perturbed examples, beside it the examples themselves.
    attribution = ConstantFactor()
    infidelity(attribution, images(), n_perturb_samples=4, max_examples_per_batch=rows)
    assert attribution.rows == expected


@pytest.mark.parametrize("metric", METRICS)
def test_other_objects_are_refused(metric: Any) -> None:
    with pytest.raises(TypeError, match="Expected `attribution` to be an Attribution, but got Sequential"):
        metric(small_net(), images(), 2)


@pytest.mark.parametrize("metric", METRICS)
def test_maps_must_be_finite(metric: Any) -> None:
    message = r"Expected `ConstantFactor.attribute\(...\)` to be finite, but got NaN or Inf for \d+ of \d+ examples"
    with pytest.raises(ValueError, match=message):
        metric(ConstantFactor(float("nan")), images())


@pytest.mark.parametrize("metric", METRICS)
def test_maps_must_be_tensors(metric: Any) -> None:
    class OfArrays(Attribution):
        def attribute(self, inputs: Any, target: Any = None) -> Any:  # noqa: ARG002
            return inputs[0].numpy()

    with pytest.raises(TypeError, match=r"Expected `OfArrays.attribute\(...\)` to be a tensor or a tuple of tensors"):
        metric(OfArrays(lambda x: x.sum((1, 2, 3))), images())


@pytest.mark.parametrize(
    ("perturb_func", "error", "message"),
    [
        (lambda x: x, ValueError, "to return perturbations and perturbed inputs, but got Tensor"),
        (lambda _: None, ValueError, "to return perturbations and perturbed inputs, but got NoneType"),
        (lambda x: (x, x, x), ValueError, "to return perturbations and perturbed inputs, but got 3 values"),
        (lambda x: (x, x[:1]), ValueError, r"of shapes \[\(20, 3, 9, 7\)\], but got \[\(1, 3, 9, 7\)\]"),
        (lambda x: (x[:, :1], x), ValueError, r"of shapes \[\(20, 3, 9, 7\)\], but got \[\(20, 1, 9, 7\)\]"),
        (lambda x: (x.numpy(), x), TypeError, r"`perturb_func\(inputs\)` to be a tensor .* use torch.from_numpy"),
    ],
)
def test_what_perturb_func_returns(perturb_func: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        infidelity(ConstantFactor(), images(), perturb_func=perturb_func)


def test_scores_of_perturbed_inputs_must_be_finite() -> None:
    with pytest.raises(ValueError, match="Expected finite scores of the perturbed inputs, but got NaN or Inf"):
        infidelity(ConstantFactor(), images(), perturb_func=lambda x: (x, x / 0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("metric", METRICS)
def test_targets_of_any_integer_dtype(metric: Any, dtype: torch.dtype) -> None:
    net, x, targets = small_net(), images(), torch.tensor([2, 4])
    cam = LayerGradCam(net, net[1])
    found = metric(cam, x, targets.to(dtype), generator=seeded())
    assert torch.equal(found, metric(cam, x, targets, generator=seeded()))


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_in_training_mode_keeps_its_statistics(metric: Any) -> None:
    # Captum's own LayerGradCam does not restore them.
    net, x = Net().train(), small_images()
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        metric(LayerGradCam(net, net.relu), x, 2, n_perturb_samples=2)


# --- Models of fixed batch size, and outputs with logits --------------------------------------------------------------


class Fixed(nn.Module):
    """Takes two rows; returns an object with logits."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()
        self.eval()

    def forward(self, x: Tensor) -> SimpleNamespace:
        if len(x) != 2:
            raise RuntimeError(f"built for 2 rows, not {len(x)}")
        return SimpleNamespace(logits=self.net(x), loss=None)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_of_a_fixed_batch_size_that_returns_logits(metric: Any) -> None:
    model, x = Fixed(), images()
    cam = LayerGradCamPlusPlus(model, model.net[1])
    found = metric(cam, x, 2, max_examples_per_batch=2, generator=seeded())
    cam_of_tensors = LayerGradCamPlusPlus(model.net, model.net[1])
    assert torch.equal(found, metric(cam_of_tensors, x, 2, max_examples_per_batch=2, generator=seeded()))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes on exceptions are new in Python 3.11")
@pytest.mark.parametrize("metric", METRICS)
def test_an_error_of_a_model_of_a_fixed_batch_size_points_to_max_examples_per_batch(metric: Any) -> None:
    model = Fixed()
    with pytest.raises(RuntimeError, match="built for 2 rows, not 20") as caught:
        metric(ScoreCAM(model, model.net[1]), images(), 2, perturbations_per_eval=1)
    assert caught.value.__notes__ == [
        "The forward pass of 20 perturbed inputs failed, that of the 2 inputs did not. If the model has a fixed batch "
        "size, pass max_examples_per_batch=2."
    ]


def test_outputs_without_scores_are_refused() -> None:
    net = small_net()
    model = nn.Module()
    model.forward = lambda x: {"scores": net(x)}
    cam = ScoreCAM(model, net[1], score=lambda output: output["scores"])
    message = "Expected `attribution.forward_func` to return a tensor or an object with `logits`, but got dict"
    with pytest.raises(TypeError, match=message):
        infidelity(cam, images(), 2)


@pytest.mark.parametrize("metric", METRICS)
def test_numbers_may_be_numpys_but_not_huge(metric: Any) -> None:
    net, x = small_net(), images()
    cam = LayerGradCam(net, net[1])
    numbers = {"n_perturb_samples": 3, "max_examples_per_batch": 4}
    expected = metric(cam, x, 2, generator=seeded(), **numbers)
    found = metric(cam, x, 2, generator=seeded(), **{name: np.int64(number) for name, number in numbers.items()})
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="Expected `n_perturb_samples` to be at most 2147483647, but got 1000"):
        metric(cam, x, 2, n_perturb_samples=10**30)


@pytest.mark.parametrize("metric", METRICS)
def test_a_model_that_overwrites_its_input_gets_copies(metric: Any) -> None:
    class Overwriting(nn.Module):
        def __init__(self, in_place: bool) -> None:
            super().__init__()
            self.net, self.in_place = small_net(), in_place

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.net(x.mul_(0.5) if self.in_place else x * 0.5)
            return scores

    x = torch.rand(2, 3, 9, 8, generator=seeded())
    before = x.clone()
    found, expected = (
        metric(ScoreCAM(model, model.net[1]), x, 2, max_examples_per_batch=2, generator=seeded())
        for model in (Overwriting(True), Overwriting(False))
    )
    assert torch.equal(x, before)
    torch.testing.assert_close(found, expected)


def test_infidelity_of_a_model_in_half_precision_is_computed_in_float32() -> None:
    net, x = small_net(), torch.rand(2, 3, 9, 8, generator=seeded())
    half = nn.Sequential(net, Times(200.0)).half()
    score_cam = ScoreCAM(half, half.get_submodule("0.1"), channel_weighting="score")
    found = infidelity(score_cam, x.half(), 2, normalize=False, noise_std=3.0, generator=seeded())
    assert found.dtype == torch.float32
    assert found.isfinite().all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factor", [8.0, 400.0, 1e-3])
def test_maps_in_half_precision_are_squared_in_float32(metric: Any, factor: float) -> None:
    x = (torch.rand(1, 3, 8, 8, generator=seeded()) - 0.5).half()
    found, expected = (metric(ConstantFactor(factor), inputs, generator=seeded()) for inputs in (x, x.float()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=1e-3)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor
