"""Every grad mode gives the same detached map, and no forward pass builds an unneeded graph."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.attributions import OURS, Method, each
from tests.support.small_net import Net, images


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, scale: Tensor) -> Any:
        return self.net(x * scale.view(-1, 1, 1, 1))


@each(OURS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_every_grad_mode(method: Method, context: Any) -> None:
    model, x, scale = Scaled(), images(), torch.tensor([1.0, 2.0], dtype=torch.float64)
    expected = method.expected(model, model.net.relu, x, 2, additional_forward_args=scale)
    for made_inside, frozen in product([False, True], repeat=2):
        model.requires_grad_(not frozen)
        with context():
            inputs, own = (images(), scale.clone()) if made_inside else (x, scale)
            actual = method.explain(model, model.net.relu, inputs, 2, additional_forward_args=own)
        method.assert_close(actual, expected)
        assert not any(tensor.requires_grad for tensor in actual)


@each(OURS)
def test_tensor_made_in_inference_mode_is_explained_outside_of_it(method: Method) -> None:
    net = Net()
    with torch.inference_mode():
        x = images()
    method.assert_close(method.explain(net, net.relu, x, 2), method.expected(net, net.relu, images(), 2))


@each(OURS)
def test_result_of_inputs_that_require_gradients_is_detached(method: Method) -> None:
    net, x = Net(), images().requires_grad_()
    actual = method.explain(net, net.relu, x, 2)
    assert [(tensor.requires_grad, tensor.is_leaf) for tensor in actual] == [(False, True)] * len(actual)


@each(OURS)
def test_a_model_that_enables_gradients_itself_gets_a_detached_map(method: Method) -> None:
    class Enabling(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                out: Tensor = super().forward(x)
            return out

    net, plain = Enabling(), Net()
    plain.load_state_dict(net.state_dict())
    actual = method.explain(net, net.relu, images(), 2)
    assert [(tensor.requires_grad, tensor.is_leaf) for tensor in actual] == [(False, True)] * len(actual)
    method.assert_close(actual, method.expected(plain, plain.relu, images(), 2))


@each(OURS, lambda method: not method.gradients)
def test_no_forward_builds_a_graph(method: Method) -> None:
    class Watching(Net):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            graphs.append(out.requires_grad)
            return out

    graphs: list[bool] = []
    net, x = Watching(), images().requires_grad_()
    method.explain(net, net.relu, x, 2, **method.one_row_each)
    assert graphs == [False] * net.forwards
