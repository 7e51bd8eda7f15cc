"""RISE's random grids: drawn at once, upsampled a few at a time, averaged with their scores. Pure tensors, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam.masks import working_dtype


@dataclass(frozen=True)
class GridMasks:
    """Random binary grids, upsampled and shifted (arXiv 1806.07421, section 3.2). The same masks serve every example.

    Attributes:
        grids (Tensor): M×cells, bool: the cells that are kept.
        shifts (Tensor): M×spatial dimensions, in [0, 1): each mask's shift, in cells.
        examples (Tensor): M·N: the example that each row masks; a mask's rows follow one another.
        sizes (tuple): The spatial size of each input tensor.
        dtype (torch.dtype): Of the masks.
    """

    grids: Tensor
    shifts: Tensor
    examples: Tensor
    sizes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """The masks of some rows: for each input tensor one, shape len(rows)×1×size, values in [0, 1]."""
        n_examples = len(self) // len(self.grids)
        numbers = rows // n_examples
        grids, shifts = self.grids[numbers].to(self.dtype), self.shifts[numbers]
        return tuple(upsample_grids(grids, shifts, size) for size in self.sizes)


@dataclass(frozen=True)
class RandomGrids:
    """How RISE draws its grids.

    Attributes:
        n_masks (int): M.
        mask_cells (int or sequence of int): s, the cells of a grid along each spatial dimension.
        keep_probability (float): p, with which a cell is kept.
        generator (torch.Generator, optional): What draws. None is PyTorch's global generator on the CPU.

    Raises:
        ValueError: If an option is out of its range.
    """

    n_masks: int
    mask_cells: int | Sequence[int]
    keep_probability: float
    generator: Generator | None

    def __post_init__(self) -> None:
        cells = [self.mask_cells] if isinstance(self.mask_cells, int) else list(self.mask_cells)
        if self.n_masks < 1:
            raise ValueError(f"Expected `n_masks` to be at least 1, but got {self.n_masks}.")
        if not cells or min(cells) < 1:
            raise ValueError(f"Expected `mask_cells` to be at least 1, but got {self.mask_cells}.")
        if not 0 < self.keep_probability < 1:
            raise ValueError(f"Expected `keep_probability` in (0, 1), but got {self.keep_probability}.")

    def draw(self, inputs: Tensors) -> GridMasks:
        """Draws the grids and the shifts of all masks, which is little, so that no chunk size can change them.

        Args:
            inputs (tuple of Tensor): What the masks are for, each N×C×spatial.

        Raises:
            ValueError: If the inputs or `mask_cells` differ in their number of spatial dimensions.
        """
        sizes = tuple(tuple(x.shape[2:]) for x in inputs)
        cells = cells_per_dimension("mask_cells", self.mask_cells, sizes)
        device = torch.device("cpu") if self.generator is None else self.generator.device
        kept = torch.rand(self.n_masks, *cells, generator=self.generator, dtype=torch.float32, device=device)
        shifts = torch.rand(self.n_masks, len(cells), generator=self.generator, dtype=torch.float32, device=device)
        to = inputs[0].device
        return GridMasks(
            (kept < self.keep_probability).to(to),
            shifts.to(to),
            torch.arange(len(inputs[0]), device=to).repeat(self.n_masks),
            sizes,
            working_dtype(inputs[0].dtype),
        )


def cells_per_dimension(name: str, cells: int | Sequence[int], sizes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Returns a number of cells for each spatial dimension of inputs of the given sizes.

    Raises:
        ValueError: If the inputs have different numbers of spatial dimensions, or `cells` is of another length.
    """
    ranks = {len(size) for size in sizes}
    if len(ranks) > 1:
        raise ValueError(f"Expected inputs with equally many spatial dimensions, but got {sorted(ranks)}.")
    rank = ranks.pop()
    per_dimension = (cells,) * rank if isinstance(cells, int) else tuple(cells)
    if len(per_dimension) != rank:
        raise ValueError(f"Expected `{name}` to be one number or {rank}, but got {cells}.")
    return per_dimension


