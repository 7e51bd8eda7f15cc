"""Masked forward passes without a method, shared by the scoring tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.masked_forward import MaskedForward


def forward_of(
    model: Callable[..., Any], inputs: Tensor | tuple[Tensor, ...], target: Any = 0, **options: Any
) -> MaskedForward:
    options = {"additional_forward_args": None, "baselines": None, "score": "output"} | options
    return MaskedForward.from_call(model, inputs, [target], **options)


def random_masks(n_examples: int, n_channels: int, size: tuple[int, ...]) -> ChannelMasks:
    generator = torch.Generator().manual_seed(0)
    return ChannelMasks.from_activations(torch.rand(n_examples, n_channels, *size, generator=generator), (size,))
