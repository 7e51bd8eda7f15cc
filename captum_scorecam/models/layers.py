"""The layer to explain, named by the user or found with one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from captum_scorecam._messages import closest_matches
from captum_scorecam.masking.activation_maps import swin_activation_maps, vit_activation_maps

ActivationTransform = Callable[[Tensor], Tensor]
_OF_INPUT = ":input"
# torchvision's Swin has channels last, except at these layers before its first and after its last permutation.
_SWIN_MAPS = (
    "features:input",
    "features.0:input",
    "features.0.0:input",
    "features.0.0",
    "features.0.1:input",
    "permute",
)


@dataclass(frozen=True)
class ExplainedLayer:
    """A module whose output or input is explained.

    Attributes:
        name (str): The module's dotted path, followed by ``:input`` if its input is explained.
        module (nn.Module): The module.
        activation_transform (callable, optional): Converts the layer's tokens to maps. Default: None.
    """

    name: str
    module: nn.Module
    activation_transform: ActivationTransform | None = None

    @property
    def of_input(self) -> bool:
        """Whether the module's input is explained: Captum's ``attribute_to_layer_input``."""
        return self.name.endswith(_OF_INPUT)


@dataclass(frozen=True)
class _Call:
    """One call of a module: the shapes of its first input and its output, or None if not tensors."""

    module_name: str
    input_shape: torch.Size | None
    output_shape: torch.Size | None


def find_layer(model: nn.Module, inputs: Tensor, layer: str = "auto") -> ExplainedLayer:
    """Finds the layer to explain.

    ``auto`` selects the last module to finish that runs exactly once and returns N×K×h×w with K > 1 and h·w > 1. For
    torchvision's VisionTransformer, it selects ``ln_1`` of the last block, the last layer whose patch tokens still
    affect the class score. The tokens of torchvision's VisionTransformer and SwinTransformer are converted to maps at
    any layer.

    Args:
        model (nn.Module): The model, in the mode used for the explanation.
        inputs (Tensor): An input for one forward pass, without gradients.
        layer (str): ``auto``, a module's dotted path as in ``model.named_modules()``, or that path followed by
            ``:input`` for the module's input. Default: "auto".

    Returns:
        ExplainedLayer: The layer.

    Raises:
        ValueError: If no module has that name, the module does not run or has no maps, or ``auto`` finds no layer.
    """
    if layer != "auto":
        _check_name(model, layer)
    calls = _record_calls(model, inputs)
    name = _automatic_name(model, calls) if layer == "auto" else layer
    shape = _shape_at(calls, name)
    transform = _token_transform(model, name, shape)
    if transform is None and not _is_map(shape):
        raise ValueError(f"Expected `layer` to have N×K×h×w maps, but {name!r} has {_described(shape)}.")
    return ExplainedLayer(name, model.get_submodule(name.removesuffix(_OF_INPUT)), transform)


def _record_calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """Runs the model once and lists the calls of its modules, in the order in which they finish."""
    calls: list[_Call] = []

    def recorder(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        return lambda _, args, output: calls.append(_Call(name, _shape(args[0] if args else None), _shape(output)))

    hooks = [module.register_forward_hook(recorder(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def _shape(value: object) -> torch.Size | None:
    return value.shape if isinstance(value, Tensor) else None


def _automatic_name(model: nn.Module, calls: list[_Call]) -> str:
    if isinstance(model, VisionTransformer):
        return f"encoder.layers.encoder_layer_{len(model.encoder.layers) - 1}.ln_1"
    runs = Counter(call.module_name for call in calls)
    for call in reversed(calls):
        shape = call.output_shape
        if runs[call.module_name] == 1 and _is_map(shape) and shape[1] > 1:
            return call.module_name
    raise ValueError("Expected a model with a layer whose output is N×K×h×w with K > 1 and h·w > 1, but found none.")


def _is_map(shape: torch.Size | None) -> TypeGuard[torch.Size]:
    return shape is not None and len(shape) == 4 and shape[2] * shape[3] > 1


def _described(shape: torch.Size | None) -> str:
    return "no tensor" if shape is None else f"shape {tuple(shape)}"


def _check_name(model: nn.Module, name: str) -> None:
    names = [module_name for module_name, _ in model.named_modules() if module_name]
    wanted = name.removesuffix(_OF_INPUT)
    if wanted not in names:
        listed = closest_matches(wanted, names, cutoff=0.3) or f" Its last modules: {', '.join(names[-5:])}."
        raise ValueError(f"Expected `layer` to name a module of the model, but got {name!r}.{listed}")


def _shape_at(calls: list[_Call], name: str) -> torch.Size | None:
    """Returns the shape at a layer in its last call, which is the explained one."""
    of_module = [call for call in calls if call.module_name == name.removesuffix(_OF_INPUT)]
    if not of_module:
        raise ValueError(f"Expected `layer` to name a module that runs in the forward pass, but {name!r} does not.")
    return of_module[-1].input_shape if name.endswith(_OF_INPUT) else of_module[-1].output_shape


def _token_transform(model: nn.Module, name: str, shape: torch.Size | None) -> ActivationTransform | None:
    if isinstance(model, VisionTransformer) and shape is not None and len(shape) == 3:
        return vit_activation_maps
    if isinstance(model, SwinTransformer) and shape is not None and len(shape) == 4 and name not in _SWIN_MAPS:
        return swin_activation_maps
    return None
