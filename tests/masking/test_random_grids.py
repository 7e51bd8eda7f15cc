"""RISE's grids and shifts as drawn, and the masks made of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from skimage.transform import resize
from torch import Generator

from captum_scorecam.masking.random_grids import cells_per_dimension, check_grid_size, draw_grids, upsample_grids
from tests.support.grid_masks import naive_mask


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def test_upsampled_grid_by_hand() -> None:
    # 2 cells, 4 pixels: cells of 2 pixels, 6 pixels in all, of which the linear weights are 0, 0, 1/3, 2/3, 1, 1
    grids = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    masks = upsample_grids(grids, torch.tensor([[0.0], [0.5], [0.49]]), (4,))
    expected = [[0, 0, 1 / 3, 2 / 3], [0, 1 / 3, 2 / 3, 1], [1, 1, 2 / 3, 1 / 3]]
    torch.testing.assert_close(masks, torch.tensor(expected).unsqueeze(1))


def test_upsampled_grids_are_skimages() -> None:
    # the authors call skimage's resize; its mode 'edge' does at the rim what PyTorch does (theirs, 'reflect', mirrors)
    grids, shifts = torch.rand(5, 3, 4, generator=seeded()).round().double(), torch.rand(5, 2, generator=seeded(1))
    masks = upsample_grids(grids, shifts, (13, 9))  # cells of 5×3 pixels
    for grid, shift, mask in zip(grids, shifts, masks, strict=True):
        whole = resize(grid.numpy(), (20, 15), order=1, mode="edge", anti_aliasing=False)
        top, left = int(shift[0] * 5), int(shift[1] * 3)
        torch.testing.assert_close(mask[0], torch.from_numpy(whole[top : top + 13, left : left + 9]))


@pytest.mark.parametrize(
    ("cells", "size"), [((3,), (10,)), ((2, 3), (7, 4)), ((7, 7), (5, 16)), ((2, 1, 3), (3, 4, 5)), ((1, 1), (1, 1))]
)
def test_masks_of_every_rank_and_shape(cells: tuple[int, ...], size: tuple[int, ...]) -> None:
    masks = draw_grids((torch.zeros(2, 3, *size, dtype=torch.float64),), 6, cells, 0.4, seeded())
    assert len(masks) == 12
    assert masks.examples.tolist() == [0, 1] * 6
    (upsampled,) = masks[torch.arange(12)]
    assert tuple(upsampled.shape) == (12, 1, *size)
    for row in range(12):
        expected = naive_mask(masks.grids[row // 2], masks.shifts[row // 2], size)
        torch.testing.assert_close(upsampled[row, 0], expected, rtol=0, atol=1e-12)


def test_every_pixel_is_kept_with_the_probability_of_a_cell() -> None:
    # exactly: the mean over all grids, each as likely as its cells, is p at every pixel and for every shift
    p = 0.3
    grids = torch.tensor(list(product([0.0, 1.0], repeat=4)), dtype=torch.float64)
    likely = torch.where(grids > 0, p, 1 - p).prod(1)
    for shift in (0.0, 0.4, 0.99):
        masks = upsample_grids(grids.view(-1, 2, 2), torch.full((16, 2), shift), (5, 3))
        mean = (likely.view(-1, 1, 1, 1) * masks).sum(0)
        torch.testing.assert_close(mean, torch.full((1, 5, 3), p, dtype=torch.float64))


def test_grids_and_shifts_have_the_given_distribution() -> None:
    masks = draw_grids((torch.zeros(1, 1, 8, 9),), 20000, (2, 3), 0.2, seeded())
    # standard deviations of the means: cells .4/√20000 = .003, shifts .29/√20000 = .002
    torch.testing.assert_close(masks.grids.float().mean(0), torch.full((2, 3), 0.2), rtol=0, atol=0.012)
    torch.testing.assert_close(masks.shifts.mean(0), torch.full((2,), 0.5), rtol=0, atol=0.008)
    offsets = (masks.shifts[:, 1] * 3).long()  # cells of 3 pixels
    assert set(offsets.tolist()) == {0, 1, 2}
    assert float((masks.shifts[:, 0] * masks.shifts[:, 1]).mean()) == pytest.approx(0.25, abs=0.008)


def test_what_is_drawn_at_once_is_small() -> None:
    # 8000 masks of 224² are 1.6 GB; their grids and shifts are 8000 · (49 + 2 · 4) bytes
    masks = draw_grids((torch.zeros(1, 3, 224, 224),), 8000, 7, 0.5, seeded())
    held = sum(t.numel() * t.element_size() for t in (masks.grids, masks.shifts, masks.examples))
    assert held == 8000 * (49 + 8 + 8)


@pytest.mark.parametrize("grid_size", [0, -2, (), (3, 0)])
def test_a_grid_without_cells_is_an_error(grid_size: int | Sequence[int]) -> None:
    with pytest.raises(ValueError, match="Expected `grid_size` to be at least 1, but got"):
        check_grid_size(grid_size)


def test_one_grid_size_counts_for_every_dimension() -> None:
    assert cells_per_dimension(7, ((4, 5), (9, 9))) == (7, 7)
    assert cells_per_dimension([2, 3, 4], ((4, 5, 6),)) == (2, 3, 4)


def test_inputs_and_grid_of_different_ranks_are_errors() -> None:
    with pytest.raises(
        ValueError, match=r"Expected inputs with the same number of spatial dimensions, but got \[1, 2\]"
    ):
        cells_per_dimension(7, ((4,), (4, 5)))
    with pytest.raises(ValueError, match=r"Expected `grid_size` to be one number or 2, but got \(7, 7, 7\)"):
        cells_per_dimension((7, 7, 7), ((4, 5),))
