"""Masked forward passes in chunks: no row is lost or run twice, whatever the chunk size and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.chunk_size import ChunkSize
from captum_scorecam.scoring.chunks import score_masked_inputs, scored_chunks
from tests.support.masked_forward import forward_of, random_masks


class OutOfMemoryAbove(nn.Module):
    """A model with memory for `limit` rows that records the number of rows of each forward pass."""

    def __init__(self, limit: int, error: RuntimeError | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        if len(x) > self.limit:
            raise self.error
        return x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_chunk_and_loses_nothing(error: RuntimeError) -> None:
    inputs, masks = torch.rand(2, 3, 4, 5), random_masks(2, 9, (4, 5))
    model = OutOfMemoryAbove(3, error)
    forward = forward_of(model, inputs)
    scores = score_masked_inputs(forward, masks, ChunkSize(16))
    every = torch.cat([forward(masks[row], masks.examples[row]) for row in torch.arange(18).view(18, 1)])
    assert torch.allclose(scores, every)
    # 16, 8 and 4 rows fail; then nine chunks of two.
    assert model.rows[:12] == [16, 8, 4] + 9 * [2]


def test_out_of_memory_with_one_row_says_what_was_tried() -> None:
    model = OutOfMemoryAbove(0)
    with pytest.raises(torch.OutOfMemoryError, match="after halving the chunk size from 6 rows"):
        score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 8, (4,)), ChunkSize(6))
    assert model.rows == [6, 3, 1]


def test_another_error_of_the_model_is_raised_as_it_is() -> None:
    def broken(_x: Tensor) -> Tensor:
        raise RuntimeError("the sky fell")

    with pytest.raises(RuntimeError, match="the sky fell"):
        score_masked_inputs(forward_of(broken, torch.rand(1, 1, 4)), random_masks(1, 2, (4,)), ChunkSize(2))


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("pad", [False, True])
def test_scores_do_not_depend_on_the_chunk(rows: int, pad: bool) -> None:
    inputs, masks = torch.rand(3, 2, 4, 5, dtype=torch.float64), random_masks(3, 4, (4, 5))
    forward = forward_of(lambda x: x.flatten(1).cumsum(1), inputs, target=[1, 7, 39])
    expected = score_masked_inputs(forward, masks, ChunkSize(12))
    assert torch.allclose(score_masked_inputs(forward, masks, ChunkSize(rows, pad=pad)), expected, atol=1e-12)


def test_chunks_come_with_their_rows_and_masks() -> None:
    inputs, masks = torch.ones(1, 1, 4), random_masks(1, 5, (4,))
    forward = forward_of(lambda x: x.flatten(1).sum(1, keepdim=True), inputs)
    seen = []
    for rows, (chunk_masks,), scores in scored_chunks(forward, masks, ChunkSize(2, pad=True)):
        assert torch.allclose(chunk_masks.sum((1, 2)), scores[:, 0])
        seen += rows.tolist()
    assert seen == [0, 1, 2, 3, 4]


def test_no_masks_give_no_scores_and_no_forward() -> None:
    model = OutOfMemoryAbove(9)
    masks = ChannelMasks.from_activations(torch.ones(1, 3, 4), ((4,),))
    assert score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), masks, ChunkSize(2)).shape == (0, 1)
    assert model.rows == []
