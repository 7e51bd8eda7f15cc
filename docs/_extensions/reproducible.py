"""What sphinx-gallery does before each tutorial: every one starts from the same seeds."""

# ruff: noqa: ARG001 (sphinx-gallery passes what is not needed)

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def reset(gallery_conf: dict[str, Any], fname: str) -> None:
    """Seeds the generators that a tutorial may draw from."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
