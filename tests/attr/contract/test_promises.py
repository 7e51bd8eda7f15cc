"""Model, hooks, modes, inputs, random states and grad mode are left unchanged, even after an exception."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.attributions import OURS, Method, each, flat, seeded
from tests.support.small_net import Net, images, nothing_changes, texts_of


class FailsAt:
    """A forward function whose n-th call raises."""

    def __init__(self, net: nn.Module, n: int, failure: type[BaseException] = RuntimeError) -> None:
        self.net, self.n, self.failure, self.calls = net, n, failure, 0

    def __call__(self, x: Tensor) -> Any:
        self.calls += 1
        if self.calls == self.n:
            raise self.failure("stopped")
        return self.net(x)


def forwards_of(method: Method) -> int:
    net = Net()
    method.explain(net, net.relu, images(), 2, **method.one_row_each)
    return net.forwards


@each(OURS)
@pytest.mark.parametrize("layer", ["conv", "relu"])
@pytest.mark.parametrize("grad_mode", [True, False])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_a_call_changes_nothing(method: Method, layer: str, grad_mode: bool, requires_grad: bool) -> None:
    net, x = Net(), images().requires_grad_(requires_grad)
    net.conv.weight.requires_grad_(False)
    seen: list[int] = []
    net.relu.register_forward_hook(lambda _module, _taken, given: seen.append(len(given)))
    net.relu.register_forward_pre_hook(lambda _module, taken: seen.append(len(taken[0])))
    with torch.set_grad_enabled(grad_mode), nothing_changes(net, x):
        method.explain(net, getattr(net, layer), x, 2, **method.one_row_each)
    assert x.requires_grad == requires_grad  # Captum sets the flag on a tensor that is the layer's input
    assert len(seen) == 2 * net.forwards  # the user's own hooks ran in every forward
    assert seen[:2] == [2, 2]


@each(OURS)
@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_changed_whichever_forward_raises(method: Method, failure: type[BaseException]) -> None:
    net, x = Net(), images().requires_grad_()
    for n in range(1, forwards_of(method) + 1):
        failing = FailsAt(net, n, failure)
        with nothing_changes(net, x), pytest.raises(failure, match="stopped"):
            method.explain(failing, net.relu, x, 2, **method.one_row_each)
        assert failing.calls == n
    method.assert_close(method.explain(net, net.relu, x, 2), method.expected(net, net.relu, x, 2))


def fail_with(failure: type[BaseException]) -> Any:
    def fail(_: Any) -> Tensor:
        raise failure("stopped")

    return fail


@each(OURS, lambda method: "tolerance" not in method.options)
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_is_changed_when_the_users_score_raises(method: Method, failure: type[BaseException]) -> None:
    net, x = Net(), images()
    with nothing_changes(net, x), pytest.raises(failure, match="stopped"):
        method.explain(net, net.relu, x, 2, score=fail_with(failure))


@each(OURS, lambda method: method.of_layer)
@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_nothing_is_changed_when_the_users_transform_raises(method: Method, failure: type[BaseException]) -> None:
    net, x = Net(), images()
    with nothing_changes(net, x), pytest.raises(failure, match="stopped"):
        method.explain(net, net.relu, x, 2, activation_transform=fail_with(failure))


# --- Training mode ---------------------------------------------------------------------------------------------------


def in_training_mode(module: str) -> Net:
    net = Net(dropout=0.5).train()
    net.norm.train(module in ("norm", "both"))
    net.dropout.train(module in ("dropout", "both"))
    return net


@each(OURS)
@pytest.mark.parametrize("module", ["norm", "dropout", "both"])
def test_training_mode_warns_once_and_keeps_statistics_and_random_state(method: Method, module: str) -> None:
    net, x = in_training_mode(module), images()
    with nothing_changes(net, x), pytest.warns(UserWarning, match="training mode") as caught:
        method.explain(net, net.relu, x, 2)
    assert len(texts_of(caught)) == 1
    net(x)  # the model itself still writes its statistics
    assert net.state_dict()["norm.num_batches_tracked"] == int(module != "dropout")


@each(OURS, lambda method: not method.gradients)
@pytest.mark.parametrize("n", [3, 4])  # after the unmasked inputs, which run twice
def test_training_mode_keeps_statistics_when_a_masked_forward_raises(method: Method, n: int) -> None:
    net, x = in_training_mode("both"), images()
    with (
        nothing_changes(net, x),
        pytest.warns(UserWarning, match="training mode") as caught,
        pytest.raises(RuntimeError, match="stopped"),
    ):
        method.explain(FailsAt(net, n), net.relu, x, 2, **method.one_row_each)
    assert len(texts_of(caught)) == 1


@each(OURS)
def test_map_in_training_mode_is_that_of_the_batch_that_runs(method: Method) -> None:
    # one example and one row in each forward: the batch statistics are those of the naive reference's forwards
    net, x = Net().train(), images(1)
    other = copy.deepcopy(net)
    expected = method.expected(other, other.relu, x, 2)
    with pytest.warns(UserWarning, match="training mode"):
        actual = method.explain(net, net.relu, x, 2, **method.one_row_each)
    method.assert_close(actual, expected)


@each(OURS)
def test_training_mode_without_such_modules_does_not_warn(method: Method) -> None:
    net, x = Net().train(), images()
    net.norm.eval()
    net.dropout.eval()
    method.assert_close(method.explain(net, net.relu, x, 2), method.expected(net, net.relu, x, 2))


# --- Models that change things themselves ----------------------------------------------------------------------------


@each(OURS)
def test_model_that_draws_random_numbers_leaves_the_random_state(method: Method) -> None:
    class Noisy(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.0 * torch.rand(len(x), 7)

    net, x = Noisy(), images()
    method = replace(method, seed=3) if method.takes("generator") else method
    with nothing_changes(net, x), pytest.warns(UserWarning, match="draws random numbers: scores are random") as caught:
        actual = method.explain(net, net.relu, x, 2)
    assert len(texts_of(caught)) == 1
    method.assert_close(actual, method.expected(net, net.relu, x, 2))


class Overwriting(nn.Module):
    """Works on its input in place, or the same on a copy of it."""

    def __init__(self, rank: int, in_place: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = (nn.Conv1d, nn.Conv2d)[rank - 1](3, 6, 3)
            self.fc = nn.Linear(6, 7)
        self.in_place = in_place
        self.double()

    def forward(self, x: Tensor) -> Any:
        x = x.sub_(0.3).mul_(2) if self.in_place else (x - 0.3) * 2
        return self.fc(self.conv(x).tanh().flatten(2).mean(2)) * 9


@each(OURS)
@pytest.mark.parametrize("rank", [1, 2])  # images are copied into channels_last anyway
def test_model_that_overwrites_its_input_gets_copies(method: Method, rank: int) -> None:
    net, careful = Overwriting(rank, in_place=True), Overwriting(rank, in_place=False)
    x = images()[..., 0] if rank == 1 else images()
    with nothing_changes(net, x):
        actual = method.explain(net, net.conv, x, 2)
    method.assert_close(actual, method.expected(careful, careful.conv, x, 2))


class OverwritingArguments(nn.Module):
    """Adds arguments, in a dictionary and alone, to its scores, and changes them in place; or the same on copies."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = Net(), in_place
        self.relu = self.net.relu

    def forward(self, x: Tensor, shift: Tensor, other: dict[str, Tensor]) -> Any:
        scale = other["scale"]
        shift, scale = (shift.add_(1), scale.mul_(2)) if self.in_place else (shift + 1, scale * 2)
        return self.net(x * scale) * shift


