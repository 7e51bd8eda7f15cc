"""The patches that Captum's methods ablate, and how many samples of them Lime and KernelShap draw."""

from __future__ import annotations

import torch
from captum.attr import Attribution, Lime
from torch import Tensor

PATCHES = 14  # in each direction, of inputs whose parts are ablated
FITTED_PATCHES = 4  # in each direction, of Lime and KernelShap, which fit a linear model of all patches at once
SAMPLES_PER_PATCH = 60  # for the fit


def default_patches(attribution: Attribution) -> int:
    """The number of patches in each direction, unless the user gives one."""
    return FITTED_PATCHES if isinstance(attribution, Lime) else PATCHES


def numbered_patches(inputs: Tensor, patches: int) -> Tensor:
    """A mask that numbers square patches, 1×1×H×W."""
    mask = torch.zeros(1, 1, *[1] * (inputs.dim() - 2), dtype=torch.long, device=inputs.device)
    for axis, size in enumerate(inputs.shape[2:], start=2):
        n_patches = min(patches, size)
        numbers = torch.arange(size, device=inputs.device) * n_patches // size
        mask = mask * n_patches + numbers.view([-1 if each == axis else 1 for each in range(inputs.dim())])
    return mask
