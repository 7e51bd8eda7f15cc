"""Mask (meaningful perturbation): a small, smooth region whose deletion lowers the class score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Generator, Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import (
    MOST,
    check_at_least,
    check_callable,
    check_choice,
    check_flags,
    check_positive,
    check_whole_number,
    without_constructor_options,
)
from captum_scorecam.attr.deletion_game import DeletionGame, PerturbationKind, perturbed_inputs, upsampling
from captum_scorecam.attr.input_space import over_channels
from captum_scorecam.masking.random_grids import cells_per_dimension, check_grid_size
from captum_scorecam.model_state import gradients_enabled, own_generator, unchanged_model_state
from captum_scorecam.scoring.class_scores import Score, score_function
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats


class MeaningfulPerturbation(PerturbationAttribution):
    r"""Mask (`arXiv 1704.03296 <https://arxiv.org/abs/1704.03296>`_): the deletion game, played by gradient descent.

    A coarse mask m, upsampled, keeps the input where it is 1 and replaces it with a perturbed input where it is 0. It
    is optimised to lower the class score while deleting little and staying smooth:

    .. math::

        m = \operatorname{argmin}_m f^c(B + U(m) \circ (X - B)) + \lambda_1 \|1 - m\|_1
            + \lambda_2 \sum_u \|\nabla m(u)\|_\beta^\beta

    The attribution is 1 − U(m), the deleted region. Each iteration runs one forward and one backward pass. The defaults
    are those of the authors' released code, for images of 224×224 pixels and probabilities as scores.

    Args:
        forward_func (callable): The model, or any function of its inputs through which gradients can flow.
        perturbation (str): B: ``"blur"`` (σ = 10 pixels, default), ``"constant"`` (the mean of each channel),
            ``"noise"`` (redrawn in each iteration) or ``"baseline"`` (the `baselines` passed to :meth:`attribute`).
        n_iterations (int): Number of Adam steps. Default: 300.
        learning_rate (float): Learning rate of Adam. Default: 0.1.
        l1_weight (float): λ1. Default: 1e-4.
        tv_weight (float): λ2. Default: 1e-2.
        tv_beta (float): β, at least 1. Default: 3.
        grid_size (int or sequence of int): Number of cells of m along each spatial dimension. Default: 28.
        mask_blur (float): Standard deviation, in pixels, of the blur after upsampling. Default: 5.
        jitter (int): Number of offsets around 0, per dimension, from which each iteration draws a shift of the
            perturbed input. Default: 4; 0 disables the shift.
        score (str or callable): f, as for :class:`ScoreCAM`. Default: ``"probability"``.

    Raises:
        TypeError, ValueError: If an option has the wrong type or is out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import MeaningfulPerturbation
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> MeaningfulPerturbation(model, n_iterations=5).attribute(torch.rand(2, 3, 32, 32), target=3).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        forward_func: ForwardFunction,
        *,
        perturbation: PerturbationKind = "blur",
        n_iterations: int = 300,
        learning_rate: float = 0.1,
        l1_weight: float = 1e-4,
        tv_weight: float = 1e-2,
        tv_beta: float = 3.0,
        grid_size: int | Sequence[int] = 28,
        mask_blur: float = 5.0,
        jitter: int = 4,
        score: Score = "probability",
    ) -> None:
        super().__init__(forward_func)
        check_callable("forward_func", forward_func)
        check_choice("perturbation", perturbation, PerturbationKind)
        check_positive("learning_rate", learning_rate)
        check_at_least("l1_weight", l1_weight, 0)
        check_at_least("tv_weight", tv_weight, 0)
        check_at_least("tv_beta", tv_beta, 1)
        check_at_least("mask_blur", mask_blur, 0)
        score_function(score)
        self.perturbation = perturbation
        self.n_iterations = check_whole_number("n_iterations", n_iterations, least=1, most=MOST)
        self.learning_rate = learning_rate
        self.l1_weight = l1_weight
        self.tv_weight = tv_weight
        self.tv_beta = tv_beta
        self.grid_size = check_grid_size(grid_size)
        self.mask_blur = mask_blur
        self.jitter = check_whole_number("jitter", jitter, least=0, most=MOST)
        self.score = score
        self._memory_formats = MemoryFormats()

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name, as used by papers that compare with it."""
        return "Mask"

    @log_usage()
    @without_constructor_options
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        generator: Generator | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes, for each example, the region whose deletion lowers the score of one target.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All inputs are
                perturbed by the same mask, upsampled to each input's size.
            baselines: B, only for perturbation="baseline". Default: None, zeros.
            generator (torch.Generator, optional): Draws jitter and noise. Default: None, PyTorch's global generator,
                whose state is left unchanged. The other arguments are those of :meth:`ScoreCAM.attribute`.

        Returns:
            Tensor or tuple of Tensor: 1 − U(m), in [0, 1], in the form that :meth:`RISE.attribute` returns.

        Raises:
            Same as :meth:`ScoreCAM.attribute`, and ValueError if a score has no gradient, or `baselines` are given for
            another perturbation.
        """
        if baselines is not None and self.perturbation != "baseline":
            raise ValueError(
                f"Expected `baselines` only with perturbation='baseline', but the perturbation is "
                f"{self.perturbation!r}."
            )
        check_flags(show_progress=show_progress)
        forward = MaskedForward.from_call(
            self.forward_func, inputs, [target], additional_forward_args, baselines, self.score
        )
        size = _grid_size(self.grid_size, forward.sizes)
        progress = f"{self.get_name()} attribution" if show_progress else None
        generator = own_generator(generator)
        with unchanged_model_state(self.forward_func, forward.inputs) as state:
            state.first_forward(
                forward.unmasked_output,
                lambda output, changed: forward.is_reproducible(output, changed, self.n_iterations, None),
            )
            n_rows = self.n_iterations * len(forward.inputs[0])
            forward = self._memory_formats.fastest(forward, n_rows, perturbations_per_eval=1)
            with gradients_enabled():
                forward = _differentiable(forward)
                perturbed = perturbed_inputs(self.perturbation, forward.inputs, forward.baselines, generator)
                matrices = upsampling(size, forward.sizes, self.mask_blur, forward.inputs[0])
                game = DeletionGame(forward, perturbed, matrices, self.l1_weight, self.tv_weight, self.tv_beta)
                offsets = _offsets(self.jitter, self.n_iterations, len(size), generator)
                masks = game.play(game.circles(), offsets, self.learning_rate, progress)
                deleted = tuple((1 - mask).clamp(0, 1) for mask in game.upsampled(masks))
        return over_channels(deleted, inputs)


def _grid_size(grid_size: int | Sequence[int], sizes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    cells = cells_per_dimension(grid_size, sizes)
    # With more cells than pixels, some cells would affect no pixel.
    return tuple(min(n, max(pixels)) for n, pixels in zip(cells, zip(*sizes, strict=True), strict=True))


def _differentiable(forward: MaskedForward) -> MaskedForward:
    """Returns the forward pass of copies that autograd accepts, also of tensors made in ``inference_mode``."""
    inputs = tuple(x.contiguous() for x in forward.inputs)
    inputs, baselines = (tuple(x.detach().clone() for x in values) for values in (inputs, forward.baselines))
    arguments = _captum.copies_of_arguments(forward.additional_forward_args)
    return replace(forward, inputs=inputs, baselines=baselines, additional_forward_args=arguments)


def _offsets(jitter: int, n_iterations: int, dimensions: int, generator: Generator) -> list[list[int]]:
    low = -(jitter // 2)
    drawn = torch.randint(
        low, low + max(jitter, 1), (n_iterations, dimensions), generator=generator, device=generator.device
    )
    offsets: list[list[int]] = drawn.tolist()
    return offsets
