"""The layer of an attribution: a module, or a name that is looked up in the model."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn import DataParallel, Module
from torch.nn.parallel import DistributedDataParallel

from captum_scorecam._captum import ForwardFunction, Tensors
from captum_scorecam._messages import check_callable, check_layer
from captum_scorecam.layers.activations import INPUT
from captum_scorecam.layers.explained_layer import ExplainedLayer, check_name, find_layer
from captum_scorecam.layers.layout import ActivationTransform, has_one_stride
from captum_scorecam.masking.activation_maps import (
    check_activation_transform,
    swin_activation_maps,
    vit_activation_maps,
)
from captum_scorecam.scoring.chunk_size import kind_of_inputs
from captum_scorecam.scoring.class_scores import Score

AUTO = "auto"


def check_layer_choice(
    forward_func: ForwardFunction, layer: Module | str, activation_transform: ActivationTransform | None
) -> None:
    """Checks the function and the layer of an attribution: a module, ``auto``, or a name as accepted by `find_layer`.

    Raises:
        TypeError: If `forward_func` is not callable, or no module for a named layer, or `layer` is none of these.
        ValueError: If no module has that name, or ``auto`` comes with a transform.
    """
    if not callable(forward_func) and hasattr(forward_func, "run"):
        raise TypeError(
            f"Expected `forward_func` to be a function of the inputs, but got {type(forward_func).__name__}. Wrap its "
            "`run` in a function that also returns the activation to an `ActivationTap`, which is the layer."
        )
    check_callable("forward_func", forward_func)
    check_activation_transform(activation_transform)
    if not isinstance(layer, str):
        check_layer(layer)
        return
    model = _unwrapped(forward_func)
    if not isinstance(model, Module):
        raise TypeError(
            f"Expected `forward_func` to be a module, in which the layer {layer!r} can be looked up, but got "
            f"{type(model).__name__}. Pass the layer itself, or an `ActivationTap` that the function calls."
        )
    if layer != AUTO:
        check_name(model, layer)
    elif activation_transform is not None:
        raise ValueError("Expected no `activation_transform` with layer='auto', which finds it.")


class FoundLayers:
    """The layers found for ``auto`` and for names, for each kind of inputs and the numbers and texts after them."""

    def __init__(self) -> None:
        self._found: dict[Hashable, ExplainedLayer] = {}
        self._score: Score | None = None  # for which they were found

    def find(
        self,
        forward_func: ForwardFunction,
        layer: Module | str,
        activation_transform: ActivationTransform | None,
        inputs: Tensors,
        additional_forward_args: tuple[Any, ...],
        score: Score,
        of_input: bool = False,
    ) -> ExplainedLayer:
        """Returns the layer of a score and the transform of its activation, or with `of_input` of the layer's input.

        Raises:
            TypeError: If the model's output does not have the named score.
            ValueError: If a named layer has no maps, or ``auto`` finds no layer that is certain to be right. The
                transform raises it if it makes a square of an oblong image's tokens though no grid was given.
        """
        if activation_transform is not None and activation_transform in (vit_activation_maps, swin_activation_maps):
            activation_transform = partial(_maps_of_one_stride, transform=activation_transform, inputs=inputs)
        if not isinstance(layer, str):
            return ExplainedLayer("", layer, activation_transform)
        model = _unwrapped(forward_func)
        if activation_transform is not None:
            return ExplainedLayer(layer, model.get_submodule(layer.removesuffix(INPUT)), activation_transform)
        if score is not self._score:
            self._found, self._score = {}, score
        options = tuple(x if isinstance(x, bool | int | float | str) else None for x in additional_forward_args)
        found, key = self._found, (layer, of_input, options, *kind_of_inputs(inputs))
        if key not in found or not _is_part(found[key], model):
            find = partial(find_layer, model, inputs, additional_forward_args=additional_forward_args, score=score)
            name = find(layer).name if layer == AUTO and of_input else layer
            found[key] = find(f"{name.removesuffix(INPUT)}{INPUT}" if of_input else name)
        return found[key]


def _maps_of_one_stride(tokens: Tensor, transform: ActivationTransform, inputs: Tensors) -> Tensor:
    """Converts tokens to maps; refuses flat ones of a square grid for inputs that are not square."""
    maps = transform(tokens)
    images = [x for x in inputs if x.dim() == 4]
    if tokens.dim() == 3 and images and not any(has_one_stride(maps.shape[2:], x.shape[2:]) for x in images):
        (height, width), cells = images[0].shape[2:], maps[0, 0].numel()
        name = "vit_activation_maps" if transform is vit_activation_maps else "swin_activation_maps"
        raise ValueError(
            f"Expected `grid_size` for images of {height}×{width} pixels, since their {cells} patch tokens may "
            f"not form a square. Pass activation_transform=functools.partial({name}, grid_size=(h, w))."
        )
    return maps


def _is_part(layer: ExplainedLayer, model: Module) -> bool:
    """Checks whether a model still has the layer under its name."""
    return any(
        name == layer.name.removesuffix(INPUT) and module is layer.module
        for name, module in model.named_modules(remove_duplicate=False)
    )


def _unwrapped(forward_func: Any) -> Any:
    """Returns the model inside a compiled or parallel one, whose modules have the names that users know."""
    while True:
        if isinstance(forward_func, (DataParallel, DistributedDataParallel)):
            forward_func = forward_func.module
        elif hasattr(forward_func, "_orig_mod"):
            forward_func = forward_func._orig_mod
        else:
            return forward_func
