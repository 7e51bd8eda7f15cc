"""Invalid layers, inputs, outputs and targets raise helpful errors, after one forward pass at most."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import LayerGradCamPlusPlus
from captum_scorecam.metrics.functional import deletion, insertion, masked_input_scores
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
        method.explain(net, net.relu, x, 2, activation_transform=lambda maps: maps / 0)
    with pytest.raises(ValueError, match="Expected `inputs` to be finite, but got NaN or Inf for 2 of 2 examples"):
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


@each(
    OURS,
    lambda method: "score" in method.constructor_options,
    lambda method: not method.options.keys() & {"tolerance", "max_forwards"},  # which tell probabilities from outputs
)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_probability_of_a_single_output_is_refused_and_its_sigmoid_explained(method: Method, batch: int) -> None:
    net, x = Net(), images(batch)

    def one_logit(x: Tensor) -> Any:
        return net(x)[:, 2:3]

    weighting = {"channel_weighting": "score"} if "channel_weighting" in method.constructor_options else {}
    with pytest.raises(ValueError, match=r"two or more classes for the score 'probability', .* score='sigmoid'"):
        method.explain(one_logit, net.relu, x, 0, score="probability", **weighting)
    assert net.forwards == 1
    of_sigmoid = method.explain(one_logit, net.relu, x, 0, score="sigmoid", **weighting)
    expected = method.explain(lambda x: net(x).sigmoid(), net.relu, x, 2, score="output", **weighting)
    method.assert_close(of_sigmoid, expected, tolerance=1e-6)


@pytest.mark.parametrize("metric", [insertion, deletion, masked_input_scores])
def test_metrics_refuse_the_probability_of_a_single_output(metric: Any) -> None:
    net, x = Net(), images()
    with pytest.raises(ValueError, match=r"two or more classes for the score 'probability', .* score='sigmoid'"):
        metric(lambda x: net(x)[:, :1], x, x, 0)
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
    ],
)
def test_wrong_target_raises_after_at_most_one_forward(method: Method, target: Any, error: Any, message: str) -> None:
    net = Net()
    with pytest.raises(error, match=message):
        method.explain(net, net.relu, images(), target)
    assert net.forwards <= 1  # Captum needs an output to see what is wrong


@each(OURS)
def test_targets_of_other_types_are_refused_before_any_masked_forward(method: Method) -> None:
    net = Net()
    with pytest.raises(TypeError, match=r"Expected `target` to be a class index, .* but got str"):
        method.explain(net, net.relu, images(), "cat")
    assert net.forwards <= 1


@each(OURS)
def test_inputs_by_keyword_only_are_refused(method: Method) -> None:
    net = Net()
    with pytest.raises(TypeError, match="take its inputs by position, but function takes `pixels` by keyword only"):
        method.explain(lambda *, pixels: net(pixels), net.relu, images(), 0)
    assert net.forwards == 0
