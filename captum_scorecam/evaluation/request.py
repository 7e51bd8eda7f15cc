"""What a method is asked to explain, with which options, and what it ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from captum_scorecam import RunStatistics
from captum_scorecam.models import ExplainedLayer


@dataclass(frozen=True)
class MethodOptions:
    """Options of the methods.

    Attributes:
        n_masks (int): RISE's masks. Default: 2000.
        seed (int): Seed of RISE's masks and Mask's jitter. Default: 0.
        mask_iterations (int): Mask's optimisation steps. Default: 300.
        perturbations_per_eval (int, optional): Masked inputs per forward of Score-CAM or RISE. Default: None, tuned.
        show_progress (bool): Show progress bars. Default: False.
    """

    n_masks: int = 2000
    seed: int = 0
    mask_iterations: int = 300
    perturbations_per_eval: int | None = None
    show_progress: bool = False

    def generator(self) -> torch.Generator:
        """Returns a new generator, so that no method's map depends on which others ran before it."""
        return torch.Generator().manual_seed(self.seed)


DEFAULT_OPTIONS = MethodOptions()


@dataclass(frozen=True)
class ExplanationRequest:
    """A request for the maps of T classes of one image.

    Attributes:
        model (nn.Module): Takes N×C×H×W inputs and returns N×classes scores.
        layer (ExplainedLayer): The layer to explain.
        inputs (Tensor): The preprocessed image, 1×C×H×W.
        targets (list of int): The T classes.
        score (str): ``output`` for a model that returns probabilities, else ``probability``. Default: "probability".
        options (MethodOptions): Options of the methods.
    """

    model: nn.Module
    layer: ExplainedLayer
    inputs: Tensor
    targets: list[int]
    score: Literal["output", "probability"] = "probability"
    options: MethodOptions = DEFAULT_OPTIONS

    def repeated_inputs(self) -> Tensor:
        """Returns the inputs once per class, with a gradient even if the model's weights are frozen."""
        return self.inputs.detach().repeat_interleave(len(self.targets), 0).requires_grad_()


@dataclass(frozen=True)
class MethodRun:
    """What a method ran for all classes of one image.

    Attributes:
        forwards (int): Masked inputs that ran through the model; forward passes of a gradient method.
        channels (RunStatistics, optional): Score-CAM's channels and how many of them were skipped. Default: None.
        seconds (float): Wall-clock time. Default: 0.
    """

    forwards: int
    channels: RunStatistics | None = None
    seconds: float = 0.0
