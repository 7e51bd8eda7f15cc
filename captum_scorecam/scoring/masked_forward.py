"""A forward pass of masked inputs: f^c(B + H ∘ (X − B))."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam.masking.baselines import baseline_tensors, blend
from captum_scorecam.model_state import compiled_code_run_eagerly
from captum_scorecam.scoring.class_scores import ClassScores, Score, score_function

LEAST_TOLERANCE = 1e-4
MANY_ROWS = 16  # masked inputs per example, from which on another forward pass of the unmasked ones pays


@dataclass
class MaskedForward:
    """Computes the class scores of masked inputs, f^c(B + H ∘ (X − B)).

    Attributes:
        forward_func (callable): The model, or any function of the inputs.
        inputs (tuple of Tensor): X, each N×C×spatial.
        baselines (tuple of Tensor): B, one tensor per input, broadcastable to it.
        additional_forward_args (tuple): Arguments after the inputs. Tensors with N rows are indexed by example.
        class_scores (ClassScores): Computes f^c from the output of `forward_func`.
        channels_last (bool): Whether to pass 4-D inputs to the model in channels-last memory format. Default: False.
    """

    forward_func: ForwardFunction
    inputs: Tensors
    baselines: Tensors
    additional_forward_args: tuple[Any, ...]
    class_scores: ClassScores
    channels_last: bool = False

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
                them, or an option is unknown.
            AssertionError: Captum's errors for targets.
        """
        inputs = _checked_inputs(inputs)
        class_scores = ClassScores(score_function(score), _as_list(targets), len(inputs[0]), inputs[0].device)
        return cls(
            forward_func,
            inputs,
            baseline_tensors(baselines, inputs),
            _captum.format_forward_args(additional_forward_args),
            class_scores,
        )

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
        masked = tuple(
            blend(self._rows(x, examples), mask, self._rows(baseline, examples))
            for x, mask, baseline in zip(self.inputs, masks, self.baselines, strict=True)
        )
        arguments = tuple(self._rows(argument, examples) for argument in self.additional_forward_args)
        return self.class_scores.select_rows(self._forward(masked, arguments), examples)

    def unmasked_output(self) -> Any:
        """Runs one forward pass of the unmasked inputs; validates targets and output before any masked one.

        Raises:
            ValueError: If the output does not have one row per example, or a score is not finite.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        output = self._forward(tuple(x.clone() for x in self.inputs), self.additional_forward_args)
        self.class_scores.select_examples(output)
        return output

    def agrees_in_another_batch(self, output: Any, with_baselines: bool = False) -> bool:
        """Runs the unmasked inputs again, in a batch of two or more, and compares their scores of all classes.

        Args:
            output: The output of `forward_func` for the unmasked inputs.
            with_baselines (bool): Whether to put each input's baseline beside it. Default: False.

        Returns:
            bool: Whether the scores agree up to the order of summation. False if the model refuses the batch.
        """
        n_examples = len(self.inputs[0])
        expected = self.class_scores.all_of_rows(output, n_examples)
        examples = torch.arange(max(2, n_examples), device=self.device) % n_examples
        rows = torch.cat([examples, examples]) if with_baselines else examples
        kept = torch.arange(len(rows), device=self.device) < len(examples)
        inputs = tuple(
            torch.where(kept.view(-1, *[1] * (x.dim() - 1)), self._rows(x, rows), self._rows(b.expand_as(x), rows))
            for x, b in zip(self.inputs, self.baselines, strict=True)
        )
        try:
            with compiled_code_run_eagerly():  # this number of rows would be compiled for nothing else
                again = self._forward(inputs, tuple(self._rows(value, rows) for value in self.additional_forward_args))
            scores = self.class_scores.all_of_rows(again, len(rows))[: len(examples)]
        except Exception:  # a model may refuse a batch or a memory format with any error
            return False
        if scores.shape[1:] != expected.shape[1:]:
            return False
        difference = (scores - expected[examples]).abs().amax()
        return bool(difference <= _tolerance(self.inputs[0], expected) * expected.abs().amax())

    def is_reproducible(self, output: Any, rows_per_example: int) -> bool | None:
        """Checks that the unmasked inputs get the same scores again, beside their baselines.

        Returns:
            bool or None: None if there are too few masked inputs per example to be worth another forward pass.
        """
        if rows_per_example < MANY_ROWS:
            return None
        return self.agrees_in_another_batch(output, with_baselines=True)

    def _rows(self, value: Any, examples: Tensor) -> Any:
        return rows_of(value, examples, len(self.inputs[0]))

    def _forward(self, masked: Tensors, arguments: tuple[Any, ...]) -> Any:
        inputs = tuple(map(_to_channels_last, masked)) if self.channels_last else masked
        return _captum.run_forward(self.forward_func, inputs, arguments)


def rows_of(value: Any, examples: Tensor, n_examples: int) -> Any:
    """Returns the rows of the examples if a value is a tensor with one row per example; returns other values unchanged.

    Args:
        value: An argument of `forward_func`.
        examples (Tensor): Shape R, the example of each row.
        n_examples (int): The number of examples.
    """
    if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != n_examples:
        return value
    return value.expand(len(examples), *value.shape[1:]) if n_examples == 1 else value[examples]


def _checked_inputs(inputs: Tensor | Tensors) -> Tensors:
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
    # Blending runs along rows of pixels; other memory formats make it four times slower.
    return tuple(x.detach().contiguous() for x in tensors)


def _as_list(targets: Sequence[TargetType] | Tensor) -> list[TargetType]:
    if not isinstance(targets, (Sequence, Tensor)) or isinstance(targets, (str, bytes, bytearray)):
        raise TypeError(f"Expected `targets` to be a sequence of targets or a tensor, but got {reprlib.repr(targets)}.")
    if isinstance(targets, Tensor) and targets.dim() not in (1, 2):
        raise ValueError(f"Expected `targets` of shape T or N×T, but got {tuple(targets.shape)}.")
    per_target = targets.unbind(1) if isinstance(targets, Tensor) and targets.dim() == 2 else targets
    if len(per_target) == 0:
        raise ValueError("Expected at least one target, but got none.")
    return list(per_target)


def _tolerance(inputs: Tensor, scores: Tensor) -> float:
    """Returns the relative difference of scores that the order of summation may cause."""
    dtypes = {inputs.dtype, scores.dtype} & {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    if torch.is_autocast_enabled(inputs.device.type):
        dtypes.add(torch.get_autocast_dtype(inputs.device.type))
    return max(LEAST_TOLERANCE, 4 * max(torch.finfo(dtype).eps for dtype in dtypes))


def _to_channels_last(inputs: Tensor) -> Tensor:
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.dim() == 4 else inputs
