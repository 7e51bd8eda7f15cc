"""The map does not depend on batches, chunks, strides or ranks; tuples of inputs and additional arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import MeaningfulPerturbation
from tests.support.attributions import METHODS, OURS, Method, each, flat, seeded
from tests.support.small_net import Net, images, nothing_changes, texts_of


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def has_chunks(method: Method) -> bool:
    return method.takes("perturbations_per_eval")


def replaces_inputs_by_baselines(method: Method) -> bool:
    """Whether this configuration uses baselines."""
    return method.takes("baselines") and (
        method.attribution is not MeaningfulPerturbation or method.options.get("perturbation") == "baseline"
    )


# --- Examples and rows -----------------------------------------------------------------------------------------------


@each(METHODS)
def test_batch_is_example_by_example(method: Method) -> None:
    net, x, target = Net(), images(4), [2, 0, 6, 2]
    together = method.explain(net, net.relu, x, target)
    alone = [method.explain(net, net.relu, x[n : n + 1], target[n]) for n in range(4)]
    expected = tuple(torch.cat(examples).detach() for examples in zip(*alone, strict=True))
    method.assert_close(together, expected, 1e-10)
    for tensor in expected:
        assert float((tensor[0] - tensor[1]).abs().max()) > 1e-2 * float(tensor.abs().max())


@each(METHODS, quick=METHODS)
def test_batch_equals_the_naive_reference(method: Method) -> None:
    net, x, target = Net(), images(3), [2, 0, 6]
    method.assert_close(method.explain(net, net.relu, x, target), method.expected(net, net.relu, x, target))


@each(METHODS, replaces_inputs_by_baselines, quick=METHODS)
@pytest.mark.parametrize("kind", ["number", "one for all", "one each"])
def test_baselines_follow_their_example(method: Method, kind: str) -> None:
    net, x = Net(), images(3)
    baselines: Any = {"number": -0.7, "one for all": images(1, seed=2), "one each": images(3, seed=2)}[kind]
    actual = method.explain(net, net.relu, x, [2, 0, 6], baselines=baselines)
    method.assert_close(actual, method.expected(net, net.relu, x, [2, 0, 6], baselines=baselines))


@each(OURS, has_chunks)
def test_any_chunk_size_returns_the_same_map(method: Method) -> None:
    net, x = Net(), images(3)
    expected = method.explain(net, net.relu, x, 2)
    rows: list[int] = []
    net.register_forward_pre_hook(lambda _module, taken: rows.append(len(taken[0])))
    for perturbations_per_eval in (1, 2, 3, 5, 6, 7, 1000):
        rows.clear()
        actual = method.explain(net, net.relu, x, 2, perturbations_per_eval=perturbations_per_eval)
        method.assert_close(actual, expected, 1e-10)
        assert rows[0] == 3  # the examples themselves
        assert max(rows) <= 3 * perturbations_per_eval


@each(METHODS)
def test_one_instance_explains_inputs_of_many_shapes(method: Method) -> None:
    net = Net()
    attribution = method.made(net, net.relu)
    for batch, height, width in [(1, 12, 10), (5, 8, 8), (2, 31, 9), (1, 12, 10)]:
        x = normal(batch, 3, height, width, seed=width)
        actual = getattr(attribution, method.entry)(x, **method.arguments(2))
        method.assert_close(flat(actual), method.expected(net, net.relu, x, 2))


@each(METHODS)
@pytest.mark.parametrize("strides", ["channels_last", "expanded", "transposed"])
def test_inputs_of_any_strides(method: Method, strides: str) -> None:
    net, x = Net(), images()
    x = {
        "channels_last": x.to(memory_format=torch.channels_last),
        "expanded": x[:1, :1].expand(2, 3, 12, 10),
        "transposed": x.transpose(2, 3),
    }[strides]
    expected = method.expected(net, net.relu, x.contiguous(), 2)
    with nothing_changes(net, x):
        method.assert_close(method.explain(net, net.relu, x, 2), expected)


# --- Ranks, tuples, arguments ----------------------------------------------------------------------------------------


class Viewing(nn.Module):
    """Flattens inputs and maps with `view`, so both must be contiguous; convolutions preserve the memory format."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1](3, 4, 3)
            self.fc = nn.Linear(4 * 4**rank, 5)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        scores: Tensor = self.fc(z.view(len(z), -1))
        return scores + 0 * x.view(len(x), -1)[:, :1]


