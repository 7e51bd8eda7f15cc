"""Two processes that are ranks 0 and 1 of a group."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

TIMEOUT = 120  # seconds
START_METHOD = "spawn"
if sys.platform == "linux":
    START_METHOD = "forkserver"  # which imports PyTorch once for all tests
    mp.set_forkserver_preload([__name__, "captum_scorecam.evaluation", "tests.support.colour_classifier"])


def results_of_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """Runs `work(rank)` in this process, rank 0, and in another, rank 1; returns what each returned.

    Args:
        work (callable): Takes the rank and returns tensors, numbers, strings, or containers of them. Defined in a
            module, so that the other process can import it.
        folder (Path): An empty folder, in which the processes meet.
    """
    context: Any = mp.get_context(START_METHOD)
    other = context.Process(target=_run_rank, args=(1, work, folder))
    other.start()
    try:
        _run_rank(0, work, folder)
    finally:
        other.join(TIMEOUT)
        other.kill()
    assert other.exitcode == 0
    return [torch.load(folder / f"results{rank}", weights_only=True) for rank in (0, 1)]


def _run_rank(rank: int, work: Callable[[int], Any], folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=TIMEOUT)
    )
    try:
        torch.save(work(rank), folder / f"results{rank}")
    finally:
        dist.destroy_process_group()
