"""A model in ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_scorecam._captum import Tensors
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import EAGER, OUTPUT, ExportedModel, export, import_packages, input_name
from captum_scorecam.scoring.float32_precision import EPSILONS, convolution_epsilon

CUDA = "CUDAExecutionProvider"
BFLOAT16 = 16  # ONNX's number of the type, which NumPy does not have


def onnx_runtime(
    model: nn.Module, inputs: Tensor | Tensors, additional_forward_args: object | None = None
) -> nn.Module:
    """Exports a model to ONNX Runtime, for `masked_forward_func`.

    ONNX Runtime reads and writes PyTorch's memory. On a CPU it uses as many threads as PyTorch does when it is
    exported; on an NVIDIA GPU it needs the package onnxruntime-gpu and works on PyTorch's stream.

    Args:
        model (nn.Module): The model, in evaluation mode. It is left as it is; weights that change later are not seen.
        inputs (Tensor or tuple of Tensor): Examples, as for :meth:`~captum_scorecam.ScoreCAM.attribute`, of the
            shape, dtype and device that the calls will have. Their number and values don't matter.
        additional_forward_args (optional): Arguments of the model after the inputs. Tensors with a row per example
            follow the rows, and numbers and other values are fixed. Default: None.

    Returns:
        nn.Module: Takes the same arguments with any number of rows, and returns the model's output, or its ``logits``.

    Raises:
        TypeError: If `model` is not a module, or an input not a tensor.
        ValueError: If the model is in training mode, can't be exported, or does not run in ONNX Runtime or on
            its GPU.
        ModuleNotFoundError: If a package of the extra ``onnx`` is missing.
    """
    import_packages("onnx", "onnxruntime")
    arguments = Arguments.from_call(inputs, additional_forward_args)
    _check_device(arguments.device)
    exported = export(model, arguments)
    try:
        session = Session(exported)
    except Exception as error:  # of many types
        exported.refuse("ONNX Runtime", error)
    if exported.arguments.device.type == "cuda" and CUDA not in session.providers:
        raise ValueError(
            f"Expected ONNX Runtime to run on {exported.arguments.device}, but its CUDA provider did not load. "
            "Install the onnxruntime-gpu that fits your CUDA and cuDNN, or move `model` and `inputs` to a CPU."
        )
    return session


class Session(nn.Module):
    """A model in ONNX Runtime. Threads may share it."""

    def __init__(self, exported: ExportedModel) -> None:
        import onnxruntime

        super().__init__()
        self._exported = replace(exported, content=b"")  # the session has its own
        self.training = False
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        # Spinning threads would take cores from PyTorch's, which make the masks.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        device = exported.arguments.device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        with self._current_device():
            self._session = onnxruntime.InferenceSession(exported.content, options, _providers(device, self._stream))
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._lock: Any = nullcontext() if self._stream is None else threading.Lock()

    def forward(self, *args: Any) -> Tensor:
        """Runs the model on any number of rows; its arguments are otherwise those that it was exported for."""
        tensors = self._exported.arguments.tensors_of(args)
        shape = (len(tensors[0]), *self._exported.output_shape)
        output = torch.empty(shape, dtype=self._exported.output_dtype, device=tensors[0].device)
        binding = self._session.io_binding()
        for position, x in enumerate(tensors):
            if input_name(position) in self._inputs:
                binding.bind_input(input_name(position), *_place(x))
        binding.bind_output(OUTPUT, *_place(output))
        with self._lock:
            self._run(binding)
        return output

    @property
    def providers(self) -> list[str]:
        """What runs the model; ONNX Runtime leaves out, without an error, what it can't load."""
        names: list[str] = self._session.get_providers()
        return names

    def _current_device(self) -> AbstractContextManager[Any]:
        """Returns a context on the model's GPU; ONNX Runtime makes it CUDA's current device and leaves it so."""
        return nullcontext() if self._stream is None else torch.cuda.device(self._stream.device)

    def _run(self, binding: Any) -> None:
        if self._stream is None:
            self._session.run_with_iobinding(binding)
            return
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        try:
            with self._current_device():
                self._session.run_with_iobinding(binding, options)
        finally:
            current.wait_stream(self._stream)


def _check_device(device: torch.device) -> None:
    import onnxruntime

    if device.type != "cpu" and (device.type != "cuda" or CUDA not in onnxruntime.get_available_providers()):
        raise ValueError(
            "Expected `inputs` on a CPU, or on an NVIDIA GPU with the package onnxruntime-gpu, but got "
            f"{device}. {EAGER}"
        )


def _providers(device: torch.device, stream: torch.cuda.Stream | None) -> Sequence[Any]:
    if stream is None:
        return ["CPUExecutionProvider"]
    options = {
        "device_id": str(device.index or 0),
        "user_compute_stream": str(stream.cuda_stream),
        # The defaults run every algorithm for each new number of rows, and take twice the memory each time it grows.
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": str(int(convolution_epsilon(device) == EPSILONS["tf32"])),
    }
    return [(CUDA, options), "CPUExecutionProvider"]


def _place(x: Tensor) -> tuple[str, int, Any, list[int], int]:
    """Returns where a tensor lies, as ONNX Runtime's bindings take it."""
    element = BFLOAT16 if x.dtype == torch.bfloat16 else torch.empty(0, dtype=x.dtype, device="cpu").numpy().dtype
    return x.device.type, x.device.index or 0, element, list(x.shape), x.data_ptr()
