"""The memory format of masked inputs: channels-last where it is faster and the model has shown that it takes it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_scorecam.scoring.chunk_size import kind_of_inputs
from captum_scorecam.scoring.masked_forward import MANY_ROWS, MaskedForward


class MemoryFormats:
    """Whether a model computes the same scores from channels-last inputs, remembered by the kind of inputs.

    Models that read their input's memory directly, with ``as_strided`` or in a compiled extension, may fail or compute
    something else.
    """

    def __init__(self) -> None:
        self._agrees: dict[Hashable, bool] = {}

    def fastest(self, forward: MaskedForward, output: Any, n_rows: int) -> MaskedForward:
        """Returns the forward pass in the faster format that the model takes.

        Args:
            forward (MaskedForward): A forward pass in the default format.
            output: The output of `forward_func` for the unmasked inputs in the default format.
            n_rows (int): The number of masked inputs to run.
        """
        if not _channels_last_pays(forward.inputs[0]):
            return forward
        kind = kind_of_inputs(forward.inputs)
        channels_last = replace(forward, channels_last=True)
        if kind not in self._agrees:
            if n_rows < MANY_ROWS * len(forward.inputs[0]):
                return forward
            self._agrees[kind] = channels_last.agrees_in_another_batch(output)
        return channels_last if self._agrees[kind] else forward


def _channels_last_pays(inputs: Tensor) -> bool:
    if inputs.dim() != 4:
        return False
    # On GPUs, channels-last pays off only on tensor cores, that is, in half precision.
    half = inputs.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(inputs.device.type)
    return inputs.device.type == "cpu" or half
