"""Masks over single pixels, by hand."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.masking.pixel_masks import RankMasks, StoredMasks, pixel_ranks

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


@pytest.mark.parametrize("keeps_highest", [True, False])
def test_rank_masks_keep_or_remove_the_highest_pixels(keeps_highest: bool) -> None:
    ranks = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0]])
    masks = RankMasks(ranks, torch.tensor([0, 2, 7]), keeps_highest, SIZES, torch.float64)
    image, signal = masks[torch.arange(6)]
    rows = torch.cat([image.flatten(1), signal.flatten(1)], 1)
    highest = [[0] * 7, [1, 1, 0, 0, 0, 0, 0], [1] * 7, [0] * 7, [0, 0, 0, 0, 0, 1, 1], [1] * 7]
    assert rows.tolist() == (highest if keeps_highest else (1 - torch.tensor(highest)).tolist())
    assert rows.dtype == torch.float64
    assert len(masks) == 6
    assert masks.examples.tolist() == [0, 0, 0, 1, 1, 1]
