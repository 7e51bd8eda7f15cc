"""The number of rows per forward pass: fixed, tuned with a fake clock, padded, halved."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.scoring import chunk_size
from captum_scorecam.scoring.chunk_size import COMPILED_SIZES, SIZES, ChunkSize, ChunkSizes, is_compiled
from captum_scorecam.scoring.tuner import TIMED_CHUNKS

CPU = torch.device("cpu")
GROUP = 1 + TIMED_CHUNKS  # chunks until the rate of a size is known


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A fake clock: `clock[0]` is the current time."""
    now = [0.0]
    monkeypatch.setattr(chunk_size, "perf_counter", lambda: now[0])
    return now


def run(size: ChunkSize, clock: list[float], seconds_of: dict[int, float], chunks: int) -> list[int]:
    """Runs chunks of a long call whose seconds are given by their rows, and returns the rows of each."""
    ran = []
    for _ in range(chunks):
        rows = len(size.next_rows(0, 10_000, CPU))
        with size.timed(rows, CPU):
            clock[0] += seconds_of[rows]
        ran.append(rows)
    return ran


def chunks_of(size: ChunkSize, total: int) -> list[list[int]]:
    """The row indices of each chunk of a call."""
    done, chunks = 0, []
    while done < total:
        chunks.append(size.next_rows(done, total, CPU).tolist())
        done += len(chunks[-1])
    return chunks


def test_a_fixed_size_stays_and_is_not_timed() -> None:
    size = ChunkSize(7)
    assert not size.timing
    assert chunks_of(size, 20) == [[*range(7)], [*range(7, 14)], [*range(14, 20)]]


def test_a_tuned_size_is_the_one_with_the_most_rows_per_second(clock: list[float]) -> None:
    size = ChunkSize(2, 4, 8, 16, 32)
    ran = run(size, clock, {2: 1.0, 4: 1.5, 8: 2.0, 16: 5.0}, 7 * GROUP)  # rows per second: 2, 2.7, 4, 3.2
    assert ran == [rows for rows in (2, 4, 2, 8, 4, 16, 8) for _ in range(GROUP)]
    assert (size.rows, size.rows_per_second, size.timing) == (8, 4.0, False)


# --- The last chunk --------------------------------------------------------------------------------------------------


def test_a_padded_chunk_repeats_the_last_row() -> None:
    assert ChunkSize(4, pad=True).next_rows(4, 6, CPU).tolist() == [4, 5, 5, 5]


@pytest.mark.parametrize(
    ("total", "last"),
    [
        (97, [*range(90, 97)]),  # three more rows are 3.1 %
        (98, [*range(90, 98), 97, 97]),
        (100, [*range(90, 100)]),
        (359, [*range(350, 359), 358]),
        (351, [350]),  # nine more rows are 2.6 %
        (361, [360] * 10),
    ],
)
def test_a_last_chunk_is_filled_if_that_adds_few_rows(total: int, last: list[int]) -> None:
    chunks = chunks_of(ChunkSize(10), total)
    assert chunks[-1] == last
    assert list(dict.fromkeys(row for chunk in chunks for row in chunk)) == [*range(total)]


@pytest.mark.parametrize(("left", "last"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (33, 64), (65, 100), (99, 100)])
def test_the_last_chunk_has_one_of_a_few_sizes_where_cudnn_times_its_algorithms(
    left: int, last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, meta = ChunkSize(100), torch.device("meta")
    assert len(size.next_rows(100, 100 + left, meta)) == (100 if left > 97 else left)
    monkeypatch.setattr(chunk_size, "_times_algorithms", lambda device: device == meta)
    assert len(size.next_rows(100, 100 + left, meta)) == last


def test_cudnn_times_its_algorithms_on_gpus_if_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for benchmark in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
        assert chunk_size._times_algorithms(torch.device("cuda", 1)) is benchmark
        assert not chunk_size._times_algorithms(CPU)


def test_a_short_chunk_of_a_compiled_model_takes_the_smallest_shape_that_has_run(clock: list[float]) -> None:
    size = ChunkSize(8, 16, 32, pad=True)
    assert len(size.next_rows(0, 3, CPU)) == 8
    run(size, clock, {8: 1.0, 16: 1.5, 32: 2.0}, 5 * GROUP)
    assert size.rows == 32
    assert [len(size.next_rows(0, left, CPU)) for left in (1, 8, 9, 16, 17, 31, 32, 33)] == [
        8,
        8,
        16,
        16,
        32,
        32,
        32,
        32,
    ]


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_halving_ends_tuning_and_tells_what_was_tried() -> None:
    size = ChunkSize(5, 10)
    error = torch.OutOfMemoryError("out of memory")
    size.halve(5, error)
    assert (size.rows, size.timing) == (2, False)
    size.halve(2, error)
    with pytest.raises(
        torch.OutOfMemoryError, match="single masked input per forward pass, after halving the chunk size from 5 rows"
    ):
        size.halve(1, error)


def test_a_size_that_did_not_fit_is_never_tried_again(clock: list[float]) -> None:
    size = ChunkSize(3, 6, 12, 24)
    run(size, clock, {3: 1.0, 6: 1.0}, 3 * GROUP)
    assert len(size.next_rows(0, 10_000, CPU)) == 12
    size.halve(12, torch.OutOfMemoryError("out of memory"))
    assert {*run(size, clock, {6: 0.1}, 300)} == {6}


# --- The sizes of a method -------------------------------------------------------------------------------------------


def test_sizes_are_kept_for_model_shape_dtype_and_autocast() -> None:
    sizes, model = ChunkSizes(), nn.Identity()
    x = torch.rand(2, 3, 4, 4)
    first = sizes.get(model, (x,), None)
    assert sizes.get(model, (torch.rand(5, 3, 4, 4),), None) is first
    assert sizes.get(model, (x.double(),), None) is not first
    assert sizes.get(nn.Identity(), (x,), None) is not first
    first = sizes.get(model, (x,), None)
    assert sizes.get(model, (torch.rand(2, 3, 8, 8),), None) is not first
    with torch.autocast("cpu", torch.bfloat16):
        assert sizes.get(model, (x,), None) is not first


class DTensor(Tensor):
    """Stands for a parameter that is shared among ranks."""


class FSDPModule(nn.Module):
    """Stands for a module that FSDP shares among ranks."""


def with_shared_parameter() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0]._parameters["weight"] = nn.Parameter(torch.zeros(2, 2).as_subclass(DTensor))
    return model


