"""A network that counts the masked inputs of each example, with layers of several kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class CountingNet(nn.Module):
    """Convolution, tanh and a head that is not linear; records its rows and the `index` of the example of each.

    Args:
        rank: Of the inputs, N×3×spatial.
        channels: Of the layer.
        kind: "plain", "shared" (a third of the channels are copies), "constant" (a third are constant for the first
            example), or "tuple" (the layer returns two tensors of 2/3 and 1/3 of the channels).
        gain: Of the scores.
    """

    def __init__(self, rank: int = 2, channels: int = 24, kind: str = "plain", gain: float = 20.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1](3, channels, 3, stride=2, padding=1)
            self.fc = nn.Linear(channels, 5)
        self.fc.weight.data.mul_(gain)
        self.maps = nn.Identity()
        self.kind, self.third = kind, channels // 3
        self.calls: list[tuple[Tensor, Tensor]] = []
        self.double().eval()

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        self.calls.append((x.detach().clone(), index.clone()))
        z = self.conv(x).tanh()
        if self.kind == "shared":
            z[:, : self.third] = 2 * z[:, self.third : 2 * self.third] + 1
        if self.kind == "constant":
            z[index == 0, : self.third] = 0.5
        layer: Any = self.maps((z[:, self.third :], z[:, : self.third]) if self.kind == "tuple" else z)
        z = torch.cat(layer, dim=1) if self.kind == "tuple" else layer
        scores: Tensor = self.fc(z.flatten(2).square().mean(2)) + z.flatten(2).amax(2)[:, :5]
        return scores

    def masked_rows(self, x: Tensor) -> list[int]:
        """The number of different masked inputs of each example that were run, without the baseline, zeros."""
        rows, examples = (torch.cat(each) for each in zip(*self.calls, strict=True))
        counts = []
        for n in range(len(x)):
            different = torch.unique(rows[examples == n].flatten(1), dim=0)
            kept = different / x[n].flatten()  # of noise, on which memory formats are tried, some is below 0 or above 1
            masked = ((kept >= 0) & (kept <= 1)).all(1) & (kept > 0).any(1) & (kept < 1).any(1)
            counts.append(int(masked.sum()))
        return counts


def noise(batch: int, rank: int = 2, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images of 12 pixels by 10 by 8."""
    return torch.randn(batch, 3, *(12, 10, 8)[:rank], generator=torch.Generator().manual_seed(seed)).to(dtype)
