"""Fixtures of the contract suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_global_generator() -> Iterator[None]:
    """Seeds PyTorch's global generator, which draws RISE's masks and Mask's jitter and is not advanced by any call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