@each(OURS)
@pytest.mark.parametrize("batch", [1, 2])
def test_model_that_overwrites_additional_arguments_gets_copies(method: Method, batch: int) -> None:
    net, careful, x = OverwritingArguments(in_place=True), OverwritingArguments(in_place=False), images(batch)
    shift, scale = torch.rand(batch, 1, dtype=x.dtype, generator=seeded()) + 1, torch.tensor(0.5, dtype=x.dtype)
    arguments = (shift, {"scale": scale})
    with nothing_changes(net, x, shift, scale):
        actual = method.explain(net, net.relu, x, 2, additional_forward_args=arguments)
    method.assert_close(actual, method.explain(careful, careful.relu, x, 2, additional_forward_args=arguments))


@each(OURS)
def test_an_attribution_is_copied_and_pickled_after_a_call(method: Method) -> None:
    net, x = Net(), images()
    attribution = method.made(net, net.relu)
    expected = flat(getattr(attribution, method.entry)(x, **method.arguments(2)))
    for other in (copy.deepcopy(attribution), pickle.loads(pickle.dumps(attribution))):
        method.assert_close(flat(getattr(other, method.entry)(x, **method.arguments(2))), expected)


@each(OURS)
@pytest.mark.parametrize("inplace", ["module", "functional"])
@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_in_place_operations_after_the_layer_do_not_reach_the_map(method: Method, layer: str, inplace: str) -> None:
    class Functional(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.norm(self.conv(x).mul_(-1.5))
            scores: Tensor = self.fc(F.adaptive_avg_pool2d(F.relu_(z.add_(0.2)), 2).flatten(1))
            return scores

    class OutOfPlace(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.norm(self.conv(x) * -1.5)
            scores: Tensor = self.fc(F.adaptive_avg_pool2d(F.relu(z + 0.2), 2).flatten(1))
            return scores

    net, plain = (Net(inplace=True), Net()) if inplace == "module" else (Functional(), OutOfPlace())
    x = images()
    actual = method.explain(net, getattr(net, layer), x, 2, **all_values(method))
    expected = method.expected(plain, getattr(plain, layer), x, 2, **all_values(method))
    method.assert_close(actual, expected)
    assert not method.of_layer or float(expected[0].min()) < 0  # a ReLU in the map would show


@each(OURS, lambda method: method.of_layer)
def test_in_place_layer_is_explained_at_its_input(method: Method) -> None:
    net, plain, x = Net(inplace=True), Net(), images()
    options = {**all_values(method), "attribute_to_layer_input": True}
    method.assert_close(
        method.explain(net, net.relu, x, 2, **options), method.expected(plain, plain.relu, x, 2, **options)
    )


def all_values(method: Method) -> dict[str, Any]:
    return {"relu_attributions": False} if method.takes("relu_attributions") else {}
