"""Masks over single pixels, by hand."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.masking.pixel_masks import RankMasks, StoredMasks, pixel_ranks, shared_ranks

SIZES = ((2, 2), (3,))  # an image and a signal: 7 pixels


def test_ranks_start_at_the_highest_and_ties_go_to_the_earlier_pixel() -> None:
    assert pixel_ranks(torch.tensor([[1.0, 7.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])).tolist() == [
        [3, 0, 1, 2],
        [0, 1, 2, 3],
    ]


def test_stored_masks_are_split_by_input() -> None:
    masks = StoredMasks(torch.arange(14.0).reshape(2, 7), torch.tensor([0, 0]), SIZES)
    image, signal = masks[torch.tensor([1, 0])]
    assert image.tolist() == [[[[7, 8], [9, 10]]], [[[0, 1], [2, 3]]]]
    assert signal.tolist() == [[[11, 12, 13]], [[4, 5, 6]]]
    assert len(masks) == 2


@pytest.mark.parametrize("keeps_first", [True, False])
def test_rank_masks_keep_or_remove_the_first_pixels(keeps_first: bool) -> None:
    ranks = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]])
    counts, no_ties = torch.tensor([0, 2, 7]), torch.ones(2, 1, dtype=torch.long)
    masks = RankMasks(ranks, no_ties, counts, torch.tensor([0, 1]), keeps_first, SIZES, torch.float64)
    image, signal = masks[torch.arange(6)]
    rows = torch.cat([image.flatten(1), signal.flatten(1)], 1)
    highest = [[0] * 7, [1, 1, 0, 0, 0, 0, 0], [1] * 7, [0] * 7, [0, 0, 0, 0, 0, 1, 1], [1] * 7]
    assert rows.tolist() == (highest if keeps_first else (1 - torch.tensor(highest)).tolist())
    assert rows.dtype == torch.float64
    assert len(masks) == 6
    assert masks.examples.tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("keeps_first", [True, False])
def test_pixels_of_one_rank_fade_together(keeps_first: bool) -> None:
    ranks = shared_ranks(torch.tensor([[2.0, 5.0, 2.0, 2.0, 2.0, 1.0, 1.0]] * 2))
    masks = RankMasks(*ranks, torch.tensor([0, 2, 6]), torch.tensor([3, 3]), keeps_first, SIZES, torch.float32)
    image, signal = masks[torch.tensor([4, 0, 5])]
    first = torch.tensor([[0.25, 1, 0.25, 0.25, 0.25, 0, 0], [0] * 7, [1, 1, 1, 1, 1, 0.5, 0.5]])
    assert torch.equal(torch.cat([image.flatten(1), signal.flatten(1)], 1), first if keeps_first else 1 - first)
    assert masks.examples.tolist() == [3] * 6
