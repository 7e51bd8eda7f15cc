"""Random numbers drawn on any device are noticed and taken back; the generators of GPUs are replaced."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_scorecam import ScoreCAM, _random_draws
from captum_scorecam._random_draws import RandomDraws, _RandomOperations, draws_undone
from tests.support.small_net import Net, images

NET = Net()


class Generators:
    """Stands for the global generators of two GPUs and of MPS, whose states are numbers."""

    def __init__(self) -> None:
        self.states = {"0": 10, "1": 20, "mps": 30}

    def state(self, device: object = "mps") -> Tensor:
        return torch.tensor([self.states[str(device)]], dtype=torch.uint8)

    def restore(self, state: Tensor, device: object = "mps") -> None:
        self.states[str(device)] = int(state)


class OnMps:
    device = torch.device("mps")


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> Generators:
    generators = Generators()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for module in (torch.cuda, torch.mps):
        monkeypatch.setattr(module, "get_rng_state", generators.state)
        monkeypatch.setattr(module, "set_rng_state", generators.restore)
    return generators


@pytest.mark.parametrize("device", ["0", "1"])
def test_a_model_on_a_gpu_may_draw_there_though_its_inputs_are_on_the_cpu(device: str, generators: Generators) -> None:
    def drawing(x: Tensor) -> Tensor:
        generators.states[device] += 1
        scores: Tensor = NET(x)
        return scores

    before = dict(generators.states)
    with pytest.warns(UserWarning, match=r"^The model draws random numbers: scores are random\.$"):
        ScoreCAM(drawing, NET.relu).attribute(images(), 2)
    assert generators.states == before


def test_gpus_are_left_alone_before_cuda_is_in_use(generators: Generators, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    with draws_undone([]) as draws:
        generators.states["1"] += 1
    assert not draws.any
    assert generators.states["1"] == 21


@pytest.mark.parametrize(("others", "expected"), [(True, 21), (False, 20)])
def test_devices_on_which_only_another_thread_draws_are_left_to_it(
    others: bool, expected: int, generators: Generators, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_random_draws, "_others_may_draw", lambda: others)
    monkeypatch.setattr(_random_draws, "compiler_is_loaded", lambda: False)
    draws = RandomDraws([])
    with draws:
        generators.states["0"] += 1
    generators.states["1"] += 1
    draws.undo()
    assert (generators.states["0"], generators.states["1"]) == (10, expected)


def test_mps_is_watched_where_inputs_are_on_it(generators: Generators) -> None:
    for inputs, expected in (([OnMps()], 30), ([torch.zeros(1)], 31)):
        draws = RandomDraws(inputs)  # type: ignore[arg-type]
        with draws:
            generators.states["mps"] += 1
        draws.undo()
        assert (draws.any, generators.states["mps"]) == (expected == 30, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_draws_numbers_only_for_dropout(dropout: float) -> None:
    x = torch.rand(1, 2, 4, 8)
    with _RandomOperations() as operations:
        functional.scaled_dot_product_attention(x, x, x, dropout_p=dropout)
    assert operations.seen == (dropout > 0)


@pytest.mark.parametrize("training", [False, True])
def test_dropout_and_recurrent_layers_draw_numbers_only_in_training_mode(training: bool) -> None:
    recurrent = nn.LSTM(8, 8, num_layers=2, dropout=0.5).train(training)
    runs = (partial(functional.dropout, training=training), partial(functional.rrelu, training=training), recurrent)
    for run in runs:
        x = torch.rand(1, 4, 8) - 0.5
        with _RandomOperations() as operations, torch.no_grad():
            run(x)
        assert operations.seen == training


def test_numbers_of_probability_0_are_drawn() -> None:
    with _RandomOperations() as operations:
        torch.bernoulli(torch.zeros(3), p=0.0)
    assert operations.seen
