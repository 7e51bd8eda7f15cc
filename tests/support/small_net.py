"""A small network with inspectable state, shared by the tests of side effects."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Net(nn.Module):
    """Convolution, batch norm, ReLU, pooling, a linear head; raises in its n-th forward pass on request."""

    def __init__(self, channels: int = 6, inplace: bool = False, dropout: float = 0.0, gain: float = 20.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(3, channels, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(channels)
            self.relu = nn.ReLU(inplace=inplace)
            self.dropout = nn.Dropout(dropout)
            self.fc = nn.Linear(4 * channels, 7)
        self.fc.weight.data.mul_(gain)
        self.forwards, self.fails_at = 0, -1
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        if self.forwards == self.fails_at:
            raise RuntimeError("no more")
        z = self.relu(self.norm(self.conv(x)))
        scores: Tensor = self.fc(self.dropout(F.adaptive_avg_pool2d(z, 2).flatten(1)))
        return scores


def images(batch: int = 2, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(batch, 3, 12, 10, generator=torch.Generator().manual_seed(seed)).to(dtype)


def total(x: Tensor) -> Tensor:
    """A forward function with one output per example: the sum of its values."""
    return x.flatten(1).sum(1)


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal to `tolerance`, relative to the largest value of the expected map, which is not zero."""
    assert actual.shape == expected.shape
    assert float(expected.abs().max()) > 0
    difference = (actual.detach().double() - expected.detach().double()).abs().max()
    assert float(difference) <= tolerance * float(expected.double().abs().max())


def state_of(net: nn.Module) -> dict[str, Any]:
    """Returns all state that a user could find changed, except tensor values."""
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    modules = dict(net.named_modules())
    hook_tables = [table for table in vars(net) if "hooks" in table]
    return {
        "tensors": {name: (id(t), t.data_ptr(), t.stride(), t.grad, t.requires_grad) for name, t in tensors.items()},
        "training": {name: module.training for name, module in modules.items()},
        "inplace": {name: getattr(module, "inplace", None) for name, module in modules.items()},
        "attributes": {name: set(vars(module)) for name, module in modules.items()},
        "hooks": {(name, table): list(getattr(m, table)) for name, m in modules.items() for table in hook_tables},
        "global hooks": {name: len(table) for name, table in vars(nn.modules.module).items() if "_hooks" in name},
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "warning filters": list(warnings.filters),
        "random": random.getstate(),
        "backends": (torch.backends.cudnn.benchmark, torch.get_num_threads()),
    }


@contextmanager
def nothing_changes(net: nn.Module, *inputs: Tensor) -> Iterator[None]:
    before = state_of(net)
    values = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = [tensor.detach().clone() for tensor in inputs]
    random_state = torch.get_rng_state()
    yield
    assert state_of(net) == before
    torch.testing.assert_close(dict(net.state_dict()), values, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    for tensor, value in zip(inputs, kept, strict=True):
        assert torch.equal(tensor.detach(), value)
        assert tensor.grad is None


NARROW = "The scores of the masked inputs differ by less than 1"  # as those of small random models do


@contextmanager
def warnings_are_errors() -> Iterator[None]:
    """Makes every warning an error in its body, except that of narrow scores."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=NARROW)
        yield


def texts_of(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """The texts of the warnings, except that of narrow scores."""
    return [text for text in (str(each.message) for each in caught) if not text.startswith(NARROW)]
