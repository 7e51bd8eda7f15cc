"""Wrappers of Captum's private helpers, which no other file imports."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _format_baseline,
    _format_tensor_into_tuples,
    _run_forward,
    _select_targets,
    _validate_input,
    _validate_target,
)
from captum._utils.gradient import _forward_layer_eval, compute_layer_gradients_and_eval
from captum._utils.progress import progress
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor
from torch.nn import Module

from captum_scorecam._messages import warn_caller
from captum_scorecam.model_state import compiled_code_run_eagerly

__all__ = [
    "BaselineType",
    "Baselines",
    "ForwardFunction",
    "TargetType",
    "Tensors",
    "evaluate_layer",
    "format_baselines",
    "format_forward_args",
    "format_inputs",
    "format_output",
    "layer_gradients",
    "progress",
    "run_forward",
    "select_target",
    "validate_target",
]

ForwardFunction: TypeAlias = Callable[..., Any]
Tensors: TypeAlias = tuple[Tensor, ...]
Baselines: TypeAlias = tuple[Tensor | int | float, ...]


def format_inputs(inputs: Tensor | Tensors) -> Tensors:
    """Returns the inputs as a tuple of tensors."""
    formatted: Tensors = _format_tensor_into_tuples(inputs)
    return formatted


def format_baselines(baselines: BaselineType, inputs: Tensors) -> Baselines:
    """Returns one baseline per input (0 if none is given), validated by Captum."""
    formatted: Baselines = _format_baseline(baselines, inputs)
    _validate_input(inputs, formatted)
    return formatted


def format_forward_args(additional_forward_args: object | None) -> tuple[Any, ...]:
    """Returns the additional forward arguments as a tuple, which is empty if there are none."""
    return _format_additional_forward_args(additional_forward_args) or ()


def format_output(outputs: Tensors) -> Tensor | Tensors:
    """Unpacks a tuple of one tensor; returns a longer tuple unchanged."""
    return outputs if len(outputs) > 1 else outputs[0]


def run_forward(forward_func: ForwardFunction, inputs: Tensors, additional_forward_args: tuple[Any, ...]) -> Any:
    """Calls `forward_func` with the inputs followed by the additional arguments."""
    return _run_forward(forward_func, inputs, None, additional_forward_args)


def select_target(scores: Tensor, target: TargetType) -> Tensor:
    """Selects the target's score from each row of `scores`, as Captum does."""
    selected: Tensor = _select_targets(scores, target)
    return selected


def validate_target(n_examples: int, target: TargetType) -> None:
    """Raises Captum's error if a list or tensor of targets does not match the batch size."""
    _validate_target(n_examples, target)


def evaluate_layer(
    forward_func: ForwardFunction,
    layer: Module,
    inputs: Tensors,
    additional_forward_args: tuple[Any, ...],
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
) -> tuple[Tensors, Any]:
    """Runs one forward pass and returns the layer's output (or input) and the output of `forward_func`.

    If the layer runs more than once, its last call is used and a warning is issued. A compiled `forward_func` runs
    eagerly, because hooks on the original modules do not fire in compiled code.

    Raises:
        ValueError: If the layer does not run during the forward pass.
    """
    with _recorded_forward(forward_func, layer) as (recorded_forward, outputs):
        activations = _forward_layer_eval(
            recorded_forward,
            inputs,
            layer,
            additional_forward_args or None,
            device_ids=device_ids or getattr(forward_func, "device_ids", None),
            attribute_to_layer_input=attribute_to_layer_input,
        )
    return cast(Tensors, activations), outputs[-1]


def layer_gradients(
    forward_func: ForwardFunction,
    layer: Module,
    inputs: Tensors,
    target: TargetType,
    additional_forward_args: tuple[Any, ...],
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
    grad_kwargs: dict[str, Any] | None,
    score: Callable[[Any], Tensor],
) -> tuple[Tensors, Tensors]:
    """Runs a forward and a backward pass; returns the layer's output (or input) and the target score's gradients.

    The layer is evaluated as in :func:`evaluate_layer`; `score` converts the output of `forward_func` to scores. No
    gradients are accumulated in the model's parameters.

    Raises:
        ValueError: If the layer does not run during the forward pass.
        AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
    """
    with _recorded_forward(forward_func, layer) as (recorded_forward, _):
        gradients, activations = compute_layer_gradients_and_eval(
            lambda *args: score(recorded_forward(*args)),
            layer,
            inputs,
            target,
            additional_forward_args or None,
            device_ids=device_ids or getattr(forward_func, "device_ids", None),
            attribute_to_layer_input=attribute_to_layer_input,
            grad_kwargs=grad_kwargs,
        )
    return cast(Tensors, activations), cast(Tensors, gradients)


@contextmanager
def _recorded_forward(forward_func: ForwardFunction, layer: Module) -> Iterator[tuple[ForwardFunction, list[Any]]]:
    """Yields a forward function that records its outputs, and checks how often the layer ran."""
    outputs: list[Any] = []
    calls: Counter[torch.device | None] = Counter()
    lock = threading.Lock()

    def recorded_forward(*args: Any) -> Any:
        outputs.append(forward_func(*args))
        return outputs[-1]

    def count_call(_module: Module, _args: Any, output: Any) -> None:
        # DataParallel runs one replica of the layer per device, each in a separate thread.
        with lock:
            calls[_device_of(output)] += 1

    hook = layer.register_forward_hook(count_call)
    try:
        with compiled_code_run_eagerly():
            yield recorded_forward, outputs
    except AssertionError as error:
        if calls or not outputs:
            raise
        raise ValueError(
            f"Expected `layer` to run in the forward pass of `forward_func`, but {_describe(layer)} did not run."
        ) from error
    finally:
        hook.remove()
    if max(calls.values()) > 1:
        warn_caller(
            f"{_describe(layer)} ran {max(calls.values())} times in one forward pass; its last call is explained."
        )


def _device_of(output: Any) -> torch.device | None:
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first.device if isinstance(first, Tensor) else None


def _describe(layer: Module) -> str:
    text = " ".join(repr(layer).split())
    return f"layer {text if len(text) <= 80 else text[:77] + '...'}"