@pytest.mark.parametrize("model", [with_shared_parameter(), nn.Sequential(FSDPModule()), FSDPModule().forward])
def test_sizes_of_a_model_that_ranks_share_are_not_tuned(model: Callable[..., Any]) -> None:
    size = ChunkSizes().get(model, (torch.rand(1, 1, 2),), None)
    assert (size.rows, size.timing) == (2, False)
    assert ChunkSizes().get(nn.Linear(2, 2), (torch.rand(1, 1, 2),), None).timing
    compiled = torch.compile(nn.Sequential(FSDPModule()), backend="eager")
    assert not ChunkSizes().get(compiled, (torch.rand(1, 1, 2),), None).timing


def test_a_given_size_counts_examples_and_is_obeyed() -> None:
    size = ChunkSizes().get(nn.Identity(), (torch.rand(3, 1, 2),), 4)
    assert (size.rows, size.timing) == (12, False)


def test_a_given_size_that_did_not_fit_is_not_tried_again() -> None:
    sizes, model, x = ChunkSizes(), nn.Identity(), torch.rand(3, 1, 2)
    sizes.get(model, (x,), 4).halve(12, torch.OutOfMemoryError("out of memory"))
    assert sizes.get(model, (torch.rand(3, 1, 2),), 4).rows == 6
    others: list[tuple[Any, Any, int]] = [
        (model, x, 5),
        (model, x[:2], 4),
        (nn.Identity(), x, 4),
        (model, x[..., :1], 4),
    ]
    assert [sizes.get(each, (y,), given).rows for each, y, given in others] == [15, 8, 12, 12]


@pytest.mark.parametrize(("given", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), ("8", TypeError)])
def test_a_bad_size_is_an_error(given: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"Expected `perturbations_per_eval` .* but got {given!r}"):
        ChunkSizes().get(nn.Identity(), (torch.rand(1, 1, 2),), given)  # type: ignore[arg-type]


def test_compiled_functions_models_and_parts_are_seen() -> None:
    def function(x: Tensor) -> Any:
        return model(x)

    model = nn.Sequential(nn.Linear(2, 2))
    assert not is_compiled(model)
    assert not is_compiled(model.forward)
    assert is_compiled(torch.compile(model, backend="eager"))
    assert is_compiled(torch.compile(function, backend="eager"))
    part = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    part[1].compile(backend="eager")
    assert is_compiled(part)


def sizes_tried(model: Callable[..., Any], clock: list[float], faster: bool) -> list[int]:
    """The sizes that a long call tries if larger ones are faster, or not."""
    size = ChunkSizes().get(model, (torch.rand(1, 1, 2),), None)
    seconds_of = {rows: 1.0 if faster else float(rows) for rows in range(1, 100)}
    return list(dict.fromkeys(run(size, clock, seconds_of, 8 * GROUP)))


@pytest.mark.parametrize(("threads", "sizes"), [(2, [8, 16, 32]), (8, [8, 16, 32]), (12, [16, 32, 64])])
def test_a_compiled_model_tries_a_few_sizes_with_a_row_for_each_thread(
    threads: int, sizes: list[int], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    compiled = torch.compile(nn.Identity(), backend="eager")
    assert sizes_tried(compiled, clock, faster=True) == sizes
    assert sizes_tried(compiled, clock, faster=False) == sizes[:2]
    assert len(ChunkSizes().get(compiled, (torch.rand(1, 1, 2),), None).next_rows(0, 3, CPU)) == sizes[0]


def test_a_short_call_does_not_compile_for_another_size_of_a_model_that_is_compiled_already(clock: list[float]) -> None:
    compiled = torch.compile(nn.Identity(), backend="eager")
    size = ChunkSizes().get(compiled, (torch.rand(1, 1, 2),), None)
    done, ran = 0, []
    while done < 300:  # 30 seconds
        ran.append(len(size.next_rows(done, 300, CPU)))
        with size.timed(ran[-1], CPU):
            clock[0] += ran[-1] / 10.0
        done += ran[-1]
    assert {*ran} == {8}


def test_other_models_try_more_sizes_from_a_smaller_one_on(clock: list[float]) -> None:
    assert sizes_tried(nn.Identity(), clock, faster=True) == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("sizes", [*SIZES.values(), *COMPILED_SIZES.values()])
def test_half_a_size_is_a_size_too(sizes: tuple[int, ...]) -> None:
    assert all(larger == 2 * smaller for smaller, larger in pairwise(sizes))
