"""The attribution methods by name; each explains several classes of one image at once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from captum.attr import LayerActivation, LayerAttribution, LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from captum_scorecam import (
    RISE,
    ChannelScores,
    LayerGradCamPlusPlus,
    MeaningfulPerturbation,
    RunStatistics,
    ScoreCAM,
)
from captum_scorecam._messages import check_whole_number, type_of
from captum_scorecam.attr.score_cam import warn_of_narrow_scores
from captum_scorecam.budget.within_budget import replayed_within_budget
from captum_scorecam.evaluation.method import ChosenMethod, Maps, Method, Options, check_names_of_options
from captum_scorecam.evaluation.registry import register
from captum_scorecam.evaluation.request import ExplanationRequest, MethodRun, merged_options
from captum_scorecam.evaluation.shared_scores import SharedScores, channel_scores_of, score_cam_of
from captum_scorecam.scoring.class_scores import BOUNDED_SCORES, output_score
from captum_scorecam.weighting import ChannelWeighting

DEFAULT_METHODS = ("grad_cam", "score_cam")
SCORE_CAM = "score_cam"
_SET = {"device_ids", "activation_transform", "masked_forward_func"}  # by the evaluation, of constructors' options


def register_method(name: str, method: Method) -> None:
    """Adds a method to `METHODS`, for use in `plan_evaluation` and on the command line.

    Args:
        name (str): Letters, digits and underscores; used in records and file names.
        method (Method): The method. Registering it again has no effect.

    Raises:
        ValueError: If the name has other characters or belongs to another method.
    """
    register(METHODS, name, method, "method")


def run_method(method: str | ChosenMethod, request: ExplanationRequest) -> tuple[Tensor, MethodRun]:
    """Computes a method's maps.

    Args:
        method (str or ChosenMethod): A name in `METHODS`, or a method with options.
        request (ExplanationRequest): The image and the classes to explain.

    Returns:
        tuple: The maps T×H×W, upsampled to the inputs' size, float32, on the CPU, and the `MethodRun`.

    Raises:
        TypeError: If the method returns something other than maps and a `MethodRun` with a whole number of forwards.
        ValueError: If the layer returns several tensors, the maps have another shape, or `forwards` is negative.
    """
    start = time.perf_counter()
    name = method if isinstance(method, str) else method.name
    found = (METHODS[method] if isinstance(method, str) else method).explain(request)
    if not isinstance(found, (tuple, list)) or len(found) != 2 or not isinstance(found[1], MethodRun):
        raise TypeError(f"Expected {name} to return maps and a MethodRun, but got {type_of(found)}.")
    maps, run = found
    if isinstance(maps, tuple):
        raise ValueError(f"Expected {request.layer.name} to return one tensor, but it returns {len(maps)}.")
    n_targets, inputs = len(request.targets), request.inputs
    if (
        not isinstance(maps, Tensor)
        or maps.dim() != inputs.dim()
        or tuple(maps.shape[:2]) not in ((1, n_targets), (n_targets, 1))
    ):
        got = tuple(maps.shape) if isinstance(maps, Tensor) else type_of(maps)
        raise ValueError(f"Expected {name} to return maps 1×{n_targets}×h×w or {n_targets}×1×h×w, but got {got}.")
    forwards = check_whole_number("forwards", run.forwards, 0)
    errors = None if run.errors is None else upsampled(run.errors, request)
    maps = upsampled(maps, request)  # which waits for a GPU
    seconds = time.perf_counter() - start
    return maps, replace(run, forwards=forwards, errors=errors, seconds=seconds)


def upsampled(maps: Tensor, request: ExplanationRequest) -> Tensor:
    """Resizes maps 1×T×h×w or T×1×h×w to the size of the inputs, T×H×W, float32, on the CPU."""
    resized: Tensor = LayerAttribution.interpolate(maps, tuple(request.inputs.shape[2:]), "bilinear")
    return resized.detach().flatten(0, 1).float().cpu()


def _grad_cam(request: ExplanationRequest) -> tuple[Maps, MethodRun]:
    layer = request.layer
    if layer.activation_transform is not None:
        maps = _grad_cam_of_tokens(request, layer.activation_transform)
        return maps, MethodRun(forwards=2)
    maps = LayerGradCam(class_scores_of(request.model), layer.module).attribute(
        request.repeated_inputs(),
        request.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun(forwards=1)


def class_scores_of(forward: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """Returns a forward function as Captum's methods need it, with a tensor as its output.

    It gets copies of its inputs, which may be leaves that a model must not modify.
    """
    return lambda inputs: output_score(forward(inputs.clone()))


def _grad_cam_of_tokens(request: ExplanationRequest, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies Grad-CAM's formula to spatial maps of the tokens and their gradients.

    LayerGradCam averages gradients over all dimensions after the second, which are the channels for tokens.
    """
    layer, inputs = request.layer, request.repeated_inputs()
    gradient = LayerGradientXActivation(class_scores_of(request.model), layer.module, multiply_by_inputs=False)
    activation = LayerActivation(request.model, layer.module)
    gradients = transform(gradient.attribute(inputs, request.targets, attribute_to_layer_input=layer.of_input))
    maps = transform(activation.attribute(inputs, attribute_to_layer_input=layer.of_input))
    return F.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))


