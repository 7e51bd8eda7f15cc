"""Which modules Captum's guided methods and DeepLift replace the gradients of, and which activations they leave."""

from __future__ import annotations

from functools import partial

from captum.attr import Attribution, Deconvolution, DeepLift, GuidedBackprop, GuidedGradCam, LayerDeepLift, NoiseTunnel
from torch import nn

from captum_scorecam._captum import MODULES_OF_DEEP_LIFT
from captum_scorecam._messages import warn_caller
from captum_scorecam._threads import hooks
from captum_scorecam.evaluation.request import ExplanationRequest
from captum_scorecam.model_state import gradients_disabled

_FILES = ("activation", "activations", "activations_jit", "activations_me")


def check_modules_are_hooked(name: str, attribution: Attribution, request: ExplanationRequest) -> None:
    """Checks that an attribution that replaces the gradients of activation modules knows those of the model.

    It passes the others by without a word, so that its map is the plain gradient's, which looks plausible.

    Args:
        name (str): The method's name, for messages.
        attribution (Attribution): The attribution.
        request (ExplanationRequest): The model, the layer and an input.

    Raises:
        ValueError: If it knows none of the activation modules. If it knows some, a warning names the others.
    """
    while isinstance(attribution, NoiseTunnel):
        attribution = attribution.attribution_method
    if not isinstance(attribution, (Deconvolution, DeepLift, GuidedBackprop, GuidedGradCam)):
        return
    after_layer = isinstance(attribution, LayerDeepLift)
    activations = _run_after_layer(request) if after_layer else _activations(request.model)
    if isinstance(attribution, DeepLift):
        kinds, hooked = MODULES_OF_DEEP_LIFT, [each for each in activations if type(each) in MODULES_OF_DEEP_LIFT]
    else:
        kinds, hooked = (nn.ReLU,), [each for each in activations if isinstance(each, nn.ReLU)]
    known = ", ".join(f"nn.{kind.__name__}" for kind in kinds)
    others = ", ".join(sorted({type(each).__name__ for each in activations if each not in hooked}))
    if not hooked and (others or not after_layer):
        raise ValueError(
            f"Expected `methods` that explain this model, but {name} replaces the gradients of modules {known}, and "
            f"the model's activation modules are {others or 'none'}: the map would be that of the plain gradient."
        )
    if others:
        warn_caller(f"{name} replaces the gradients of modules {known}, but not those of the model's {others}.")


def _activations(model: nn.Module) -> list[nn.Module]:
    """The modules whose class, or a base of it, is defined in a file of activations of PyTorch, timm or transformers.

    The softmax of class scores is none, and neither is attention, which PyTorch has in that file.
    """
    return [
        module
        for module in model.modules()
        if not isinstance(module, (nn.Softmax, nn.LogSoftmax, nn.MultiheadAttention))
        and any(base.__module__.rpartition(".")[2] in _FILES for base in type(module).__mro__)
    ]


def _run_after_layer(request: ExplanationRequest) -> list[nn.Module]:
    """The activation modules that run after the explained activation, which alone matter to it."""
    layer, found = request.layer, list[nn.Module]()

    def start(*_: object) -> None:
        found.clear()

    def add(module: nn.Module, *_: object) -> None:
        found.append(module)

    register = layer.module.register_forward_pre_hook if layer.of_input else layer.module.register_forward_hook
    each = [partial(module.register_forward_pre_hook, add) for module in _activations(request.model)]
    with gradients_disabled(), hooks(partial(register, start), *each):
        request.model(request.inputs.clone())
    return found
