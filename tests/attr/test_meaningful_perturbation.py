"""Mask: loss and first steps by hand, a naive reference, and a known patch to find."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Generator, Tensor, nn

from captum_scorecam import MeaningfulPerturbation
from captum_scorecam.attr.deletion_game import (
    DeletionGame,
    PerturbationKind,
    perturbed_inputs,
    shifted,
    smooth,
    total_variation,
    upsampling,
)
from captum_scorecam.masking.scaling import resize
from captum_scorecam.scoring.masked_forward import MaskedForward
from tests.support.naive_meaningful_perturbation import naive_meaningful_perturbation
from tests.support.small_net import Net, assert_close, images, nothing_changes

# A mask of the input's own size that nothing blurs or moves: each cell is one pixel.
PIXELWISE: dict[str, Any] = {"mask_blur": 0.0, "jitter": 0, "perturbation": "baseline", "score": "output"}
QUICK: dict[str, Any] = {"n_iterations": 4, "grid_size": 5, "mask_blur": 1.0}


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


class Patch(nn.Module):
    """Two classes; the logit of the first is high while one rectangle is bright."""

    def __init__(self, top: int, left: int, gain: float = 8.0) -> None:
        super().__init__()
        self.rows, self.columns, self.gain = slice(top, top + 8), slice(left, left + 8), gain

    def forward(self, x: Tensor) -> Tensor:
        logit = self.gain * (x[:, :, self.rows, self.columns].mean((1, 2, 3)) - 0.5)
        return torch.stack([logit, torch.zeros_like(logit)], 1)


# --- The loss --------------------------------------------------------------------------------------------------------


def test_total_variation_by_hand() -> None:
    # down the columns 1³ + .5³, along the rows 1³ + .5³
    masks = torch.tensor([[[[0.0, 1.0], [1.0, 0.5]]], [[[0.0, 0.0], [0.0, 2.0]]]])
    assert total_variation(masks, 3.0).tolist() == [2.25, 16.0]
    assert total_variation(masks, 1.0).tolist() == [3.0, 4.0]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_total_variation_of_a_ramp_of_every_rank(rank: int) -> None:
    # 0, 1, 2 along the last dimension, 3 long in each: 2 differences in each of 3^(rank - 1) lines
    ramp = torch.arange(3.0).expand(1, 1, *[3] * rank)
    assert total_variation(0.5 * ramp, 3.0).item() == pytest.approx(2 * 3 ** (rank - 1) * 0.125)


def test_losses_by_hand() -> None:
    # f = Σ (B + m (X - B)) with X = 1, 2, 3, 4 and B = 1: 1 + (1 + .5 · 1) + (1 + 0) + (1 + 1 · 3) = 7.5
    # λ1 |1 - m| = .1 · (1 + .5 + 1 + 0) = .25; λ2 TV = .01 · (.5³ + .5³ + 1) = .0125
    forward = MaskedForward.from_call(total, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), [None], None, 1.0, "output")
    matrices = upsampling((4,), forward.sizes, 0.0, forward.inputs[0])
    game = DeletionGame(forward, lambda: forward.baselines, matrices, 0.1, 0.01, 3.0)
    losses = game.losses(torch.tensor([[[0.0, 0.5, 0.0, 1.0]]]), [0])
    torch.testing.assert_close(losses, torch.tensor([7.5 + 0.25 + 0.01 * 1.25]))


def test_shifted_by_hand() -> None:
    values = torch.arange(6.0).view(1, 1, 2, 3)
    assert shifted(values, (0, 1)).tolist() == [[[[1, 2, 2], [4, 5, 5]]]]
    assert shifted(values, (1, -2)).tolist() == [[[[3, 3, 3], [3, 3, 3]]]]
    assert shifted(torch.tensor(7.0), (1, 1)).item() == 7
    assert shifted(torch.ones(1, 3, 1, 1), (1, 1)).tolist() == [[[[1]], [[1]], [[1]]]]


@pytest.mark.parametrize("size", [(30,), (17, 22), (9, 8, 10)])
def test_upsampling_is_interpolation_and_then_a_gaussian_blur(size: tuple[int, ...]) -> None:
    masks = torch.rand(2, 1, *(4, 5, 3)[: len(size)], generator=seeded(), dtype=torch.float64)
    forward = MaskedForward.from_call(
        total, torch.zeros(2, 1, *size, dtype=torch.float64), [None], None, None, "output"
    )
    matrices = upsampling(masks.shape[2:], forward.sizes, 2.0, masks)
    (actual,) = DeletionGame(forward, lambda: (), matrices, 0.0, 0.0, 3.0).upsampled(masks)
    torch.testing.assert_close(actual, smooth(resize(masks, size), 2.0))
    for mask, example in zip(actual, resize(masks, size), strict=True):
        blurred = gaussian_filter(example[0].numpy(), 2.0, mode="nearest", truncate=3.0)
        torch.testing.assert_close(mask[0], torch.from_numpy(blurred))


# --- What stands where the mask is 0 ---------------------------------------------------------------------------------


def test_constant_is_the_mean_of_each_channel_and_blur_has_ten_pixels() -> None:
    x = torch.rand(2, 3, 12, 10, generator=seeded(), dtype=torch.float64)
    (constant,) = perturbed_inputs("constant", (x,), (), None)()
    torch.testing.assert_close(constant.expand_as(x)[1, 2, 3, 4], x[1, 2].mean())
    (blurred,) = perturbed_inputs("blur", (x,), (), None)()
    expected = gaussian_filter(x[1, 2].numpy(), 10.0, mode="nearest", truncate=3.0)
    torch.testing.assert_close(blurred[1, 2], torch.from_numpy(expected))


def test_noise_is_redrawn_in_each_call_and_shared_by_all_examples() -> None:
    x = 5 + 3 * torch.randn(2, 3, 40, 50, generator=seeded())
    draw = perturbed_inputs("noise", (x,), (), seeded(7))
    generator = seeded(7)
    for _ in range(2):
        z = torch.randn(3, 40, 50, generator=generator)
        (noise,) = draw()
        for n in range(2):
            expected = x[n].mean((1, 2), keepdim=True) + x[n].std((1, 2), correction=0, keepdim=True) * z
            torch.testing.assert_close(noise[n], expected)


# --- The game by hand ------------------------------------------------------------------------------------------------


def test_first_mask_is_the_smallest_circle_that_removes_the_score() -> None:
    # 8 cells: distances from the centre 1/8, 3/8, 5/8, 7/8 on both sides. The evidence is at a distance of 3/8 for the
    # first example and of 7/8 for the second, so all cells up to there are deleted
    x = torch.zeros(2, 1, 8)
    x[0, 0, 2], x[1, 0, 7] = 1, 1
    forward = MaskedForward.from_call(total, x, [None], None, 0.0, "output")
    matrices = upsampling((8,), forward.sizes, 0.0, x)
    circles = DeletionGame(forward, lambda: forward.baselines, matrices, 0.0, 0.0, 3.0).circles()
    assert circles[:, 0].tolist() == [[1, 1, 0, 0, 0, 0, 1, 1], [0] * 8]


def test_circle_is_empty_if_the_perturbation_does_not_lower_the_score() -> None:
    forward = MaskedForward.from_call(lambda x: -total(x), torch.ones(1, 1, 8), [None], None, 0.0, "output")
    matrices = upsampling((8,), forward.sizes, 0.0, forward.inputs[0])
    assert DeletionGame(forward, lambda: forward.baselines, matrices, 0.0, 0.0, 3.0).circles().tolist() == [[[1] * 8]]


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
        MeaningfulPerturbation(net).attribute(images() / 0, 2)
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
