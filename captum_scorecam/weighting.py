"""Channel weights from the scores of masked inputs, and maps from channel weights. Pure functions of tensors."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_scorecam._messages import check_choice

ChannelWeighting: TypeAlias = Literal["softmax", "increase", "score"]


def channel_weights(
    scores: Tensor, masked: Tensor, weighting: ChannelWeighting = "softmax", baseline_scores: Tensor | None = None
) -> Tensor:
    """Converts the scores of the masked inputs to one weight per example, channel and target.

    ``"softmax"`` is α = softmax(S − f(B)) over the channels (arXiv 1910.01279, Algorithm 1), where f(B) cancels.
    ``"increase"`` is α = S − f(B), the Increase of Confidence (ibid.). ``"score"`` is α = S, as in the
    authors' released code.

    Args:
        scores (Tensor): S, N×K×T; entries of channels without a mask are ignored.
        masked (Tensor): N×K, bool; True for channels that have a mask. The others get weight 0.
        weighting (str): ``"softmax"``, ``"increase"`` or ``"score"``.
        baseline_scores (Tensor, optional): f(B), N×T, for ``"increase"``.

    Returns:
        Tensor: α, N×K×T.

    Raises:
        ValueError: If `weighting` is unknown or `baseline_scores` is missing.
    """
    check_choice("channel_weighting", weighting, ChannelWeighting)
    unmasked = ~masked.unsqueeze(-1)
    if weighting == "softmax":
        weights = scores.masked_fill(unmasked, -torch.inf).softmax(1)
    elif weighting == "increase":
        if baseline_scores is None:
            raise ValueError("Expected `baseline_scores` for the weighting 'increase', but got None.")
        weights = scores - baseline_scores.unsqueeze(1)
    else:
        weights = scores
    return weights.masked_fill(unmasked, 0.0)


def effective_channels(weights: Tensor) -> Tensor:
    """Computes the effective number of channels, 1 / Σ α², of weights that sum to 1 (Kish's effective sample size).

    It is K for uniform weights and 1 if a single channel takes all.

    Args:
        weights (Tensor): α, N×K×T.

    Returns:
        Tensor: N×T; 0 if all weights are 0.
    """
    squares = weights.square().sum(1)
    return torch.where(squares == 0, 0.0, 1 / squares)


def weighted_maps(activations: Tensor, weights: Tensor, summed: bool = True, relu: bool = False) -> Tensor:
    """Computes the weighted sum of the channels for each target: L = Σ_k α_k A_k.

    Args:
        activations (Tensor): A, N×K×spatial.
        weights (Tensor): α, N×K×T.
        summed (bool): Whether to sum over the channels. Default: True.
        relu (bool): Whether to keep only positive values. Default: False.

    Returns:
        Tensor: N×T×spatial, or N×T×K×spatial if not summed, in the dtype of `activations`.

    Raises:
        ValueError: If a value is beyond the range of that dtype, as sums of many channels in float16 may be.
    """
    equation = "nk...,nkt->nt..." if summed else "nk...,nkt->ntk..."
    # Autocast would run this matrix product in half precision.
    with torch.autocast(weights.device.type, enabled=False):
        maps = torch.einsum(equation, activations.to(weights.dtype), weights)
    maps = maps.relu() if relu else maps
    largest = torch.finfo(activations.dtype).max
    if largest < torch.finfo(maps.dtype).max and (maps.abs() > largest).any():
        raise ValueError(
            f"Expected maps within the range of the layer's {activations.dtype}, but values reach "
            f"{float(maps.abs().amax()):.3g}. Run the model in bfloat16 or float32, or use Score-CAM with "
            "channel_weighting='softmax'."
        )
    return maps.to(activations.dtype)