@each(METHODS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_rank_with_a_model_that_views_the_output_of_its_convolution(method: Method, rank: int) -> None:
    net, x = Viewing(rank), normal(2, 3, *[6] * rank)
    expected = method.expected(net, net.conv, x, 2)
    for perturbations_per_eval in (None, 1, 3) if has_chunks(method) else (None,):
        chunks = {} if perturbations_per_eval is None else {"perturbations_per_eval": perturbations_per_eval}
        method.assert_close(method.explain(net, net.conv, x, 2, **chunks), expected)


class TwoInputs(nn.Module):
    """Takes a second tensor with a different size and number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        scores: Tensor = self.net(x + F.adaptive_avg_pool2d(y.tanh(), (12, 10)))
        return scores * (1 + y.square().mean((1, 2, 3)))[:, None]


@each(METHODS)
def test_tuple_inputs(method: Method) -> None:
    model, inputs = TwoInputs(), (images(), normal(2, 1, 5, 17))
    baselines = {"baselines": (0.5, -1)} if replaces_inputs_by_baselines(method) else {}
    actual = method.explain(model, model.net.relu, inputs, [2, 5], **baselines)
    expected = method.expected(model, model.net.relu, inputs, [2, 5], **baselines)
    assert len(actual) == (2 if method.in_input_space else 1) * (2 if method.entry == "attribute_with_error" else 1)
    method.assert_close(actual, expected)


@each(METHODS, lambda method: method.entry != "channel_scores")
def test_tuple_of_one_input_returns_a_tuple_of_one_in_input_space(method: Method) -> None:
    net, x = Net(), images()
    attribution = method.made(net, net.relu)
    alone, in_a_tuple = (getattr(attribution, method.entry)(each, **method.arguments(2)) for each in (x, (x,)))
    if method.entry == "attribute_with_error":
        (alone, _), (in_a_tuple, _) = alone, in_a_tuple
    assert isinstance(alone, Tensor)
    assert isinstance(in_a_tuple, tuple) == method.in_input_space
    method.assert_close(flat(in_a_tuple), (alone.detach(),))


class WithArguments(nn.Module):
    """A scale per example, an offset for all, a table that is not a batch, and a non-tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, scale: Tensor, offset: Any = None, table: Any = None, flip: Any = None) -> Tensor:
        x = x * scale.view(-1, 1, 1, 1) + (0 if offset is None else offset)
        if table is not None:
            x = x + table.mean(0).view(1, 3, 1, 1)
        scores: Tensor = self.net(x.flip(3) if flip == "left to right" else x)
        return scores


@each(METHODS)
@pytest.mark.parametrize("several", [False, True])
def test_additional_arguments_follow_their_example(method: Method, several: bool) -> None:
    model, x, scale = WithArguments(), images(3), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    arguments: Any = (scale, torch.tensor(0.3), normal(5, 3), "left to right") if several else scale
    actual = method.explain(model, model.net.relu, x, [2, 5, 0], additional_forward_args=arguments)
    expected = method.expected(model, model.net.relu, x, [2, 5, 0], additional_forward_args=arguments)
    method.assert_close(actual, expected)
    alike = method.expected(model, model.net.relu, x, [2, 5, 0], additional_forward_args=scale[:1])
    assert float((alike[0][1] - expected[0][1]).abs().max()) > 1e-2 * float(expected[0].abs().max())


@each(METHODS)
@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize(
    "container",
    [
        lambda scale: {"scale": scale, "name": "left to right"},
        lambda scale: ["left to right", (scale,)],
        lambda scale: scale.numpy(),
    ],
    ids=["dict", "list", "array"],
)
def test_additional_arguments_in_containers_follow_their_example(method: Method, rows: Any, container: Any) -> None:
    model, x, scale = WithArguments(), images(2), torch.tensor([0.5, 2.0], dtype=torch.float64)

    def forward(x: Tensor, given: Any) -> Any:
        while not isinstance(given, Tensor | np.ndarray):
            given = given["scale"] if isinstance(given, dict) else given[-1]
        return model(x, torch.as_tensor(given))

    options = {"perturbations_per_eval": rows} if rows and method.takes("perturbations_per_eval") else {}
    actual = method.explain(forward, model.net.relu, x, [2, 5], additional_forward_args=(container(scale),), **options)
    expected = method.expected(model, model.net.relu, x, [2, 5], additional_forward_args=scale)
    method.assert_close(actual, expected)


# --- Layers and wrappers ---------------------------------------------------------------------------------------------


@each(OURS, lambda method: method.of_layer)
@pytest.mark.parametrize("at_input", [False, True])
def test_layer_that_runs_twice_is_explained_at_its_last_call_with_a_warning(method: Method, at_input: bool) -> None:
    class Twice(Net):
        def forward(self, x: Tensor) -> Tensor:
            z = self.relu(self.conv(x))
            z = self.relu(1 - 2 * F.avg_pool2d(self.norm(z), 2))
            scores: Tensor = self.fc(F.adaptive_avg_pool2d(z, 2).flatten(1))
            return scores

    net, x = Twice(), images()
    expected = method.expected(net, net.relu, x, 2, attribute_to_layer_input=at_input)
    assert method.in_input_space or tuple(expected[0].shape[2:]) == (3, 2)
    with pytest.warns(UserWarning, match=r"layer ReLU\(\) ran 2 times in one forward pass; its last call is") as caught:
        actual = method.explain(net, net.relu, x, 2, attribute_to_layer_input=at_input)
    assert len(texts_of(caught)) == 1
    method.assert_close(actual, expected)


@each(OURS)
def test_data_parallel_and_device_ids(method: Method) -> None:
    net, x = Net(), images()
    expected = method.expected(net, net.relu, x, 2)
    method.assert_close(method.explain(nn.DataParallel(net), net.relu, x, 2), expected)
    if method.of_layer:
        attribution = method.made(nn.DataParallel(net), net.relu, device_ids=[0])
        actual = getattr(attribution, method.entry)(x, **method.arguments(2))
        method.assert_close(flat(actual), expected)
