"""Masked forward passes in chunks: no row is lost or run twice, whatever the chunk size and memory."""

from __future__ import annotations

import errno
import sys

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.chunk_size import ChunkSize, ChunkSizes
from captum_scorecam.scoring.chunks import score_masked_inputs, scored_chunks
from captum_scorecam.scoring.tuner import TIMED_CHUNKS
from tests.support.masked_forward import forward_of, random_masks

GROUP = 1 + TIMED_CHUNKS  # chunks until the rate of a size is known


class EngineError(Exception):
    """An error of ONNX Runtime, which is no RuntimeError."""


EngineError.__module__ = "onnxruntime.capi.onnxruntime_pybind11_state"

MAYBE_MEMORY = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("upsample_nearest_nhwc only supports output tensors with less than INT_MAX elements"),
]


class OutOfMemoryAbove(nn.Module):
    """A model with memory for `limit` rows that records the number of rows of each forward pass."""

    def __init__(self, limit: int, error: Exception | None = None) -> None:
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
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a memory object"),
        RuntimeError("could not create a primitive"),
        RuntimeError("Unable to allocate 9.00 GiB for an array with shape (9, 9)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
        RuntimeError("Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        EngineError("Failed to allocate memory for requested buffer of size 9"),
        EngineError("BFCArena::AllocateRawInternal: Available memory of 4 is smaller than requested bytes of 9"),
        *MAYBE_MEMORY,
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_chunk_and_loses_nothing(error: Exception) -> None:
    inputs, masks = torch.rand(2, 3, 4, 5), random_masks(2, 9, (4, 5))
    model = OutOfMemoryAbove(3, error)
    forward = forward_of(model, inputs)
    scores = score_masked_inputs(forward, masks, ChunkSize(16))
    every = torch.cat([forward(masks[row], masks.examples[row]) for row in torch.arange(18).view(18, 1)])
    assert torch.allclose(scores, every)
    # 16, 8 and 4 rows fail; then nine chunks of two.
    assert model.rows[:12] == [16, 8, 4] + 9 * [2]


@pytest.mark.parametrize("error", MAYBE_MEMORY)
def test_an_error_that_may_be_one_of_memory_is_raised_as_it_is_for_as_many_rows_as_inputs(error: Exception) -> None:
    model = OutOfMemoryAbove(0, error)
    with pytest.raises(RuntimeError) as caught:
        score_masked_inputs(forward_of(model, torch.rand(2, 1, 4)), random_masks(2, 8, (4,)), ChunkSize(6))
    assert caught.value is error
    assert model.rows == [6, 3, 1]


@pytest.mark.parametrize("error", [RuntimeError("CUDNN_STATUS_INTERNAL_ERROR"), torch.OutOfMemoryError()])
def test_a_call_that_failed_leaves_the_size_as_it_was(error: Exception) -> None:
    model, size = OutOfMemoryAbove(0, error), ChunkSize(6)
    forward, masks = forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 12, (4,))
    with pytest.raises(RuntimeError):
        score_masked_inputs(forward, masks, size)
    model.limit = 9
    model.rows.clear()
    score_masked_inputs(forward, masks, size)
    assert model.rows == [6, 6]


def test_a_gpu_that_is_lost_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    error = RuntimeError("out of memory")
    monkeypatch.setattr(torch.cuda, "empty_cache", lost)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        score_masked_inputs(
            forward_of(OutOfMemoryAbove(0, error), torch.rand(1, 1, 4)), random_masks(1, 8, (4,)), ChunkSize(6)
        )
    assert "illegal memory access" in str(caught.value.__cause__)


def test_out_of_memory_with_one_row_says_what_was_tried() -> None:
    model = OutOfMemoryAbove(0)
    with pytest.raises(torch.OutOfMemoryError, match="after halving the chunk size from 6 rows"):
        score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 8, (4,)), ChunkSize(6))
    assert model.rows == [6, 3, 1]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file"),
        ValueError("out of memory"),
        RuntimeError("could not create a primitive descriptor"),
        EngineError("Invalid rank for input"),
    ],
)
def test_other_errors_are_raised(error: Exception) -> None:
    model = OutOfMemoryAbove(0, error)
    with pytest.raises(type(error), match=str(error.args[-1])):
        score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 8, (4,)), ChunkSize(6))
    assert model.rows == [6]


def test_a_larger_size_that_was_tried_for_speed_is_given_up_if_it_fails() -> None:
    error = RuntimeError("no kernel for so many rows")
    inputs, masks = torch.rand(1, 1, 4), random_masks(1, 90, (4,))
    model = OutOfMemoryAbove(5, error)
    chunk_size = ChunkSize(3, 6, 12)
    scores = score_masked_inputs(forward_of(model, inputs), masks, chunk_size)
    assert torch.equal(scores, score_masked_inputs(forward_of(OutOfMemoryAbove(100), inputs), masks, ChunkSize(3)))
    assert model.rows == [*GROUP * [3], 6, *25 * [3]]
    assert (chunk_size.rows, chunk_size.timing) == (3, False)
    model.limit = 2  # what has worked fails for another reason
    with pytest.raises(RuntimeError, match="so many rows"):
        score_masked_inputs(forward_of(model, inputs), masks, chunk_size)


