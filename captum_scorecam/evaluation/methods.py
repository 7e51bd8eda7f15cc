"""The attribution methods by name: each explains all the classes that are wanted of one image at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from captum.attr import LayerActivation, LayerAttribution, LayerGradCam, LayerGradientXActivation
from torch import Tensor, nn

from captum_scorecam import RISE, LayerGradCamPlusPlus, MeaningfulPerturbation, RunStatistics, ScoreCAM
from captum_scorecam.classification.layers import ExplainedLayer

MASK_ITERATIONS = 300  # the default of `MeaningfulPerturbation`
DEFAULT_METHODS = ("grad_cam", "score_cam")
Maps = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class MethodOptions:
    """What the user chose for the methods.

    Attributes:
        n_masks (int): RISE's masks. Default: 2000.
        seed (int): What RISE's masks and Mask's jitter are drawn from. Default: 0.
        perturbations_per_eval (int, optional): Masked inputs in a forward of ScoreCAM or RISE. Default: None, tuned.
        show_progress (bool): Show progress bars. Default: False.
    """

    n_masks: int = 2000
    seed: int = 0
    perturbations_per_eval: int | None = None
    show_progress: bool = False

    def generator(self) -> torch.Generator:
        """Returns a new generator, so that no method's map depends on which others ran before it."""
        return torch.Generator().manual_seed(self.seed)


DEFAULT_OPTIONS = MethodOptions()


@dataclass(frozen=True)
class Question:
    """What a method is asked: the evidence in one image for each of T classes.

    Attributes:
        model (nn.Module): Takes N×C×H×W inputs and returns N×classes scores.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        targets (list of int): The T classes.
        score (str): ``output`` for a model that returns probabilities, else ``probability``. Default: "probability".
        options (MethodOptions): What the user chose.
    """

    model: nn.Module
    layer: ExplainedLayer
    inputs: Tensor
    targets: list[int]
    score: str = "probability"
    options: MethodOptions = DEFAULT_OPTIONS

    def repeated_inputs(self) -> Tensor:
        """Returns the inputs once for each class, with a gradient also where the model's weights are frozen."""
        return self.inputs.detach().repeat_interleave(len(self.targets), 0).requires_grad_()


@dataclass(frozen=True)
class MethodRun:
    """What a method ran for all classes of one image.

    Attributes:
        title (str): The method's name as it is shown.
        forwards (int): Masked inputs that ran, or, of gradient methods, forward passes.
        channels (RunStatistics, optional): The channels that ScoreCAM had, and those that it could leave out.
        seconds (float): The time that it took.
    """

    title: str
    forwards: int
    channels: RunStatistics | None = None
    seconds: float = 0.0


class Method(NamedTuple):
    """How a method answers, with maps 1×T×h×w or T×1×h×w, and whether it looks at a layer."""

    explain: Callable[[Question], tuple[Maps, MethodRun]]
    of_layer: bool = True


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the methods' names, each once.

    Raises:
        ValueError: If there is no method of a name.
    """
    for name in names:
        if name not in METHODS:
            raise ValueError(f"Expected `--method` to be one of {', '.join(METHODS)}, but got {name!r}.")
    return tuple(dict.fromkeys(names))


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
    maps = LayerGradCamPlusPlus(question.model, layer.module).attribute(
        question.repeated_inputs(),
        question.targets,
        attribute_to_layer_input=layer.of_input,
        relu_attributions=True,
        activation_transform=layer.activation_transform,
    )
    return maps, MethodRun("LayerGradCamPlusPlus", 1)


def _score_cam(question: Question) -> tuple[Maps, MethodRun]:
    layer, options = question.layer, question.options
    score_cam = ScoreCAM(question.model, layer.module)
    maps = score_cam.attribute_targets(
        question.inputs,
        question.targets,
        attribute_to_layer_input=layer.of_input,
        activation_transform=layer.activation_transform,
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    run = score_cam.last_run or RunStatistics()
    return maps, MethodRun("ScoreCAM", run.rows, run)


def _rise(question: Question) -> tuple[Maps, MethodRun]:
    options = question.options
    maps = RISE(question.model).attribute_targets(
        question.inputs,
        question.targets,
        n_masks=options.n_masks,
        generator=options.generator(),
        score=question.score,
        perturbations_per_eval=options.perturbations_per_eval,
        show_progress=options.show_progress,
    )
    return maps, MethodRun("RISE", options.n_masks)


def _mask(question: Question) -> tuple[Maps, MethodRun]:
    options = question.options
    maps = MeaningfulPerturbation(question.model).attribute(
        question.repeated_inputs(),
        question.targets,
        n_iterations=MASK_ITERATIONS,
        generator=options.generator(),
        score=question.score,
        show_progress=options.show_progress,
    )
    assert isinstance(maps, Tensor)  # as the inputs are
    return maps[:, :1], MethodRun("Mask", MASK_ITERATIONS)


METHODS = {
    "grad_cam": Method(_grad_cam),
    "grad_cam_plus_plus": Method(_grad_cam_plus_plus),
    "score_cam": Method(_score_cam),
    "rise": Method(_rise, of_layer=False),
    "mask": Method(_mask, of_layer=False),
}
