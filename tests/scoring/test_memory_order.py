"""The order of a tensor's dimensions in memory, and copies in another order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_scorecam.scoring.memory_order import in_memory_order, is_channels_last, memory_order

IMAGES = torch.rand(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (IMAGES, (0, 1, 2, 3)),
        (IMAGES.to(memory_format=torch.channels_last), (0, 2, 3, 1)),
        (IMAGES[:1].to(memory_format=torch.channels_last), (0, 2, 3, 1)),
        (IMAGES.to(memory_format=torch.channels_last)[:, :, 1:3, 1:3], (0, 2, 3, 1)),  # a crop
        (torch.rand(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d), (0, 2, 3, 4, 1)),
        (IMAGES.transpose(2, 3), (0, 1, 3, 2)),
        (IMAGES.transpose(0, 1), (1, 0, 2, 3)),
        (torch.rand(5, 4, 3, 1).permute(3, 2, 1, 0), (0, 3, 2, 1)),
        (IMAGES[:, :1].expand(2, 3, 4, 5), (0, 1, 2, 3)),
        (torch.rand(2, 8, 3).mT, (0, 2, 1)),
    ],
)
def test_the_order_is_known_and_can_be_made(x: Tensor, expected: tuple[int, ...]) -> None:
    assert memory_order(x) == expected
    made = in_memory_order(x.contiguous(), expected)
    assert torch.equal(made, x)
    assert made.permute(expected).is_contiguous()
    assert in_memory_order(made, expected) is made


def test_channels_last_is_that_of_pytorch() -> None:
    last = in_memory_order(IMAGES, (0, 2, 3, 1))
    assert last.stride() == IMAGES.contiguous(memory_format=torch.channels_last).stride()
    assert is_channels_last(last)
    assert not is_channels_last(IMAGES)
    assert not is_channels_last(torch.rand(2, 3))
