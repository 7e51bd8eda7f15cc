"""Wrappers of Captum's private helpers, which no other file imports."""

from __future__ import annotations

import inspect
import operator
import reprlib
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _run_forward,
    _select_targets,
    _validate_target,
)
from captum._utils.progress import progress
from captum._utils.typing import BaselineType, TargetType
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Generator, Tensor
from torch.nn import Parameter
from torch.utils._pytree import tree_structure

from captum_scorecam._kept_buffers import same_values
from captum_scorecam._messages import check_dense, type_of
from captum_scorecam._nested import leaves, mapped, opened

__all__ = [
    "MODULES_OF_DEEP_LIFT",
    "BaselineType",
    "ForwardFunction",
    "TargetType",
    "Tensors",
    "are_written",
    "as_tensors",
    "copies_of_arguments",
    "format_forward_args",
    "format_inputs",
    "format_output",
    "format_target",
    "progress",
    "run_forward",
    "select_target",
    "validate_target",
]

ForwardFunction: TypeAlias = Callable[..., Any]
Tensors: TypeAlias = tuple[Tensor, ...]

MODULES_OF_DEEP_LIFT = tuple(SUPPORTED_NON_LINEAR)


def format_inputs(inputs: Tensor | Tensors) -> Tensors:
    """Returns the inputs as a tuple of tensors.

    Raises:
        TypeError: If `inputs` is neither a tensor nor a tuple of tensors, or a tensor is not dense.
        ValueError: If the first tensor has no dimension.
    """
    tensors = as_tensors("inputs", inputs)
    if tensors[0].dim() == 0:
        raise ValueError("Expected `inputs` to have one row per example, but got a tensor of shape ().")
    return tensors


def as_tensors(name: str, value: object) -> Tensors:
    """Returns a tensor, or a tuple of tensors, as a tuple.

    Raises:
        TypeError: If `value` is neither, or an empty tuple, or a tensor is not dense.
    """
    values = value if isinstance(value, tuple) else (value,)
    others = [part for part in values if not isinstance(part, Tensor)]
    if others or not values:
        of_tuple = f"a tuple with {type_of(others[0])}" if others else "an empty tuple"
        got = of_tuple if isinstance(value, tuple) else type_of(value)
        raise TypeError(f"Expected `{name}` to be a tensor or a tuple of tensors, but got {got}.")
    for part in values:
        check_dense(name, part)
    return values


def format_forward_args(additional_forward_args: object | None) -> tuple[Any, ...]:
    """Returns the additional forward arguments as a tuple, which is empty if there are none."""
    return _format_additional_forward_args(additional_forward_args) or ()


def format_output(outputs: Tensors) -> Tensor | Tensors:
    """Unpacks a tuple of one tensor; returns a longer tuple unchanged."""
    return outputs if len(outputs) > 1 else outputs[0]


def run_forward(
    forward_func: ForwardFunction, inputs: Tensors, additional_forward_args: tuple[Any, ...], copy: bool = True
) -> Any:
    """Calls `forward_func` with the inputs followed by the additional arguments.

    Args:
        forward_func (callable): The model, or any function of its inputs.
        inputs (tuple of Tensor): The inputs, which it may modify in place.
        additional_forward_args (tuple): Arguments after the inputs.
        copy (bool): Whether it gets copies of these, as `copies_of_arguments` makes them. Default: True.

    Raises:
        TypeError: If it takes its arguments by keyword only.
    """
    arguments = copies_of_arguments(additional_forward_args) if copy else additional_forward_args
    try:
        return _call(forward_func, inputs, arguments)
    except TypeError as error:
        _check_positional(forward_func, error)
        raise


def _call(forward_func: ForwardFunction, inputs: Tensors, arguments: tuple[Any, ...]) -> Any:
    try:
        inspect.signature(forward_func)
    except ValueError:  # Captum asks for it, but TorchScript and functions written in C have none
        return forward_func(*inputs, *arguments)
    return _run_forward(forward_func, inputs, None, arguments)


