"""Distributes the work of one call over the ranks of a torch.distributed process group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import check_optional


def check_process_group(process_group: object) -> None:
    """Raises TypeError if `process_group` is neither a process group nor None."""
    check_optional("process_group", process_group, dist.ProcessGroup, "a torch.distributed.ProcessGroup")


def from_first_rank(tensors: Tensors, group: dist.ProcessGroup) -> Tensors:
    """Broadcasts the first rank's tensors, so that all ranks use identical values."""
    shared = tuple(tensor.contiguous() for tensor in tensors)
    for tensor in shared:
        dist.broadcast(tensor, dist.get_global_rank(group, 0), group)
    return shared


def rows_of_rank(n_rows: int, group: dist.ProcessGroup, device: torch.device) -> Tensor:
    """Returns the indices of this rank's rows: every W-th row, where W is the number of ranks."""
    return torch.arange(dist.get_rank(group), n_rows, dist.get_world_size(group), device=device)


def gather_rows(compute: Callable[[], Tensor], n_rows: int, group: dist.ProcessGroup, like: Tensor) -> Tensor:
    """Computes the scores of this rank's rows and gathers those of all ranks.

    Args:
        compute (callable): Returns the scores of :func:`rows_of_rank`, R×T.
        n_rows (int): P, the total number of rows.
        group (ProcessGroup): The ranks that share the rows.
        like (Tensor): A tensor with the device, dtype and number of columns of the scores, and any number of rows.

    Returns:
        Tensor: P×T, on every rank.

    Raises:
        RuntimeError: If another rank failed. The failing rank raises its original error; no rank hangs.
    """
    with failing_together(group, like.device):
        scores = compute()
    n_ranks = dist.get_world_size(group)
    padded = like.new_zeros(-(-n_rows // n_ranks), like.shape[1])
    padded[: len(scores)] = scores
    parts = [torch.empty_like(padded) for _ in range(n_ranks)]
    dist.all_gather(parts, padded, group=group)
    return torch.stack(parts, 1).flatten(0, 1)[:n_rows]


@contextmanager
def failing_together(group: dist.ProcessGroup | None, device: torch.device) -> Iterator[None]:
    """Raises RuntimeError after its body if that of another rank failed. Does nothing without a group."""
    if group is None:
        yield
        return
    try:
        yield
    except Exception:
        _n_failed(True, group, device)
        raise
    n_failed = _n_failed(False, group, device)
    if n_failed:
        raise RuntimeError(
            f"Expected all {dist.get_world_size(group)} ranks to run their forward passes, but {n_failed} failed."
        )


def _n_failed(failed: bool, group: dist.ProcessGroup, device: torch.device) -> int:
    """Returns the number of failed ranks; every rank reports its status."""
    n_failed = torch.tensor(int(failed), device=device)
    dist.all_reduce(n_failed, group=group)
    return int(n_failed)
