"""A forward pass of masked inputs: f^c(B + H ∘ (X − B))."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import check_finite
from captum_scorecam._nested import leaves, mapped, opened
from captum_scorecam.masking.baselines import baseline_tensors, blend
from captum_scorecam.scoring.class_scores import ClassScores, Score, score_function
from captum_scorecam.scoring.freed_memory import reuse_large_blocks
from captum_scorecam.scoring.memory_order import MemoryOrder, channels_last_order, in_memory_order, memory_order
from captum_scorecam.scoring.repeated_forward import is_reproducible

MANY_ROWS = 16  # masked inputs per example, from which on another forward pass of the unmasked ones pays


@dataclass
class MaskedForward:
    """Computes the class scores of masked inputs, f^c(B + H ∘ (X − B)).

    Attributes:
        forward_func (callable): The model, or any function of the inputs.
        inputs (tuple of Tensor): X, each N×C×spatial.
        baselines (tuple of Tensor): B, one tensor per input, broadcastable to it.
        additional_forward_args (tuple): Arguments after the inputs, indexed by example as in `rows_of`.
        class_scores (ClassScores): Computes f^c from the output of `forward_func`.
        memory_orders (tuple): For each input, the order of dimensions in memory in which masked ones are passed.
        keeps_format (bool): Whether no other order is tried for speed. Default: False.
        writes_arguments (bool): Whether `forward_func` may modify the additional arguments, so that each forward pass
            gets copies. Default: True, until one has shown that it does not.
    """

    forward_func: ForwardFunction
    inputs: Tensors
    baselines: Tensors
    additional_forward_args: tuple[Any, ...]
    class_scores: ClassScores
    memory_orders: tuple[MemoryOrder, ...]
    keeps_format: bool = False
    writes_arguments: bool = True

    @classmethod
    def from_call(
        cls,
        forward_func: ForwardFunction,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None,
        baselines: BaselineType,
        score: Score,
    ) -> MaskedForward:
        """Checks and normalises the arguments of a Captum call.

        Args:
            targets (sequence or Tensor): T targets, each in any form that Captum accepts, or a tensor N×T.

        Raises:
            TypeError: If an input is not a floating-point tensor, or baselines or targets have another type.
            ValueError: If inputs have no spatial dimension or different numbers of examples, baselines do not match
                them, an option is unknown, or additional arguments have one string for each of several examples.
            AssertionError: Captum's errors for targets.
        """
        inputs = checked_inputs(inputs)
        if inputs[0].device.type == "cpu":
            reuse_large_blocks()
        orders = tuple(map(memory_order, inputs))
        inputs = tuple(in_memory_order(x, order) for x, order in zip(inputs, orders, strict=True))
        class_scores = ClassScores(score_function(score), _as_list(targets), len(inputs[0]), inputs[0].device)
        arguments = _captum.format_forward_args(additional_forward_args)
        for argument in arguments:
            _check_not_of_examples(argument, len(inputs[0]))
        return cls(
            forward_func,
            inputs,
            baseline_tensors(baselines, inputs),
            arguments,
            class_scores,
            orders,
        )

    @property
    def channels_last(self) -> bool:
        """Whether masked inputs N×C×H×W are passed with the channels innermost in memory."""
        return {order for order in self.memory_orders if len(order) == 4} == {channels_last_order(4)}

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """The spatial size of each input."""
        return tuple(tuple(x.shape[2:]) for x in self.inputs)

    @property
    def device(self) -> torch.device:
        """The device of the inputs."""
        return self.inputs[0].device

    def __call__(self, masks: Tensors, examples: Tensor) -> Tensor:
        """Runs one forward pass.

        Args:
            masks (tuple of Tensor): One per input, R×1×spatial.
            examples (Tensor): Shape R, the example that each mask is applied to.

        Returns:
            Tensor: R×T, one column per target, in float32 (float64 for float64).
        """
        masked = tuple(  # in the model's order at once, so that no second copy lives through the forward pass
            in_memory_order(
                blend(self._contiguous_rows(x, examples), mask.to(x.device), self._rows(baseline, examples)), order
            )
            for x, mask, baseline, order in zip(self.inputs, masks, self.baselines, self.memory_orders, strict=True)
        )
        return self.class_scores.select_rows(self.run(masked, examples), examples)

    def unmasked_output(self) -> Any:
        """Runs one forward pass of the unmasked inputs; validates targets and output before any masked one.

        Raises:
            ValueError: If the output does not have one row per example, or a score is not finite.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        inputs = tuple(x.clone() for x in self.inputs)
        with self.copied_arguments() as arguments:
            output = _captum.run_forward(self.forward_func, inputs, arguments, copy=False)
        self.class_scores.select_examples(output)
        return output

    @contextmanager
    def copied_arguments(self) -> Iterator[tuple[Any, ...]]:
        """Yields copies of the additional arguments for one forward pass, and notes whether it has modified them."""
        copies = _captum.copies_of_arguments(self.additional_forward_args)
        yield copies
        self.writes_arguments = _captum.are_written(copies, self.additional_forward_args)

    def is_reproducible(
        self, output: Any, changed: bool, n_masks: int, perturbations_per_eval: int | None
    ) -> bool | None:
        """Checks that the unmasked inputs get the same outputs again, in a batch with others.

        For few masks and a model that changed no buffers, True without another forward pass.

        Args:
            output: The output of `forward_func` for the unmasked inputs.
            changed (bool): Whether that forward pass changed buffers of the model.
            n_masks (int): The number of masks per example.
            perturbations_per_eval (int, optional): With 1, every forward pass has as many rows as the inputs.

        Returns:
            bool or None: None if another forward pass does not tell.
        """
        if n_masks < MANY_ROWS and not changed:
            return True
        scores = self.class_scores.all_of_rows
        return is_reproducible(self.run, self.inputs, output, scores, fixed_rows=perturbations_per_eval == 1)

    def run(self, inputs: Tensors, examples: Tensor) -> Any:
        """Runs `forward_func` with one row of the inputs, and of the additional arguments, for each example."""
        arranged = tuple(in_memory_order(x, order) for x, order in zip(inputs, self.memory_orders, strict=True))
        arguments, n_examples = self.additional_forward_args, len(self.inputs[0])
        return forward_of_rows(self.forward_func, arguments, n_examples, arranged, examples, self.writes_arguments)

    def _rows(self, value: Any, examples: Tensor) -> Any:
        return rows_of(value, examples, len(self.inputs[0]))

    def _contiguous_rows(self, x: Tensor, examples: Tensor) -> Tensor:
        """Returns rows to blend, contiguous, since other memory formats make blending four times slower."""
        rows: Tensor = self._rows(x.contiguous(), examples) if len(x) == 1 else self._rows(x, examples).contiguous()
        return rows


