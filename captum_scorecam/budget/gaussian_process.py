"""Gaussian process regression of scores on masks. Pure functions of tensors, in float64 where the device has it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MOST_VALUES = 2**27  # in the kernels of one batched decomposition: 1 GiB


class Kernel(NamedTuple):
    """The covariance of two scores, as a multiple of the process's variance.

    It is the sum of a Matérn 5/2 kernel of the distance between the masks, a linear kernel, and noise for what is
    particular to each mask.

    Attributes:
        length_scale (float): Of the Matérn kernel, as a multiple of the median distance between masks.
        linear (float): Weight of the linear kernel, whose mean variance is 1.
        noise (float): Variance of the noise, as a multiple of that of the other two.
    """

    length_scale: float
    linear: float
    noise: float

    @property
    def nugget(self) -> float:
        """The variance of the noise."""
        return self.noise * (1 + self.linear)


PRIOR = Kernel(1.0, 1.0, 0.01)
KERNELS = [
    Kernel(*values) for values in itertools.product((0.5, 1.0, 2.0, 4.0), (0.03, 0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0))
]


class MaskSpace:
    """The masks of one example as points of a vector space.

    Args:
        maps (Tensor): P×D, the flattened maps of the masks, in [0, 1].
    """

    def __init__(self, maps: Tensor) -> None:
        points = precise(maps)
        # The faster way, by matrix products, is inexact for masks that nearly agree.
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        self._distances = distances / distances[distances > 0].median() if len(points) > 1 else distances
        centred = points - points.mean(0)
        products = centred @ centred.T
        self._products = products / products.diagonal().mean().clamp_min(torch.finfo(products.dtype).tiny)

    def __len__(self) -> int:
        return len(self._distances)

    def covariance(
        self, kernel: Kernel, rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)
    ) -> Tensor:
        """Computes the kernel without noise between the masks in `rows` and those in `columns`."""
        return (
            matern(self._distances[rows][:, columns], kernel.length_scale)
            + kernel.linear * self._products[rows][:, columns]
        )

    def variance(self, kernel: Kernel) -> Tensor:
        """Computes the diagonal of the covariance between all masks, shape P; the Matérn kernel is 1 there."""
        return 1 + kernel.linear * self._products.diagonal()


def precise(values: Tensor) -> Tensor:
    """Converts values to float64, or to float32 on a device without it."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)


def matern(distances: Tensor, length_scale: float) -> Tensor:
    """Computes the Matérn 5/2 kernel of the given distances."""
    scaled = math.sqrt(5) / length_scale * distances
    return (1 + scaled + scaled.square() / 3) * torch.exp(-scaled)


