"""A model in OpenVINO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_scorecam._captum import Tensors
from captum_scorecam.engines.arguments import Arguments
from captum_scorecam.engines.export import EAGER, OUTPUT, ExportedModel, export, import_packages, input_name

HINTS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def openvino(model: nn.Module, inputs: Tensor | Tensors, additional_forward_args: object | None = None) -> nn.Module:
    """Exports a model to OpenVINO, for `masked_forward_func`, on a CPU.

    OpenVINO reads and writes PyTorch's memory, computes in the model's precision (by default, it computes in bfloat16
    where the CPU does), and uses as many threads as PyTorch does when the model is exported.

    Args:
        model (nn.Module): The model, in evaluation mode. It is left as it is; weights that change later are not seen.
        inputs (Tensor or tuple of Tensor): Examples, as for :meth:`~captum_scorecam.ScoreCAM.attribute`, of the
            shape and dtype that the calls will have. Their number and values don't matter.
        additional_forward_args (optional): Arguments of the model after the inputs. Tensors with a row per example
            follow the rows, and numbers and other values are fixed. Default: None.

    Returns:
        nn.Module: Takes the same arguments with any number of rows, and returns the model's output, or its ``logits``.

    Raises:
        TypeError: If `model` is not a module, or an input not a tensor.
        ValueError: If the model is in training mode, can't be exported, is not on a CPU, or does not run in OpenVINO.
        ModuleNotFoundError: If a package of the extra ``openvino`` is missing.
    """
    import_packages("openvino", "openvino")
    arguments = Arguments.from_call(inputs, additional_forward_args)
    if arguments.device.type != "cpu":
        raise ValueError(f"Expected `inputs` on a CPU, where OpenVINO runs, but got {arguments.device}. {EAGER}")
    _check_dtype(arguments.tensors[0].dtype)
    exported = export(model, arguments)
    _check_dtype(exported.output_dtype)
    try:
        return CompiledModel(exported)
    except Exception as error:  # of many types
        exported.refuse("OpenVINO", error)


def _check_dtype(dtype: torch.dtype) -> None:
    if dtype.is_floating_point and dtype not in HINTS:
        raise ValueError(
            f"Expected `model` in float32 or half precision, as OpenVINO computes, but got {dtype}. {EAGER}"
        )


class CompiledModel(nn.Module):
    """A model in OpenVINO. Threads may share it."""

    def __init__(self, exported: ExportedModel) -> None:
        from openvino import Core

        super().__init__()
        self._exported = replace(exported, content=b"")  # the compiled model has its own
        self.training = False
        dtype = exported.output_dtype
        core = Core()
        self._model = core.compile_model(
            core.read_model(exported.content),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "INFERENCE_PRECISION_HINT": HINTS[dtype],
                "ENABLE_CPU_PINNING": False,  # processes side by side would take the same cores
            },
        )
        self._inputs = {name for each in self._model.inputs for name in each.names}

    def forward(self, *args: Any) -> Tensor:
        """Runs the model on any number of rows; its arguments are otherwise those that it was exported for."""
        tensors = self._exported.arguments.tensors_of(args)
        shape = (len(tensors[0]), *self._exported.output_shape)
        output = torch.empty(shape, dtype=self._exported.output_dtype, device="cpu")
        request = self._model.create_infer_request()
        for position, x in enumerate(tensors):
            if input_name(position) in self._inputs:
                request.set_tensor(input_name(position), _shared(x))
        request.set_tensor(OUTPUT, _shared(output))
        request.infer()
        return output


def _shared(x: Tensor) -> Any:
    """Returns OpenVINO's view of a tensor's memory."""
    from openvino import Tensor as View
    from openvino import Type

    if x.dtype == torch.bfloat16:
        return View(x.view(torch.int16).numpy(), list(x.shape), Type.bf16)
    return View(x.numpy(), shared_memory=True)
