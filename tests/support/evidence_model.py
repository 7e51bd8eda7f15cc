"""A model whose evidence is known, with a perfect and the worst possible explanation of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = (4, 6)  # not square, so that swapped axes show


def patch() -> Tensor:
    """Returns the evidence for class 0, 1×1×4×6: rows 1 and 2, columns 2 to 4, a quarter of the pixels."""
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 1:3, 2:5] = 1
    return mask


class EvidenceModel(nn.Module):
    """Scores images N×C×4×6: class 0 is the mean over the patch, class 1 the mean over the rest.

    ``seen`` holds the input of every forward.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        values, inside = images.mean(1, keepdim=True), patch().to(images)
        return torch.stack([(values * inside).sum((1, 2, 3)) / 6, (values * (1 - inside)).sum((1, 2, 3)) / 18], 1)


def perfect(n: int = 1) -> Tensor:
    """Returns the evidence for class 0, n times."""
    return patch().repeat(n, 1, 1, 1)


def worst(n: int = 1) -> Tensor:
    """Returns everything but the evidence for class 0, n times."""
    return 1 - perfect(n)


def ones(n: int = 1, channels: int = 3) -> Tensor:
    """Returns images of ones, for which both classes score 1. Images of zeros score 0."""
    return torch.ones(n, channels, *SIZE)
