"""The processes that ``torchrun`` started, sharing the images of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

LONGEST_WAIT = timedelta(hours=12)  # for the slowest rank, which may be hours behind in a run of days
_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a run.

    Attributes:
        rank (int): Its number, from 0. Default: 0.
        size (int): How many there are. Default: 1.
        group (ProcessGroup, optional): A gloo group of all of them. Default: None, this process alone.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns this rank's items: every `size`-th of them."""
        return items[self.rank :: self.size]

    def from_first(self, compute: Callable[[], Result]) -> Result:
        """Computes something on rank 0 and returns it on every rank.

        Raises:
            RuntimeError: On the other ranks, if rank 0 raised an error; rank 0 raises its own.
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
            raise RuntimeError(f"Expected rank 0 to begin, but it failed: {message[1]}")
        result: Result = message[0]
        return result

    def wait_for_all(self) -> None:
        """Returns once every rank has come here.

        Raises:
            RuntimeError: If one died, or does not come within `LONGEST_WAIT`.
        """
        if self.group is not None:
            dist.monitored_barrier(self.group, timeout=LONGEST_WAIT)


def local_rank() -> int:
    """Returns this process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Joins the other processes, if ``torchrun`` started several or the caller has a default process group.

    Args:
        device (torch.device): Where this rank's model is: on a GPU, the default group is of nccl, else of gloo.

    Yields:
        Ranks: This process among them. A default process group that is made here is destroyed at the end.
    """
    begun_here = not dist.is_initialized() and all(name in os.environ for name in _STARTED_BY_TORCHRUN)
    if begun_here:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.is_initialized():
            # Nothing but a few Python objects goes from rank to rank; gloo tells at once when a peer has died.
            group: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
            yield Ranks(dist.get_rank(), dist.get_world_size(), group)
        else:
            yield Ranks()
    finally:
        if begun_here:
            dist.destroy_process_group()
