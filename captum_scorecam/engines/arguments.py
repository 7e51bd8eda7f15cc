"""The arguments that a model was exported for, and those of its calls."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam._messages import type_of


@dataclass(frozen=True)
class Arguments:
    """The inputs of a model, followed by its additional arguments.

    Tensors with as many rows as the first input follow its rows. Other values are part of the exported model.

    Attributes:
        values (tuple): All arguments; those that follow the rows have two.
        with_rows (tuple of bool): Which of them follow the rows.
    """

    values: tuple[Any, ...]
    with_rows: tuple[bool, ...]

    @classmethod
    def from_call(cls, inputs: Tensor | Tensors, additional_forward_args: object | None) -> Arguments:
        """Checks and normalises the arguments of a Captum call.

        Raises:
            TypeError: If an input is not a dense tensor, or an additional argument of another type.
            ValueError: If inputs have different numbers of examples, or none, or tensors are on several devices.
        """
        tensors = _captum.format_inputs(inputs)
        n_rows = len(tensors[0])
        if n_rows == 0 or any(x.dim() == 0 or len(x) != n_rows for x in tensors):
            shapes = [tuple(x.shape) for x in tensors]
            raise ValueError(f"Expected `inputs` with the same non-zero number of examples, but got shapes {shapes}.")
        values = (*tensors, *_captum.format_forward_args(additional_forward_args))
        for value in values:
            if not isinstance(value, (Tensor, bool, int, float, str, type(None))):
                raise TypeError(
                    "Expected `additional_forward_args` to be tensors, numbers, strings or None, which an exported "
                    f"model takes, but got {type_of(value)}. Run the model eagerly instead, without "
                    "`masked_forward_func`."
                )
        with_rows = tuple(isinstance(value, Tensor) and value.dim() > 0 and len(value) == n_rows for value in values)
        # An exporter takes a batch of one for a fixed size.
        repeated = tuple(
            value[:1].detach().repeat_interleave(2, 0) if follows else value
            for value, follows in zip(values, with_rows, strict=True)
        )
        devices = {str(value.device) for value in values if isinstance(value, Tensor)}
        if len(devices) > 1:
            raise ValueError(f"Expected `inputs` and additional arguments on one device, but got {sorted(devices)}.")
        return cls(repeated, with_rows)

    @property
    def tensors(self) -> list[Tensor]:
        """The arguments that are tensors."""
        return [value for value in self.values if isinstance(value, Tensor)]

    @property
    def device(self) -> torch.device:
        """The device of all tensors."""
        return self.tensors[0].device

    @property
    def rows_of_tensors(self) -> list[bool]:
        """Which of the tensors follow the rows."""
        return [follows for value, follows in zip(self.values, self.with_rows, strict=True) if _is_tensor(value)]

    def completed(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        """Returns all arguments, with other tensors in place of these."""
        rest = iter(tensors)
        return tuple(next(rest) if _is_tensor(value) else value for value in self.values)

    def tensors_of(self, given: tuple[Any, ...]) -> list[Tensor]:
        """Returns the tensors of a call, contiguous.

        Raises:
            ValueError: If the arguments differ from these in number, dtype, device, shape other than rows, or value.
        """
        if len(given) != len(self.values):
            raise ValueError(f"Expected `inputs` as exported, {len(self.values)} arguments, but got {len(given)}.")
        for position, (value, own, follows) in enumerate(zip(given, self.values, self.with_rows, strict=True)):
            if not _is_tensor(own):
                if _is_tensor(value) or value != own:
                    raise ValueError(
                        f"Expected `inputs` as exported, with {reprlib.repr(own)} as argument {position}, but got "
                        f"{reprlib.repr(value)}."
                    )
                continue
            expected, got = _kind(own, follows), _kind(value, follows)
            if got != expected:
                raise ValueError(
                    f"Expected `inputs` as exported, with a tensor of {expected} as argument {position}, but got {got}."
                )
        tensors = [value.detach().contiguous() for value in given if _is_tensor(value)]
        rows = {len(x) for x, follows in zip(tensors, self.rows_of_tensors, strict=True) if follows}
        if len(rows) > 1:
            raise ValueError(f"Expected `inputs` and arguments with the same number of rows, but got {sorted(rows)}.")
        return tensors


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _kind(value: Any, follows_rows: bool) -> str:
    """Describes a tensor by what an exported model fixes."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    shape = ["N", *map(str, value.shape[1:])] if follows_rows and value.dim() > 0 else map(str, value.shape)
    return f"{value.dtype} of shape ({', '.join(shape)}) on {value.device}"