def rows_of(value: Any, examples: Tensor, n_examples: int) -> Any:
    """Returns the rows of the examples if a value is a tensor or an array with one row per example.

    In lists, tuples and dictionaries, each one is replaced. Other values are returned unchanged.

    Args:
        value: An argument of `forward_func`.
        examples (Tensor): Shape R, the example of each row.
        n_examples (int): The number of examples.
    """
    if not has_rows(value, n_examples):
        return value
    if isinstance(value, Tensor):
        if n_examples == 1:
            return value.expand(len(examples), *value.shape[1:])
        return value[examples.to(value.device)]  # which need not be that of the inputs
    if isinstance(value, np.ndarray):
        return value[examples.cpu().numpy()]
    return mapped(lambda leaf: rows_of(leaf, examples, n_examples), value)


def has_rows(value: Any, n_examples: int) -> bool:
    """Checks whether a value is a tensor or an array with one row per example, or one is in it."""
    arrays = (leaf for leaf in leaves(value) if isinstance(leaf, Tensor | np.ndarray))
    return any(array.ndim > 0 and len(array) == n_examples for array in arrays)


def _check_not_of_examples(argument: Any, n_examples: int) -> None:
    """Refuses a list of as many strings or numbers as there are examples, which may belong to them, or all to each.

    Numbers in a tuple, such as a size, belong to each.
    """

    def may_be_rows(value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) != n_examples:
            return False
        return all(isinstance(x, str if isinstance(value, tuple) else str | int | float) for x in value)

    if n_examples > 1 and any(map(may_be_rows, tree_leaves(opened(argument), is_leaf=may_be_rows))):
        raise ValueError(
            f"Expected `additional_forward_args` without a list of {n_examples} strings or numbers for {n_examples} "
            "examples. If each belongs to one of them, pass numbers as a tensor, and with strings explain the examples "
            "one by one; if all belong to each, bind them to `forward_func` with functools.partial."
        )


def forward_of_rows(
    forward_func: ForwardFunction,
    arguments: tuple[Any, ...],
    n_examples: int,
    inputs: Tensors,
    examples: Tensor,
    copy: bool = True,
) -> Any:
    """Runs `forward_func` with rows of the inputs, and (copies of) the arguments' rows for the same examples."""
    rows = (rows_of(value, examples, n_examples) for value in arguments)
    if not copy and n_examples == 1:  # expanded rows have no memory of their own, so they can't be viewed as copies can
        pairs = zip(rows, arguments, strict=True)
        rows = (row if row is value else _captum.copies_of_arguments((row,))[0] for row, value in pairs)
    return _captum.run_forward(forward_func, inputs, tuple(rows), copy)


def checked_inputs(inputs: Tensor | Tensors) -> Tensors:
    """Returns the inputs to mask, detached.

    Raises:
        TypeError: If an input is not a dense floating-point tensor.
        ValueError: If an input is not N×C×spatial or not finite, or inputs have different numbers of examples.
    """
    tensors = _captum.format_inputs(inputs)
    for x in tensors:
        if not x.is_floating_point():
            raise TypeError(
                f"Expected floating-point inputs, but got {x.dtype}. "
                "Pass inputs that must not be masked in `additional_forward_args`."
            )
        if x.dim() not in (3, 4, 5):
            raise ValueError(
                f"Expected inputs of shape N×C×spatial (1 to 3 spatial dimensions), but got shape {tuple(x.shape)}."
            )
        if len(x) == 0 or len(x) != len(tensors[0]):
            raise ValueError(
                f"Expected inputs with the same non-zero number of examples, but got {[len(t) for t in tensors]}."
            )
    for x in tensors:
        check_finite("inputs", x)
    return tuple(x.detach() for x in tensors)


def _as_list(targets: Sequence[TargetType] | Tensor) -> list[TargetType]:
    if not isinstance(targets, (Sequence, Tensor)) or isinstance(targets, (str, bytes, bytearray)):
        raise TypeError(f"Expected `targets` to be a sequence of targets or a tensor, but got {reprlib.repr(targets)}.")
    if isinstance(targets, Tensor) and targets.dim() not in (1, 2):
        raise ValueError(f"Expected `targets` of shape T or N×T, but got {tuple(targets.shape)}.")
    per_target = targets.unbind(1) if isinstance(targets, Tensor) and targets.dim() == 2 else targets
    if len(per_target) == 0:
        raise ValueError("Expected at least one target, but got none.")
    return list(per_target)
