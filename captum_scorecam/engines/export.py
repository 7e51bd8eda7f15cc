"""A model in ONNX format, with any number of rows."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule

from captum_scorecam._extras import import_extra
from captum_scorecam._kept_buffers import is_training
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.scoring.output_parts import output_type, tensor_or_logits

MOST_BYTES = 2**31 - 2**24  # of weights; Protocol Buffers end at 2 GiB
OUTPUT = "output"
EAGER = "Run it eagerly instead, without `masked_forward_func`."
_QUIET = threading.Lock()  # what is hidden, and the exporter itself, belong to the process
LOGGERS = ("torch.export", "torch.fx.experimental.symbolic_shapes", "torch.onnx", "onnxscript", "onnx_ir")


@dataclass(frozen=True)
class ExportedModel:
    """A model in ONNX format.

    Attributes:
        name (str): The type of the model.
        content (bytes): The model.
        arguments (Arguments): What it was exported for. Its tensors are the inputs named by `input_name`.
        output_shape (tuple of int): The shape of a row of the output.
        output_dtype (torch.dtype): The dtype of the output.
    """

    name: str
    content: bytes
    arguments: Arguments
    output_shape: tuple[int, ...]
    output_dtype: torch.dtype

    def refuse(self, runtime: str, error: Exception) -> NoReturn:
        """Raises the error of a runtime that does not take the model."""
        raise ValueError(
            f"Expected `model` to run in {runtime}, but {self.name} does not: {_reason(error)}. {EAGER}"
        ) from error


def input_name(position: int) -> str:
    """Returns the name of a tensor among the inputs of an exported model."""
    return f"input_{position}"


def export(model: nn.Module, arguments: Arguments) -> ExportedModel:
    """Exports a model that returns a tensor, or an object with ``logits``, one row per input row.

    A copy of the model, which shares its parameters, is traced. Nothing is written to a file.

    Args:
        model (nn.Module): The model, in evaluation mode.
        arguments (Arguments): Examples of its arguments; any number of rows, any values.

    Raises:
        TypeError: If `model` is not a module.
        ValueError: If the model is in training mode, returns something else, is too large, or can't be exported.
        ModuleNotFoundError: If onnxscript or onnx is missing.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected `model` to be a torch.nn.Module, but got {type(model).__name__}.")
    name = type(model).__name__
    _check(model, name)
    import_packages("onnx", "onnx", "onnxscript")
    traced = _OfTensors(model, arguments)
    try:
        with _quietly():
            program = _program(traced)
    except _NoScoresError as error:
        raise ValueError(
            f"Expected `model` to return a tensor or an object with `logits`, but {name} returns {error}. Wrap it in a "
            "module that returns the scores."
        ) from error
    except Exception as error:  # tracing runs the model's code
        _refuse(name, error)
    output = _output(program)
    _check_rows(program, output, name)
    try:
        with _quietly():
            content = _onnx(program, len(arguments.tensors))
    except Exception as error:  # of many types
        _refuse(name, error)
    return ExportedModel(name, content, arguments, tuple(output.shape[1:]), output.dtype)


def import_packages(extra: str, *names: str) -> None:
    """Imports the packages that an engine needs.

    Raises:
        ModuleNotFoundError: If one is missing. The message names the extra that installs it.
    """
    with _quietly():
        for name in names:
            import_extra(name, extra, "The engine")


class _NoScoresError(Exception):
    """A model's output that is neither a tensor nor has logits; the message is its type."""


class _OfTensors(nn.Module):
    """A model as a function of the tensors among its arguments, which returns a tensor."""

    def __init__(self, model: nn.Module, arguments: Arguments) -> None:
        super().__init__()
        self.model = model
        self.arguments = arguments
        self.training = False

    def forward(self, *tensors: Tensor) -> Tensor:
        output: Any = self.model(*self.arguments.completed(tensors))
        scores = tensor_or_logits(output)
        if scores is None:
            error = _NoScoresError(output_type(output))
            raise error
        return scores


def _check(model: nn.Module, name: str) -> None:
    if any(map(is_training, model.modules())):
        raise ValueError(f"Expected `model` in evaluation mode, but {name} is in training mode. Call `model.eval()`.")
    if any(isinstance(module, ScriptModule) for module in model.modules()):
        _refuse(name, "it is TorchScript, which the exporter does not read")
    size = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    if size > MOST_BYTES:
        _refuse(name, f"its weights take {size / 2**30:.1f} GiB, and ONNX keeps less than 2 GiB in memory")


def _program(traced: _OfTensors) -> Any:
    arguments = traced.arguments
    rows = tuple({0: torch.export.Dim.DYNAMIC} if follows else None for follows in arguments.rows_of_tensors)
    kind = arguments.device.type
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(kind, enabled=False):
        traced.model = _copy(traced.model)
        return torch.export.export(traced, tuple(arguments.tensors), dynamic_shapes=(rows,), strict=False)


def _onnx(program: Any, n_tensors: int) -> bytes:
    names = [input_name(i) for i in range(n_tensors)]
    onnx = torch.onnx.export(program, (), dynamo=True, verbose=False, input_names=names, output_names=[OUTPUT])
    assert onnx is not None
    content: bytes = onnx.model_proto.SerializeToString()
    return content


def _copy(model: nn.Module) -> nn.Module:
    """Returns a copy that shares tensors, so that attributes which tracing sets don't stay in the model."""
    attributes = [value for module in model.modules() for value in vars(module).values()]
    tensors = [x for x in (*model.parameters(), *model.buffers(), *attributes) if isinstance(x, Tensor)]
    return copy.deepcopy(model, {id(x): x for x in tensors})


def _output(program: Any) -> Tensor:
    """Returns the output of an exported program as a tensor with a shape and a dtype only."""
    (returned,) = program.graph_signature.user_outputs
    found: Tensor = next(node for node in program.graph.nodes if node.name == returned).meta["val"]
    return found


def _check_rows(program: Any, output: Tensor, name: str) -> None:
    first = program.graph_signature.user_inputs[0]
    inputs: Tensor = next(node for node in program.graph.nodes if node.name == first).meta["val"]
    fixed = all(isinstance(size, int) for size in output.shape[1:])
    if output.dim() == 0 or str(output.shape[0]) != str(inputs.shape[0]) or not fixed:
        _refuse(name, f"its output, of shape {tuple(output.shape)}, does not have one row per input row")


def _refuse(name: str, error: Exception | str) -> NoReturn:
    reason, cause = (error, None) if isinstance(error, str) else (_reason(error), error)
    raise ValueError(f"Expected `model` to be one that can be exported, but {name} can't: {reason}. {EAGER}") from cause


def _reason(error: BaseException) -> str:
    """Returns why a model can't be exported or run, in one line."""
    text = str(error.__cause__ or error)
    if operator := re.search(r"Error when translating node.*?target=torch\.ops\.([\w.]+)", text):
        return f"ONNX has no counterpart of {operator[1]}"
    if "data-dependent" in text:
        return "its code depends on the values of its inputs"
    if fixed := re.search(r"specialized it to be a constant \((\d+)\)", text):
        return f"its code fixes the number of rows, here at {fixed[1]}"
    lines = [line for line in text.splitlines() if line.strip()] or [type(error).__name__]
    line = lines[-1 if lines[0].startswith("Exception from ") else 0]  # OpenVINO's messages begin with its own code
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^[-\s]+", "", line)[:200].rstrip(". ")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hides the warnings, logs and prints of exporters, whose errors say the same; other exports wait."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    with (
        _QUIET,
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
