"""Activations as maps: reshaping transformer tokens, and rejecting activations that are not maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam.masking.activation_maps import (
    check_activation_transform,
    checked_activation_maps,
    swin_activation_maps,
    vit_activation_maps,
)

# two examples of 1 prefix token and 2×3 patches; the channels of the patch at (row, column) are its row and its column
ROWS, COLUMNS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]), torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
PATCHES = torch.stack([ROWS.flatten(), COLUMNS.flatten()], dim=1).expand(2, 6, 2)
TOKENS = torch.cat([torch.full((2, 1, 2), 9.0), PATCHES], dim=1)
MAPS = torch.stack([ROWS, COLUMNS]).expand(2, 2, 2, 3)


def test_patch_tokens_of_a_vision_transformer_become_maps() -> None:
    assert torch.equal(vit_activation_maps(TOKENS, grid_size=(2, 3)), MAPS)
    assert torch.equal(vit_activation_maps(PATCHES, prefix_tokens=0, grid_size=(2, 3)), MAPS)
    registers = torch.cat([TOKENS[:, :1], TOKENS], dim=1)
    assert torch.equal(vit_activation_maps(registers, prefix_tokens=2, grid_size=(2, 3)), MAPS)


def test_a_square_grid_needs_no_size() -> None:
    tokens = torch.tensor([9.0, 1.0, 2.0, 3.0, 4.0]).view(1, 5, 1)
    assert vit_activation_maps(tokens).tolist() == [[[[1.0, 2.0], [3.0, 4.0]]]]


def test_tokens_of_a_swin_transformer_become_maps() -> None:
    assert torch.equal(swin_activation_maps(PATCHES.reshape(2, 2, 3, 2)), MAPS)
    assert torch.equal(swin_activation_maps(PATCHES, grid_size=(2, 3)), MAPS)
    assert swin_activation_maps(torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)).tolist() == [[[[1, 2], [3, 4]]]]


@pytest.mark.parametrize("prefix_tokens", [0, 1, 5])
@pytest.mark.parametrize("grid", [(6,), (2, 3), (2, 3, 4)], ids=["signal", "image", "video"])
def test_tokens_of_any_rank_and_prefix_become_maps(grid: tuple[int, ...], prefix_tokens: int) -> None:
    """Channel d of a patch is its place along dimension d."""
    places = torch.stack(torch.meshgrid(*(torch.arange(n) * 1.0 for n in grid), indexing="ij"))
    tokens = torch.cat([torch.full((prefix_tokens, len(grid)), 9.0), places.flatten(1).T]).expand(2, -1, -1)
    assert torch.equal(vit_activation_maps(tokens, prefix_tokens, grid), places.expand(2, *places.shape))
    patches = tokens[:, prefix_tokens:]
    assert torch.equal(swin_activation_maps(patches, grid), places.expand(2, *places.shape))


def test_tokens_of_a_video_swin_transformer_become_maps() -> None:
    tokens = torch.arange(48.0).view(1, 2, 3, 4, 2)  # N×t×h×w×K
    assert torch.equal(swin_activation_maps(tokens), torch.arange(48.0).view(1, 24, 2).mT.view(1, 2, 2, 3, 4))


ANY_TOKENS: Any = vit_activation_maps


@pytest.mark.parametrize(
    ("lay_out", "error", "message"),
    [
        (lambda: vit_activation_maps(TOKENS, -1), ValueError, "Expected `prefix_tokens` to be at least 0, but got -1"),
        (lambda: ANY_TOKENS(TOKENS, 1.0), TypeError, r"Expected `prefix_tokens` to be an int, but got 1\.0"),
        (lambda: swin_activation_maps(PATCHES, (0, 3)), ValueError, "Expected `grid_size` to be at least 1, but got 0"),
        (lambda: ANY_TOKENS(PATCHES, 0, (2.0, 3)), TypeError, r"Expected `grid_size` to be an int, but got 2\.0"),
    ],
)  # fmt: skip
def test_options_of_tokens_are_checked(lay_out: Callable[[], Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lay_out()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # to be moved out of PyTorch
def test_quantised_activations_are_dequantised() -> None:
    values = torch.tensor([[[[0.5, 1.0], [1.5, 2.0]]]])
    quantised = torch.quantize_per_tensor(values, 0.5, 0, torch.quint8)
    inputs = (torch.rand(1, 3, 8, 8),)
    assert torch.equal(checked_activation_maps((quantised,), inputs)[0], values)
    assert torch.equal(checked_activation_maps((quantised,), inputs, torch.neg)[0], -values)


@pytest.mark.parametrize(
    ("lay_out", "message"),
    [
        (lambda: vit_activation_maps(torch.rand(1, 4)), r"Expected tokens of shape N×S×K, but got \(1, 4\)"),
        (lambda: vit_activation_maps(TOKENS), r"Expected 2×2 patch tokens, but got 6 \(after 1 prefix tokens\)"),
        (lambda: vit_activation_maps(TOKENS, 7), "Expected `prefix_tokens` below the 7 tokens, but got 7"),
        (lambda: swin_activation_maps(PATCHES, (4, 2)), r"Expected 4×2 patch tokens, but got 6 \(after 0 prefix"),
    ],
)
def test_tokens_that_fill_no_grid_are_an_error(lay_out: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lay_out()


def test_a_grid_of_one_number_is_an_error() -> None:
    with pytest.raises(
        TypeError, match="Expected `grid_size` to be a sequence of ints, one for each dimension, but got 2"
    ):
        vit_activation_maps(TOKENS, grid_size=2)  # type: ignore[arg-type]


def test_maps_pass_as_they_are_and_transformed() -> None:
    activations, inputs = (MAPS, MAPS[:, :1]), (torch.rand(2, 3, 8, 9),)
    assert all(a is b for a, b in zip(checked_activation_maps(activations, inputs), activations, strict=True))
    first, second = checked_activation_maps(activations, inputs, torch.neg)
    assert torch.equal(first, -MAPS)
    assert torch.equal(second, -MAPS[:, :1])


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        (torch.ones(2, 5, dtype=torch.int64), TypeError, "Expected the layer to return floating-point tensors, but got "
         "torch.int64"),
        ([MAPS], TypeError, "Expected the layer to return floating-point tensors, but got list"),
        (torch.rand(2, 5), ValueError, r"maps of shape N×K×spatial .* but got shape \(2, 5\)"),
        (torch.rand(2, 5, 6), ValueError, r"Expected maps with 2 spatial dimensions, as the inputs have, but got shape "
         r"\(2, 5, 6\); use `activation_transform` to convert"),
        (torch.rand(3, 5, 6, 7), ValueError, r"Expected activations of 2 examples, but got shape \(3, 5, 6, 7\)"),
        (torch.full((2, 1, 2, 2), float("nan")), ValueError, "Expected finite activations, but got NaN or Inf"),
    ],
)  # fmt: skip
def test_what_is_no_map_of_the_inputs_is_an_error(activation: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        checked_activation_maps((activation,), (torch.rand(2, 3, 8, 9),))


def test_a_transform_must_be_callable() -> None:
    check_activation_transform(None)
    check_activation_transform(torch.relu)
    with pytest.raises(TypeError, match="Expected `activation_transform` to be callable, but got 3"):
        check_activation_transform(3)
