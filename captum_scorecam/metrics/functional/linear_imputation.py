"""Noisy linear imputation: removed pixels become weighted means of their neighbours (arXiv 2202.00449, section 4.2)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Each step to a neighbour, in rows and columns, and its weight: the paper's, 1/6 beside and 1/12 across.
_NEIGHBOURS = {
    (row, column): 1 / 6 if 0 in (row, column) else 1 / 12
    for row in (-1, 0, 1)
    for column in (-1, 0, 1)
    if (row, column) != (0, 0)
}


def impute_linearly(image: Tensor, removed: Tensor) -> Tensor:
    """Replaces removed pixels so that each is the weighted mean of its neighbours, all at once.

    At the image's edge, the weights of the neighbours that exist are scaled to a sum of 1.

    Args:
        image (Tensor): C×H×W, floating point.
        removed (Tensor): H×W, boolean; at least one pixel is kept.

    Returns:
        Tensor: C×H×W.
    """
    # Imported here, since SciPy is optional.
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    gone = removed.cpu().numpy()
    pixels = image.detach().to("cpu", torch.float64).numpy()
    places = np.argwhere(gone)
    if len(places) == 0:
        return image.clone()
    number = np.full(gone.shape, -1)
    number[gone] = np.arange(len(places))
    diagonal = np.zeros(len(places))
    known = np.zeros((len(places), len(pixels)))
    entries: list[tuple[NDArray[np.int_], NDArray[np.int_], NDArray[np.float64]]] = []
    for step, weight in _NEIGHBOURS.items():
        beside = places + step
        inside = ((beside >= 0) & (beside < gone.shape)).all(1)
        unknowns, (rows, columns) = np.flatnonzero(inside), beside[inside].T
        diagonal[unknowns] += weight
        is_gone = gone[rows, columns]
        entries.append((unknowns[is_gone], number[rows, columns][is_gone], np.full(np.count_nonzero(is_gone), -weight)))
        known[unknowns[~is_gone]] += weight * pixels[:, rows[~is_gone], columns[~is_gone]].T
    entries.append((np.arange(len(places)), np.arange(len(places)), diagonal))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = coo_array((values, (rows, columns)), shape=(len(places), len(places))).tocsc()
    # The system is symmetric and diagonally dominant: without pivoting, it is solved many times faster.
    factors = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
    solution = factors.solve(known)
    imputed = image.detach().clone()
    imputed[:, removed.to(image.device)] = torch.from_numpy(solution.T.copy()).to(image)
    return imputed
