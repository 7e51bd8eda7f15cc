"""Whether the cells of maps follow the image at their own places, judged by the slabs that they react to."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from captum_scorecam.layers.reactions import centred, overlaps

# How far cells may be from their places, in cells or in sizes of the image, whichever is more: half a cell is usual for
# strided convolutions, and up to one for images that are padded to a multiple of the stride.
_MOST_CELLS, _MOST_SIZES = 1.0, 1 / 16
_MOST_AROUND = 0.8  # of that, of cells that see one edge of the image beyond the other: in circular convolutions
_CLEARLY = 1.5  # of that; places between are no evidence, since cells at the edges may react as if they lay further out
# Other places must explain the reactions, and leave so many times less unexplained than the cells' own: so many times
# with some cells, and more with few, which are less evidence.
_LEAST_CORRELATION = 0.6
_LEAST_LEAD, _SOME_CELLS = 1.33, 7
_LEAST_LEAD_OF_UNUSUAL = 1.1  # of grids with several strides, which are evidence themselves
_RESOLUTION = 16  # cells; more are pooled

_SHIFTS = [k / 40 for k in range(-20, 21)]
_SCALES = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0, -1.0]
_REACHES = [1 / 8, 1 / 4]  # of the image, on both sides of a cell's centre, or half a cell to two
_PASTS = [1 / 4, 1 / 2, 1.0]  # on one side, as in recurrent and causal layers


def are_in_place(changes: Tensor, bounds: list[int], *, is_usual: bool = True) -> bool:
    """Whether the cells along a dimension react about as if they were at their own places, or elsewhere.

    Elsewhere is shifted, stretched, mirrored or rolled, with nothing, the image's mirror image or its other edge beyond
    its edges. Contracted is in place: convolutions without padding do that, and a model that crops its inputs is told
    by the edges that it leaves out. Cells that react everywhere, as after attention, agree with no place, and pass.

    Args:
        changes (Tensor): n_slabs×cells: how much each cell changes when a slab of the image changes.
        bounds (list of int): The slabs' n_slabs + 1 bounds, in pixels.
        is_usual (bool): Whether the grid is as usual, with one stride. If it is not, as after padding on one side, its
            cells must be about as near to their own places, and what is around them, as to others. Default: True.
    """
    cells = changes.shape[1]
    pooled = functional.adaptive_avg_pool1d(changes.double().cpu(), min(cells, _RESOLUTION))
    edges = tuple(bound / bounds[-1] for bound in bounds)
    near, far = _places(edges, pooled.shape[1], max(_MOST_CELLS / cells, _MOST_SIZES), is_usual)
    reactions = functional.normalize(centred(pooled).flatten(), dim=0)
    own, other = float((near @ reactions).max().clamp_min(0)), float((far @ reactions).max())
    lead = _LEAST_LEAD ** max(1.0, (_SOME_CELLS - 1) / (cells - 1)) if is_usual else _LEAST_LEAD_OF_UNUSUAL
    return other < _LEAST_CORRELATION or 1 - own**2 <= lead * (1 - other**2)


@lru_cache(maxsize=4)
def _places(edges: tuple[float, ...], cells: int, tolerance: float, with_pasts: bool) -> tuple[Tensor, Tensor]:
    """The reactions of cells near their own places, ways×(n_slabs·cells), and clearly elsewhere, all normalised."""
    own = (_tensor(range(cells)) + 0.5) / cells
    half = 0.5 / cells
    axes = (_tensor(_SHIFTS), _tensor(_SCALES), _tensor([half, 2 * half, 4 * half, *_REACHES]))
    shift, scale, reach = (x.reshape(-1, 1) for x in torch.meshgrid(*axes, indexing="ij"))
    centres = 0.5 + shift + scale * (own - 0.5)
    drift = centres - own
    most = torch.cat([-drift[:, :1], drift[:, -1:], shift.abs()], dim=1).amax(1).where(scale[:, 0] > 0, torch.inf)

    bounds = _tensor(edges)
    inside = overlaps(bounds, centres - reach, centres + reach)
    around = inside + overlaps(bounds, centres - reach - 1, centres + reach - 1)
    around += overlaps(bounds, centres - reach + 1, centres + reach + 1)
    mirrored = inside + overlaps(bounds, -centres - reach, reach - centres)
    mirrored += overlaps(bounds, 2 - centres - reach, 2 - centres + reach)
    pasts = _tensor(_PASTS).unsqueeze(1)
    one_sided = [overlaps(bounds, own - pasts, own + half), overlaps(bounds, own - half, own + pasts)]

    expands = scale[:, 0] >= 1
    ways = torch.cat([inside, around[expands], mirrored[expands], *one_sided])
    past = most.new_full((2 * len(pasts),), 0 if with_pasts else torch.inf)
    rolled = most[expands].where(most[expands] <= _MOST_AROUND * tolerance, torch.inf)
    distance = torch.cat([most, rolled, most[expands], past]) / tolerance
    places = functional.normalize(centred(ways).flatten(1), dim=1)
    return places[distance <= 1], places[distance > _CLEARLY]


def _tensor(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")
