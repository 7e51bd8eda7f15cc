"""Mask: the steps of Adam by hand, a naive reference, and a known patch to find."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import MeaningfulPerturbation
from captum_scorecam.attr.deletion_game import PerturbationKind
from tests.support.attributions import seeded
from tests.support.naive_meaningful_perturbation import naive_meaningful_perturbation
from tests.support.small_net import Net, assert_close, images, nothing_changes, total

# A mask of the input's own size that nothing blurs or moves: each cell is one pixel.
PIXELWISE: dict[str, Any] = {"mask_blur": 0.0, "jitter": 0, "perturbation": "baseline", "score": "output"}
QUICK: dict[str, Any] = {"n_iterations": 4, "grid_size": 5, "mask_blur": 1.0}


class Patch(nn.Module):
    """Two classes; the logit of the first is high while one rectangle is bright."""

    def __init__(self, top: int, left: int, gain: float = 8.0) -> None:
        super().__init__()
        self.rows, self.columns, self.gain = slice(top, top + 8), slice(left, left + 8), gain

    def forward(self, x: Tensor) -> Tensor:
        logit = self.gain * (x[:, :, self.rows, self.columns].mean((1, 2, 3)) - 0.5)
        return torch.stack([logit, torch.zeros_like(logit)], 1)


# --- The game by hand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_iterations", [3, 12])
def test_steps_of_adam_by_hand(n_iterations: int) -> None:
    # f = Σ m X: a cell has the gradient X - λ1. X = 1 stays deleted; X = 0, deleted by the first circle, comes back by
    # Adam's 0.1 a step since its gradient -λ1 is constant
    x = torch.zeros(1, 1, 4, 5)
    x[0, 0, 0, 0] = x[0, 0, 2, 3] = 1
    mask = MeaningfulPerturbation(
        total, n_iterations=n_iterations, grid_size=(4, 5), l1_weight=1e-2, tv_weight=0.0, **PIXELWISE
    )
    actual = mask.attribute(x)
    expected = torch.where(x > 0, 1.0, max(0.0, 1 - 0.1 * n_iterations))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_jitter_moves_the_perturbed_input() -> None:
    # jitter 4 has the offsets -2, -1, 0, 1; 4 iterations after one unmasked forward and 16 still circles
    seen: list[float] = []

    def position(x: Tensor) -> Tensor:
        seen.append((x[0, 0].detach() * torch.arange(9.0)).sum().item() / x[0, 0].detach().sum().item())
        return x.flatten(1).sum(1)

    x = torch.full((1, 1, 9), 1e-3)
    x[0, 0, 4] = 1000.0
    options = {**PIXELWISE, "jitter": 4, "n_iterations": 60}
    baselines = torch.full_like(x, 1e-3) + x * 0.5
    MeaningfulPerturbation(position, **options).attribute(x, baselines=baselines, generator=seeded())
    assert {round(p) for p in seen[:17]} == {4}
    assert {round(p) for p in seen[17:]} == {3, 4, 5, 6}  # an offset of -2 shows position 4 at 6


# --- The patch -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("top", "left"), [(2, 3), (20, 28), (12, 16), (0, 32)])
@pytest.mark.parametrize("gain", [8.0, 60.0])
def test_evidence_of_a_known_patch_is_found(top: int, left: int, gain: float) -> None:
    # at a gain of 60 the probability is 1 - 1e-13: only the first circle takes it to where there is a gradient
    x = 0.8 + 0.2 * torch.rand(1, 3, 32, 40, generator=seeded())
    options: dict[str, Any] = {"n_iterations": 100, "grid_size": 16, "mask_blur": 1.0, "l1_weight": 1e-3}
    mask = MeaningfulPerturbation(Patch(top, left, gain), perturbation="baseline", **options)
    actual = mask.attribute(x, 0, generator=seeded())[0, 0]
    inside = torch.zeros(32, 40, dtype=torch.bool)
    inside[top : top + 8, left : left + 8] = True
    assert inside.flatten()[actual.argmax()]
    assert float(actual[inside].mean()) > 3 * float(actual[~inside].mean())
    deleted = x * (1 - actual)
    assert float(Patch(top, left, gain)(deleted).softmax(1)[0, 0]) < 0.2


# --- The map ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", ["blur", "constant", "noise", "baseline"])
def test_map_equals_the_naive_reference(perturbation: PerturbationKind) -> None:
    net, x, options = Net(), images(3), {**QUICK, "grid_size": 4, "perturbation": perturbation}
    blank: dict[str, Any] = {"baselines": images(3, seed=7)} if perturbation == "baseline" else {}
    (expected,) = naive_meaningful_perturbation(net, (x,), [1, 5, 3], generator=seeded(), **options, **blank)
    actual = MeaningfulPerturbation(net, **options).attribute(x, [1, 5, 3], generator=seeded(), **blank)
    assert_close(actual, expected.expand_as(x))
    assert float((actual[0] - actual[1]).abs().max()) > 1e-2


@pytest.mark.parametrize("rank", [1, 3])
def test_every_rank(rank: int) -> None:
    # the pixelwise game above, with other dimensions: evidence is deleted and the rest comes back
    x = torch.zeros(2, 2, *(6, 4, 3)[:rank])
    x.view(2, -1)[0, 1] = x.view(2, -1)[1, 2] = 1
    options: dict[str, Any] = {**PIXELWISE, "n_iterations": 12, "l1_weight": 1e-2, "tv_weight": 0.0}
    actual = MeaningfulPerturbation(total, grid_size=(6, 4, 3)[:rank], **options).attribute(x)
    torch.testing.assert_close(actual, x.amax(1, keepdim=True).expand_as(x), rtol=0, atol=1e-4)


def test_tuple_inputs_share_a_mask_and_arguments_are_not_masked() -> None:
    def scaled_total(x: Tensor, y: Tensor, gain: Tensor) -> Tensor:
        return gain * (total(x) + total(y))

    x, y = torch.zeros(2, 1, 4), torch.zeros(2, 3, 4)
    x[:, 0, 0], y[:, 1, 2] = 1, 1
    options = {**PIXELWISE, "n_iterations": 12, "grid_size": 4, "l1_weight": 1e-2, "tv_weight": 0.0}
    mask = MeaningfulPerturbation(scaled_total, **options)
    actual = mask.attribute((x, y), None, torch.tensor([1.0, 3.0]), baselines=(0.0, 0))
    assert isinstance(actual, tuple)
    for one, tensor in zip(actual, (x, y), strict=True):
        expected = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand_as(tensor)
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-4)


def test_grid_has_at_most_one_cell_per_pixel() -> None:
    net, x = Net(), images()
    options: dict[str, Any] = {"n_iterations": 3, "mask_blur": 1.0}
    expected = MeaningfulPerturbation(net, grid_size=(12, 10), **options).attribute(x, 2)
    assert torch.equal(MeaningfulPerturbation(net, grid_size=28, **options).attribute(x, 2), expected)


def test_baselines_are_captums_and_belong_to_their_perturbation() -> None:
    net, x = Net(), images()
    mask = MeaningfulPerturbation(net, perturbation="baseline", **QUICK)
    maps = [
        mask.attribute(x, 2, baselines=given)
        for given in (0.5, torch.full_like(x, 0.5), torch.full_like(x[:1], 0.5), (0.5,))
    ]
    for other in maps[1:]:
        assert torch.equal(other, maps[0])
    assert torch.equal(mask.attribute(x, 2), mask.attribute(x, 2, baselines=0))
    with pytest.raises(ValueError, match=r"`baselines` only with perturbation='baseline', but .* 'blur'"):
        MeaningfulPerturbation(net, **QUICK).attribute(x, 2, baselines=0.5)


# --- Chance ----------------------------------------------------------------------------------------------------------


def test_jitter_depends_on_the_global_generator_and_leaves_it_unchanged() -> None:
    net, x = Net(), images()
    explain = MeaningfulPerturbation(net, perturbation="noise", **QUICK).attribute
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first, second = (explain(x, 2) for _ in range(2))
        torch.manual_seed(6)
        other = explain(x, 2)
    assert torch.equal(first, second)
    assert torch.equal(first, explain(x, 2, generator=seeded(5)))
    assert float((first - other).abs().max()) > 1e-3


# --- Precision and compiled models -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_models_of_every_precision(dtype: torch.dtype) -> None:
    # the pixelwise game: its answer is 0 or 1 in every precision
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones((), dtype=dtype))

        def forward(self, x: Tensor) -> Tensor:
            return total(x * self.weight)

    x = torch.zeros(1, 1, 4, 5, dtype=dtype)
    x[0, 0, 0, 0] = x[0, 0, 2, 3] = 1
    options: dict[str, Any] = {**PIXELWISE, "n_iterations": 12, "l1_weight": 1e-2, "tv_weight": 0.0}
    actual = MeaningfulPerturbation(Weighted(), grid_size=(4, 5), **options).attribute(x)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual, x, rtol=0, atol=1e-4)


def test_autocast_keeps_the_mask_in_float32() -> None:
    def mean(x: Tensor) -> Tensor:  # nothing that autocast would round
        return x.flatten(1).mean(1)

    x, mask = images(dtype=torch.float32).abs(), MeaningfulPerturbation(mean, score="output", **QUICK)
    expected = mask.attribute(x, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        actual = mask.attribute(x, generator=seeded())
    assert_close(actual, expected, 1e-6)


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_model_in_training_mode_keeps_its_statistics() -> None:
    net, x = Net().train(), images()
    compiled = torch.compile(net, backend="eager")
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode"):
        MeaningfulPerturbation(compiled, **QUICK).attribute(x, 2)


# --- Bad input -------------------------------------------------------------------------------------------------------


def test_sizes_that_do_not_fit_raise_before_any_forward() -> None:
    net, x = Net(), images()
    with pytest.raises(ValueError, match=r"the same number of spatial dimensions, but got \[1, 2\]"):
        MeaningfulPerturbation(net).attribute((x, x.flatten(2)), 2)
    with pytest.raises(ValueError, match=r"Expected `grid_size` to be one number or 2, but got \(3, 3, 3\)"):
        MeaningfulPerturbation(net, grid_size=(3, 3, 3)).attribute(x, 2)
    assert net.forwards == 0


def test_score_that_is_not_finite_raises_after_one_forward() -> None:
    net = Net()
    with pytest.raises(ValueError, match="Expected finite scores of the inputs, but got NaN or Inf"):
        MeaningfulPerturbation(lambda x: net(x) / 0).attribute(images(), 2)
    assert net.forwards == 1


def test_score_without_a_gradient_raises() -> None:
    net = Net()
    with pytest.raises(ValueError, match="differentiable with respect to the inputs"):
        MeaningfulPerturbation(lambda x: net(x).detach(), **QUICK).attribute(images(), 2)


def test_score_that_is_finite_only_for_the_input_raises() -> None:
    def logarithm(x: Tensor) -> Tensor:
        return (x.flatten(1).amin(1) - 0.5).log()

    with pytest.raises(ValueError, match="finite scores and gradients for the perturbed inputs"):
        MeaningfulPerturbation(logarithm, perturbation="baseline", score="output").attribute(torch.ones(1, 1, 6, 6))


def test_gradient_that_is_not_finite_raises() -> None:
    def root(x: Tensor) -> Tensor:  # no value is NaN, but the gradient of √0 · 0 is
        return (0 * x.flatten(1).sum(1)).sqrt()

    with pytest.raises(ValueError, match="gradients for the perturbed inputs, but got NaN or Inf"):
        MeaningfulPerturbation(root, score="output", n_iterations=2).attribute(torch.ones(1, 1, 6, 6))
