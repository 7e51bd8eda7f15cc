"""The number of rows per forward pass: fixed, tuned with a fake clock, halved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.scoring import chunk_size
from captum_scorecam.scoring.chunk_size import ChunkSize, ChunkSizes, is_compiled

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A fake clock: `clock[0]` is the current time."""
    now = [0.0]
    monkeypatch.setattr(chunk_size, "perf_counter", lambda: now[0])
    return now


def tune(size: ChunkSize, clock: list[float], seconds_of: dict[int, float], chunks: int) -> list[int]:
    """Runs chunks whose seconds are given by their rows, and returns the rows of each."""
    ran = []
    for _ in range(chunks):
        rows = size.rows
        with size.timed(rows, CPU):
            clock[0] += seconds_of[rows]
        ran.append(rows)
    return ran


def test_a_fixed_size_stays() -> None:
    size = ChunkSize(7)
    assert not size.tuning
    assert size.next_rows(0, 20, CPU).tolist() == list(range(7))
    assert size.next_rows(14, 20, CPU).tolist() == list(range(14, 20))


def test_a_padded_chunk_repeats_the_last_row() -> None:
    assert ChunkSize(4, pad=True).next_rows(4, 6, CPU).tolist() == [4, 5, 5, 5]


def test_tuning_doubles_while_rows_per_second_rise_and_keeps_the_best(clock: list[float]) -> None:
    size = ChunkSize(2, most=64)
    seconds = {2: 1.0, 4: 1.5, 8: 2.0, 16: 5.0, 32: 11.0}  # rows per second: 2, 2.7, 4, 3.2, 2.9
    tune(size, clock, seconds, 30)
    assert size.rows == 8
    assert not size.tuning


def test_a_small_gain_is_kept_and_no_larger_size_tried(clock: list[float]) -> None:
    size = ChunkSize(2, most=64)
    assert set(tune(size, clock, {2: 1.0, 4: 1.9}, 30)) == {2, 4}  # rows per second: 2, 2.1
    assert (size.rows, size.tuning) == (4, False)


def test_tuning_stops_at_the_largest_size(clock: list[float]) -> None:
    size = ChunkSize(2, most=6)
    tune(size, clock, {2: 1.0, 4: 1.0, 6: 1.0}, 30)
    assert size.rows == 6
    assert not size.tuning


def test_the_first_chunk_of_a_size_is_not_timed(clock: list[float]) -> None:
    size = ChunkSize(2, most=4)
    for rows, seconds in 5 * [(2, 1.0)] + [(4, 100.0)] + 4 * [(4, 1.0)]:
        assert size.rows == rows
        with size.timed(rows, CPU):
            clock[0] += seconds
    assert size.rows == 4


def test_one_fast_chunk_in_a_busy_time_is_enough(clock: list[float]) -> None:
    size = ChunkSize(2, most=4)
    for seconds in [9.0, 9.0, 9.0, 1.0, 9.0, 9.0, 9.0, 9.0, 1.5, 9.0]:
        with size.timed(size.rows, CPU):
            clock[0] += seconds
    assert (size.rows, size.tuning) == (4, False)


def test_a_short_chunk_is_not_timed(clock: list[float]) -> None:
    size = ChunkSize(4, most=8)
    for _ in range(5):
        with size.timed(3, CPU):
            clock[0] += 1.0
    assert size.rows == 4
    assert size.tuning


def test_halving_ends_tuning_and_tells_what_was_tried() -> None:
    size = ChunkSize(5, most=64)
    error = torch.OutOfMemoryError("out of memory")
    size.halve(5, error)
    assert (size.rows, size.tuning) == (2, False)
    size.halve(2, error)
    with pytest.raises(
        torch.OutOfMemoryError, match="single masked input per forward pass, after halving the chunk size from 5 rows"
    ):
        size.halve(1, error)


def test_sizes_are_kept_for_model_shape_dtype_and_autocast() -> None:
    sizes, model = ChunkSizes(), nn.Identity()
    x = torch.rand(2, 3, 4, 4)
    first = sizes.get(model, (x,), None)
    assert sizes.get(model, (torch.rand(5, 3, 4, 4),), None) is first
    assert sizes.get(model, (x.double(),), None) is not first
    assert sizes.get(model, (torch.rand(2, 3, 8, 8),), None) is not first
    with torch.autocast("cpu", torch.bfloat16):
        assert sizes.get(model, (x,), None) is not first


def test_a_given_size_counts_examples_and_is_obeyed() -> None:
    size = ChunkSizes().get(nn.Identity(), (torch.rand(3, 1, 2),), 4)
    assert (size.rows, size.tuning) == (12, False)


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


def test_a_compiled_forward_gets_one_size_and_padding() -> None:
    compiled = torch.compile(nn.Identity(), backend="eager")
    size = ChunkSizes().get(compiled, (torch.rand(1, 1, 2),), None)
    assert not size.tuning
    assert len(size.next_rows(0, 3, CPU)) == size.rows


@pytest.mark.parametrize(("threads", "rows"), [(2, 8), (16, 16)])
def test_a_compiled_forward_has_a_row_for_each_thread(monkeypatch: pytest.MonkeyPatch, threads: int, rows: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert ChunkSize.compiled(CPU).rows == rows
