"""ScoreCAM called like LayerGradCam: the calls of Captum's tests, and several targets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from captum.attr import LayerGradCam
from captum.testing.helpers.basic_models import BasicModel_ConvNet_One_Conv, BasicModel_MultiLayer
from torch import Tensor

from captum_scorecam import ScoreCAM
from tests.support.score_cam import naive_score_cam
from tests.support.sequential_net import arange_image, sequential_net
from tests.support.small_net import images

# --- The calls of Captum's tests/attr/layer/test_grad_cam.py ---------------------------------------------------------

UPPER_ROW_EMPTY = [[[[0.0, 0.0], [18.5, 27.5]]]]  # by hand in test_score_cam_by_hand.py
PAIR = (arange_image(), torch.ones(1, 1, 4, 4))

CONVOLUTIONAL_CALLS: dict[str, tuple[str, Any, dict[str, Any], Any]] = {
    "conv": ("conv1", arange_image(), {}, UPPER_ROW_EMPTY),
    "conv, channels apart": (
        "conv1", arange_image(), {"attr_dim_summation": False}, [[[[0, 2], [15.5, 20]], [[0, 0], [3, 7.5]]]],
    ),
    "relu": (  # scores 20.2 and 6.1: the softmax gives the second channel e^-14.1 of the first
        "relu1", arange_image(), {}, [[[[0, 4], [31, 40]]]],
    ),
    "layer input": (
        "conv1", arange_image(True), {"attribute_to_layer_input": True, "relu_attributions": False}, arange_image(True),
    ),
    "layer input, relu": (
        "conv1", arange_image(True), {"attribute_to_layer_input": True, "relu_attributions": True},
        arange_image(True).clamp(min=0),
    ),
    "two inputs": ("conv1", PAIR, {}, [[[[0, 0.5], [27.5, 36.5]]]]),
}  # fmt: skip


@pytest.mark.parametrize("requires_grad", ["nothing", "parameters", "inputs"])
@pytest.mark.parametrize("name", CONVOLUTIONAL_CALLS)
def test_call_of_captums_grad_cam_tests(name: str, requires_grad: str) -> None:
    layer, inputs, options, expected = CONVOLUTIONAL_CALLS[name]
    net = BasicModel_ConvNet_One_Conv()
    net.requires_grad_(requires_grad == "parameters")
    inputs = tuple(x.clone() for x in inputs) if isinstance(inputs, tuple) else inputs.clone()
    for x in inputs if isinstance(inputs, tuple) else (inputs,):
        x.requires_grad_(requires_grad == "inputs")
    call = {"target": 0, "additional_forward_args": None, "grad_kwargs": None, **options}

    score_cam = ScoreCAM(net, getattr(net, layer))
    actual = score_cam.attribute(inputs, **call)
    grad_cam = LayerGradCam(net, getattr(net, layer)).attribute(inputs, **call)
    assert (actual.shape, actual.dtype, actual.device) == (grad_cam.shape, grad_cam.dtype, grad_cam.device)
    assert not actual.requires_grad
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-4)


def test_seven_positional_arguments_are_in_layer_grad_cams_order() -> None:
    net, image = BasicModel_ConvNet_One_Conv(), arange_image()
    positional = ScoreCAM(net, net.conv1, None).attribute(image, 0, None, False, False, False, None)
    torch.testing.assert_close(positional, torch.tensor([[[[-2.5, 2], [15.5, 20]], [[-15, -10.5], [3, 7.5]]]]))


NO_SPATIAL_DIMENSION = re.escape(
    "Expected inputs of shape N×C×spatial (1 to 3 spatial dimensions), but got shape (1, 3)."
)


@pytest.mark.parametrize(
    ("layer", "multi_input", "x"),
    [("linear0", False, [[0.0, 100.0, 0.0]]), ("multi_relu", True, [[0.0, 6.0, 0.0]])],
)
def test_inputs_without_spatial_dimension_raise(layer: str, multi_input: bool, x: list[list[float]]) -> None:
    net = BasicModel_MultiLayer(multi_input_module=multi_input)
    with pytest.raises(ValueError, match=NO_SPATIAL_DIMENSION):
        ScoreCAM(net, getattr(net, layer)).attribute(torch.tensor(x, requires_grad=True), target=0)


def test_unused_layer_with_grad_kwargs_warns_and_raises() -> None:
    net = BasicModel_MultiLayer(multi_input_module=True)
    score_cam, x = ScoreCAM(net, net.relu), torch.tensor([[0.0, 6.0, 0.0]], requires_grad=True)
    with (
        pytest.warns(UserWarning, match="Score-CAM uses no gradients; `grad_kwargs` is ignored"),
        pytest.raises(ValueError, match=NO_SPATIAL_DIMENSION),
    ):
        score_cam.attribute(inputs=x, target=0, grad_kwargs={"materialize_grads": True})


# --- Targets ---------------------------------------------------------------------------------------------------------


def test_output_of_one_value_per_example_in_a_column_needs_no_target() -> None:
    net, x = sequential_net(), images()

    def one_column(x: Tensor) -> Any:
        return net(x)[:, 4:5]

    actual = ScoreCAM(one_column, net[2]).attribute(x, target=0)
    torch.testing.assert_close(actual, naive_score_cam(net, net[2], x, 4))


@pytest.mark.parametrize(
    ("targets", "columns"),
    [
        ([3, 8, 0], [[3, 3], [8, 8], [0, 0]]),
        ([3, [8, 1]], [[3, 3], [8, 1]]),
        ((torch.tensor(3), torch.tensor([8, 1])), [[3, 3], [8, 1]]),
        (torch.tensor([[3, 8, 0], [4, 1, 5]]), [[3, 4], [8, 1], [0, 5]]),
    ],
)
def test_attribute_targets_accepts_every_form_of_target(targets: Any, columns: list[list[int]]) -> None:
    net, x = sequential_net(), images()
    expected = torch.cat([naive_score_cam(net, net[2], x, column) for column in columns], dim=1)
    torch.testing.assert_close(ScoreCAM(net, net[2]).attribute_targets(x, targets), expected)
