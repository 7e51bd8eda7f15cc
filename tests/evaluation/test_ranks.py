"""Two processes of a run: what rank 0 computes, and its failures, reach the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch.distributed as dist

from captum_scorecam.evaluation.ranks import joined_ranks
from tests.support.two_ranks import results_of_ranks


def failing() -> NoReturn:
    raise ValueError("no run here")


def shared_by_ranks(_rank: int) -> dict[str, Any]:
    error = "none"
    with joined_ranks() as ranks:
        computed = ranks.from_first(lambda: f"by rank {ranks.rank}")
        try:
            ranks.from_first(failing)
        except (ValueError, RuntimeError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        share = ranks.share([0, 1, 2])
    return {"computed": computed, "error": error, "share": share, "size": ranks.size}


def test_pytorch_without_distributed_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_available", lambda: False)
    monkeypatch.delattr(dist, "is_initialized")
    with joined_ranks() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)


def test_a_result_and_a_failure_of_rank_0_reach_rank_1(tmp_path: Path) -> None:
    first, second = results_of_ranks(shared_by_ranks, tmp_path)
    assert first == {"computed": "by rank 0", "error": "ValueError: no run here", "share": [0, 2], "size": 2}
    assert second == {
        "computed": "by rank 0",
        "error": "RuntimeError: Rank 0 could not start the run: ValueError: no run here",
        "share": [1],
        "size": 2,
    }
