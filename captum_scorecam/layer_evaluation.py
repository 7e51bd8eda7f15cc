"""One forward pass with a layer's activation, and the gradient of scores with respect to it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam import _captum
from captum_scorecam._captum import ForwardFunction, Tensors
from captum_scorecam._kept_buffers import is_mapped
from captum_scorecam._messages import warn_caller
from captum_scorecam._threads import CallingThread, hooks
from captum_scorecam.model_state import gradients_disabled


@dataclass(frozen=True)
class LayerEvaluation:
    """One forward pass.

    Attributes:
        parts (list of tuple of Tensor): The layer's output (or input) on each of DataParallel's devices, in order.
        output: The output of `forward_func`.
    """

    parts: list[Tensors]
    output: Any

    @property
    def activations(self) -> Tensors:
        """The layer's output (or input), joined over the devices."""
        return _joined(self.parts)

    def gradients(self, scores: Tensor, grad_kwargs: dict[str, Any]) -> Tensors:
        """Returns the gradients of the summed `scores`, without accumulating any in the model's parameters.

        Raises:
            ValueError: If the scores are not differentiable with respect to the recorded tensors.
        """
        flat = [tensor for part in self.parts for tensor in part]
        found: Sequence[Tensor | None] = []
        if scores.requires_grad:
            found = torch.autograd.grad(scores.unbind(), flat, **{"allow_unused": True, **grad_kwargs})
        gradients = tuple(gradient for gradient in found if gradient is not None)
        if len(gradients) < len(flat):
            raise ValueError(
                "Expected scores that are differentiable with respect to the layer's activation, but they have no "
                "gradient. ScoreCAM needs no gradients."
            )
        n_tensors = len(self.parts[0])
        return _joined([gradients[start : start + n_tensors] for start in range(0, len(gradients), n_tensors)])


def evaluate_layer(
    forward_func: ForwardFunction,
    layer: Module,
    inputs: Tensors,
    additional_forward_args: tuple[Any, ...],
    device_ids: list[int] | None,
    attribute_to_layer_input: bool,
    with_graph: bool = False,
) -> LayerEvaluation:
    """Runs one forward pass and records the layer's output (or input) and the output of `forward_func`.

    If the layer runs more than once, its last call is used and a warning is issued. Calls in other threads are not
    seen. Inputs and arguments should be copies, since the model may modify them. The recorded tensors are copies or,
    `with_graph`, part of the graph, for :meth:`LayerEvaluation.gradients`.

    Raises:
        TypeError: If the layer's output (or input) is not a tensor or a tuple of tensors.
        ValueError: If the layer does not run during the forward pass.
    """

    def run() -> Any:
        return _captum.run_forward(forward_func, inputs, additional_forward_args, copy=False)

    recorder = _Recorder(layer, attribute_to_layer_input, with_graph, by_device=device_ids is not None)
    with recorder.recording():
        output = run()
    recorder.check(run)
    return LayerEvaluation(recorder.per_device(forward_func, device_ids), output)


