"""Two processes of a run: what rank 0 computes, and its failures, reach the other."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from captum_scorecam.evaluation.ranks import joined_ranks


def failing() -> NoReturn:
    raise ValueError("no run here")


def results_of_rank(rank: int, folder: str) -> None:
    init_method, timeout = f"file://{folder}/store", timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=2, timeout=timeout)
    error = "none"
    try:
        with joined_ranks(torch.device("cpu")) as ranks:
            computed = ranks.from_first(lambda: f"by rank {ranks.rank}")
            try:
                ranks.from_first(failing)
            except (ValueError, RuntimeError) as raised:
                error = f"{type(raised).__name__}: {raised}"
            share = ranks.share([0, 1, 2])
        results = {"computed": computed, "error": error, "share": share, "size": ranks.size}
        Path(folder, f"{rank}.json").write_text(json.dumps(results))
    finally:
        dist.destroy_process_group()


def test_a_result_and_a_failure_of_rank_0_reach_rank_1(tmp_path: Path) -> None:
    other = mp.get_context("spawn").Process(target=results_of_rank, args=(1, str(tmp_path)))
    other.start()
    try:
        results_of_rank(0, str(tmp_path))
    finally:
        other.join(timeout=120)
        other.kill()
    assert other.exitcode == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == {"computed": "by rank 0", "error": "ValueError: no run here", "share": [0, 2], "size": 2}
    assert second == {
        "computed": "by rank 0",
        "error": "RuntimeError: Rank 0 could not start the run: ValueError: no run here",
        "share": [1],
        "size": 2,
    }