def upsample_grids(grids: Tensor, shifts: Tensor, size: Sequence[int]) -> Tensor:
    """Upsamples each grid of s cells to s + 1 cells of ⌈H/s⌉ pixels, and crops H pixels from its shift on.

    Linear interpolation along each dimension (``align_corners=False``). As in the authors' code, a cell has ⌈H/s⌉
    pixels (the paper writes ⌊H/s⌋) and the shift is one of 0, …, ⌈H/s⌉ − 1. Every pixel is a convex combination of
    cells, so its mean is the probability of a cell.

    Args:
        grids (Tensor): R×cells, floating point.
        shifts (Tensor): R×spatial dimensions, in [0, 1): the shift in cells.
        size (sequence of int): The spatial size of the masks.

    Returns:
        Tensor: R×1×size, of the grids' dtype.
    """
    masks = grids
    # Autocast would interpolate, by matrix products, in half precision.
    with torch.autocast(grids.device.type, enabled=False):
        for dimension, pixels in enumerate(size):
            cells = grids.shape[1 + dimension]
            cell_pixels = -(-pixels // cells)
            one_hot = torch.eye(cells, dtype=grids.dtype, device=grids.device).unsqueeze(0)
            weights = F.interpolate(one_hot, (cells + 1) * cell_pixels, mode="linear", align_corners=False)[0]
            first = (shifts[:, dimension, None] * cell_pixels).long().clamp(max=cell_pixels - 1)
            of_rows = weights.T[first + torch.arange(pixels, device=grids.device)]
            # Takes the dimension in front and puts it, upsampled, behind; after all of them they are in order.
            masks = torch.einsum("rps,rs...->r...p", of_rows, masks)
    return masks.unsqueeze(1)


@dataclass
class ScoredMasks:
    """Sums of masks weighted by their scores, from which the map and its standard error follow.

    Attributes:
        n_masks (int): M.
        keep_probability (float): p.
        sums (list of Tensor): For each input tensor Σ_m f_m M_m, N×T×spatial.
        squares (list of Tensor): Σ_m f_m² M_m², of that shape, where `with_squares`; else empty.
        with_squares (bool): Whether the standard error is wanted.
    """

    n_masks: int
    keep_probability: float
    with_squares: bool = False
    sums: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)

    def add(self, masks: Tensors, scores: Tensor, examples: Tensor, n_examples: int) -> None:
        """Adds a chunk of R masks (R×1×spatial) with their scores (R×T) and the examples that they mask (R)."""
        of_example = examples[:, None] == torch.arange(n_examples, device=examples.device)
        weights = of_example.unsqueeze(2) * scores.unsqueeze(1).to(masks[0].dtype)
        _add_each(self.sums, [_weighted_sum(weights, mask) for mask in masks])
        if self.with_squares:
            _add_each(self.squares, [_weighted_sum(weights**2, mask**2) for mask in masks])

    def maps(self) -> Tensors:
        """S = Σ_m f_m M_m / (p M), N×T×spatial for each input tensor."""
        return tuple(total / (self.keep_probability * self.n_masks) for total in self.sums)

    def standard_errors(self) -> Tensors:
        """The standard deviation of f_m M_m / p over the masks, divided by √M."""
        n, p = self.n_masks, self.keep_probability
        variances = (
            (square - total**2 / n) / ((n - 1) * p**2) for total, square in zip(self.sums, self.squares, strict=True)
        )
        return tuple((variance.clamp(min=0) / n).sqrt() for variance in variances)


def _weighted_sum(weights: Tensor, masks: Tensor) -> Tensor:
    # Autocast would take this sum, a matrix product, in half precision.
    with torch.autocast(masks.device.type, enabled=False):
        return torch.einsum("rnt,r...->nt...", weights, masks.squeeze(1))


def _add_each(totals: list[Tensor], terms: list[Tensor]) -> None:
    totals[:] = [a + b for a, b in zip(totals, terms, strict=True)] if totals else terms
