"""One image explained: LayerGradCam and ScoreCAM for one class or two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch.nn.functional as F
from captum.attr import LayerActivation, LayerAttribution, LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from captum_scorecam import RunStatistics, ScoreCAM
from captum_scorecam.class_names import class_name, find_class
from captum_scorecam.classifiers import Classifier
from captum_scorecam.images import seen_pixels
from captum_scorecam.layers import ExplainedLayer

P = ParamSpec("P")
T = TypeVar("T")

LAYER_GRAD_CAM, TOKEN_GRAD_CAM = "LayerGradCam", "Grad-CAM of tokens"
PREDICTED, CHOSEN, RUNNER_UP = "predicted", "chosen", "runner-up"


@dataclass(frozen=True)
class ClassExplanation:
    """The maps of one class, H×W, of the input's size, on the CPU.

    Attributes:
        index (int): The class.
        name (str): Its name.
        probability (float): Its probability.
        role (str): Why it is explained: ``predicted``, ``chosen`` or ``runner-up``.
        grad_cam (Tensor): LayerGradCam's map, after its ReLU.
        grad_cam_seconds (float): The time that LayerGradCam took.
        score_cam (Tensor): ScoreCAM's map.
    """

    index: int
    name: str
    probability: float
    role: str
    grad_cam: Tensor
    grad_cam_seconds: float
    score_cam: Tensor


@dataclass(frozen=True)
class ImageExplanation:
    """The explained classes of one image, whose ScoreCAM maps come from one set of forwards.

    Attributes:
        image_name (str): What the image is called.
        pixels (Tensor): What the model saw of it, H×W×3 in [0, 1].
        classes (tuple of ClassExplanation): The target, then the runner-up if it was wanted.
        run (RunStatistics): The forwards that ScoreCAM ran, and the channels that it could leave out.
        score_cam_seconds (float): The time that ScoreCAM took for all classes.
        grad_cam_name (str): ``LayerGradCam``, or what stands for it at a layer of tokens.
    """

    image_name: str
    pixels: Tensor
    classes: tuple[ClassExplanation, ...]
    run: RunStatistics
    score_cam_seconds: float
    grad_cam_name: str = LAYER_GRAD_CAM


def explain_image(
    classifier: Classifier,
    layer: ExplainedLayer,
    inputs: Tensor,
    image_name: str,
    *,
    target: str = PREDICTED,
    compare: bool = True,
    perturbations_per_eval: int | None = None,
    show_progress: bool = False,
) -> ImageExplanation:
    """Explains what a classifier sees in one image.

    Args:
        classifier (Classifier): The model and its class names.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        image_name (str): What the image is called.
        target (str): ``predicted``, or a class as `find_class` takes it. Default: "predicted".
        compare (bool): Explain the most probable other class too. Default: True.
        perturbations_per_eval (int, optional): As in `ScoreCAM.attribute`. Default: None.
        show_progress (bool): Show ScoreCAM's progress bar. Default: False.

    Returns:
        ImageExplanation: The maps of one class or two.

    Raises:
        ValueError: If the model has no such class, or the layer has no maps.
    """
    probabilities = classifier.probabilities(inputs)
    roles = _roles(probabilities, classifier.class_names, target, compare)
    grad_cams = [_timed(grad_cam, classifier.model, layer, inputs, index) for index in roles]
    score_cam = ScoreCAM(classifier.model, layer.module)
    maps, seconds = _timed(_score_cams, score_cam, layer, inputs, list(roles), perturbations_per_eval, show_progress)
    classes = tuple(
        ClassExplanation(
            index=index,
            name=class_name(index, classifier.class_names),
            probability=float(probabilities[index]),
            role=role,
            grad_cam=grad_cam_map,
            grad_cam_seconds=grad_cam_seconds,
            score_cam=score_cam_map,
        )
        for (index, role), (grad_cam_map, grad_cam_seconds), score_cam_map in zip(
            roles.items(), grad_cams, maps, strict=True
        )
    )
    run = score_cam.last_run or RunStatistics()
    pixels = seen_pixels(inputs, classifier.preprocess)
    grad_cam_name = LAYER_GRAD_CAM if layer.activation_transform is None else TOKEN_GRAD_CAM
    return ImageExplanation(image_name, pixels, classes, run, seconds, grad_cam_name)


def grad_cam(model: nn.Module, layer: ExplainedLayer, inputs: Tensor, target: int) -> Tensor:
    """Computes LayerGradCam's map, after its ReLU, upsampled to the inputs' size.

    LayerGradCam averages gradients over the dimensions after the second, which are the channels where a layer
    has tokens. There, Grad-CAM's formula is applied to the maps made of the tokens and of their gradients.

    Args:
        model (nn.Module): The model.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        target (int): The class to explain.

    Returns:
        Tensor: H×W, on the CPU.
    """
    inputs = inputs.detach().clone().requires_grad_()  # so that a model with frozen weights has a gradient
    transform = layer.activation_transform
    if transform is not None:
        return _upsampled(_grad_cam_of_tokens(model, layer, transform, inputs, target), inputs)[0]
    maps = LayerGradCam(model, layer.module).attribute(
        inputs, target, attribute_to_layer_input=layer.of_input, relu_attributions=True
    )
    return _upsampled(maps, inputs)[0]


def _grad_cam_of_tokens(
    model: nn.Module,
    layer: ExplainedLayer,
    transform: Callable[[Tensor], Tensor],
    inputs: Tensor,
    target: int,
) -> Tensor:
    gradient = LayerGradientXActivation(model, layer.module, multiply_by_inputs=False)
    activation = LayerActivation(model, layer.module)
    weights = transform(gradient.attribute(inputs, target, attribute_to_layer_input=layer.of_input)).mean((2, 3), True)
    maps = transform(activation.attribute(inputs, attribute_to_layer_input=layer.of_input))
    return F.relu((weights * maps).sum(1, keepdim=True))


def _score_cams(
    score_cam: ScoreCAM,
    layer: ExplainedLayer,
    inputs: Tensor,
    targets: list[int],
    perturbations_per_eval: int | None,
    show_progress: bool,
) -> Tensor:
    maps = score_cam.attribute_targets(
        inputs,
        targets,
        attribute_to_layer_input=layer.of_input,
        activation_transform=layer.activation_transform,
        perturbations_per_eval=perturbations_per_eval,
        show_progress=show_progress,
    )
    if not isinstance(maps, Tensor):
        raise ValueError(f"Expected {layer.name} to give one tensor, but it gives {len(maps)}.")
    return _upsampled(maps, inputs)


def _upsampled(maps: Tensor, inputs: Tensor) -> Tensor:
    """Returns maps 1×T×h×w as T×H×W, of the inputs' size, on the CPU."""
    upsampled: Tensor = LayerAttribution.interpolate(maps, tuple(inputs.shape[2:]), "bilinear")
    return upsampled[0].detach().float().cpu()


def _roles(probabilities: Tensor, class_names: Sequence[str] | None, target: str, compare: bool) -> dict[int, str]:
    """Returns the classes to explain, and why."""
    ranking = [int(index) for index in probabilities.argsort(descending=True)]
    predicted = ranking[0]
    chosen = predicted if target == PREDICTED else find_class(target, len(ranking), class_names)
    if chosen != predicted:
        return {chosen: CHOSEN, predicted: PREDICTED} if compare else {chosen: CHOSEN}
    return {predicted: PREDICTED, ranking[1]: RUNNER_UP} if compare else {predicted: PREDICTED}


def _timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start