@dataclass(frozen=True)
class Posterior:
    """What the scores of n masks say of all P masks of an example. The mean of the process is an unknown constant.

    Attributes:
        space (MaskSpace): The masks.
        rows (Tensor): Shape n, the masks whose scores are known.
        kernel (Kernel): The covariance of the scores.
        projection (Tensor): L⁻¹ K of known and all masks, n×P, with L L' = K + noise of the known ones.
        factor (Tensor): L, n×n.
        ones (Tensor): L⁻¹ 1, n×1.
    """

    space: MaskSpace
    rows: Tensor
    kernel: Kernel
    projection: Tensor
    factor: Tensor
    ones: Tensor

    @classmethod
    def given(cls, space: MaskSpace, rows: Tensor, kernel: Kernel) -> Posterior:
        """Computes the posterior given the scores of the masks in `rows`, whatever they are."""
        known = space.covariance(kernel, rows)
        covariance = known[:, rows]
        noise = covariance.new_full((len(rows),), kernel.nugget).diag()
        factor = torch.linalg.cholesky(covariance + noise)
        ones = torch.linalg.solve_triangular(factor, torch.ones_like(factor[:, :1]), upper=False)
        projection = torch.linalg.solve_triangular(factor, known, upper=False)
        return cls(space, rows, kernel, projection, factor, ones)

    @property
    def unexplained(self) -> Tensor:
        """1 minus the sum of the weights with which the known scores predict each mask's, shape P."""
        return 1 - (self.projection.T @ self.ones)[:, 0]

    @property
    def precision_of_mean(self) -> Tensor:
        """1' (K + noise)⁻¹ 1."""
        return self.ones.square().sum()

    def mean(self, values: Tensor) -> Tensor:
        """Predicts the scores of all masks, P×T, from those of the known ones, n×T."""
        first = values[:1].to(self.factor)  # with differences from it, constant scores are predicted exactly
        targets = torch.linalg.solve_triangular(self.factor, values.to(self.factor) - first, upper=False)
        constant = (self.ones.T @ targets) / self.precision_of_mean
        predicted: Tensor = first + constant + self.projection.T @ (targets - self.ones * constant)
        return predicted

    def variance(self) -> Tensor:
        """Computes the variances of the predictions, shape P, as multiples of the process's variance."""
        mine = self.space.variance(self.kernel) + self.kernel.nugget
        shrunk = mine - self.projection.square().sum(0) + self.unexplained.square() / self.precision_of_mean
        return shrunk.clamp_min(self.kernel.nugget * torch.finfo(mine.dtype).eps)

    def correlation(self, rows: Tensor) -> Tensor:
        """Computes the correlations between the errors of the predictions for the masks in `rows`."""
        projection, unexplained = self.projection[:, rows], self.unexplained[rows]
        covariance = self.space.covariance(self.kernel, rows, rows) - projection.T @ projection
        covariance += torch.outer(unexplained, unexplained) / self.precision_of_mean
        covariance.diagonal().add_(self.kernel.nugget)
        deviation = self.variance()[rows].sqrt()
        return covariance / torch.outer(deviation, deviation)


def fit(space: MaskSpace, rows: Tensor, values: Tensor, unmasked: Tensor) -> tuple[Kernel, Tensor]:
    """Selects the kernel of the largest restricted likelihood, summed over targets that share it.

    Args:
        space (MaskSpace): The masks of one example.
        rows (Tensor): Shape n, the masks whose scores are known.
        values (Tensor): Their scores, n×T.
        unmasked (Tensor): The score of the unmasked input, shape T. Its distance from the mean score counts as 1/n of
            an observation, without which one or two scores would say nothing of the variance.

    Returns:
        tuple: The kernel, one of `KERNELS`, and the variance of the process for each target, shape T.
    """
    n = len(rows)
    shapes = list(dict.fromkeys((kernel.length_scale, kernel.linear) for kernel in KERNELS))
    bare = torch.stack([space.covariance(Kernel(*shape, 0.0), rows, rows) for shape in shapes])
    spectra = [torch.linalg.eigh(part) for part in torch.split(bare, max(1, MOST_VALUES // n**2))]
    eigenvalues = torch.cat([part[0] for part in spectra]).clamp_min(0)
    vectors = torch.cat([part[1] for part in spectra])
    differences = values.to(vectors) - values[:1].to(vectors)
    further = (unmasked.to(vectors) - values[0].to(vectors) - differences.mean(0)).square() / n
    # Dimensions: shape of the kernel, noise, eigenvector, target.
    rotated = (vectors.mT @ differences).unsqueeze(1)
    ones = vectors.sum(1)[:, None, :, None]
    nuggets = eigenvalues.new_tensor([kernel.nugget for kernel in KERNELS]).view(len(shapes), -1, 1, 1)
    sizes = eigenvalues.new_tensor([1 + kernel.linear for kernel in KERNELS]).view_as(nuggets) + nuggets
    spectrum = eigenvalues[:, None, :, None] + nuggets
    precision = (ones.square() / spectrum).sum(2, keepdim=True)
    residual = rotated - ones * ((ones * rotated / spectrum).sum(2, keepdim=True) / precision)
    weight = n - 1 + 1 / n
    variance = ((residual.square() / spectrum).sum(2, keepdim=True) + further / sizes) / weight
    penalty = spectrum.log().sum(2, keepdim=True) + precision.log()
    loss = (weight * variance.clamp_min(torch.finfo(variance.dtype).tiny).log() + penalty).sum((2, 3)).flatten()
    best = int(loss.argmin())
    return KERNELS[best], variance.flatten(0, 2)[best]