def test_values_that_cannot_follow_their_example_are_not_hidden_by_a_smaller_size() -> None:
    def model(x: Tensor, shifts: tuple[float, ...]) -> Tensor:
        return x.flatten(1) + torch.tensor(shifts).unsqueeze(1)  # also two rows of one example

    inputs, masks = torch.rand(2, 1, 4), random_masks(2, 30, (4,))
    forward = forward_of(model, inputs, additional_forward_args=((1.0, 2.0),))
    with pytest.raises(RuntimeError, match="must match the size") as caught:
        score_masked_inputs(forward, masks, ChunkSizes().get(model, (inputs,), None))
    assert "can't have a value for each example" in "".join(getattr(caught.value, "__notes__", [])) or (
        sys.version_info < (3, 11)
    )
    shared = forward_of(lambda x, shift: x.flatten(1) + shift[0], inputs, additional_forward_args=((1.0, 2.0),))
    assert len(score_masked_inputs(shared, masks, ChunkSizes().get(model, (inputs,), None))) == 60


@pytest.mark.parametrize("sizes", [(6,), (6, 12)])
def test_the_least_size_and_a_given_one_have_nothing_to_fall_back_on(sizes: tuple[int, ...]) -> None:
    model = OutOfMemoryAbove(5, RuntimeError("no kernel for so many rows"))
    with pytest.raises(RuntimeError, match="so many rows"):
        score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 90, (4,)), ChunkSize(*sizes))
    assert model.rows == [6]


def test_memory_for_two_rows_is_enough_for_several_examples() -> None:
    inputs = torch.rand(3, 1, 4)
    model, masks = OutOfMemoryAbove(2), random_masks(3, 5, (4,))
    chunk_size = ChunkSizes().get(model, (inputs,), 1)
    score_masked_inputs(forward_of(model, inputs), masks, chunk_size)
    assert model.rows == [3] + 8 * [2]
    with pytest.raises(torch.OutOfMemoryError, match="with 2 masked inputs per forward pass"):
        score_masked_inputs(forward_of(OutOfMemoryAbove(1), inputs), masks, chunk_size)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes on exceptions are new in Python 3.11")
@pytest.mark.parametrize("error", [ValueError("input 0 has batch size 2, not 3"), AssertionError(), KeyError("x")])
def test_an_error_of_a_model_that_takes_no_other_number_of_rows_points_to_perturbations_per_eval(
    error: Exception,
) -> None:
    def fixed(x: Tensor) -> Tensor:
        if len(x) != 3:
            raise error
        return x.flatten(1)

    inputs, masks = torch.rand(3, 1, 4), random_masks(3, 5, (4,))
    forward = forward_of(fixed, inputs)
    with pytest.raises(type(error)) as caught:
        score_masked_inputs(forward, masks, ChunkSizes().get(fixed, (inputs,), None))
    assert "pass perturbations_per_eval=1" in "".join(caught.value.__notes__)
    odd = random_masks(1, 4, (4,))  # four masks of the first example
    for given in (masks, odd):
        scores = score_masked_inputs(forward, given, ChunkSizes().get(fixed, (inputs,), 1))
        assert len(scores) == len(given)


@pytest.mark.parametrize("n_masks", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 2])
def test_no_forward_has_one_row_unless_the_inputs_have(n_masks: int, perturbations_per_eval: int | None) -> None:
    for n_examples in (1, 2, 3):
        model = OutOfMemoryAbove(100)
        inputs, masks = torch.rand(n_examples, 1, 4), random_masks(1, n_masks, (4,))
        chunk_size = ChunkSizes().get(model, (inputs,), perturbations_per_eval)
        scores = score_masked_inputs(forward_of(model, inputs), masks, chunk_size)
        assert len(scores) == n_masks
        assert min(model.rows) >= min(n_examples, 2)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the sky fell"),
        RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
        ValueError("could not create a memory object"),
    ],
)
def test_another_error_of_the_model_is_raised_as_it_is(error: Exception) -> None:
    rows = []

    def broken(x: Tensor) -> Tensor:
        rows.append(len(x))
        raise error

    with pytest.raises(type(error), match=str(error)):
        score_masked_inputs(forward_of(broken, torch.rand(1, 1, 4)), random_masks(1, 2, (4,)), ChunkSize(2))
    assert rows == [2]


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


def test_a_size_that_was_halved_for_memory_is_kept_after_another_error() -> None:
    model = OutOfMemoryAbove(2)
    forward, size = forward_of(model, torch.rand(1, 1, 4)), ChunkSize(8)
    masks = random_masks(1, 8, (4,))
    score_masked_inputs(forward, masks, size)
    assert size.rows == 2
    model.limit, model.error = 0, ValueError("a bad image")
    with pytest.raises(ValueError, match="a bad image"):
        score_masked_inputs(forward, masks, size)
    assert size.rows == 2


def test_a_smaller_size_that_did_not_help_is_not_kept() -> None:
    error = ValueError("a bad image")

    def model(x: Tensor) -> Tensor:
        rows.append(len(x))
        if len(rows) > GROUP:
            raise error
        return x.flatten(1).sum(1, keepdim=True)

    rows: list[int] = []
    size = ChunkSize(3, 6, 12)
    with pytest.raises(ValueError, match="a bad image"):
        score_masked_inputs(forward_of(model, torch.rand(1, 1, 4)), random_masks(1, 90, (4,)), size)
    assert rows == [*GROUP * [3], 6, 3]
    assert size.timing
