"""A model whose scores are random or depend on the batch warns, whatever makes them so; no other model does."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DropBlock2d, StochasticDepth

from captum_scorecam import ScoreCAM
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import images, nothing_changes, texts_of, warnings_are_errors


class Net(nn.Module):
    """A convolution and a linear head with something between."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv2d(3, 20, 3, padding=1), nn.Linear(20, 7)
        self.between = between
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.between(torch.relu(self.conv(x))).mean((2, 3)))
        return scores


class FunctionalDropout(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return F.dropout(z, 0.5, training=self.training)


class DropPath(nn.Module):
    """As in timm: drops whole examples."""

    def forward(self, z: Tensor) -> Tensor:
        return z * z.new_empty(len(z), 1, 1, 1).bernoulli_(0.5) if self.training else z


class Noise(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return z + torch.randn_like(z) if self.training else z


class Counting(nn.Module):
    """Its output depends on how often it has run in training mode."""

    runs: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        if self.training:
            self.runs += 1
        return z * (1 + self.runs)


class InTraining(nn.Module):
    """Does something in training mode."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z) if self.training else z


class OwnNoise:
    """Noise from a generator of its own."""

    def __init__(self) -> None:
        self.generator = torch.Generator()

    def __call__(self, z: Tensor) -> Tensor:
        return z + torch.randn(z.shape, generator=self.generator, dtype=z.dtype)


class Calls(nn.Module):
    """Counts its calls without using their number."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z


class CallsForward(nn.Module):
    """Runs a module without its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(20)

    def forward(self, z: Tensor) -> Tensor:
        return self.norm.forward(z)


VARYING: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm": lambda: nn.BatchNorm2d(20),
    "BatchNorm without statistics": lambda: nn.BatchNorm2d(20, track_running_stats=False),
    "Dropout": lambda: nn.Dropout(0.5),
    "AlphaDropout": lambda: nn.AlphaDropout(0.5),
    "StochasticDepth": lambda: StochasticDepth(0.5, "row"),
    "DropBlock": lambda: DropBlock2d(0.5, 3),
    "DropPath": DropPath,
    "functional dropout": FunctionalDropout,
    "noise": Noise,
    "RReLU": nn.RReLU,
    "FractionalMaxPool": lambda: nn.FractionalMaxPool2d(2, output_ratio=0.5),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(20, 20, 1)),
    "a counter that counts": Counting,
    "noise of NumPy": lambda: InTraining(lambda z: z + torch.from_numpy(np.random.default_rng().normal(size=z.shape))),
    "noise of Python": lambda: InTraining(lambda z: z * random.SystemRandom().random()),
    "noise of a generator": lambda: InTraining(OwnNoise()),
    "functional BatchNorm": lambda: InTraining(lambda z: F.batch_norm(z, None, None, training=True)),
    "the mean of the batch": lambda: InTraining(lambda z: z - z.mean(0)),
    "mixed examples": lambda: InTraining(lambda z: z + z.flip(0)),
    "BatchNorm's forward": CallsForward,
}
CONSTANT: dict[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "InstanceNorm": lambda: nn.InstanceNorm2d(20),
    "InstanceNorm with statistics": lambda: nn.InstanceNorm2d(20, track_running_stats=True),
    "GroupNorm": lambda: nn.GroupNorm(2, 20),
    "parametrized spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(20, 20, 1)),
    "a counter": lambda: Calls(),
    "Dropout of nothing": lambda: nn.Dropout(0.0),
    "BatchNorm in evaluation mode": lambda: nn.BatchNorm2d(20).eval(),
}


@pytest.mark.parametrize("kind", VARYING)
@pytest.mark.parametrize("wrapped", [False, True])
def test_training_mode_that_makes_scores_vary_warns_once(kind: str, wrapped: bool) -> None:
    net, x = Net(VARYING[kind]()).train(), images()
    forward: Any = (lambda x: net(x)) if wrapped else net
    unseen = wrapped and kind == "BatchNorm's forward"  # neither a hook nor a list of modules shows its buffers
    unchanged = nullcontext() if unseen else nothing_changes(net, x)
    with unchanged, pytest.warns(UserWarning, match=r"training mode.*`model.eval\(\)`") as caught:
        ScoreCAM(forward, net.conv).attribute(x, 2)
    assert len(texts_of(caught)) == 1


@each(OURS)
@pytest.mark.parametrize("kind", ["StochasticDepth", "noise", "spectral norm"])
def test_every_method_warns(method: Method, kind: str) -> None:
    net, x = Net(VARYING[kind]()).train(), images()
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode") as caught:
        method.explain(net, net.conv, x, 2)
    assert len(texts_of(caught)) == 1


@pytest.mark.parametrize("kind", CONSTANT)
def test_training_mode_without_effect_does_not_warn(kind: str) -> None:
    net, x = Net(CONSTANT[kind]()), images()
    training = net.between.training
    net.train()
    net.between.train(training)
    with warnings_are_errors(), nothing_changes(net, x):
        ScoreCAM(net, net.conv).attribute(x, 2)


@pytest.mark.parametrize("kind", VARYING)
def test_evaluation_mode_does_not_warn_unless_it_varies(kind: str) -> None:
    net, x = Net(VARYING[kind]()).eval(), images()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ScoreCAM(net, net.conv).attribute(x, 2)
    texts = texts_of(caught)
    expected = {
        "BatchNorm without statistics": ["The model has a BatchNorm2d without running statistics: scores depend on"],
        "FractionalMaxPool": ["The model draws random numbers: scores are random."],
    }.get(kind, [])
    assert len(texts) == len(expected)
    assert all(text.startswith(start) for text, start in zip(texts, expected, strict=True))


def test_a_quantised_model_left_in_training_mode_does_not_warn() -> None:
    float_model = Net(nn.Sequential(nn.BatchNorm2d(20), nn.Dropout(0.5))).float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's quantisation is deprecated, but people have such models
        quantise: Any = torch.ao.quantization.quantize_dynamic
        quantised = quantise(float_model, {nn.Linear}, torch.qint8)
    quantised.train()
    quantised.between.eval()
    with warnings_are_errors():
        ScoreCAM(quantised, quantised.conv).attribute(images().float(), 2)


@each(OURS)
def test_a_lazy_model_in_training_mode_is_explained_and_keeps_fresh_statistics(method: Method) -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(
            nn.LazyConv2d(4, 3),
            nn.LazyBatchNorm2d(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.LazyLinear(7),
        ).train()

    for wrapped in (False, True):
        net, x = lazy(), images(dtype=torch.float32)
        forward: Any = (lambda x, net=net: net(x)) if wrapped else net
        # A function hides the parameters that are still to be drawn.
        message = "draws random numbers in training mode" if wrapped else "in training mode: scores depend on the batch"
        with pytest.warns(UserWarning, match=message):
            method.explain(forward, net[2], x, 2)
        state = net[1].state_dict()
        assert int(state["num_batches_tracked"]) == 0
        assert torch.equal(state["running_mean"], torch.zeros(4))
        assert torch.equal(state["running_var"], torch.ones(4))
        assert net[1].num_features == 4
