"""What a model's outputs come from, as far as autograd tells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_scorecam.models.output_range import last_operation

FEATURES = nn.Linear(2, 3)
CONVOLUTION = nn.Conv2d(2, 3, 1)
FROZEN = nn.Linear(2, 3).requires_grad_(False)


class Model(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.function(inputs)
        return outputs


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def ensemble(x: Tensor) -> Tensor:
    both: Tensor = FEATURES(pooled(x)) + FROZEN(pooled(x))
    return both / 2


def gated(x: Tensor) -> Tensor:
    """The softmax over three experts, each with a sigmoid."""
    gates: Tensor = FEATURES(pooled(x)).softmax(1)
    return gates @ x[0, :, :3, 0].mT.sigmoid()


def in_place(x: Tensor) -> Tensor:
    return pooled(F.relu_(x)).sigmoid_()


def detached(x: Tensor) -> Tensor:
    outputs: Tensor = FEATURES(pooled(x))
    return outputs.detach()


CASES: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "linear": (lambda x: FEATURES(pooled(x)), "linear"),
    "frozen": (lambda x: FROZEN(pooled(x)), "linear"),
    "without a bias": (lambda x: F.linear(pooled(x), FEATURES.weight), "linear"),
    "tokens": (lambda x: FEATURES(x.permute(0, 2, 3, 1)).mean((1, 2)), "linear"),
    "one token": (lambda x: FEATURES(x.flatten(2).mT)[:, 0], "linear"),
    "convolution": (lambda x: CONVOLUTION(x).mean((2, 3)), "linear"),
    "adaptive pooling": (lambda x: F.adaptive_avg_pool2d(CONVOLUTION(x), 1).flatten(1), "linear"),
    "temperature": (lambda x: FEATURES(pooled(x)) / 10, "linear"),
    "ensemble": (ensemble, "linear"),
    "sigmoid": (lambda x: FEATURES(pooled(x)).sigmoid(), "sigmoid"),
    "sigmoid of a part": (lambda x: FEATURES(pooled(x)).sigmoid()[:, :2].contiguous(), "sigmoid"),
    "mean of sigmoids": (lambda x: pooled(CONVOLUTION(x).sigmoid()), "sigmoid"),
    "hard sigmoid": (lambda x: F.hardsigmoid(FEATURES(pooled(x))), "sigmoid"),
    "softmax": (lambda x: FEATURES(pooled(x)).softmax(1), "softmax"),
    "mean of softmaxes": (lambda x: CONVOLUTION(x).softmax(1).mean((2, 3)), "softmax"),
    "in place": (in_place, "sigmoid"),
    "double": (lambda x: FEATURES(pooled(x)).sigmoid().double(), "sigmoid"),
    "relu": (lambda x: F.relu(FEATURES(pooled(x))), None),
    "clamped": (lambda x: FEATURES(pooled(x)).clamp(0, 1), None),
    "scaled sigmoid": (lambda x: 5 * FEATURES(pooled(x)).sigmoid(), None),
    "sum of sigmoid and logits": (lambda x: FROZEN(pooled(x)) + FEATURES(pooled(x)).sigmoid(), None),
    "weighted by a softmax": (gated, None),
    "cosine": (lambda x: F.normalize(pooled(x)) @ F.normalize(FEATURES.weight).T, None),
    "no layer": (pooled, None),
    "detached": (detached, None),
    "NumPy": (lambda x: torch.from_numpy(x.numpy()), None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("no_gradients", [torch.no_grad, torch.inference_mode])
def test_last_operation(case: str, no_gradients: Callable[[], torch.no_grad]) -> None:
    function, expected = CASES[case]
    with no_gradients():
        assert last_operation(Model(function), torch.rand(1, 2, 4, 4)) == expected
    assert all(parameter.grad is None for parameter in FEATURES.parameters())
