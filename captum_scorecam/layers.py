"""Which layer of a classifier is explained: named by the user, or found by one forward pass."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer

from captum_scorecam.activation_maps import swin_activation_maps, vit_activation_maps

ActivationTransform = Callable[[Tensor], Tensor]
_OF_INPUT = ":input"


@dataclass(frozen=True)
class ExplainedLayer:
    """A module of the model, which side of it is explained, and how that becomes maps.

    Attributes:
        name (str): The module's dotted path, with ``:input`` at the end where its input is explained.
        module (nn.Module): The module.
        activation_transform (callable, optional): Makes maps of the layer's tokens. Default: None.
    """

    name: str
    module: nn.Module
    activation_transform: ActivationTransform | None = None

    @property
    def of_input(self) -> bool:
        """Captum's ``attribute_to_layer_input``."""
        return self.name.endswith(_OF_INPUT)


@dataclass(frozen=True)
class _Call:
    """One call of a module: the shapes of its first input and of its output, None where that is no tensor."""

    module_name: str
    input_shape: torch.Size | None
    output_shape: torch.Size | None


def find_layer(model: nn.Module, inputs: Tensor, name: str = "auto") -> ExplainedLayer:
    """Finds the layer to explain.

    ``auto`` is the last module, in the order in which they finish, that ran exactly once and whose output is
    N×K×h×w with K > 1 and h·w > 1; for torchvision's VisionTransformer it is ``ln_1`` of the last block, the last
    place where patch tokens still reach the class score. Tokens of torchvision's VisionTransformer and
    SwinTransformer are made maps, also at a layer that the user names.

    Args:
        model (nn.Module): The model, in the mode in which it is explained.
        inputs (Tensor): An input to run it once on, without gradient.
        name (str): ``auto``, a module's dotted path as in ``model.named_modules()``, or that path with ``:input``
            at the end for the module's input. Default: "auto".

    Returns:
        ExplainedLayer: The layer.

    Raises:
        ValueError: If no module has that name, it did not run, or there is no layer that ``auto`` could take.
    """
    if name == "auto" and isinstance(model, VisionTransformer):
        name = f"encoder.layers.encoder_layer_{len(model.encoder.layers) - 1}.ln_1"
    elif name != "auto":
        _check_name(model, name)
    calls = _record_calls(model, inputs)
    call = _last_map(calls) if name == "auto" else _last_call(calls, name)
    chosen = call.module_name if name == "auto" else name
    shape = call.input_shape if chosen.endswith(_OF_INPUT) else call.output_shape
    return ExplainedLayer(chosen, model.get_submodule(call.module_name), _token_transform(model, shape))


def _record_calls(model: nn.Module, inputs: Tensor) -> list[_Call]:
    """Runs the model once, and list its modules' calls in the order in which they finish."""
    calls: list[_Call] = []

    def recorder(name: str) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        return lambda _, args, output: calls.append(
            _Call(name, _shape(args[0] if args else None), _shape(output))
        )

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


def _last_map(calls: list[_Call]) -> _Call:
    runs = Counter(call.module_name for call in calls)
    for call in reversed(calls):
        if runs[call.module_name] == 1 and _is_map(call.output_shape):
            return call
    raise ValueError("Expected a model with a layer whose output is an N×K×h×w map, but found none.")


def _is_map(shape: torch.Size | None) -> bool:
    return shape is not None and len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1


def _check_name(model: nn.Module, name: str) -> None:
    names = [module_name for module_name, _ in model.named_modules() if module_name]
    wanted = name.removesuffix(_OF_INPUT)
    if wanted not in names:
        nearest = difflib.get_close_matches(wanted, names, n=5, cutoff=0.3) or names[-5:]
        raise ValueError(
            f"Expected `--layer` to name a module of the model, but got {name!r}. "
            f"Nearest: {', '.join(nearest)}."
        )


def _last_call(calls: list[_Call], name: str) -> _Call:
    of_module = [call for call in calls if call.module_name == name.removesuffix(_OF_INPUT)]
    if not of_module:
        raise ValueError(
            f"Expected `--layer` to name a module that runs in the forward pass, but {name!r} does not."
        )
    return of_module[-1]


def _token_transform(model: nn.Module, shape: torch.Size | None) -> ActivationTransform | None:
    if shape is None:
        return None
    if isinstance(model, VisionTransformer) and len(shape) == 3:
        return vit_activation_maps
    # Swin's blocks return N x h x w x C, its last module and its first convolution N x C x h x w.
    if isinstance(model, SwinTransformer) and len(shape) == 4 and shape[1] == shape[2]:
        return swin_activation_maps
    return None
