"""A model whose evidence is known, class 0 the mean of a patch, class 1 the mean of the rest, and two explanations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (4, 6)  # 24 pixels, so that swapped axes show
N_PATCH = 6  # a quarter of them


def patch() -> Tensor:
    """The evidence for class 0: rows 1 and 2, columns 2, 3 and 4, 1×1×4×6."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 1:3, 2:5] = 1
    return mask


class EvidenceModel(nn.Module):
    """Scores N×2 of images N×C×4×6: the mean over the patch, and over the rest. Keeps the inputs that it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        values, inside = images.mean(1, keepdim=True), patch().to(images)
        return torch.stack([(values * inside).sum((1, 2, 3)) / 6, (values * (1 - inside)).sum((1, 2, 3)) / 18], 1)


def perfect(n: int = 1) -> Tensor:
    """The evidence for class 0."""
    return patch().repeat(n, 1, 1, 1)


def worst(n: int = 1) -> Tensor:
    """All but the evidence for class 0."""
    return 1 - perfect(n)


def ones(n: int = 1, channels: int = 3) -> Tensor:
    """Images of ones: both classes score 1, and 0 where all is 0."""
    return torch.ones(n, channels, *SIZE)
