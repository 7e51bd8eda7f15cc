"""What an attribution method is asked, and what it ran to answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_scorecam import RunStatistics
from captum_scorecam.models import ExplainedLayer


@dataclass(frozen=True)
class MethodOptions:
    """What the user chose for the methods.

    Attributes:
        n_masks (int): RISE's masks. Default: 2000.
        seed (int): What RISE's masks and Mask's jitter are drawn from. Default: 0.
        mask_iterations (int): Mask's steps. Default: 300.
        perturbations_per_eval (int, optional): Masked inputs in a forward of ScoreCAM or RISE. Default: None, tuned.
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
