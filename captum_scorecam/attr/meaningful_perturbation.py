"""Mask (meaningful perturbation): the small smooth region whose deletion takes the class score away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Generator, Tensor

from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam.attr.deletion_game import PERTURBATIONS, DeletionGame, perturbed_inputs, upsampling
from captum_scorecam.class_scores import ScoreFunction
from captum_scorecam.grid_masks import cells_per_dimension
from captum_scorecam.input_space import over_channels
from captum_scorecam.masked_forward import MaskedForward
from captum_scorecam.model_state import differentiable, gradients_enabled, unchanged_model_state


class MeaningfulPerturbation(PerturbationAttribution):
    r"""Mask (`arXiv 1704.03296 <https://arxiv.org/abs/1704.03296>`_): the deletion game, won by gradient descent.

    A coarse mask m, upsampled, keeps the input where it is 1 and puts a perturbed input where it is 0. It is optimised
    so that the class score falls, while it deletes little and stays smooth:

    .. math::

        m = \operatorname{argmin}_m f^c(B + U(m) \circ (X - B)) + \lambda_1 \|1 - m\|_1
            + \lambda_2 \sum_u \|\nabla m(u)\|_\beta^\beta

    The attribution is 1 − U(m): what had to go. It costs one forward and one backward pass per iteration. The defaults
    are those that the authors released, for images of 224×224 pixels and scores that are probabilities.

    Args:
        forward_func (callable): The model, or any function of its inputs through which gradients can go.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import MeaningfulPerturbation
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> MeaningfulPerturbation(model).attribute(torch.rand(2, 3, 32, 32), target=3, n_iterations=5).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, forward_func: ForwardFunction) -> None:
        super().__init__(forward_func)

    @classmethod
    def get_name(cls) -> str:
        """The method's name as the papers that compare with it write it."""
        return "Mask"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        perturbation: str | BaselineType = "blur",
        n_iterations: int = 300,
        learning_rate: float = 0.1,
        l1_weight: float = 1e-4,
        tv_weight: float = 1e-2,
        tv_beta: float = 3.0,
        mask_size: int | Sequence[int] = 28,
        mask_blur: float = 5.0,
        jitter: int = 4,
        generator: Generator | None = None,
        score: str | ScoreFunction = "probability",
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes what must be deleted for the score of one target to fall, for each example.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All are perturbed,
                each at its own size by the same mask.
            target: The class to explain, in any form that Captum accepts. Default: None, for one output per example.
            additional_forward_args (optional): What `forward_func` takes after the inputs; not perturbed.
            perturbation (str, Tensor, number or tuple): B: ``"blur"`` (σ = 10 pixels, default), ``"constant"`` (the
                mean of each channel), ``"noise"`` (anew in each iteration), or baselines as in Captum.
            n_iterations (int): Steps of Adam. Default: 300.
            learning_rate (float): Of Adam. Default: 0.1.
            l1_weight (float): λ1. Default: 1e-4.
            tv_weight (float): λ2. Default: 1e-2.
            tv_beta (float): β, at least 1. Default: 3.
            mask_size (int or sequence of int): Cells of m along each spatial dimension. Default: 28.
            mask_blur (float): Standard deviation, in pixels, of the blur that follows the upsampling. Default: 5.
            jitter (int): Each iteration moves the perturbed input by one of this many offsets around 0, per dimension.
                Default: 4; 0 does not move it.
            generator (torch.Generator, optional): Draws jitter and noise. Default: None, PyTorch's global generator,
                whose state is left as it was.
            score (str or callable): f: ``"probability"`` (softmax over dim 1, default), ``"output"``, or a callable
                that takes what `forward_func` returns and gives scores, one row per input row.
            show_progress (bool): Show Captum's progress bar. Default: False.

        Returns:
            Tensor or tuple of Tensor: For each input 1 − U(m), in [0, 1], of its shape and dtype, contiguous, the same
            for all channels; a tuple for a tuple.

        Raises:
            ValueError, TypeError: If an option or an input does not fit, a score is not finite or has no gradient, or
                output rows do not grow with input rows. The message says what was expected.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        _check_options(perturbation, n_iterations, learning_rate, l1_weight, tv_weight, tv_beta, mask_blur, jitter)
        baselines = None if isinstance(perturbation, str) else perturbation
        forward = MaskedForward.of(self.forward_func, inputs, [target], additional_forward_args, baselines, score)
        size = _mask_size(mask_size, forward.sizes)
        progress = f"{self.get_name()} attribution" if show_progress else None
        with unchanged_model_state(forward.inputs) as state:
            with state.recorded():
                forward.unmasked_scores()
            with gradients_enabled():
                forward = _differentiable(forward)
                perturbed = _perturbed(perturbation, forward, generator)
                matrices = upsampling(size, forward.sizes, mask_blur, forward.inputs[0])
                game = DeletionGame(forward, perturbed, matrices, l1_weight, tv_weight, tv_beta)
                offsets = _offsets(jitter, n_iterations, len(size), generator)
                masks = game.play(game.circles(), offsets, learning_rate, progress)
                deleted = tuple((1 - mask).clamp(0, 1) for mask in game.upsampled(masks))
        return over_channels(deleted, inputs)


def _check_options(
    perturbation: str | BaselineType,
    n_iterations: int,
    learning_rate: float,
    l1_weight: float,
    tv_weight: float,
    tv_beta: float,
    mask_blur: float,
    jitter: int,
) -> None:
    if isinstance(perturbation, str) and perturbation not in PERTURBATIONS:
        names = ", ".join(map(repr, PERTURBATIONS))
        raise ValueError(f"Expected `perturbation` to be {names} or baselines, but got {perturbation!r}.")
    if not learning_rate > 0:
        raise ValueError(f"Expected `learning_rate` to be positive, but got {learning_rate}.")
    for name, value, least in (
        ("n_iterations", n_iterations, 1),
        ("l1_weight", l1_weight, 0),
        ("tv_weight", tv_weight, 0),
        ("tv_beta", tv_beta, 1),
        ("mask_blur", mask_blur, 0),
        ("jitter", jitter, 0),
    ):
        if not value >= least:
            raise ValueError(f"Expected `{name}` to be at least {least}, but got {value}.")


def _mask_size(mask_size: int | Sequence[int], sizes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    cells = cells_per_dimension("mask_size", mask_size, sizes)
    if min(cells) < 1:
        raise ValueError(f"Expected `mask_size` to be at least 1, but got {mask_size}.")
    # More cells than pixels would be cells that no pixel shows.
    return tuple(min(n, max(pixels)) for n, pixels in zip(cells, zip(*sizes, strict=True), strict=True))


def _differentiable(forward: MaskedForward) -> MaskedForward:
    inputs, baselines, arguments = (
        tuple(differentiable(value) for value in values)
        for values in (forward.inputs, forward.baselines, forward.additional_forward_args)
    )
    return replace(forward, inputs=inputs, baselines=baselines, additional_forward_args=arguments)


def _perturbed(
    perturbation: str | BaselineType, forward: MaskedForward, generator: Generator | None
) -> Callable[[], Tensors]:
    if isinstance(perturbation, str):
        return perturbed_inputs(perturbation, forward.inputs, generator)
    return lambda: forward.baselines


def _offsets(jitter: int, n_iterations: int, dimensions: int, generator: Generator | None) -> list[list[int]]:
    device = torch.device("cpu") if generator is None else generator.device
    low = -(jitter // 2)
    drawn = torch.randint(low, low + max(jitter, 1), (n_iterations, dimensions), generator=generator, device=device)
    offsets: list[list[int]] = drawn.tolist()
    return offsets