def _grad_cam_plus_plus(request: ExplanationRequest, **options: Any) -> tuple[Maps, MethodRun]:
    layer = request.layer
    method = LayerGradCamPlusPlus(
        request.model, layer.module, activation_transform=layer.activation_transform, **options
    )
    maps = method.attribute(
        request.repeated_inputs(),
        request.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun(forwards=1)


def _score_cam(request: ExplanationRequest, **given: Any) -> tuple[Maps, MethodRun]:
    options = request.options
    chosen = {"channel_weighting": weighting_of(request), **merged_options(SCORE_CAM, given, options)}
    score_cam = score_cam_of(request, **chosen)
    if request.shared is not None and may_share(given):
        return _of_shared(request.shared, request, score_cam)
    errors = None
    if options.with_errors and _has_budget(score_cam):
        scores = channel_scores_of(request, score_cam)
        maps, errors = _maps_with_errors(scores, score_cam.channel_weighting)
    else:
        maps = score_cam.attribute_targets(
            request.inputs,
            request.targets,
            attribute_to_layer_input=request.layer.of_input,
            perturbations_per_eval=options.perturbations_per_eval,
            show_progress=options.show_progress,
        )
    run = score_cam.last_run or RunStatistics()
    return maps, MethodRun(run.rows, channels=run, errors=errors)


def may_share(options: Options) -> bool:
    """Whether Score-CAM with these options runs or predicts the score of every mask, as it does by default."""
    return options.get("max_channels") is None and options.get("tolerance") is None


def _of_shared(shared: SharedScores, request: ExplanationRequest, score_cam: ScoreCAM) -> tuple[Maps, MethodRun]:
    """Makes the maps from the scores of all masks, of which a budget sees some."""
    score, weighting = score_cam.score, score_cam.channel_weighting
    assert isinstance(score, str)
    scores = replayed_within_budget(
        shared.of(request, score), score_cam.max_forwards, score_cam.error, weighting, score in BOUNDED_SCORES
    )
    run = RunStatistics().plus(scores, scores.n_forwards, max(shared.chunk_rows), weighting, _has_budget(score_cam))
    warn_of_narrow_scores(scores, weighting, score)
    maps, errors = _maps_with_errors(scores, weighting)
    return maps, MethodRun(
        run.rows,
        channels=run,
        errors=errors if request.options.with_errors else None,
        chunk_rows=shared.chunk_rows,
    )


def _has_budget(score_cam: ScoreCAM) -> bool:
    return score_cam.max_forwards is not None or score_cam.error is not None


def weighting_of(request: ExplanationRequest) -> ChannelWeighting:
    """Returns Score-CAM's weighting by default: the softmax for logits, the score itself for probabilities."""
    return "score" if request.score == "output" and not request.unbounded else "softmax"


def _maps_with_errors(scores: ChannelScores, weighting: ChannelWeighting) -> tuple[Tensor, Tensor | None]:
    return scores.maps(weighting), None if scores.prediction is None else scores.standard_errors(weighting)


def _rise(request: ExplanationRequest, **given: Any) -> tuple[Maps, MethodRun]:
    options = request.options
    chosen = {"score": request.score, **merged_options("rise", given, options)}
    rise = RISE(request.model, masked_forward_func=request.masked_forward_func, **chosen)
    maps = rise.attribute_targets(
        request.inputs,
        request.targets,
        generator=options.generator(),
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    return maps, MethodRun(rise.n_masks)


def _mask(request: ExplanationRequest, **given: Any) -> tuple[Maps, MethodRun]:
    options = request.options
    chosen = {"score": request.score, **merged_options("mask", given, options)}
    method = MeaningfulPerturbation(request.model, **chosen)
    maps = method.attribute(
        request.repeated_inputs(),
        request.targets,
        generator=options.generator(),
        show_progress=options.show_progress,
    )
    assert isinstance(maps, Tensor)  # as the inputs are
    return maps[:, :1], MethodRun(method.n_iterations)


def _options_of(attribution: type, *stubs: nn.Module) -> Callable[[Options], object]:
    """Returns a check of the options of a constructor, whose first arguments get stubs."""
    known = {
        name
        for name, parameter in inspect.signature(attribution).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in _SET
    }

    def check(options: Options) -> None:
        check_names_of_options(options, known)
        attribution(*stubs, **options)

    return check


_MODEL, _LAYER = nn.Identity(), nn.Identity()

METHODS = {
    "grad_cam": Method(_grad_cam, title="Grad-CAM", in_chunks=False),
    "grad_cam_plus_plus": Method(
        _grad_cam_plus_plus,
        title="Grad-CAM++",
        check_options=_options_of(LayerGradCamPlusPlus, _MODEL, _LAYER),
        in_chunks=False,
    ),
    SCORE_CAM: Method(_score_cam, title="Score-CAM", check_options=_options_of(ScoreCAM, _MODEL, _LAYER)),
    "rise": Method(_rise, of_layer=False, title="RISE", check_options=_options_of(RISE, _MODEL)),
    "mask": Method(
        _mask,
        of_layer=False,
        title="Mask",
        check_options=_options_of(MeaningfulPerturbation, _MODEL),
        in_chunks=False,
    ),
}
OWN_METHODS = frozenset(METHODS)  # without those registered later