class _Recorder:
    """Keeps what a layer returned (or took) in its last call, and counts its calls.

    Calls on different devices are kept apart `by_device`, and for DataParallel's replicas always. A module that runs on
    several of a pipeline's devices is one that runs repeatedly.
    """

    def __init__(self, layer: Module, of_input: bool, with_graph: bool, by_device: bool) -> None:
        self.layer, self.of_input, self.with_graph, self.by_device = layer, of_input, with_graph, by_device
        self._thread = CallingThread()
        self._lock = threading.Lock()  # DataParallel calls the replicas of a layer in threads of its own
        self._values: dict[int | None, Any] = {}  # by the index of the device
        self._calls: Counter[int | None] = Counter()
        self._called_elsewhere = False

    def recording(self) -> AbstractContextManager[None]:
        """Returns a context in which the layer's calls are recorded."""
        if self.of_input:
            return hooks(lambda: self.layer.register_forward_pre_hook(self.before, with_kwargs=True))
        return hooks(lambda: self.layer.register_forward_hook(self.after))

    def before(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        """A forward pre-hook that records the tensors that the layer takes.

        PyTorch may pass no `kwargs` in a call that another thread makes while this one registers or removes the hook.
        """
        if not self._is_ours(module) or kwargs is None:
            return None
        tensors = input_tensors(args, kwargs)
        new = dict(zip(tensors, self._record(module, tuple(tensors.values())), strict=True))
        return tuple(new.get(i, x) for i, x in enumerate(args)), {name: new.get(name, x) for name, x in kwargs.items()}

    def after(self, module: Module, _args: tuple[Any, ...], output: Any) -> Any:
        """A forward hook that records the layer's output."""
        return self._record(module, output) if self._is_ours(module) else None

    def check(self, run_again: Callable[[], Any]) -> None:
        """Raises an error if the layer did not run or recorded anything but tensors; warns if it ran repeatedly."""
        if not self._calls and self._called_elsewhere:
            name = _describe(self.layer)
            raise ValueError(
                f"Expected `layer` to run in the thread that calls `attribute`, but {name} ran only in others, whose "
                "calls may belong to somebody else. Run the model in the calling thread."
            )
        if not self._calls:
            raise ValueError(
                f"Expected `layer` to run in the forward pass of `forward_func`, but {_describe(self.layer)} did not "
                "run. If the model runs no modules (TorchScript, exported programs, ONNX sessions, functions), use an "
                "`ActivationTap`."
            )
        for value in self._values.values():
            if not _are_tensors(value):
                self._raise_no_tensors(value, run_again)
        if max(self._calls.values()) > 1:
            warn_caller(
                f"{_describe(self.layer)} ran {max(self._calls.values())} times in one forward pass; its last call is "
                "explained."
            )

    def per_device(self, forward_func: ForwardFunction, device_ids: list[int] | None) -> list[Tensors]:
        """Returns what was recorded on each device, in the order in which DataParallel split the batch."""
        if len(self._values) == 1:
            return list(self._values.values())
        order = device_ids or getattr(forward_func, "device_ids", None)
        if order is None:
            raise ValueError(f"Expected `device_ids`, since the layer ran on several devices: {list(self._values)}.")
        return [self._values[index] for index in order if index in self._values]

    def _is_ours(self, module: Module) -> bool:
        ours = self._thread.makes_call_of(module)
        self._called_elsewhere = self._called_elsewhere or not ours
        return ours

    def _record(self, module: Module, value: Any) -> Any:
        """Keeps the tensors and returns copies, since the model may go on to modify them in place."""
        kept, returned, index = value, value, None
        if _are_tensors(value):
            tensors = as_tuple(value)
            if any(map(is_mapped, tensors)):
                raise ValueError(
                    "Expected `layer` to run outside of `torch.func.vmap`, but "
                    f"{_describe(self.layer)} runs in it. Return its activation from the mapped function and pass it "
                    "to an `ActivationTap`."
                )
            if self.by_device or getattr(module, "_is_replica", False):
                index = tensors[0].device.index
            kept = tuple(_in_graph(x) if self.with_graph else x.detach().clone() for x in tensors)
            returned = _like(value, [x.clone() for x in kept]) if self.with_graph else value
        with self._lock:
            self._values[index] = kept
            self._calls[index] += 1
        return returned

    def _raise_no_tensors(self, value: Any, run_again: Callable[[], Any]) -> None:
        names = _submodules_with_tensors(self.layer, run_again)
        advice = f" Its submodules that return tensors: {', '.join(names)}." if names else ""
        what = "take" if self.of_input else "return"
        raise TypeError(
            f"Expected `layer` to {what} a tensor or a tuple of tensors, but {_describe(self.layer)} {what}s "
            f"{kind_of(value)}.{advice}"
        )


def _submodules_with_tensors(layer: Module, run_again: Callable[[], Any]) -> list[str]:
    """Returns the names and shapes of up to six submodules that return tensors, the last ones to run."""
    shapes: dict[str, str] = {}
    thread = CallingThread()

    def recorder(name: str) -> Callable[[Module, Any, Any], None]:
        def record(module: Module, _args: Any, output: Any) -> None:
            if thread.makes_call_of(module) and _are_tensors(output):
                shapes[name] = " and ".join(str(tuple(x.shape)) for x in as_tuple(output))

        return record

    named = [(n, m) for n, m in layer.named_modules() if n and not isinstance(m, torch.jit.ScriptModule)]
    with hooks(*(lambda n=n, m=m: m.register_forward_hook(recorder(n)) for n, m in named)), gradients_disabled():
        run_again()
    return [f"{name} {shape}" for name, shape in list(shapes.items())[-6:]]


def _joined(parts: list[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat([x.to(same[0].device) for x in same]) for same in zip(*parts, strict=True))


def _in_graph(tensor: Tensor) -> Tensor:
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()


def input_tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, Tensor]:
    """Returns the tensors among a module's positional arguments by position, or else those by keyword."""
    positional: dict[int | str, Tensor] = {i: x for i, x in enumerate(args) if isinstance(x, Tensor)}
    return positional or {name: x for name, x in kwargs.items() if isinstance(x, Tensor)}


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Returns a module's output as a tuple, of one value unless it is a tuple or a list."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _are_tensors(value: Any) -> bool:
    return len(as_tuple(value)) > 0 and all(isinstance(x, Tensor) for x in as_tuple(value))


def _like(value: Any, tensors: list[Tensor]) -> Any:
    """Returns the tensors in the form of `value`: a tensor, a list, a tuple or a named tuple."""
    if isinstance(value, Tensor):
        return tensors[0]
    return type(value)(*tensors) if hasattr(value, "_fields") else type(value)(tensors)


def kind_of(value: Any) -> str:
    """Describes what a module returns by its types, for error messages."""
    name = type(value).__name__
    if not isinstance(value, (tuple, list)):
        return name
    return f"{name} of {', '.join(type(x).__name__ for x in value)}" if value else f"an empty {name}"


def _describe(layer: Module) -> str:
    text = " ".join(repr(layer).split())
    return f"layer {text if len(text) <= 80 else text[:77] + '...'}"
