"""Compiled code run eagerly, where hooks have to see its modules."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist


def compiled_code_run_eagerly() -> AbstractContextManager[object]:
    """Returns a context in which compiled code runs as it was written, since ``torch.compile`` leaves out hooks.

    It loads the compiler, and ``torch.distributed.nn``, which comes with it, keeps the default process group that it
    finds: that group's threads would outlive ``destroy_process_group`` and could abort the process at its exit. So
    where there is such a group and the compiler was not loaded, when nothing is compiled yet, the context is empty.
    """
    has_group = dist.is_available() and dist.is_initialized()
    stays_unloaded = has_group and "torch._dynamo" not in sys.modules
    return nullcontext() if stays_unloaded else torch.compiler.set_stance("force_eager")
