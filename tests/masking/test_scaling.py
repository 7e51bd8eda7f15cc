"""Maps resized and scaled to [0, 1]."""

from __future__ import annotations

import pytest
import torch

from captum_scorecam.masking.scaling import min_max_normalize, resize, varies, working_dtype


def test_min_max_normalize_scales_each_map_to_zero_and_one() -> None:
    maps = torch.tensor([[[2.0, 4.0, 3.0], [-1.0, 3.0, 0.0]]])
    assert torch.equal(min_max_normalize(maps), torch.tensor([[[0.0, 1.0, 0.5], [0.0, 1.0, 0.25]]]))


def test_min_max_normalize_makes_a_constant_map_zero() -> None:
    assert torch.equal(min_max_normalize(torch.full((1, 1, 2, 2), 7.0)), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("maps", "size", "expected"),
    [
        (torch.tensor([[[0.0, 4.0]]]), (4,), torch.tensor([[[0.0, 1.0, 3.0, 4.0]]])),
        (torch.tensor([[[[0.0, 4.0]]]]), (1, 4), torch.tensor([[[[0.0, 1.0, 3.0, 4.0]]]])),
        (torch.tensor([[[[[0.0, 4.0]]]]]), (1, 1, 4), torch.tensor([[[[[0.0, 1.0, 3.0, 4.0]]]]])),
    ],
)
def test_resize_is_linear_in_one_two_and_three_dimensions(
    maps: torch.Tensor, size: tuple[int, ...], expected: torch.Tensor
) -> None:
    # align_corners=False: the four new samples lie at -0.25, 0.25, 0.75 and 1.25 of the two old ones.
    assert torch.equal(resize(maps, size), expected)


def test_varies_sees_through_rounding() -> None:
    step = torch.finfo(torch.float32).eps
    maps = torch.tensor([[[0.0, 0.0], [5.0, 5.0], [1.0, 1.0 + step], [1.0, 1.0 + 8 * step], [0.0, 1e-30]]])
    assert varies(maps).tolist() == [[False, False, False, True, True]]


def test_the_working_dtype_is_at_least_float32() -> None:
    dtypes = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    assert [working_dtype(dtype) for dtype in dtypes] == [torch.float32, torch.float32, torch.float32, torch.float64]
