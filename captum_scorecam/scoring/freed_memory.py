"""Keeps memory freed by forward passes on the CPU for the next ones."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from captum_scorecam._threads import SharedContext

# Parameters of mallopt(3), and the maxima of glibc's dynamic thresholds on 64-bit machines.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}


def freed_memory_kept() -> AbstractContextManager[None]:
    """Returns a context in which the C library keeps freed memory for reuse by later tensors.

    By default, glibc returns large blocks to the system as soon as they are freed, so in each forward pass on the CPU
    the memory of every layer's output is mapped and zeroed again, page by page, which can take longer than the layer
    itself. In the body, the whole process keeps what it frees, and may hold more memory than it uses, above all if
    images differ in size. After the body, glibc returns freed memory and trims the heap at its largest thresholds.

    Does nothing with another C library, or if the environment already tunes glibc's allocator (``MALLOC_MMAP_MAX_``
    etc., or ``glibc.malloc`` in ``GLIBC_TUNABLES``).

    Source: `mallopt(3) <https://man7.org/linux/man-pages/man3/mallopt.3.html>`_.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import ScoreCAM, freed_memory_kept
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> with freed_memory_kept():
        ...     maps = ScoreCAM(model, model[1]).attribute(torch.rand(2, 3, 32, 32), target=3)
    """
    return nullcontext() if not _is_glibc() or _is_tuned_by_the_environment() else _KEPT


@cache
def reuse_large_blocks() -> None:
    """Makes and frees a block of almost 32 MiB, once per process, so that glibc reuses freed blocks up to this size.

    It gives larger blocks back to the system than any that was freed before, so without this, small chunks would have
    the memory of their largest layers mapped and zeroed again in each forward pass. No setting is changed: any tensor
    of this size that the process frees has the same effect. With another C library, it has none.
    """
    torch.empty(USUAL[MMAP_THRESHOLD] - 2**13, dtype=torch.uint8, device="cpu")


@contextmanager
def _kept() -> Iterator[None]:
    _set(KEEPING)
    try:
        yield
    finally:
        _set(USUAL)
        ctypes.CDLL(None).malloc_trim(0)


_KEPT = SharedContext(_kept)


def _set(parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        ctypes.CDLL(None).mallopt(parameter, value)


@cache
def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def _is_tuned_by_the_environment() -> bool:
    names = {f"MALLOC_{name}_" for name in ("TRIM_THRESHOLD", "TOP_PAD", "MMAP_THRESHOLD", "MMAP_MAX")}
    return not names.isdisjoint(os.environ) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
