"""The fastest number of rows, measured before the work with a fake clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.scoring import chunk_size
from captum_scorecam.scoring.fastest_rows import LOOKS, fastest_rows
from captum_scorecam.scoring.tuner import TIMED_CHUNKS, WORK_PER_SETUP
from tests.support.masked_forward import forward_of

GROUP = 1 + TIMED_CHUNKS  # chunks until the rate of a size is known


class Timed(nn.Module):
    """A model whose forward passes take seconds by a fake clock; the first one of a size is slow."""

    def __init__(self, seconds_of: Callable[[int], float], setup_seconds: float = 0.0, most: int = 10_000) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.seconds_of, self.setup_seconds, self.most = seconds_of, setup_seconds, most
        self.now = 0.0
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.now += self.seconds_of(len(x)) + self.setup_seconds * (len(x) not in self.rows)
        self.rows.append(len(x))
        normed: Tensor = self.norm(x)
        return normed.flatten(1)


def best_at_8(rows: int) -> float:
    return rows / {2: 2.0, 4: 3.0, 8: 4.0, 16: 3.0}.get(rows, 1.0)


def fastest(model: Timed, n_rows: int, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(chunk_size, "perf_counter", lambda: model.now)
    return fastest_rows(forward_of(model, torch.rand(1, 1, 6, 6)), n_rows)


def test_each_size_is_measured_in_both_looks_and_no_more_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Timed(best_at_8).eval()
    assert fastest(model, 100_000, monkeypatch) == 8
    assert {rows: model.rows.count(rows) for rows in (2, 4, 8, 16)} == {
        2: 2 + LOOKS * 2 * GROUP,  # two compare memory formats; again before 8
        4: LOOKS * 2 * GROUP,  # again before 16
        8: LOOKS * 2 * GROUP,  # again after 16, which was slower
        16: LOOKS * GROUP,
    }


@pytest.mark.parametrize(("n_rows", "rows"), [(1, 2), (7, 4), (8, 8)])
def test_no_size_is_tried_that_never_fills(n_rows: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastest(Timed(best_at_8).eval(), n_rows, monkeypatch) == rows


def test_a_size_that_takes_long_to_set_up_is_tried_for_many_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chunk_size.SIZES, "cpu", (3, 6))
    setup = 100.0
    enough = int(WORK_PER_SETUP * setup * 2.0)  # at two rows per second
    for n_rows, expected in ((enough, 6), (enough - 100, 3)):
        model = Timed(lambda rows: rows / {3: 2.0, 6: 3.0}.get(rows, 1.0), setup)
        assert fastest(model.eval(), n_rows, monkeypatch) == expected


@pytest.mark.parametrize(("most", "rows"), [(15, 8), (7, 4), (3, 2), (1, 1)])
def test_a_size_that_does_not_fit_into_memory_is_left_out(
    most: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fastest(Timed(lambda _: 1.0, most=most).eval(), 100_000, monkeypatch) == rows


def test_the_model_is_left_as_it_was() -> None:
    model = Timed(best_at_8)  # in training mode, so that running statistics change
    forward, state = forward_of(model, torch.rand(1, 1, 6, 6)), torch.get_rng_state()
    fastest_rows(forward, 100)
    assert model.training
    assert torch.equal(model.norm.get_buffer("running_mean"), torch.zeros(1))
    assert torch.equal(torch.get_rng_state(), state)
