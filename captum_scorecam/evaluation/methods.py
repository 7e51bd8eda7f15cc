"""The attribution methods by name: each explains all the classes that are wanted of one image at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch.nn.functional as F
from captum.attr import LayerActivation, LayerAttribution, LayerGradCam, LayerGradientXActivation
from torch import Tensor

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, RunStatistics, ScoreCAM
from captum_scorecam.attr.deletion_game import CIRCLES
from captum_scorecam.evaluation.registry import check_names, register
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS as DEFAULT_OPTIONS
from captum_scorecam.evaluation.request import MethodOptions as MethodOptions
from captum_scorecam.evaluation.request import MethodRun as MethodRun
from captum_scorecam.evaluation.request import Question as Question

DEFAULT_METHODS = ("grad_cam", "score_cam")
Maps = Tensor | tuple[Tensor, ...]


class Method(NamedTuple):
    """A method as the command line and the evaluation know it.

    Attributes:
        explain (callable): Answers a question with maps 1×T×h×w or T×1×h×w, h×w at most the inputs' size.
        of_layer (bool): Whether it looks at a layer. Default: True.
        forwards (callable, optional): The most rows that `explain` runs through the model for a question, the unmasked
            image among them. Default: None, one.
        title (str, optional): What summaries and reports call it. Default: None, the name that it is registered by.
    """

    explain: Callable[[Question], tuple[Maps, MethodRun]]
    of_layer: bool = True
    forwards: Callable[[Question], int] | None = None
    title: str | None = None


def register_method(name: str, method: Method) -> None:
    """Adds a method to `METHODS`, for ``--method`` and `evaluate`.

    Args:
        name (str): Letters, digits and underscores; it stands in records and in the names of files.
        method (Method): The method.

    Raises:
        ValueError: If the name is of another form, or another method has it.
    """
    register(METHODS, name, method, "method")


def most_forwards(name: str, question: Question) -> int:
    """Returns the most forwards that a method runs for a question."""
    forwards = METHODS[name].forwards
    return 1 if forwards is None else forwards(question)


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the methods' names, each once.

    Raises:
        ValueError: If there is no method of a name.
    """
    return check_names(METHODS, names, "--method")


def run_method(name: str, question: Question) -> tuple[Tensor, MethodRun]:
    """Computes a method's maps, and how long it takes.

    Args:
        name (str): A name in `METHODS`.
        question (Question): What is explained.

    Returns:
        tuple: The maps T×H×W, upsampled to the inputs' size, float32, on the CPU, and what was run for them.

    Raises:
        ValueError: If the layer gives several tensors.
    """
    start = time.perf_counter()
    maps, run = METHODS[name].explain(question)
    if not isinstance(maps, Tensor):
        raise ValueError(f"Expected {question.layer.name} to give one tensor, but it gives {len(maps)}.")
    upsampled: Tensor = LayerAttribution.interpolate(maps, tuple(question.inputs.shape[2:]), "bilinear")
    upsampled = upsampled.detach().flatten(0, 1).float().cpu()
    return upsampled, replace(run, seconds=time.perf_counter() - start)


def _grad_cam(question: Question) -> tuple[Maps, MethodRun]:
    layer = question.layer
    if layer.activation_transform is not None:
        maps = _grad_cam_of_tokens(question, layer.activation_transform)
        return maps, MethodRun("Grad-CAM of tokens", 2)
    maps = LayerGradCam(question.model, layer.module).attribute(
        question.repeated_inputs(),
        question.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun("LayerGradCam", 1)


def _grad_cam_of_tokens(question: Question, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies Grad-CAM's formula to the maps made of the tokens and of their gradients.

    LayerGradCam averages gradients over the dimensions after the second, which are the channels where a layer has
    tokens.
    """
    layer, inputs = question.layer, question.repeated_inputs()
    gradient = LayerGradientXActivation(question.model, layer.module, multiply_by_inputs=False)
    activation = LayerActivation(question.model, layer.module)
    gradients = transform(gradient.attribute(inputs, question.targets, attribute_to_layer_input=layer.of_input))
    maps = transform(activation.attribute(inputs, attribute_to_layer_input=layer.of_input))
    return F.relu((gradients.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))


def _grad_cam_plus_plus(question: Question) -> tuple[Maps, MethodRun]:
    layer = question.layer
    method = LayerGradCamPlusPlus(question.model, layer.module, activation_transform=layer.activation_transform)
    maps = method.attribute(
        question.repeated_inputs(),
        question.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
    )
    return maps, MethodRun("LayerGradCamPlusPlus", 1)


def _score_cam(question: Question) -> tuple[Maps, MethodRun]:
    layer, options = question.layer, question.options
    score_cam = ScoreCAM(
        question.model,
        layer.module,
        channel_weighting="score" if question.score == "output" else "softmax",  # the softmax is for logits
        activation_transform=layer.activation_transform,
    )
    maps = score_cam.attribute_targets(
        question.inputs,
        question.targets,
        attribute_to_layer_input=layer.of_input,
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    run = score_cam.last_run or RunStatistics()
    return maps, MethodRun("ScoreCAM", run.rows, run)


def _n_channels(question: Question) -> int:
    """Returns the channels that ScoreCAM would mask with, constant and equal ones too, from one forward."""
    layer = question.layer
    activation = LayerActivation(question.model, layer.module)
    maps = activation.attribute(question.inputs, attribute_to_layer_input=layer.of_input)
    return int((maps if layer.activation_transform is None else layer.activation_transform(maps)).shape[1])


def _rise(question: Question) -> tuple[Maps, MethodRun]:
    options = question.options
    maps = RISE(question.model, n_masks=options.n_masks, score=question.score).attribute_targets(
        question.inputs,
        question.targets,
        generator=options.generator(),
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    return maps, MethodRun("RISE", options.n_masks)


def _mask(question: Question) -> tuple[Maps, MethodRun]:
    options = question.options
    method = MeaningfulPerturbation(question.model, n_iterations=options.mask_iterations, score=question.score)
    maps = method.attribute(
        question.repeated_inputs(),
        question.targets,
        generator=options.generator(),
        show_progress=options.show_progress,
    )
    assert isinstance(maps, Tensor)  # as the inputs are
    return maps[:, :1], MethodRun("Mask", options.mask_iterations)


METHODS = {
    "grad_cam": Method(
        _grad_cam,
        forwards=lambda question: 1 if question.layer.activation_transform is None else 2,
        title="Grad-CAM",
    ),
    "grad_cam_plus_plus": Method(_grad_cam_plus_plus, title="Grad-CAM++"),
    "score_cam": Method(_score_cam, forwards=lambda question: 1 + _n_channels(question), title="Score-CAM"),
    "rise": Method(_rise, of_layer=False, forwards=lambda question: 1 + question.options.n_masks, title="RISE"),
    "mask": Method(
        _mask,
        of_layer=False,
        forwards=lambda question: 1 + CIRCLES + question.options.mask_iterations,
        title="Mask",
    ),
}
