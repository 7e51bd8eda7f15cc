"""``auto`` does not pass over maps in shared, scripted or functional code for a stem that comes before them."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam.layers import find_layer
from tests.support.token_nets import Block

IMAGES = torch.zeros(1, 3, 32, 32)


class SharedBlock(nn.Module):
    """One block of convolutions runs several times after the stem."""

    def __init__(self, kernel_size: int, calls: int) -> None:
        super().__init__()
        self.calls = calls
        self.stem = nn.Conv2d(3, 16, kernel_size, stride=4)
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        for _ in range(self.calls):
            maps = self.block(maps)
        scores: Tensor = self.head(maps.mean((2, 3)))
        return scores


class SharedTransformer(nn.Module):
    """One transformer block runs six times, as in ALBERT, and the head reads the class token."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.block, self.norm, self.head = Block(16), nn.LayerNorm(16), nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        patches = self.stem(inputs).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(patches), -1, -1), patches], dim=1)
        for _ in range(6):
            tokens = self.block(tokens)
        scores: Tensor = self.head(self.norm(tokens)[:, 0])
        return scores


class Functional(nn.Module):
    """Convolutions in functional code follow the stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.weights = nn.ParameterList([torch.randn(16, 8, 3, 3), torch.randn(16, 16, 3, 3)])
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.stem(inputs)
        for weight in self.weights:
            maps = functional.relu(functional.conv2d(maps, weight))
        scores: Tensor = self.head(maps.mean((2, 3)))
        return scores


class Scripted(nn.Module):
    """A trunk in TorchScript follows the stem; with a pooling, it returns a vector."""

    def __init__(self, *pooling: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        trunk = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), *pooling)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing is deprecated
            self.trunk = torch.jit.trace(trunk.eval(), torch.zeros(1, 8, 15, 15))  # type: ignore[no-untyped-call]
        self.head = nn.Linear(16, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.trunk(self.stem(inputs))
        scores: Tensor = self.head(maps if maps.dim() == 2 else maps.mean((2, 3)))
        return scores


def seeded(net: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return net().eval()


NO_HOOKS = "most of its parameters are used after the last activation that was seen, since no hooks are called"


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda: SharedBlock(4, 6), "its maps 8×8 are not the output or input of a module that runs once"),
        (lambda: SharedBlock(7, 2), "its maps 7×7 are not the output or input of a module that runs once"),
        (SharedTransformer, "its maps 4×4 are not the output or input of a module that runs once"),
        (Functional, NO_HOOKS),
        (Scripted, NO_HOOKS),
        (lambda: Scripted(nn.AdaptiveAvgPool2d(1), nn.Flatten()), NO_HOOKS),
    ],
    ids=["convolutions", "large stem", "transformer", "functional", "TorchScript", "TorchScript with pooling"],
)
def test_a_stem_is_not_taken_for_maps_that_cannot_be_read(net: Callable[[], nn.Module], reason: str) -> None:
    with pytest.raises(ValueError, match=f"{reason}.*an `ActivationTap` can read them"):
        find_layer(seeded(net), IMAGES)


def test_large_parameters_of_the_head_do_not_make_the_last_maps_a_stem() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 225, 64), nn.ReLU(), nn.Linear(64, 4))
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), head))
    assert find_layer(model, IMAGES).name == "1"


def test_maps_of_an_exported_trunk_are_read_where_it_returns_them() -> None:
    model = seeded(Scripted)
    trunk = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()).eval()
    rows = ({0: torch.export.Dim("rows")},)
    model.trunk = torch.export.export(trunk, (torch.zeros(2, 8, 15, 15),), dynamic_shapes=rows).module()
    assert find_layer(model, IMAGES).name == "trunk"


def test_a_head_after_a_scripted_backbone_is_told_of_the_tap() -> None:
    model = seeded(Scripted)
    model.stem = nn.Identity()
    with pytest.raises(ValueError, match="no activation with spatial dimensions was seen, since no hooks are called"):
        find_layer(model, torch.zeros(1, 8, 15, 15))
