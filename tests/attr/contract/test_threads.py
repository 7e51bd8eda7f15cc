"""Threads that share a model get the maps of one thread, and other models are never touched."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.support.attributions import OURS, Method, each
from tests.support.small_net import Net, images, nothing_changes, warnings_are_errors
from tests.support.threads import frequent_switches, in_threads, stepping_meanwhile

CLASSES = {(method.attribution, method.over): name for name, method in reversed(OURS.items())}
# One configuration of each attribution, with masks of its own where it draws any.
ONE_OF_EACH = {
    name: replace(OURS[name], seed=3) if OURS[name].takes("generator") else OURS[name] for name in CLASSES.values()
}


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    with frequent_switches():
        yield


@each(ONE_OF_EACH)
@pytest.mark.parametrize("wrapped", [False, True])
def test_threads_with_one_model_get_the_maps_of_one_thread(method: Method, wrapped: bool) -> None:
    net = Net()
    forward: Any = (lambda x: net(x)) if wrapped else net
    batches = [images(2, seed=seed) for seed in (1, 2, 3)]
    expected = [method.explain(forward, net.relu, x, 2) for x in batches]

    def explained(x: Tensor) -> list[Any]:
        return [method.explain(forward, net.relu, x, 2) for _ in range(4)]

    with warnings_are_errors(), nothing_changes(net, *batches):
        results = in_threads(*(lambda x=x: explained(x) for x in batches))
    for maps, one in zip(results, expected, strict=True):
        for other in maps:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


@each(ONE_OF_EACH)
def test_threads_with_one_attribution_get_the_maps_of_one_thread(method: Method) -> None:
    net = Net()
    attribution = method.made(net, net.relu)
    batches = [images(n, seed=n) for n in (1, 2, 3)]

    def explain(x: Tensor) -> Any:
        return getattr(attribution, method.entry)(x, **method.arguments(2))

    expected = [explain(x) for x in batches]
    results = in_threads(*(lambda x=x: [explain(x) for _ in range(4)] for x in batches))
    for several, one in zip(results, expected, strict=True):
        for other in several:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


@each(ONE_OF_EACH)
def test_predictions_in_another_thread_change_no_map(method: Method) -> None:
    net, x = Net(), images()
    expected = method.explain(net, net.relu, x, 2)
    _, maps = stepping_meanwhile(lambda _: net(images(5, seed=9)), lambda: method.explain(net, net.relu, x, 2))
    for other in maps:
        torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-12)


class Trained(nn.Sequential):
    """A model with statistics, dropout and a compiled-free forward, in training mode."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(1))
        self.train()


@each(ONE_OF_EACH)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_that_trains_in_another_thread_is_not_touched(method: Method, wrapped: bool) -> None:
    net, x, trained = Net(), images(), Trained()
    forward: Any = (lambda x: net(x)) if wrapped else net
    expected = method.explain(forward, net.relu, x, 2)
    batches = [torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    with warnings_are_errors():
        steps, maps = stepping_meanwhile(
            lambda i: trained(batches[i % 5]), lambda: method.explain(forward, net.relu, x, 2)
        )
    undisturbed = Trained()
    for step in range(len(steps)):
        undisturbed(batches[step % 5])
    assert int(trained[1].num_batches_tracked) == len(steps)  # type: ignore[arg-type]
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(trained.state_dict()[name], value), name
    for other in maps:
        torch.testing.assert_close(other, expected, rtol=1e-9, atol=1e-12)


@each(ONE_OF_EACH)
def test_a_function_may_hold_a_lock_while_it_runs_a_model_in_training_mode(method: Method) -> None:
    net, x, lock = Net().train(), images(), threading.Lock()
    net.norm.eval()
    net.dropout.eval()

    def forward(x: Tensor) -> Any:
        with lock:
            return net(x)

    found: list[Any] = []

    def explain() -> None:
        found.extend(method.explain(forward, net.relu, x, 2) for _ in range(3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with nothing_changes(net, x):
            expected = method.explain(forward, net.relu, x, 2)
            threads = [threading.Thread(target=explain, daemon=True) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
    assert len(found) == 6
    for maps in found:
        torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)


@each(ONE_OF_EACH)
def test_a_random_model_in_another_thread_keeps_its_sequence_of_random_numbers(method: Method) -> None:
    net, x = Net(), images()
    method.explain(net, net.relu, x, 2)
    torch.manual_seed(3)
    drawn, _ = stepping_meanwhile(lambda _: torch.rand(1), lambda: method.explain(net, net.relu, x, 2))
    torch.manual_seed(3)
    assert torch.equal(torch.cat(drawn), torch.rand(len(drawn)))


@each(ONE_OF_EACH)
def test_threads_explain_a_model_in_training_mode_one_after_the_other(method: Method) -> None:
    net, x = Net().train(), images()
    net.dropout.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with nothing_changes(net, x):
            in_threads(*[lambda: [method.explain(net, net.relu, x, 2) for _ in range(3)]] * 3)


@each(ONE_OF_EACH)
def test_the_warning_filters_of_the_process_stay_the_same_object_and_content(method: Method) -> None:
    net, x = Net(), images()
    before, content = warnings.filters, list(warnings.filters)
    in_threads(*[lambda: [method.explain(net, net.relu, x, 2) for _ in range(3)]] * 3)
    assert warnings.filters is before
    assert list(warnings.filters) == content


@each(ONE_OF_EACH, lambda method: method.of_layer)
def test_a_model_that_runs_in_a_thread_of_its_own_is_refused(method: Method) -> None:
    net = Net()
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match=r"layer ReLU\(\) ran only in others"):
        method.explain(lambda x: pool.submit(net, x).result(), net.relu, images(), 2)


@pytest.mark.slow
def test_two_hundred_calls_in_each_of_three_threads() -> None:
    net, layer = Net(), "relu"
    batches = [images(1, seed=seed) for seed in range(3)]
    expected = [ScoreCAM(net, net.get_submodule(layer)).attribute(x, 2) for x in batches]

    def explain(x: Tensor) -> list[Any]:
        return [ScoreCAM(net, net.get_submodule(layer)).attribute(x, 2) for _ in range(200)]

    with warnings_are_errors(), nothing_changes(net, *batches):
        results = in_threads(*(lambda x=x: explain(x) for x in batches))
    for maps, one in zip(results, expected, strict=True):
        assert len(maps) == 200
        for other in maps:
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_a_call_in_another_thread_while_a_hook_is_registered_is_left_alone() -> None:
    net, x = Net(), images()
    flags = net.relu._forward_pre_hooks_with_kwargs  # which PyTorch sets after the hook, and another thread reads

    def forward(inputs: Tensor) -> Tensor:
        before = dict(flags)
        flags.clear()
        in_threads(lambda: net(images(5, seed=9)))
        flags.update(before)
        scores: Tensor = net(inputs)
        return scores

    expected = ScoreCAM(net, net.relu).attribute(x, 2, attribute_to_layer_input=True)
    actual = ScoreCAM(forward, net.relu).attribute(x, 2, attribute_to_layer_input=True)
    torch.testing.assert_close(actual, expected)
