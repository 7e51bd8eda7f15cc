"""Faster twins of a model for `masked_forward_func`: the model in another runtime."""

from captum_scorecam.engines.onnx_runtime import onnx_runtime
from captum_scorecam.engines.openvino import openvino

__all__ = ["onnx_runtime", "openvino"]
