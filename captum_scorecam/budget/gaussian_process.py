"""Gaussian process regression of scores on masks. Pure functions of tensors, in float64 where the device has it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_scorecam.masking.scaling import precise

BLOCK = 256  # masks whose covariance with the others is in memory at a time


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
LENGTH_SCALES, LINEAR_WEIGHTS, NOISES = (0.5, 1.0, 2.0, 4.0), (0.03, 0.1, 0.3, 1.0, 3.0), (0.1, 0.3, 1.0)
KERNELS = [Kernel(*values) for values in itertools.product(LENGTH_SCALES, LINEAR_WEIGHTS, NOISES)]


class MaskSpace:
    """The masks of one example as points of a vector space.

    Args:
        maps (Tensor): P×D, the flattened maps of the masks, in [0, 1].
    """

    def __init__(self, maps: Tensor) -> None:
        self._points = precise(maps)
        self._median = _median_distance(self._points) if len(maps) > 1 else 1.0
        centred = self._points - self._points.mean(0)
        mean_square = centred.square().sum(1).mean()
        self._features = centred / mean_square.clamp_min(torch.finfo(centred.dtype).tiny).sqrt()

    def __len__(self) -> int:
        return len(self._points)

    def distances(self, rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)) -> Tensor:
        """Computes the distances between the masks in `rows` and those in `columns`, in units of the median."""
        return exact_distances(self._points[rows], self._points[columns]) / self._median

    def products(self, rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)) -> Tensor:
        """Computes the inner products of centred masks in `rows` and `columns`; a mask's mean square is 1."""
        return self._features[rows] @ self._features[columns].T

    def covariance(
        self, kernel: Kernel, rows: Tensor | slice = slice(None), columns: Tensor | slice = slice(None)
    ) -> Tensor:
        """Computes the kernel without noise between the masks in `rows` and those in `columns`."""
        products = self.products(rows, columns)
        return matern(self.distances(rows, columns), kernel.length_scale) + kernel.linear * products

    def variance(self, kernel: Kernel) -> Tensor:
        """Computes the diagonal of the covariance between all masks, shape P; the Matérn kernel is 1 there."""
        return 1 + kernel.linear * self._features.square().sum(1)


def exact_distances(first: Tensor, second: Tensor) -> Tensor:
    """Computes distances without matrix products, which are faster but inexact for points that nearly agree."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _median_distance(points: Tensor) -> Tensor:
    """Computes the median distance of different points."""
    parts = []
    for start in range(0, len(points), BLOCK):
        block, after = points[start : start + BLOCK], points[start + BLOCK :]
        one, other = torch.tril_indices(len(block), len(block), -1, device=points.device)
        parts += [exact_distances(block, block)[one, other], exact_distances(block, after).flatten()]
    distances = torch.cat(parts)
    return distances[distances > 0].median()


def matern(distances: Tensor, length_scale: float | Tensor) -> Tensor:
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

    def variance_of_sums(self, rows: Tensor, weights: Tensor) -> Tensor:
        """Computes the variances of weighted sums of the predictions' errors.

        Args:
            rows (Tensor): Shape n, the masks whose predictions are summed.
            weights (Tensor): n×D, their weights in each of D sums, of errors in units of their standard deviation.

        Returns:
            Tensor: Shape D.
        """
        weights = weights / self.variance()[rows].sqrt().unsqueeze(1)
        total = self.kernel.nugget * weights.square().sum(0) - (self.projection[:, rows] @ weights).square().sum(0)
        total += (self.unexplained[rows] @ weights).square() / self.precision_of_mean
        for start in range(0, len(rows), BLOCK):
            here, after = slice(start, start + BLOCK), slice(start + BLOCK, None)
            mine = self.space.covariance(self.kernel, rows[here], rows[here]) @ weights[here]
            twice = self.space.covariance(self.kernel, rows[here], rows[after]) @ (2 * weights[after])
            total += (weights[here] * (mine + twice)).sum(0)
        return total.clamp_min(0)


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
    differences = precise(values) - precise(values[:1])
    further = (precise(unmasked) - precise(values[0]) - differences.mean(0)).square() / n
    # Dimensions: length scale, linear weight, noise, and the rows and columns of a matrix
    length_scales, linear, noises = (
        differences.new_tensor(grid).view(shape)
        for grid, shape in ((LENGTH_SCALES, (-1, 1, 1, 1, 1)), (LINEAR_WEIGHTS, (-1, 1, 1, 1)), (NOISES, (-1, 1, 1)))
    )
    nuggets = noises * (1 + linear)
    covariances = matern(space.distances(rows, rows), length_scales) + linear * space.products(rows, rows)
    factors = torch.linalg.cholesky(covariances + nuggets * torch.ones_like(differences[:, 0]).diag()).flatten(0, 2)
    sides = torch.cat([torch.ones_like(differences[:, :1]), differences], 1)
    solved = torch.linalg.solve_triangular(factors, sides.expand(len(factors), -1, -1), upper=False)
    ones, targets = solved[:, :, :1], solved[:, :, 1:]
    precision = ones.square().sum(1)
    residual = targets - ones * (ones.mT @ targets / precision.unsqueeze(1))
    sizes = (1 + linear + nuggets).expand(len(LENGTH_SCALES), -1, -1, -1, -1).reshape(-1, 1)
    weight = n - 1 + 1 / n
    variance = (residual.square().sum(1) + further / sizes) / weight
    penalty = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True) + precision.log()
    loss = (weight * variance.clamp_min(torch.finfo(variance.dtype).tiny).log() + penalty).sum(1)
    best = int(loss.argmin())
    return KERNELS[best], variance[best]
