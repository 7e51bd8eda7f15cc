"""The attribution methods by name; each explains several classes of one image at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch.nn.functional as F
from captum.attr import LayerActivation, LayerAttribution, LayerGradCam, LayerGradientXActivation
from torch import Tensor

from captum_scorecam import (
    RISE,
    ChannelScores,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    RunStatistics,
    ScoreCAM,
)
from captum_scorecam._messages import check_fraction
from captum_scorecam.evaluation.registry import check_names, register
from captum_scorecam.evaluation.request import ExplanationRequest, MethodOptions, MethodRun
from captum_scorecam.models import Classifier, ExplainedLayer, find_layer
from captum_scorecam.scoring.class_scores import output_score
from captum_scorecam.weighting import ChannelWeighting

DEFAULT_METHODS = ("grad_cam", "score_cam")
Maps = Tensor | tuple[Tensor, ...]


class Method(NamedTuple):
    """An attribution method for the evaluation, the report and the command line.

    Attributes:
        explain (callable): Takes an `ExplanationRequest` and returns the maps, 1×T×h×w or T×1×h×w with h×w at most the
            inputs' size, and a `MethodRun`.
        of_layer (bool): Whether the method explains a layer. Default: True.
        title (str, optional): Name in tables and figures. Default: None, the registered name.
    """

    explain: Callable[[ExplanationRequest], tuple[Maps, MethodRun]]
    of_layer: bool = True
    title: str | None = None


def register_method(name: str, method: Method) -> None:
    """Adds a method to `METHODS`, for use in `plan_evaluation` and on the command line.

    Args:
        name (str): Letters, digits and underscores; used in records and file names.
        method (Method): The method. Registering it again has no effect.

    Raises:
        ValueError: If the name has other characters or belongs to another method.
    """
    register(METHODS, name, method, "method")


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of methods without duplicates.

    Raises:
        ValueError: If a name is not in `METHODS`.
    """
    return check_names(METHODS, names, "methods")


def check_budget(methods: Sequence[str], options: MethodOptions) -> None:
    """Checks that `error` is a fraction, and that Score-CAM, which alone has a budget, or a plugin's method runs.

    Raises:
        TypeError, ValueError: If it isn't.
    """
    if options.error is not None:
        check_fraction("error", options.error)
    for name, value in (("max_forwards", options.max_forwards), ("error", options.error)):
        if value is not None and {*methods} <= OWN_METHODS - {"score_cam"}:
            raise ValueError(
                f"Expected `methods` to include score_cam, the only method with `{name}`, but got {', '.join(methods)}."
            )


def layer_to_explain(
    methods: Sequence[str], classifier: Classifier, inputs: Tensor, layer: str = "auto"
) -> ExplainedLayer:
    """Finds the layer to explain. Methods that need no layer also accept models without feature maps.

    Args:
        methods (sequence of str): Names in `METHODS`.
        classifier (Classifier): The model.
        inputs (Tensor): An input for one forward pass, 1×C×H×W.
        layer (str): The layer, as accepted by `find_layer`. Default: "auto", the classifier's `layer`.

    Returns:
        ExplainedLayer: The layer; its name is ``none`` if no method explains a layer.

    Raises:
        ValueError: Same as `find_layer`.
    """
    if any(METHODS[method].of_layer for method in methods):
        return find_layer(classifier.model, inputs, classifier.layer if layer == "auto" else layer)
    return ExplainedLayer("none", classifier.model)


def run_method(name: str, request: ExplanationRequest) -> tuple[Tensor, MethodRun]:
    """Computes a method's maps.

    Args:
        name (str): A name in `METHODS`.
        request (ExplanationRequest): The image and the classes to explain.

    Returns:
        tuple: The maps T×H×W, upsampled to the inputs' size, float32, on the CPU, and the `MethodRun`.

    Raises:
        ValueError: If the layer returns several tensors.
    """
    start = time.perf_counter()
    maps, run = METHODS[name].explain(request)
    if not isinstance(maps, Tensor):
        raise ValueError(f"Expected {request.layer.name} to return one tensor, but it returns {len(maps)}.")
    errors = None if run.errors is None else _upsampled(run.errors, request)
    return _upsampled(maps, request), replace(run, errors=errors, seconds=time.perf_counter() - start)


