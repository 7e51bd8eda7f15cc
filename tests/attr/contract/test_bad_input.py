"""Invalid layers, inputs, outputs and targets raise helpful errors, after one forward pass at most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_scorecam import LayerGradCamPlusPlus
from tests.support.attributions import METHODS, OURS, Method, each
from tests.support.small_net import Net, images


@each(OURS, lambda method: method.of_layer)
def test_layer_that_cannot_be_explained_raises(method: Method) -> None:
    net, x = Net(), images()
    with pytest.raises(
        ValueError, match=r"Expected `layer` to run in the forward pass of `forward_func`, but .*ReLU\(\)"
    ):
        method.explain(net, nn.ReLU(), x, 2)
    with pytest.raises(ValueError, match=r"shape N×K×spatial \(1 to 3 spatial dimensions\), but got shape \(2, "):
        method.explain(net, net.fc, x, 2)
    with pytest.raises(ValueError, match=r"2 spatial dimensions.*but got shape \(2, 6, 30\).*activation_transform"):
        method.explain(net, net.relu, x, 2, activation_transform=lambda maps: maps.flatten(2))
    with pytest.raises(TypeError, match=r"the layer to return floating-point tensors, but got torch\.int64"):
        method.explain(net, net.relu, x, 2, activation_transform=lambda maps: maps.long())
    with pytest.raises(ValueError, match="Expected finite activations, but got NaN or Inf"):
        method.explain(net, net.relu, x / 0, 2)
    assert net.forwards == 5


@each(OURS, lambda method: (method.over or method.attribution) is not LayerGradCamPlusPlus)
def test_inputs_that_cannot_be_masked_raise_before_any_forward(method: Method) -> None:
    net, x = Net(), images()
    with pytest.raises(TypeError, match=r"Expected floating-point inputs.*torch\.int64.*`additional_forward_args`"):
        method.explain(net, net.relu, x.long(), 2)
    with pytest.raises(ValueError, match=r"shape N×C×spatial \(1 to 3 spatial dimensions\), but got shape \(12, 10\)"):
        method.explain(net, net.relu, x[0, 0], 2)
    with pytest.raises(ValueError, match=r"same non-zero number of examples, but got \[2, 1\]"):
        method.explain(net, net.relu, (x, x[:1]), 2)
    with pytest.raises(ValueError, match=r"same non-zero number of examples, but got \[0\]"):
        method.explain(net, net.relu, x[:0], 2)
    assert net.forwards == 0


@each(OURS)
@pytest.mark.parametrize("batch", [1, 2])
def test_output_without_a_row_for_each_example_raises(method: Method, batch: int) -> None:
    net = Net()
    with pytest.raises(ValueError, match=rf"one row per input row, but got shape \(.*\) for {batch} input rows"):
        method.explain(lambda x: net(x).sum(0, keepdim=True).expand(3, 7), net.relu, images(batch), 2)
    assert net.forwards == 1


@each(METHODS)
@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (None, AssertionError, "Target not provided when necessary, cannot"),
        (7, IndexError, "index 7 is out of bounds for dimension 1 with size 7"),
        ([0, 7], (IndexError, RuntimeError), "index 7 is out of bounds for dimension 1 with size 7"),
        (torch.tensor([7, 0]), (IndexError, RuntimeError), "index 7 is out of bounds for dimension 1 with size 7"),
        ([0, 1, 2], AssertionError, "number of targets|Target list length does not match"),
        ("cat", AssertionError, "not valid"),
    ],
)
def test_wrong_target_raises_captums_error_after_at_most_one_forward(
    method: Method, target: Any, error: Any, message: str
) -> None:
    net = Net()
    with pytest.raises(error, match=message):
        method.explain(net, net.relu, images(), target)
    assert net.forwards <= 1  # Captum needs an output to see what is wrong