def copies_of_arguments(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Returns arguments with copies of the tensors, arrays and generators in them, in new lists and dictionaries."""
    return tuple(mapped(_copy, argument) for argument in arguments)


def are_written(copies: tuple[Any, ...], arguments: tuple[Any, ...]) -> bool:
    """Checks whether copies that `copies_of_arguments` made were written to, or differ from the arguments.

    True if that is unknown. A write that changes nothing in one pass may change something in the next one.
    """
    found = leaves(copies)
    if any(x.is_inference() or x._version > 0 for x in found if isinstance(x, Tensor)):
        return True
    try:
        same_leaves = all(_is_same(copied, x) for copied, x in zip(found, leaves(arguments), strict=True))
        return not same_leaves or tree_structure(opened(copies)) != tree_structure(opened(arguments))
    except (RuntimeError, NotImplementedError, ValueError):  # of a layout or dtype, or other leaves after a change
        return True


def _is_same(copied: Any, value: Any) -> bool:
    if isinstance(copied, Tensor) and isinstance(value, Tensor):
        return same_values(copied, value)
    if isinstance(copied, np.ndarray) and isinstance(value, np.ndarray):
        return np.array_equal(copied, value, equal_nan=value.dtype.kind in "fc")
    if isinstance(copied, Generator) and isinstance(value, Generator):
        return torch.equal(copied.get_state(), value.get_state())
    return copied is value


def _copy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Generator):
        return value.clone_state()
    if not isinstance(value, Tensor):
        return value
    copied = value.detach().clone()
    return Parameter(copied, value.requires_grad) if isinstance(value, Parameter) else copied


def _check_positional(forward_func: Any, error: TypeError) -> None:
    try:
        parameters = inspect.signature(getattr(forward_func, "forward", forward_func)).parameters.values()
    except ValueError:  # TorchScript and functions written in C have none
        return
    if parameters and all(
        parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD) for parameter in parameters
    ):
        names = ", ".join(f"`{parameter.name}`" for parameter in parameters)
        raise TypeError(
            f"Expected `forward_func` to take its inputs by position, but {type(forward_func).__name__} takes {names} "
            "by keyword only. Wrap it in a module whose `forward` passes them on."
        ) from error


def select_target(scores: Tensor, target: TargetType) -> Tensor:
    """Selects the target's score from each row of `scores`, as Captum does."""
    selected: Tensor = _select_targets(scores, target)
    return selected


def validate_target(n_examples: int, target: TargetType) -> None:
    """Raises Captum's error if a list or tensor of targets does not match the batch size."""
    _validate_target(n_examples, target)


def format_target(target: Any) -> TargetType:
    """Returns a target with its class indices as int or int64, whatever their integer type.

    Raises:
        TypeError: If a target is bool, a tensor of anything but integers, or of a type that Captum refuses.
        ValueError: If a tensor is empty, targets of a list differ in form, or an index does not fit into 64 bits.
    """
    if isinstance(target, Tensor):
        check_dense("target", target)
        if target.numel() == 0:
            shape = tuple(target.shape)
            raise ValueError(f"Expected `target` to hold class indices, but got a tensor of shape {shape}.")
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"Expected `target` to hold class indices as integers, but got a tensor of {target.dtype}.")
        return target.long()
    if isinstance(target, list) and len({len(each) if isinstance(each, tuple) else None for each in target}) > 1:
        raise ValueError(f"Expected `target` to hold class indices of the same form, but got {reprlib.repr(target)}.")
    formatted: TargetType = [_index(each) for each in target] if isinstance(target, list) else _index(target)
    for each in formatted if isinstance(formatted, list) else [formatted]:
        if not isinstance(each, (int, tuple)) and target is not None:
            raise TypeError(
                "Expected `target` to be a class index, a tuple of indices, or a list or tensor of one per example, "
                f"but got {f'a list with {type_of(each)}' if isinstance(target, list) else type_of(each)}."
            )
    return formatted


def _index(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_index, value))
    if isinstance(value, bool):
        raise TypeError(f"Expected `target` to hold class indices as integers, but got {value}.")
    if not hasattr(value, "__index__") or getattr(value, "ndim", 0) > 0:
        return value
    index = operator.index(value)
    if not -(2**63) <= index < 2**63:
        raise ValueError(f"Expected `target` to hold class indices of 64 bits, but got {reprlib.repr(index)}.")
    return index
