"""Looking for a layer leaves random numbers, and the model, to the other threads."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.layers import find_layer
from tests.support.threads import frequent_switches, in_threads, stepping_meanwhile

IMAGES = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    with frequent_switches():
        yield


class Small(nn.Sequential):
    """Convolution, BatchNorm, dropout and a linear head; `features` is the last layer with maps."""

    def __init__(self, dropout: float = 0.5) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(dropout))
            self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


class Noisy(Small):
    """Adds noise in evaluation mode too."""

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = super().forward(inputs + 0.1 * torch.rand_like(inputs))  # type: ignore[no-untyped-call]
        return scores


class Closure(Small):
    """Its forward calls its modules through a function, which a copy shares with it."""

    def __init__(self) -> None:
        super().__init__()
        self.run = lambda inputs: self.head(self.features(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.run(inputs)  # type: ignore[no-untyped-call]
        return scores


class Locked(Small):
    """Has an attribute that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def weight_normalised() -> nn.Module:
    """Its convolution's weight is an attribute with a gradient after a forward pass."""
    model = Small()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch recommends its parametrization
        nn.utils.weight_norm(model.get_submodule("features.0"))
    model(IMAGES)
    return model


def lazy() -> nn.Module:
    return nn.Sequential(Small().features, nn.Flatten(), nn.LazyLinear(2))


@pytest.mark.parametrize("layer", ["auto", "features.0"])
@pytest.mark.parametrize("training", [False, True])
def test_random_numbers_of_another_thread_are_not_drawn_twice(training: bool, layer: str) -> None:
    model = Small().train(training)
    find_layer(model, IMAGES, layer)
    torch.manual_seed(3)
    drawn, _ = stepping_meanwhile(lambda _: torch.rand(1), lambda: find_layer(model, IMAGES, layer), 3)
    torch.manual_seed(3)
    assert torch.equal(torch.cat(drawn), torch.rand(len(drawn)))


@pytest.mark.parametrize("n_others", [0, 1])
def test_a_model_that_draws_random_numbers_gets_the_same_ones_in_each_forward(n_others: int) -> None:
    model, before = Noisy().eval(), torch.get_rng_state()
    done = threading.Event()
    others = [threading.Thread(target=done.wait) for _ in range(n_others)]
    for other in others:
        other.start()
    found = find_layer(model, IMAGES)
    done.set()
    assert found.name == "features"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("layer", ["auto", "features.0"])
def test_a_model_that_trains_in_another_thread_stays_in_training_mode(layer: str) -> None:
    model, undisturbed = Small(dropout=0), Small(dropout=0)
    batches = [torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(5)]

    def step(i: int) -> bool:
        model(batches[i % 5])
        return all(module.training for module in model.modules())

    modes, found = stepping_meanwhile(step, lambda: find_layer(model, IMAGES, layer), 3)
    for i in range(len(modes)):
        undisturbed(batches[i % 5])
    assert all(modes)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert {(each.name, each.module) for each in found} == {
        ("features", model.features) if layer == "auto" else (layer, model.features[0])
    }


def test_threads_look_for_the_layer_of_a_model_in_training_mode_one_after_the_other() -> None:
    model = Small(dropout=0)

    def explain() -> list[Tensor]:
        return [ScoreCAM(model, "auto").attribute(IMAGES.expand(2, -1, -1, -1), 1) for _ in range(3)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = explain()[0]
        results = in_threads(*[explain] * 3)
    for maps in results:
        for each in maps:
            torch.testing.assert_close(each, expected)


@pytest.mark.parametrize("make", [Small, Noisy, weight_normalised, lazy])
def test_a_model_in_training_mode_has_the_layer_it_has_in_evaluation_mode(make: Callable[[], nn.Module]) -> None:
    in_training, in_evaluation = make().train(), make().eval()
    keys, before = list(in_training.state_dict()), torch.get_rng_state()
    found, expected = find_layer(in_training, IMAGES), find_layer(in_evaluation, IMAGES)
    assert (found.name, found.activation_transform) == (expected.name, expected.activation_transform)
    assert found.module is in_training.get_submodule(found.name)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(in_training.state_dict()) == keys


def test_a_compiled_model_in_training_mode_has_its_layer_found() -> None:
    model: nn.Module = torch.compile(Small(), backend="eager").train()  # type: ignore[attr-defined]
    assert find_layer(model, IMAGES).name == "_orig_mod.features"


@pytest.mark.parametrize("make", [Closure, Locked])
def test_a_model_in_training_mode_that_cannot_be_copied_is_refused(make: Callable[[], nn.Module]) -> None:
    model = make().train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"one that `copy.deepcopy` copies.*Call `model.eval\(\)`, or pass the layer"):
        find_layer(model, IMAGES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training and not module._forward_pre_hooks for module in model.modules())
    assert find_layer(model.eval(), IMAGES).name == "features"


def test_a_call_in_another_thread_while_a_hook_is_registered_is_left_alone() -> None:
    class Meanwhile(Small):
        def forward(self, inputs: Tensor) -> Tensor:
            flags = [module._forward_pre_hooks_with_kwargs for module in self.modules()]
            before = [dict(each) for each in flags]
            for each in flags:
                each.clear()
            in_threads(lambda: self.features(IMAGES))
            for each, values in zip(flags, before, strict=True):
                each.update(values)
            scores: Tensor = super().forward(inputs)  # type: ignore[no-untyped-call]
            return scores

    assert find_layer(Meanwhile().eval(), IMAGES).name == find_layer(Small().eval(), IMAGES).name
