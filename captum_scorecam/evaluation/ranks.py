"""Distributes the images of a run over the processes started by ``torchrun``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from captum_scorecam._environment import whole_number

LONGEST_WAIT = timedelta(hours=12)  # in a run of days, the slowest rank may be hours behind
_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among the processes of a run.

    Attributes:
        rank (int): Rank of this process, from 0. Default: 0.
        size (int): Number of processes. Default: 1.
        group (ProcessGroup, optional): A gloo group of all processes. Default: None, a single process.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns this rank's items: every `size`-th item, starting at `rank`."""
        return items[self.rank :: self.size]

    def from_first(self, compute: Callable[[], Result]) -> Result:
        """Calls `compute` on rank 0 and returns the result on every rank.

        Raises:
            RuntimeError: On the other ranks, if rank 0 raised an error; rank 0 raises the original error.
        """
        if self.group is None:
            return compute()
        message: list[Any] = [None, None]
        try:
            if self.rank == 0:
                message[0] = compute()
        except BaseException as error:
            message[1] = f"{type(error).__name__}: {error}"
            raise
        finally:
            dist.broadcast_object_list(message, src=0, group=self.group)
        if message[1] is not None:
            raise RuntimeError(f"Rank 0 could not start the run: {message[1]}")
        result: Result = message[0]
        return result

    def wait_for_all(self) -> None:
        """Waits until every rank has called this method.

        Raises:
            RuntimeError: If a rank died or does not call it within `LONGEST_WAIT`.
        """
        if self.group is not None:
            dist.monitored_barrier(self.group, timeout=LONGEST_WAIT)


def is_first_rank() -> bool:
    """Checks, before the ranks are joined, whether this process is rank 0 or the only one.

    Raises:
        ValueError: If a variable that ``torchrun`` sets has an invalid value.
    """
    return not _started_by_torchrun() or int(os.environ["RANK"]) == 0


def _started_by_torchrun() -> bool:
    if not all(name in os.environ for name in _SET_BY_TORCHRUN):
        return False
    whole_number("RANK", 0, whole_number("WORLD_SIZE", 1) - 1)
    whole_number("MASTER_PORT", 1, 65535)
    if not os.environ["MASTER_ADDR"].strip():
        raise ValueError("Expected the environment variable MASTER_ADDR to name a host, but it is empty.")
    return True


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Joins the other processes, if ``torchrun`` started several or the caller has a default process group.

    Yields:
        Ranks: The rank of this process. A default process group created here is destroyed at the end.

    Raises:
        ValueError: Same as `is_first_rank`.
    """
    if not dist.is_available():  # PyTorch was built without it
        yield Ranks()
        return
    created_here = not dist.is_initialized() and _started_by_torchrun()
    # Ranks exchange only a few Python objects, also on GPUs, and gloo detects a dead peer at once.
    if created_here:
        dist.init_process_group("gloo")
    try:
        if dist.is_initialized():
            group: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
            yield Ranks(dist.get_rank(), dist.get_world_size(), group)
        else:
            yield Ranks()
    finally:
        if created_here:
            dist.destroy_process_group()
