"""Compiled code run eagerly, where hooks have to see its modules."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import torch


def compiled_code_run_eagerly() -> AbstractContextManager[object]:
    """Returns a context in which compiled code runs as it was written, since ``torch.compile`` leaves out hooks.

    Where the compiler was never loaded nothing is compiled, and it is not loaded for this: that takes a second, and
    ``torch.distributed.nn``, which comes with it, keeps the default process group that it finds. Its threads would
    outlive ``destroy_process_group`` and could abort the process at its exit.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
