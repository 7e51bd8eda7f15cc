"""Similarity of attribution maps: rank correlation, structural similarity and cosine. Pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from captum_scorecam.masking.pixel_masks import shared_ranks
from captum_scorecam.masking.scaling import min_max_normalize, varies

SSIM_WINDOW = 7


def rank_correlation(maps: Tensor, others: Tensor) -> Tensor:
    """Returns Spearman's rank correlation of maps N×P, shape N; 0 if one of two maps is constant.

    It is the cosine of the centred ranks. torchmetrics sums ranks in int32, which overflows for 65536 equal pixels, as
    may occur after a ReLU.
    """
    return cosine(_centred_ranks(maps), _centred_ranks(others))


def cosine(maps: Tensor, others: Tensor) -> Tensor:
    """Returns the cosine of maps N×P, shape N; 0 if one is zero. Uses float64: float32 norms of many pixels drift."""
    return F.cosine_similarity(_scaled_to_one(maps), _scaled_to_one(others), dim=1).float()


def structural_similarity(maps: Tensor, others: Tensor) -> Tensor:
    """Returns the SSIM (Wang et al., 2004) of maps N×1×spatial, shape N, each map scaled to [0, 1].

    The windows are uniform and 7 pixels wide, or narrower for smaller maps.
    """
    maps, others = min_max_normalize(maps), min_max_normalize(others)
    if maps.dim() == 3:  # torchmetrics supports 2-D and 3-D maps only
        maps, others = maps.unsqueeze(2), others.unsqueeze(2)
    window = [min(SSIM_WINDOW, size - 1 + size % 2) for size in maps.shape[2:]]
    # Autocast would run the convolutions over the windows in half precision.
    with torch.autocast(maps.device.type, enabled=False):
        similarity = structural_similarity_index_measure(
            maps, others, gaussian_kernel=False, kernel_size=window, data_range=1.0, reduction="none"
        )
    return torch.as_tensor(similarity, device=maps.device).reshape(len(maps))


def _centred_ranks(maps: Tensor) -> Tensor:
    below, sharing = shared_ranks(-maps)
    ranks = below + sharing.double() / 2  # equal values share their mean rank
    return (ranks - ranks.mean(1, keepdim=True)) * varies(maps.unsqueeze(1))


def _scaled_to_one(maps: Tensor) -> Tensor:
    # The maps of a randomised model may be so small that their norm counts as 0.
    largest = maps.double().abs().amax(1, keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)
