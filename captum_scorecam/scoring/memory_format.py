"""The memory format of masked inputs: the user's, or a faster one from which the model computes the same."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import torch
from torch import Tensor

from captum_scorecam._captum import ForwardFunction
from captum_scorecam.model_state import compiled_code_run_eagerly
from captum_scorecam.scoring.chunk_size import kind_of_inputs
from captum_scorecam.scoring.float32_precision import convolution_epsilon
from captum_scorecam.scoring.masked_forward import MANY_ROWS, MaskedForward
from captum_scorecam.scoring.memory_order import MemoryOrder, channels_last_order
from captum_scorecam.scoring.repeated_forward import (
    agree,
    class_scales,
    flat_rows,
    noise,
    raw_rows,
    rounding_tolerance,
)


class MemoryFormats:
    """Whether a model computes the same from inputs in the faster format, remembered by the kind of inputs.

    Models that read their input's memory directly, with ``as_strided`` or in a compiled extension, may fail or compute
    something else.
    """

    def __init__(self) -> None:
        self._agrees: dict[Hashable, tuple[ForwardFunction, bool]] = {}

    def fastest(self, forward: MaskedForward, n_rows: int, perturbations_per_eval: int | None) -> MaskedForward:
        """Returns the forward pass in the faster format that the model takes.

        Args:
            forward (MaskedForward): A forward pass in the format of the user's inputs.
            n_rows (int): The number of masked inputs to run.
            perturbations_per_eval (int, optional): With 1, every forward pass has as many rows as the inputs.
        """
        orders = _fastest_orders(forward)
        if forward.keeps_format or orders == forward.memory_orders:
            return forward
        other = replace(forward, memory_orders=orders)
        kind = (forward.memory_orders, *kind_of_inputs(forward.inputs))
        if kind not in self._agrees or self._agrees[kind][0] is not forward.forward_func:
            if n_rows < MANY_ROWS * len(forward.inputs[0]):
                return forward
            self._agrees[kind] = forward.forward_func, _agree(forward, other, fixed_rows=perturbations_per_eval == 1)
        return other if self._agrees[kind][1] else forward


def _fastest_orders(forward: MaskedForward) -> tuple[MemoryOrder, ...]:
    """Returns the inputs' memory orders, with images in channels-last where that pays, else contiguous."""
    first = forward.inputs[0]
    if first.dim() != 4:
        return forward.memory_orders
    # On GPUs, channels-last pays off only on tensor cores: in half precision and in TF32.
    half = first.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled(first.device.type)
    on_tensor_cores = half or convolution_epsilon(first.device) > torch.finfo(torch.float32).eps
    fastest = channels_last_order(4) if first.device.type == "cpu" or on_tensor_cores else tuple(range(4))
    return tuple(fastest if len(order) == 4 else order for order in forward.memory_orders)


def _agree(forward: MaskedForward, other: MaskedForward, fixed_rows: bool) -> bool:
    """Checks that two forward passes that differ in memory format give the same outputs for the same noise.

    False if the model refuses the rows, or if its outputs for different noise are the same, which proves nothing.
    """
    n_examples = len(forward.inputs[0])
    n_rows = max(2, n_examples) if fixed_rows else 2
    rows = torch.arange(n_rows, device=forward.device)
    chunks = torch.split(rows, n_examples) if fixed_rows else (rows,)
    try:
        inputs = noise(forward.inputs, n_rows)
        expected, actual = (
            torch.cat([_raw(each, tuple(x[c.to(x.device)] for x in inputs), c % n_examples) for c in chunks])
            for each in (forward, other)
        )
        tolerance = rounding_tolerance(inputs[0], expected)
        expected, actual = flat_rows(expected), flat_rows(actual)
        scales, spread = class_scales(expected)
        varies = bool((spread > tolerance * scales).any())
        return varies and agree(expected, actual, tolerance, scales)
    except Exception:  # a model may refuse a batch or a memory format with any error
        return False


def _raw(forward: MaskedForward, inputs: tuple[Tensor, ...], examples: Tensor) -> Tensor:
    with compiled_code_run_eagerly():  # this number of rows would be compiled for nothing else
        return raw_rows(forward.run(inputs, examples), len(examples), forward.class_scores.all_of_rows)
