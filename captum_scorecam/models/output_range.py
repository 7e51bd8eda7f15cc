"""Tells by a model's last operation whether its outputs are probabilities."""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_scorecam.scoring.class_scores import output_score

LastOperation = Literal["sigmoid", "softmax", "linear"]

_SIGMOIDS = {"Sigmoid", "Hardsigmoid"}
_LINEAR = {"Addmm", "Mm", "Mv", "Convolution"}
_SAME_RANGE = {  # operations that arrange, select or average values
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "Select", "Slice"),
    *("Clone", "ToCopy", "Alias", "Mean", "AvgPool2D", "AdaptiveAvgPool2D", "Amax"),
}
_SUMS = {"Add", "Sub", "Mul", "Div"}


def last_operation(model: nn.Module, inputs: Tensor) -> LastOperation | None:
    """Returns what the model's outputs come from: a sigmoid, a softmax, or a layer with weights, which are unbounded.

    Autograd records the operations of one forward pass.

    Returns:
        str or None: ``"sigmoid"``, ``"softmax"``, ``"linear"``, or None if they come from something else, or autograd
        does not tell: the model leaves PyTorch, or is compiled.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            traced = inputs.detach().clone().requires_grad_().clone()  # not a leaf: in-place layers refuse those
            return _origin(output_score(model(traced)).grad_fn)
    except Exception:  # a model that leaves PyTorch may refuse inputs that require gradients with any error
        return None


def _origin(node: Any) -> LastOperation | None:
    node = _before_rearrangement(node)
    name = _operation(node)
    if name in _SIGMOIDS:
        return "sigmoid"
    if name == "Softmax":
        return "softmax"
    if name in _LINEAR:
        return "linear" if any(map(_is_weight, _sources(node))) else None
    computed = [source for source in _sources(node) if not _is_weight(source)]
    if name in _SUMS and computed and all(_origin(source) == "linear" for source in computed):
        return "linear"  # a bias, a temperature, the mean of two heads
    return None


def _before_rearrangement(node: Any) -> Any:
    while _operation(node) in _SAME_RANGE:
        node = node.next_functions[0][0]
    return node


def _is_weight(node: Any) -> bool:
    return _operation(_before_rearrangement(node)) in ("AccumulateGrad", "NoneType")  # None: frozen, or a number


def _operation(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", type(node).__name__)


def _sources(node: Any) -> list[Any]:
    return [source for source, _ in getattr(node, "next_functions", ())]
