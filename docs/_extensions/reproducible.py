"""Resets by sphinx-gallery before each tutorial: the same random seeds and the package's colours."""

# ruff: noqa: ARG001 (sphinx-gallery passes what is not needed)

from __future__ import annotations

import random
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler

from captum_scorecam._palette import CURVE_COLORS


def reset(gallery_conf: dict[str, Any], fname: str) -> None:
    """Seeds the global random generators and sets the colours of curves."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    matplotlib.rcParams["axes.prop_cycle"] = cycler(color=CURVE_COLORS)
