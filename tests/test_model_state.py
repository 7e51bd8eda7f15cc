"""Buffers that forward passes change are restored, whichever modules and processes they are in."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE
from tests.support.small_net import Net, images

SCRIPT = """
import sys

import torch
from torch import nn

from captum_scorecam import ScoreCAM


class CompilesItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
        self.compiled = []

    def forward(self, x):
        if not self.compiled:
            self.compiled.append(torch.compile(self.head, backend="eager"))
        return self.compiled[0](self.conv(x))


assert "torch._dynamo" not in sys.modules
model = CompilesItself()
before = {name: value.clone() for name, value in model.state_dict().items()}
ScoreCAM(model, model.conv).attribute(torch.rand(2, 3, 8, 8), target=1)
assert model.compiled
assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
"""


@pytest.mark.slow
def test_buffers_of_a_part_compiled_in_the_first_forward_stay_as_they_were() -> None:
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


class Counting(nn.Module):
    """Counts its forward passes in a buffer, and keeps a cache of another size in a second one."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.register_buffer("count", torch.zeros(2))
        self.register_buffer("cache", torch.zeros(1))
        self.size = 1

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("count").add_(1)
        if self.size < len(x):
            self.size, self.cache = len(x), torch.zeros(len(x))
        scores: Tensor = self.net(x)
        return scores + self.get_buffer("cache")[: len(x), None]


@pytest.mark.filterwarnings("ignore:The model is in training mode")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("as_function", [True, False])
def test_a_count_of_forward_passes_is_restored(training: bool, as_function: bool) -> None:
    model = Counting().train(training)
    RISE((lambda x: model(x)) if as_function else model, n_masks=9).attribute(images(), 1)
    assert model.get_buffer("count").tolist() == [0, 0]


def test_a_count_is_restored_in_inference_mode() -> None:
    with torch.inference_mode():
        made_here = Counting().eval()
    for model in (made_here, Counting().eval()):
        with torch.inference_mode():
            RISE(model, n_masks=9).attribute(images(), 1)
        assert model.get_buffer("count").tolist() == [0, 0]


def test_a_count_is_restored_after_an_error() -> None:
    model = Counting().eval()
    model.net.fails_at = 2
    with pytest.raises(RuntimeError, match="no more"):
        RISE(model, n_masks=9).attribute(images(), 1)
    assert model.get_buffer("count").tolist() == [0, 0]


def test_a_cache_that_grew_stays_with_its_size() -> None:
    model = Counting().eval()
    RISE(model, n_masks=9).attribute(images(), 1, perturbations_per_eval=2)
    assert len(model.get_buffer("cache")) == model.size == 4
    assert model(images(3)).shape == (3, 7)


def test_a_graph_of_the_users_is_left_as_it_is() -> None:
    net, x = Net(), images()
    scores = net(x).sum()
    RISE(net, n_masks=9).attribute(x, 1)
    scores.backward()
    assert net.conv.weight.grad is not None