def _upsampled(maps: Tensor, request: ExplanationRequest) -> Tensor:
    upsampled: Tensor = LayerAttribution.interpolate(maps, tuple(request.inputs.shape[2:]), "bilinear")
    return upsampled.detach().flatten(0, 1).float().cpu()


def _grad_cam(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    layer = request.layer
    if layer.activation_transform is not None:
        maps = _grad_cam_of_tokens(request, layer.activation_transform)
        return maps, MethodRun(forwards=2)
    maps = LayerGradCam(_class_scores(request), layer.module).attribute(
        request.repeated_inputs(),
        request.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun(forwards=1)


def _class_scores(request: ExplanationRequest) -> Callable[[Tensor], Tensor]:
    """Returns the model as Captum's methods need it, with a tensor as its output."""
    return lambda inputs: output_score(request.model(inputs))


def _grad_cam_of_tokens(request: ExplanationRequest, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies Grad-CAM's formula to spatial maps of the tokens and their gradients.

    LayerGradCam averages gradients over all dimensions after the second, which are the channels for tokens.
    """
    layer, inputs = request.layer, request.repeated_inputs()
    gradient = LayerGradientXActivation(_class_scores(request), layer.module, multiply_by_inputs=False)
    activation = LayerActivation(request.model, layer.module)
    gradients = transform(gradient.attribute(inputs, request.targets, attribute_to_layer_input=layer.of_input))
    maps = transform(activation.attribute(inputs, attribute_to_layer_input=layer.of_input))
    return F.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))


def _grad_cam_plus_plus(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    layer = request.layer
    method = LayerGradCamPlusPlus(request.model, layer.module, activation_transform=layer.activation_transform)
    maps = method.attribute(
        request.repeated_inputs(),
        request.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun(forwards=1)


def _score_cam(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    layer, options = request.layer, request.options
    of_probabilities = request.score == "output" and not request.unbounded
    weighting: ChannelWeighting = "score" if of_probabilities else "softmax"  # the softmax is for logits
    score_cam = ScoreCAM(
        request.model,
        layer.module,
        channel_weighting=weighting,
        activation_transform=layer.activation_transform,
        max_forwards=options.max_forwards,
        error=options.error,
        masked_forward_func=request.masked_forward_func,
    )
    call: dict[str, Any] = {
        "attribute_to_layer_input": layer.of_input,
        "perturbations_per_eval": options.perturbations_per_eval,
        "show_progress": options.show_progress,
    }
    errors = None
    if options.with_errors:
        scores = score_cam.channel_scores(request.inputs, request.targets, **call)
        maps, errors = _maps_with_errors(scores, weighting)
    else:
        maps = score_cam.attribute_targets(request.inputs, request.targets, **call)
    run = score_cam.last_run or RunStatistics()
    return maps, MethodRun(run.rows, channels=run, errors=errors)


def _maps_with_errors(
    scores: ChannelScores | tuple[ChannelScores, ...], weighting: ChannelWeighting
) -> tuple[Maps, Tensor | None]:
    if isinstance(scores, tuple):  # `run_method` refuses several tensors
        return tuple(each.maps(weighting) for each in scores), None
    return scores.maps(weighting), None if scores.prediction is None else scores.standard_errors(weighting)


def _rise(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    options = request.options
    rise = RISE(
        request.model,
        n_masks=options.n_masks,
        score=request.score,
        masked_forward_func=request.masked_forward_func,
    )
    maps = rise.attribute_targets(
        request.inputs,
        request.targets,
        generator=options.generator(),
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    return maps, MethodRun(options.n_masks)


def _mask(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    options = request.options
    method = MeaningfulPerturbation(request.model, n_iterations=options.mask_iterations, score=request.score)
    maps = method.attribute(
        request.repeated_inputs(),
        request.targets,
        generator=options.generator(),
        show_progress=options.show_progress,
    )
    assert isinstance(maps, Tensor)  # as the inputs are
    return maps[:, :1], MethodRun(options.mask_iterations)


METHODS = {
    "grad_cam": Method(_grad_cam, title="Grad-CAM"),
    "grad_cam_plus_plus": Method(_grad_cam_plus_plus, title="Grad-CAM++"),
    "score_cam": Method(_score_cam, title="Score-CAM"),
    "rise": Method(_rise, of_layer=False, title="RISE"),
    "mask": Method(_mask, of_layer=False, title="Mask"),
}
OWN_METHODS = frozenset(METHODS)  # without those registered later
