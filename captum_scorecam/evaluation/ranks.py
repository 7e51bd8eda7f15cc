"""The processes that ``torchrun`` starts share the images of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

LONGEST_WAIT = timedelta(hours=12)  # the slowest rank may be hours behind in a run of days
_RANK = "RANK"
_SET_BY_TORCHRUN = (_RANK, "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes that share a run.

    Attributes:
        rank (int): Its number, from 0. Default: 0.
        size (int): The number of processes. Default: 1.
        group (ProcessGroup, optional): A gloo group of all processes. Default: None, there is only this one.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns this rank's items: every `size`-th, starting at its own number."""
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
            raise RuntimeError(f"Rank 0 could not start the run: {message[1]}")
        result: Result = message[0]
        return result

    def wait_for_all(self) -> None:
        """Waits until every rank has called this.

        Raises:
            RuntimeError: If one died, or does not call it within `LONGEST_WAIT`.
        """
        if self.group is not None:
            dist.monitored_barrier(self.group, timeout=LONGEST_WAIT)


def local_rank() -> int:
    """Returns this process's number on its machine, which is also the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_first_rank() -> bool:
    """Tells whether this process is rank 0, or the only one, before it has joined the others."""
    return os.environ.get(_RANK, "0") == "0"


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """Joins the other processes, if ``torchrun`` started several or the caller has a default process group.

    Args:
        device (torch.device): The model's device: on a GPU the default group uses nccl, else gloo.

    Yields:
        Ranks: This process's place among them. A default process group created here is destroyed at the end.
    """
    created_here = not dist.is_initialized() and all(name in os.environ for name in _SET_BY_TORCHRUN)
    if created_here:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        if dist.is_initialized():
            # Ranks exchange only a few Python objects; gloo notices at once when a peer dies.
            group: Any = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
            yield Ranks(dist.get_rank(), dist.get_world_size(), group)
        else:
            yield Ranks()
    finally:
        if created_here:
            dist.destroy_process_group()
