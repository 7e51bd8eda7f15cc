"""Stops scoring once the remaining channels cannot change the map by more than a tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.chunk_size import ChunkSize
from captum_scorecam.scoring.chunks import MaskRows, scored_chunks
from captum_scorecam.scoring.masked_forward import MaskedForward


def scores_within_tolerance(
    forward: MaskedForward,
    masks: ChannelMasks,
    activations: Tensor,
    tolerance: float,
    chunk_size: ChunkSize,
    progress: str | None = None,
) -> tuple[Tensor, int]:
    r"""Runs the strongest maps first and stops once the rest cannot change an example's map by more than `tolerance`.

    Let L = ReLU(Σ α_k A_k) be the map with all weights α_k in [0, 1], L' the map with the weights not yet run set to
    0, and n = (L − m)/(M − m) the map scaled by its minimum m and maximum M; n' is L' scaled in the same way. At each
    position, the channels not yet run add between −a and b to the sum, where a and b are the largest values of
    Σ max(−A_k, 0) and Σ max(A_k, 0) over these channels. The ReLU is monotone and changes by no more than its
    argument, so L − L', m − m' and M − M' all lie in [−a, b]. Now

    .. math::  (n - n')(M' - m') = (L - L') - [(1 - n)(m - m') + n (M - M')]

    and the bracket, a weighted mean of two numbers in [−a, b], lies in [−a, b] too. Hence
    \|n − n'\| ≤ (a + b)/(M' − m'), and an example is done once a + b ≤ tolerance · (M' − m') for all its targets. The
    same holds without the ReLU.

    Args:
        forward (MaskedForward): The forward pass to run. Its scores must lie in [0, 1] and are used as weights.
        masks (ChannelMasks): P masks of the activations' channels.
        activations (Tensor): A, N×K×spatial.
        tolerance (float): Largest allowed change of the scaled map.
        chunk_size (ChunkSize): The number of rows per forward pass; the bound is checked after each pass.
        progress (str, optional): Label of each example's progress bar. Default: None, no bar.

    Returns:
        tuple: The scores P×T, 0 for masks not run, and the number of masks run.
    """
    maps = masks.sums(activations.flatten(2))
    scores = forward.class_scores.zeros(len(masks), forward.inputs[0])
    n_run = 0
    for example in range(len(activations)):
        rows = masks.rows_of(example)
        rows = rows[maps[rows].abs().amax(1).argsort(descending=True)]
        rest = _largest_sums_of_the_rest(maps[rows])
        summed = maps.new_zeros(scores.shape[1], maps.shape[1])
        for chunk, _, chunk_scores in scored_chunks(forward, MaskRows(masks, rows), chunk_size, progress):
            done = int(chunk[-1]) + 1
            scores[rows[chunk]] = chunk_scores.to(scores.dtype)
            # Autocast would run this matrix product in half precision.
            with torch.autocast(maps.device.type, enabled=False):
                summed += chunk_scores.T.to(maps.dtype) @ maps[rows[chunk]]
            n_run += len(chunk)
            if (rest[done] <= tolerance * _span(summed.relu())).all():
                break
    return scores, n_run


def _largest_sums_of_the_rest(maps: Tensor) -> Tensor:
    """Returns a + b of the maps from each position on, then 0: P + 1 numbers for P maps."""
    following = torch.cat([maps, maps.new_zeros(1, maps.shape[1])])
    positive, negative = (part.flip(0).cumsum(0).flip(0).amax(1) for part in (following.relu(), (-following).relu()))
    return positive + negative


def _span(maps: Tensor) -> Tensor:
    return maps.amax(1) - maps.amin(1)
