"""The deletion game of Mask: finds a small, smooth region whose deletion lowers the class score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam.masking.baselines import gaussian_blur
from captum_scorecam.masking.scaling import resize, working_dtype
from captum_scorecam.model_state import gradients_disabled
from captum_scorecam.scoring.masked_forward import MaskedForward

PerturbationKind: TypeAlias = Literal["blur", "constant", "noise", "baseline"]
INPUT_BLUR = 10.0
CIRCLES = 16
SUPPRESSED = 0.01


def total_variation(masks: Tensor, beta: float) -> Tensor:
    """Computes the total variation Σ_u ‖∇m(u)‖_β^β of each mask (arXiv 1704.03296, section 4).

    It is the sum of the absolute differences between neighbours, to the power β.

    Args:
        masks (Tensor): N×1×spatial.
        beta (float): β, at least 1.

    Returns:
        Tensor: N.
    """
    differences = (masks.diff(dim=dimension) for dimension in range(2, masks.dim()))
    return torch.stack([d.abs().pow(beta).flatten(1).sum(1) for d in differences]).sum(0)


def shifted(values: Tensor, offsets: Sequence[int]) -> Tensor:
    """Shifts values N×C×spatial so that position i holds the value from i + offset; edges are replicated."""
    if values.dim() == 0:
        return values
    for dimension, offset in enumerate(offsets, start=2):
        positions = torch.arange(values.shape[dimension], device=values.device) + offset
        values = values.index_select(dimension, positions.clamp(0, values.shape[dimension] - 1))
    return values


def smooth(values: Tensor, sigma: float) -> Tensor:
    """Blurs values N×C×spatial with a Gaussian of standard deviation `sigma` in pixels; 0 disables the blur."""
    return values if sigma == 0 else gaussian_blur(values, 2 * round(3 * sigma) + 1, sigma)


def perturbed_inputs(
    kind: PerturbationKind, inputs: Tensors, baselines: Tensors, generator: Generator
) -> Callable[[], Tensors]:
    """Returns a function that computes B, the replacement for the inputs where the mask is 0, in each iteration.

    B is defined by `kind` (arXiv 1704.03296, section 4): ``"blur"`` is the input blurred with σ = 10 pixels,
    ``"constant"`` the mean of each channel, ``"noise"`` Gaussian noise with the mean and standard deviation of each
    channel, redrawn in every call and shared by all examples, and ``"baseline"`` the baselines.
    """
    if kind == "baseline":
        return lambda: baselines
    if kind == "blur":
        blurred = tuple(smooth(x, INPUT_BLUR) for x in inputs)
        return lambda: blurred
    means = [x.mean(tuple(range(2, x.dim())), keepdim=True) for x in inputs]
    if kind == "constant":
        return lambda: tuple(means)
    deviations = [x.std(tuple(range(2, x.dim())), correction=0, keepdim=True) for x in inputs]

    def noise() -> Tensors:
        drawn = [
            torch.randn(x.shape[1:], generator=generator, dtype=torch.float32, device=generator.device) for x in inputs
        ]
        return tuple(m + s * z.to(m) for m, s, z in zip(means, deviations, drawn, strict=True))

    return noise


def upsampling(
    grid_size: Sequence[int], sizes: Sequence[Sequence[int]], mask_blur: float, like: Tensor
) -> tuple[Tensors, ...]:
    """Returns U for each input: linear interpolation and a Gaussian blur, as one cells×pixels matrix per dimension."""
    dtype = working_dtype(like.dtype)
    one_hots = [torch.eye(cells, dtype=dtype, device=like.device).unsqueeze(0) for cells in grid_size]
    return tuple(
        tuple(smooth(resize(cells, (pixels,)), mask_blur)[0] for cells, pixels in zip(one_hots, size, strict=True))
        for size in sizes
    )


@dataclass(frozen=True)
class DeletionGame:
    """Computes the loss of a mask for each example, and the masks that minimise it.

    Attributes:
        forward (MaskedForward): f^c; its baselines are ignored.
        perturbed (callable): Returns B, which replaces the inputs where the mask is 0.
        upsampling (tuple): U, as returned by :func:`upsampling`.
        l1_weight (float): λ1.
        tv_weight (float): λ2.
        tv_beta (float): β.
    """

    forward: MaskedForward
    perturbed: Callable[[], Tensors]
    upsampling: tuple[Tensors, ...]
    l1_weight: float
    tv_weight: float
    tv_beta: float

    @property
    def grid_size(self) -> tuple[int, ...]:
        """The number of mask cells along each spatial dimension."""
        return tuple(len(matrix) for matrix in self.upsampling[0])

    def upsampled(self, masks: Tensor) -> Tensors:
        """Returns U(m) of masks N×1×grid_size: one tensor per input, N×1×size."""
        return tuple(_upsampled(masks, matrices) for matrices in self.upsampling)

    def scores(self, masks: Tensor, offsets: Sequence[int]) -> Tensor:
        """Returns f^c of the perturbed inputs, shifted by the offsets; shape N."""
        x, b, m = (
            tuple(shifted(values, offsets) for values in tensors)
            for tensors in (self.forward.inputs, self.perturbed(), self.upsampled(masks))
        )
        examples = torch.arange(len(masks), device=masks.device)
        return replace(self.forward, inputs=x, baselines=b)(m, examples)[:, 0]

    def losses(self, masks: Tensor, offsets: Sequence[int]) -> Tensor:
        """Returns f^c + λ1 ‖1 − m‖_1 + λ2 Σ_u ‖∇m(u)‖_β^β (arXiv 1704.03296, section 4); shape N."""
        scores = self.scores(masks, offsets)
        if masks.requires_grad and not scores.requires_grad:
            raise ValueError(
                "Expected scores that are differentiable with respect to the inputs, but they have no gradient."
            )
        deleted = (1 - masks).abs().flatten(1).sum(1)
        return scores + self.l1_weight * deleted + self.tv_weight * total_variation(masks, self.tv_beta)

    def circles(self) -> Tensor:
        """Returns each example's smallest centred circle whose deletion causes 99 % of the score drop, N×1×grid_size.

        The full drop is that to the score of the input perturbed everywhere. As in the authors' code, the circle
        initialises the mask: if the initial mask deleted nothing, a saturated score would have no gradient.
        """
        size = self.grid_size
        n_examples, dtype = len(self.forward.inputs[0]), working_dtype(self.forward.inputs[0].dtype)
        device = self.forward.device
        sides = [torch.linspace(-1, 1, 2 * cells + 1, dtype=dtype, device=device)[1::2] for cells in size]
        distances = torch.stack(torch.meshgrid(*sides, indexing="ij")).square().mean(0).sqrt()
        radii = torch.linspace(0, 1, CIRCLES, dtype=dtype, device=device).view(-1, *[1] * (len(size) + 1))
        masks = (distances >= radii).to(dtype)
        with gradients_disabled():
            scores = torch.stack([self.scores(m.expand(n_examples, 1, *size), [0] * len(size)) for m in masks])
        _check_finite(scores)
        suppressed = scores - scores[-1] <= SUPPRESSED * (scores[0] - scores[-1])
        return masks[suppressed.int().argmax(0)]

    def play(
        self, masks: Tensor, offsets: Iterable[Sequence[int]], learning_rate: float, progress: str | None = None
    ) -> Tensor:
        """Minimises the losses with Adam, one step per offset, keeping the masks in [0, 1].

        Each example has a separate loss and Adam works element by element, so examples do not affect each other.
        """
        masks = masks.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([masks], learning_rate)
        for step in _captum.progress(offsets, desc=progress, disable=progress is None):
            loss = self.losses(masks, step).sum()
            # Autocast is for the forward pass only; here it would compute the masks' gradients in half precision.
            with torch.autocast(masks.device.type, enabled=False):
                (masks.grad,) = torch.autograd.grad(loss, masks)
            optimizer.step()
            masks.data.clamp_(0, 1)
        _check_finite(masks)
        return masks.detach()


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError("Expected finite scores and gradients for the perturbed inputs, but got NaN or Inf.")


def _upsampled(masks: Tensor, matrices: Tensors) -> Tensor:
    # Autocast would run these matrix products in half precision.
    with torch.autocast(masks.device.type, enabled=False):
        for matrix in matrices:
            # Consumes the first spatial dimension and appends its upsampled version; the last step restores the order.
            masks = torch.einsum("ncs...,sp->nc...p", masks, matrix)
    return masks
