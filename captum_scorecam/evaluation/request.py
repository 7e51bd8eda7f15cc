"""Requests to explain an image, the options of methods, and statistics of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_scorecam import ForwardFunction, RunStatistics
from captum_scorecam.models import ExplainedLayer
from captum_scorecam.scoring.class_scores import NamedScore

if TYPE_CHECKING:
    from captum_scorecam.evaluation.records import RunSettings
    from captum_scorecam.evaluation.shared_scores import SharedScores


@dataclass(frozen=True)
class MethodOptions:
    """Options of all methods. A method's own override them, and Score-CAM's ``tolerance`` overrides a budget.

    Attributes:
        n_masks (int): Number of RISE's masks. Default: 2000.
        seed (int): Seed for RISE's masks, Mask's jitter, the noise of Captum's methods and of metrics, the images and
            mosaics that are drawn, and the other class of ``random_logit``. Default: 0.
        mask_iterations (int): Number of Mask's optimisation steps. Default: 300.
        perturbations_per_eval (int, optional): Masked inputs per forward pass of Score-CAM, RISE, Captum's methods and
            metrics. Default: None, tuned.
        max_forwards (int, optional): Score-CAM runs at most this many masks and predicts the scores of the others.
            Default: None, all.
        error (float, optional): Score-CAM runs masks until the largest standard error of each map is at most this
            share of the map's largest value, in (0, 1), or `max_forwards` were run. Default: None.
        with_errors (bool): Whether to return the standard errors of maps with predicted scores. Default: False.
        show_progress (bool): Whether to show progress bars. Default: False.
    """

    n_masks: int = 2000
    seed: int = 0
    mask_iterations: int = 300
    perturbations_per_eval: int | None = None
    max_forwards: int | None = None
    error: float | None = None
    with_errors: bool = False
    show_progress: bool = False

    def generator(self) -> torch.Generator:
        """Returns a new generator, so that a method's map does not depend on the methods that ran before."""
        return torch.Generator().manual_seed(self.seed)


DEFAULT_OPTIONS = MethodOptions()
OPTIONS_OF_RUN = {  # method: its option: that of all methods
    "score_cam": {"max_forwards": "max_forwards", "error": "error"},
    "rise": {"n_masks": "n_masks"},
    "mask": {"n_iterations": "mask_iterations"},
}


def options_of_run(base: str, own: Mapping[str, Any]) -> dict[str, str]:
    """Returns the options of `MethodOptions` that a method uses, since it has none of its own, by its names for them.

    Args:
        base (str): The method.
        own (mapping of str): Its own options. A ``tolerance`` takes the place of a budget.
    """
    if own.get("tolerance") is not None:
        return {}
    return {name: of_run for name, of_run in OPTIONS_OF_RUN.get(base, {}).items() if name not in own}


def merged_options(base: str, own: Mapping[str, Any], run: MethodOptions | RunSettings) -> dict[str, Any]:
    """Returns a method's own options and those of the run that it uses."""
    return {name: getattr(run, of_run) for name, of_run in options_of_run(base, own).items()} | {**own}


@dataclass(frozen=True)
class ExplanationRequest:
    """A request for the maps of T classes of one image.

    Attributes:
        model (nn.Module): Takes N×C×H×W inputs and returns N×classes scores.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        targets (list of int): The T classes.
        score (str): The score to explain: ``probability``, ``sigmoid``, or ``output``, as of `Classifier`.
            Default: "probability".
        options (MethodOptions): Options of the methods. Default: those of `MethodOptions`.
        unbounded (bool): Whether the score ``output`` may leave [0, 1], so that Score-CAM weights channels by its
            softmax instead of the score itself. Default: False.
        masked_forward_func (callable, optional): A faster twin of the model, for masked inputs. Default: None.
        shared (SharedScores, optional): Scores that several of Score-CAM's methods read. Default: None, each runs its
            own masks.
    """

    model: nn.Module
    layer: ExplainedLayer
    inputs: Tensor
    targets: list[int]
    score: NamedScore = "probability"
    options: MethodOptions = DEFAULT_OPTIONS
    unbounded: bool = False
    masked_forward_func: ForwardFunction | None = None
    shared: SharedScores | None = None

    @property
    def forward_of_masked(self) -> ForwardFunction:
        """The function that runs masked inputs, which is the twin or the model."""
        return self.model if self.masked_forward_func is None else self.masked_forward_func

    def repeated_inputs(self) -> Tensor:
        """Repeats the inputs once per class; they require gradients, in case the model's weights are frozen."""
        return self.inputs.detach().repeat_interleave(len(self.targets), 0).requires_grad_()


@dataclass(frozen=True)
class MethodRun:
    """Statistics of a method's run for all classes of one image.

    Attributes:
        forwards (int): Score-CAM's distinct masks that ran, RISE's masks, Mask's optimisation steps, a gradient
            method's forward passes, or the rows run by a method of Captum.
        channels (RunStatistics, optional): Statistics of Score-CAM's channels. Default: None.
        seconds (float): Wall-clock time. Default: 0.
        errors (Tensor, optional): The standard error of each value of the maps, in their shape, if some scores are
            predicted. Default: None.
        chunk_rows (tuple of int, optional): The rows of each forward pass whose results are shared with other methods.
            Default: None, the method's forward passes are its own.
    """

    forwards: int
    channels: RunStatistics | None = None
    seconds: float = 0.0
    errors: Tensor | None = None
    chunk_rows: tuple[int, ...] | None = None
