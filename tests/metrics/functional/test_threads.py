"""Randomising a model leaves the random numbers to the other threads, which do not change what a seed gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import RISE
from captum_scorecam.metrics.functional import cascading_parameter_randomization
from tests.support.threads import frequent_switches, stepping_meanwhile

IMAGES = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    with frequent_switches():
        yield


class Everything(nn.Module):
    """Draws in many ways when it is reset, also where an operation takes no generator or the global one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(60.0))

    def reset_parameters(self) -> None:
        grid, flat, drawn = torch.empty(3, 4), torch.empty(12), torch.ones(12)
        nn.init.orthogonal_(grid)
        nn.init.trunc_normal_(flat)
        drawn += torch.rand_like(drawn) + torch.randint(2, 9, (12,)) + torch.randperm(12)
        dropped = nn.functional.dropout(torch.ones(12)) + torch.poisson(drawn)
        of_global = torch.rand(12, generator=torch.default_generator) + torch.normal(0.0, 1.0, (12,))
        self.weight.copy_(torch.cat([grid.flatten(), flat, drawn, dropped, of_global]))


class Branching(nn.Module):
    """Runs a higher-order operator; resetting it changes its sign."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0), requires_grad=False)

    def reset_parameters(self) -> None:
        self.weight.copy_(self.scaled(self.weight, -1))

    def forward(self, inputs: Tensor) -> Tensor:
        maps: Tensor = torch.compile(self.scaled, backend="eager", fullgraph=True)(inputs, self.weight)
        return maps

    @staticmethod
    def scaled(x: Tensor, weight: float | Tensor) -> Tensor:
        result: Tensor = torch.cond(torch.tensor(True), lambda v: v * weight, lambda v: v + weight, (x,))
        return result


class Shuffled(nn.Module):
    """Has no ``reset_parameters``."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight.view(1, 4, 1, 1)


def small_net(dropout: float = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Shuffled(), nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        ).eval()  # fmt: skip


@contextmanager
def other_threads(n: int) -> Iterator[None]:
    done = threading.Event()
    others = [threading.Thread(target=done.wait) for _ in range(n)]
    for other in others:
        other.start()
    yield
    done.set()
    for other in others:
        other.join()


def with_rise(model: nn.Module, inputs: Tensor) -> Tensor:
    maps: Tensor = RISE(model, n_masks=4, grid_size=3).attribute(
        inputs, target=1, generator=torch.Generator().manual_seed(1)
    )
    return maps


@pytest.mark.parametrize("uses_rise", [False, True])
def test_random_numbers_of_another_thread_are_not_drawn_twice(uses_rise: bool) -> None:
    model = small_net()

    def run() -> list[Any]:
        explain = (lambda x: with_rise(model, x)) if uses_rise else model[:3]
        return list(cascading_parameter_randomization(model, explain, IMAGES))

    torch.manual_seed(3)
    drawn, _ = stepping_meanwhile(lambda _: torch.rand(1), run)
    torch.manual_seed(3)
    assert torch.equal(torch.cat(drawn), torch.rand(len(drawn)))


def parameters_of_layers(model: nn.Module, seed: int = 0) -> Tensor:
    """Returns the model's parameters in each explanation."""
    parameters: list[Tensor] = []

    def explain(inputs: Tensor) -> Tensor:
        parameters.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
        return inputs

    list(cascading_parameter_randomization(model, explain, IMAGES, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(parameters)


def test_a_seed_gives_the_same_parameters_while_other_threads_draw() -> None:
    model = small_net()
    alone = parameters_of_layers(model)
    _, among_others = stepping_meanwhile(lambda _: torch.rand(1), lambda: parameters_of_layers(model), 3)
    for parameters in among_others:
        assert torch.equal(parameters, alone)


def test_a_seed_gives_the_same_random_numbers_of_all_kinds_beside_other_threads() -> None:
    model = Everything()
    alone = parameters_of_layers(model)
    with other_threads(1):
        assert torch.equal(parameters_of_layers(model), alone)
        assert not torch.equal(parameters_of_layers(model, seed=1), alone)


@pytest.mark.parametrize("n_others", [0, 1])
def test_a_compiled_model_with_control_flow_is_explained_and_reset(n_others: int) -> None:
    model = Branching()
    with other_threads(n_others):
        (record,) = cascading_parameter_randomization(model, model, IMAGES)
    assert record.layer == "Branching"
    assert record.spearman.tolist() == pytest.approx([-1])


@pytest.mark.parametrize("n_others", [0, 1])
def test_every_explanation_of_a_random_model_sees_the_same_random_state(n_others: int) -> None:
    model, before, noise = small_net(dropout=0.5).train(), torch.get_rng_state(), []

    def explain(inputs: Tensor) -> Tensor:
        noise.append(model[3](torch.ones(20)))
        return inputs

    with other_threads(n_others):
        list(cascading_parameter_randomization(model, explain, IMAGES))
    assert len(noise) == 5
    assert all(torch.equal(each, noise[0]) for each in noise)
    assert torch.equal(torch.get_rng_state(), before)
