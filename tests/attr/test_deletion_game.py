"""The deletion game's functions and its first masks, by hand and against scipy's Gaussian filter."""

from __future__ import annotations

import pytest
import torch
from scipy.ndimage import gaussian_filter

from captum_scorecam.attr.deletion_game import (
    DeletionGame,
    perturbed_inputs,
    shifted,
    smooth,
    total_variation,
    upsampling,
)
from captum_scorecam.masking.scaling import resize
from captum_scorecam.scoring.masked_forward import MaskedForward
from tests.support.attributions import seeded
from tests.support.small_net import total


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


def test_constant_is_the_mean_of_each_channel_and_blur_has_ten_pixels() -> None:
    x = torch.rand(2, 3, 12, 10, generator=seeded(), dtype=torch.float64)
    (constant,) = perturbed_inputs("constant", (x,), (), seeded())()
    torch.testing.assert_close(constant.expand_as(x)[1, 2, 3, 4], x[1, 2].mean())
    (blurred,) = perturbed_inputs("blur", (x,), (), seeded())()
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
