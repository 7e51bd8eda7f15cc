"""Another default dtype of PyTorch's, on which no result may depend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

other_default_dtypes = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
