"""The masks of a layer's channels: which exist, which are shared, and their values."""

from __future__ import annotations

import torch

from captum_scorecam.masking.channel_masks import ChannelMasks, most_varied
from captum_scorecam.masking.scaling import resize


def test_most_varied_ranks_by_standard_deviation_and_not_by_range() -> None:
    steady, spike = [3.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 6.0]  # same range, deviations 3 and 2.6
    maps = torch.tensor([[spike, steady, [1.0, 1.0, 1.0, 1.0]]])
    assert most_varied(maps, 1).tolist() == [[False, True, False]]
    assert most_varied(maps, 5).tolist() == [[True, True, True]]


def test_channel_masks_skip_constant_maps_and_share_affine_copies() -> None:
    peak = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    activation = torch.stack([peak, torch.full((2, 2), 3.0), 2 * peak + 1, peak.T, -peak]).unsqueeze(0)
    masks = ChannelMasks.from_activations(activation, ((2, 2),))
    assert masks.n_constant == 1
    assert len(masks) == 3
    first, none, copy, transposed, negative = masks.index[0].tolist()
    assert none == -1
    assert first == copy
    assert len({first, transposed, negative}) == 3
    assert torch.equal(masks[torch.tensor([first])][0][0, 0], peak)
    assert torch.equal(masks[torch.tensor([negative])][0][0, 0], 1 - peak)


def test_channels_that_are_constant_up_to_rounding_are_not_selected() -> None:
    activation = torch.tensor([[[100.0, 100.5, 100.0], [0.0, 0.25, 0.0]]], dtype=torch.bfloat16)
    masks = ChannelMasks.from_activations(activation, ((3,),), max_channels=1)
    assert masks.index.tolist() == [[-1, 0]]


def test_channel_masks_are_not_shared_across_examples() -> None:
    activation = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]])
    masks = ChannelMasks.from_activations(activation, ((2,),))
    assert masks.examples.tolist() == [0, 1]
    assert masks.index.tolist() == [[0], [1]]


def test_copies_are_found_in_any_precision_and_near_copies_are_not_taken_for_them() -> None:
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        maps = torch.rand(1, 1, 9, 9, generator=generator, dtype=dtype)
        moved = maps.clone()
        moved[0, 0, 4, 4] += 1e-4
        masks = ChannelMasks.from_activations(
            torch.cat([maps, 3 * maps + 0.7, moved, 0.5 * maps - 1], dim=1), ((9, 9),)
        )
        first, scaled, other, shifted = masks.index[0].tolist()
        assert first == scaled == shifted != other


def test_channel_masks_are_normalised_after_upsampling() -> None:
    # Upsampled to four, the peak in the middle is 0.75 at most, and is scaled to 1 again.
    masks = ChannelMasks.from_activations(torch.tensor([[[0.0, 1.0, 0.0]]]), ((6,),))
    (mask,) = masks[torch.tensor([0])]
    expected = resize(torch.tensor([[[0.0, 1.0, 0.0]]]), (6,))
    assert expected.max() == 0.75
    assert torch.allclose(mask, expected / 0.75)


def test_a_map_that_shrinking_makes_constant_has_no_mask() -> None:
    stripes = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert ChannelMasks.from_activations(stripes, ((2,),)).index.tolist() == [[-1]]
    assert ChannelMasks.from_activations(stripes, ((4,),)).index.tolist() == [[0]]
    assert ChannelMasks.from_activations(stripes, ((2,), (4,))).index.tolist() == [[0]]


def test_scores_spread_over_the_channels_that_share_a_mask() -> None:
    activation = torch.tensor([[[0.0, 1.0], [5.0, 5.0], [1.0, 3.0], [1.0, 0.0]]])
    masks = ChannelMasks.from_activations(activation, ((2,),))
    scores = torch.empty(2, 2)
    scores[masks.index[0, 0]] = torch.tensor([10.0, 20.0])
    scores[masks.index[0, 3]] = torch.tensor([30.0, 40.0])
    assert masks.by_channel(scores).tolist() == [[[10.0, 20.0], [0.0, 0.0], [10.0, 20.0], [30.0, 40.0]]]


def test_baseline_masks_are_zero() -> None:
    masks = ChannelMasks.from_baselines(2, ((3, 4), (1, 2)), torch.rand(2, 3, 3, 4))
    first, second = masks[torch.tensor([0, 1])]
    assert torch.equal(first, torch.zeros(2, 1, 3, 4))
    assert torch.equal(second, torch.zeros(2, 1, 1, 2))


def test_equal_channels_share_a_mask_under_autocast() -> None:
    maps = torch.rand(1, 200, 7, 7, generator=torch.Generator().manual_seed(0))
    activation = torch.cat([maps, 3 * maps + 0.7], dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert len(ChannelMasks.from_activations(activation, ((7, 7),))) == 200
