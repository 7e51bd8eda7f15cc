"""What every check of the contract starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_global_generator() -> Iterator[None]:
    """RISE's masks and Mask's jitter come from PyTorch's global generator, which no call moves on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
