"""Small networks whose layers are laid out in different ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Self-attention whose matrix is the output of a module, N×heads×S×S."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm, self.k_norm = nn.LayerNorm(width // 2), nn.LayerNorm(width // 2)
        self.matrix = nn.Softmax(dim=-1)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        n_examples, n_tokens, width = tokens.shape
        q, k, v = self.qkv(tokens).view(n_examples, n_tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        matrix = self.matrix(self.q_norm(q) @ self.k_norm(k).transpose(-2, -1))
        mixed: Tensor = self.proj((matrix @ v).transpose(1, 2).reshape(tokens.shape))
        return mixed


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width)
        self.perceptron = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        changed: Tensor = self.perceptron(self.norm2(tokens))
        return tokens + changed


class TokenNet(nn.Module):
    """A Vision Transformer for images, signals, or videos.

    Args:
        prefix_tokens (int): Class and register tokens. With any, the head reads the first, else the tokens' mean.
        rank (int): The spatial dimensions of the inputs. Default: 2.
        patch (int): Default: 4.
    """

    def __init__(self, prefix_tokens: int, rank: int = 2, patch: int = 4) -> None:
        super().__init__()
        convolution: type[nn.Module] = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1]
        self.stem = convolution(3, 16, patch, stride=patch)
        self.prefix = nn.Parameter(torch.randn(1, prefix_tokens, 16))
        self.blocks = nn.Sequential(*(Block(16) for _ in range(4)))
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.stem(inputs).flatten(2).transpose(1, 2)
        tokens = self.norm(self.blocks(torch.cat([self.prefix.expand(len(tokens), -1, -1), tokens], dim=1)))
        scores: Tensor = self.head(tokens[:, 0] if self.prefix.shape[1] else tokens.mean(1))
        return scores


class SequenceFirstNet(nn.Module):
    """A transformer on tokens S×N×K, as PyTorch's with ``batch_first=False``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.mixing = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = self.stem(inputs).flatten(2).permute(2, 0, 1)
        scores: Tensor = self.head(self.norm(tokens + self.mixing(tokens)).mean(0))
        return scores


class ClassAttentionNet(nn.Module):
    """Tokens without a prefix, then a class token that reads them, as in CaiT; patches still reach the score."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(*(Block(16) for _ in range(4)))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.attention = Attention(16)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        patches = self.blocks(self.stem(inputs).flatten(2).transpose(1, 2))
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1)
        tokens = self.norm(torch.cat([self.attention(tokens)[:, :1], patches], dim=1))
        scores: Tensor = self.head(tokens[:, 0]) + 0.5 * self.head(tokens[:, 1:]).amax(1)
        return scores


class ChannelsLastNet(nn.Module):
    """Maps N×h×w×K, as those of Swin Transformers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.blocks = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(self.norm(self.blocks(self.stem(inputs).permute(0, 2, 3, 1))).mean((1, 2)))
        return scores


class TwoStreamNet(nn.Module):
    """A stem, then two streams of maps that meet in a vector: no layer holds all that the score depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.fine = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.coarse = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3))
        self.head = nn.Linear(32, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        scores: Tensor = self.head(torch.cat([self.fine(maps).mean((2, 3)), self.coarse(maps).mean((2, 3))], dim=1))
        return scores


class WindowNet(nn.Module):
    """Windows of tokens, (N·windows)×S×K, between the stem and the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(*(Block(16) for _ in range(3)))
        self.head = nn.Linear(16, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        windows = functional.unfold(maps, 4, stride=4).view(len(maps), 16, 16, -1).permute(0, 3, 2, 1).flatten(0, 1)
        scores: Tensor = self.head(self.blocks(windows).view(len(maps), -1, 16, 16).mean((1, 2)))
        return scores


class DeadBranchNet(nn.Module):
    """Maps that no score depends on are the last to be computed."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.local = nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.features(inputs)
        self.local(maps)
        scores: Tensor = self.head(maps.mean((2, 3)))
        return scores
