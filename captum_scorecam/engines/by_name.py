"""Engines by name, as the command line and evaluations choose them."""

from __future__ import annotations

import textwrap
import threading
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from captum_scorecam._messages import check_choice
from captum_scorecam.engines.export import import_packages
from captum_scorecam.engines.onnx_runtime import onnx_runtime
from captum_scorecam.engines.openvino import openvino
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring.chunks import is_out_of_memory
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.twin import Twins

EngineName: TypeAlias = Literal["eager", "compile", "onnxruntime", "openvino"]

KEPT = 4  # sizes


def check_engine(engine: EngineName) -> None:
    """Checks that an engine exists and its packages are installed.

    Raises:
        ValueError: If there is no such engine.
        ModuleNotFoundError: If a package of the extra ``onnx`` or ``openvino`` is missing.
    """
    check_choice("engine", engine, EngineName)
    if engine in ("onnxruntime", "openvino"):
        import_packages("onnx" if engine == "onnxruntime" else "openvino", engine, "onnx", "onnxscript")


def twin_by_name(engine: EngineName, model: nn.Module, inputs: Tensor) -> nn.Module | None:
    """Returns a faster twin of a model, which agrees with it on `inputs`.

    Args:
        engine (str): ``"compile"`` (``torch.compile``), ``"onnxruntime"`` or ``"openvino"``; ``"eager"`` for none.
        model (nn.Module): The model, in evaluation mode.
        inputs (Tensor): Images, N×C×H×W. Those of other sizes are exported when they come. The twins of the last four
            sizes are kept, so one more is exported each time that it comes again.

    Raises:
        ValueError: If the model can't be exported, nothing can be compiled here, or the twin gives something else.
        ModuleNotFoundError: If a package of the extra ``onnx`` or ``openvino`` is missing.
        torch.OutOfMemoryError: If there is no memory to compile anything.
    """
    if engine == "eager":
        return None
    if engine == "compile":
        _check_compiler(inputs.device)
        twin: nn.Module = _Compiled(model)
    else:
        twin = _OfEachSize(model, {"onnxruntime": onnx_runtime, "openvino": openvino}[engine])
    _compare(model, twin, inputs)
    return twin


def _check_compiler(device: torch.device) -> None:
    """Compiles a small function, since compilation otherwise fails only after the model has been compared."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:  # of many types, by what is missing
        if is_out_of_memory(error):
            raise
        problem = textwrap.shorten(str(error), 200).rstrip(". ")
        raise ValueError(
            "Expected a compiler that works for `masked_forward_func` 'compile', but compiling a sum raised "
            f"{type(error).__name__}: {problem}. Choose 'eager'."
        ) from error


class _Compiled(nn.Module):
    """A compiled model.

    Hooks that come and go, such as those that count forward passes, would be compiled each time: so the model's own are
    not called, and this module's are outside.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.compiled = torch.compile(_WithoutHooks(model))
        self.training = False

    def forward(self, *args: Any) -> Any:
        return self.compiled(*args)


class _WithoutHooks(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = False

    def forward(self, *args: Any) -> Any:
        return self.model.forward(*args)


class _OfEachSize(nn.Module):
    """The twins of a model for the latest sizes of image: each has its own copy of the weights."""

    def __init__(self, model: nn.Module, make: Callable[[nn.Module, Tensor], nn.Module]) -> None:
        super().__init__()
        self._model = (model,)  # in a tuple, so that it is no part of this module
        self._make = make
        self._twins: dict[torch.Size, nn.Module] = {}  # in the order of their last use
        self._lock = threading.Lock()
        self.training = False

    def forward(self, x: Tensor) -> Any:
        return self._twin(x)(x)

    def _twin(self, x: Tensor) -> nn.Module:
        size = x.shape[1:]
        with self._lock:
            twin = self._twins.pop(size, None)
            if twin is None and len(self._twins) == KEPT:  # before another is made, which takes memory
                del self._twins[next(iter(self._twins))]
            twin = self._twins[size] = self._make(self._model[0], x) if twin is None else twin
        return twin


def _compare(model: nn.Module, twin: nn.Module, inputs: Tensor) -> None:
    forward = MaskedForward.from_call(model, inputs, [0], None, None, "output")
    with (
        unchanged_model_state(model, forward.inputs) as state,
        unchanged_model_state(twin, forward.inputs) as state_of_twin,
    ):
        output = state.first_forward(forward.unmasked_output, lambda *_: True)
        Twins().faster(forward, twin, output, state_of_twin, None)
