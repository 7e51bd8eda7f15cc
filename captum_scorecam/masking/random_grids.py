"""RISE's random grids, all drawn up front and upsampled a few at a time. Pure functions of tensors."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam._messages import MOST
from captum_scorecam.masking.scaling import working_dtype


@dataclass(frozen=True)
class GridMasks:
    """Random binary grids, upsampled and shifted (arXiv 1806.07421, section 3.2), the same for every example.

    Attributes:
        grids (Tensor): M×cells, bool; True for cells that are kept.
        shifts (Tensor): M×spatial dimensions, in [0, 1): the shift of each mask, in cells.
        examples (Tensor): Shape M·N, the example that each row masks; rows of the same mask are consecutive.
        sizes (tuple): The spatial size of each input tensor.
        dtype (torch.dtype): The masks' dtype.
    """

    grids: Tensor
    shifts: Tensor
    examples: Tensor
    sizes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: Tensor) -> Tensors:
        """Returns the masks at the given rows: one tensor per input, len(rows)×1×size, in [0, 1]."""
        n_examples = len(self) // len(self.grids)
        numbers = rows // n_examples
        grids, shifts = self.grids[numbers].to(self.dtype), self.shifts[numbers]
        return tuple(upsample_grids(grids, shifts, size) for size in self.sizes)


def draw_grids(
    inputs: Tensors, n_masks: int, grid_size: int | Sequence[int], keep_probability: float, generator: Generator
) -> GridMasks:
    """Draws the grids and shifts of all masks up front, so that they do not depend on the chunk size.

    Args:
        inputs (tuple of Tensor): The inputs to mask, each N×C×spatial.
        n_masks (int): M, the number of masks.
        grid_size (int or sequence of int): s, the number of grid cells along each spatial dimension.
        keep_probability (float): p, the probability that a cell is kept.
        generator (torch.Generator): Draws the grids and shifts.

    Raises:
        ValueError: If the inputs or `grid_size` differ in their number of dimensions.
    """
    sizes = tuple(tuple(x.shape[2:]) for x in inputs)
    cells = cells_per_dimension(grid_size, sizes)
    device = generator.device
    kept = torch.rand(n_masks, *cells, generator=generator, dtype=torch.float32, device=device)
    shifts = torch.rand(n_masks, len(cells), generator=generator, dtype=torch.float32, device=device)
    to = inputs[0].device
    return GridMasks(
        (kept < keep_probability).to(to),
        shifts.to(to),
        torch.arange(len(inputs[0]), device=to).repeat(n_masks),
        sizes,
        working_dtype(inputs[0].dtype),
    )


def check_grid_size(grid_size: int | Sequence[int]) -> int | tuple[int, ...]:
    """Returns `grid_size` with whole numbers, such as NumPy's, as ints.

    Raises:
        TypeError: If `grid_size` is not a whole number or a sequence of them.
        ValueError: If a number is out of range, or there is none.
    """
    cells = grid_size if isinstance(grid_size, Sequence) else [grid_size]
    if not all(isinstance(n, Integral) and not isinstance(n, bool) for n in cells):
        raise TypeError(f"Expected `grid_size` to be an int or a sequence of ints, but got {grid_size!r}.")
    if not cells or min(cells) < 1 or max(cells) > MOST:
        limits = f"at most {MOST}" if cells and min(cells) > 0 else "at least 1"
        raise ValueError(f"Expected `grid_size` to be {limits}, but got {reprlib.repr(grid_size)}.")
    return tuple(map(int, cells)) if isinstance(grid_size, Sequence) else int(grid_size)


def cells_per_dimension(grid_size: int | Sequence[int], sizes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """Returns the number of cells along each spatial dimension, for inputs of the given sizes.

    Raises:
        ValueError: If the inputs have different numbers of spatial dimensions, or `grid_size` has the wrong length.
    """
    ranks = {len(size) for size in sizes}
    if len(ranks) > 1:
        raise ValueError(f"Expected inputs with the same number of spatial dimensions, but got {sorted(ranks)}.")
    rank = ranks.pop()
    per_dimension = (grid_size,) * rank if isinstance(grid_size, int) else tuple(grid_size)
    if len(per_dimension) != rank:
        raise ValueError(f"Expected `grid_size` to be one number or {rank}, but got {grid_size}.")
    return per_dimension


def upsample_grids(grids: Tensor, shifts: Tensor, size: Sequence[int]) -> Tensor:
    """Upsamples each grid of s cells to s + 1 cells of ⌈H/s⌉ pixels, then crops H pixels, starting at its shift.

    Interpolation is linear along each dimension (``align_corners=False``). As in the authors' code, a cell has ⌈H/s⌉
    pixels (⌊H/s⌋ in the paper) and the shift is one of 0, …, ⌈H/s⌉ − 1. Every pixel is a convex combination of cells,
    so its expected value is the probability of keeping a cell.

    Args:
        grids (Tensor): R×cells, floating point.
        shifts (Tensor): R×spatial dimensions, in [0, 1): the shift in cells.
        size (sequence of int): The spatial size of the masks.

    Returns:
        Tensor: R×1×size, of the grids' dtype.
    """
    masks = grids
    # Autocast would run these matrix products in half precision.
    with torch.autocast(grids.device.type, enabled=False):
        for dimension, pixels in enumerate(size):
            cells = grids.shape[1 + dimension]
            cell_pixels = -(-pixels // cells)
            one_hot = torch.eye(cells, dtype=grids.dtype, device=grids.device).unsqueeze(0)
            weights = F.interpolate(one_hot, (cells + 1) * cell_pixels, mode="linear", align_corners=False)[0]
            first = (shifts[:, dimension, None] * cell_pixels).long().clamp(max=cell_pixels - 1)
            of_rows = weights.T[first + torch.arange(pixels, device=grids.device)]
            # Consumes the first cell dimension and appends its upsampled version; the last step restores the order.
            masks = torch.einsum("rps,rs...->r...p", of_rows, masks)
    return masks.unsqueeze(1)
