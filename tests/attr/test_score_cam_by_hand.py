"""Maps worked out by hand on Captum's small test models, with the arithmetic beside each expected number.

`BasicModel_ConvNet_One_Conv` on X = 0, 1, …, 15 (4×4). Its conv1 has two all-ones 3×3 kernels with biases -50 and -75.
The sums of X over the four 3×3 windows are 45, 54, 81, 90, so the maps of conv1 are

    A_0 = [[-5, 4], [31, 40]]        A_1 = A_0 - 25 = [[-30, -21], [6, 15]]

which share one mask: H = s(U(A)) = 0.8 u_i + 0.2 v_j with u = v = (0, 1/4, 3/4, 1), the bilinear weights from 2 to 4.

    H = .00 .05 .15 .20      X∘H =   0    .05   .30   .60      window sums of H: 3.0, 3.6, 5.4, 6.0
        .20 .25 .35 .40             .80  1.25  2.10  2.80      window sums of X∘H: 22.65, 29.25, 56.25, 67.65
        .60 .65 .75 .80            4.80  5.85  7.50  8.80
        .80 .85 .95  1             9.60 11.05 13.30 15.00

After conv1 and ReLU, fc1 adds the four values of channel 0 and the first of channel 1, and takes away the other three
of channel 1; all four outputs are equal.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from captum.attr import LayerActivation
from captum.testing.helpers.basic_models import (
    BasicModel_ConvNet,
    BasicModel_ConvNet_MaxPool1d,
    BasicModel_ConvNet_MaxPool3d,
    BasicModel_ConvNet_One_Conv,
)
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.support.score_cam import naive_score_cam, run_score_cam

# Captum's convolutional models end in a softmax, which warns with the default weighting.
pytestmark = pytest.mark.filterwarnings("ignore:The model's outputs are probabilities")

ARANGE = torch.arange(16.0).view(1, 1, 4, 4)
SUM_OF_MAPS = torch.tensor([[-35.0, -17.0], [37.0, 55.0]])  # A_0 + A_1


def one_conv_map(layer: str = "conv1", inputs: Any = ARANGE, **options: Any) -> Tensor:
    net = BasicModel_ConvNet_One_Conv()
    actual: Tensor = run_score_cam(net, getattr(net, layer), inputs, 0, **options)
    expected = naive_score_cam(net, getattr(net, layer), inputs, 0, **options)  # the reference is tested by hand too
    torch.testing.assert_close(expected, actual.double(), rtol=1e-5, atol=1e-4)
    return actual


def assert_map(actual: Tensor, expected: Tensor | list[Any]) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(actual, expected.reshape(actual.shape), rtol=1e-5, atol=1e-3)


def test_two_channels_of_one_mask_share_the_softmax() -> None:
    # S_0 = S_1, so both weights are 1/2: L = ReLU((A_0 + A_1) / 2)
    assert_map(one_conv_map(), [[0, 0], [18.5, 27.5]])


def test_without_relu_the_negative_half_is_kept() -> None:
    assert_map(one_conv_map(relu_attributions=False), [[-17.5, -8.5], [18.5, 27.5]])


def test_without_summation_each_channel_has_its_own_map() -> None:
    assert_map(one_conv_map(attr_dim_summation=False), [[[0, 2], [15.5, 20]], [[0, 0], [3, 7.5]]])


def test_score_weighting_uses_the_raw_score() -> None:
    # windows of X∘H minus 50: only 56.25 and 67.65 stay positive, 6.25 + 17.65 = 23.9; minus 75: none. S_0 = S_1 = 23.9
    actual = one_conv_map(channel_weighting="score", relu_attributions=False)
    assert_map(actual, 23.9 * SUM_OF_MAPS)


def test_increase_weighting_subtracts_the_score_of_the_baseline() -> None:
    # masked input 10 (1 - H) + X∘H has window sums 90 - 10 ΣH + ΣX∘H: 82.65, 83.25, 92.25, 97.65.
    # channel 0: 32.65 + 33.25 + 42.25 + 47.65 = 155.8; channel 1: 7.65 - 8.25 - 17.25 - 22.65 = -40.5; S = 115.3.
    # the baseline alone, windows of 90: 4·40 + 15 - 3·15 = 130. Both weights are 115.3 - 130 = -14.7
    actual = one_conv_map(channel_weighting="increase", baselines=10.0, relu_attributions=False)
    assert_map(actual, -14.7 * SUM_OF_MAPS)


def test_increase_over_a_baseline_of_score_zero_is_the_score() -> None:
    # both biases are negative, so the ReLU makes f(0) = 0
    assert_map(one_conv_map(channel_weighting="increase", relu_attributions=False), 23.9 * SUM_OF_MAPS)


def test_probability_of_four_equal_outputs_is_a_quarter() -> None:
    actual = one_conv_map(score="probability", channel_weighting="score")
    assert_map(actual, [[0, 0], [37 / 4, 55 / 4]])


def test_callable_score_is_applied_to_the_models_output() -> None:
    actual = one_conv_map(score=lambda out: out.square(), channel_weighting="score", relu_attributions=False)
    assert_map(actual, 23.9**2 * SUM_OF_MAPS)


RELU_MAPS = torch.tensor([[[0.0, 4.0], [31.0, 40.0]], [[0.0, 0.0], [6.0, 15.0]]])


def test_channels_with_different_masks_have_different_scores() -> None:
    # relu1: A_0 = [[0, 4], [31, 40]], A_1 = [[0, 0], [6, 15]], no longer affine copies.
    # H_0 = (4 v + 31 u + 5 u v) / 40, windows of X∘H_0: 856.75, 1083.75, 2182.5, 2625.5 over 40; minus 50, the last two
    # stay: 4.5625 + 15.6375 = 20.2
    # H_1 = u (0.4 + 0.6 v), windows of X∘H_1: 14.85, 22.05, 38.7, 56.1; only 56.1 - 50 = 6.1 stays
    actual = one_conv_map("relu1", channel_weighting="score")
    assert_map(actual, 20.2 * RELU_MAPS[0] + 6.1 * RELU_MAPS[1])


def test_softmax_over_two_different_scores() -> None:
    # the scores above divided by 14.1: their difference is exactly 1
    actual = one_conv_map("relu1", score=lambda out: out / 14.1)
    weight = math.e / (math.e + 1)
    assert_map(actual, weight * RELU_MAPS[0] + (1 - weight) * RELU_MAPS[1])


def test_max_channels_keeps_the_channel_of_largest_standard_deviation() -> None:
    # A_0 spreads over 40, A_1 over 15; the softmax over the one that is left is 1
    assert_map(one_conv_map("relu1", max_channels=1), RELU_MAPS[0])


def test_layer_input_of_one_channel_is_its_own_map() -> None:
    # one channel: its softmax is 1 whatever it scores, and the map is the ReLU of the layer's input
    x = ARANGE.clone()
    x[0, 0, 1, 1] = -4
    assert_map(one_conv_map(inputs=x, attribute_to_layer_input=True, relu_attributions=False), x)
    assert_map(one_conv_map(inputs=x, attribute_to_layer_input=True), x.clamp(min=0))


def test_every_tensor_of_a_tuple_input_is_masked() -> None:
    # the net adds its inputs: A_0 = [[4, 13], [40, 49]], A_1 = A_0 - 25, the same H. Windows of (X + 1)∘H:
    # 25.65, 32.85, 61.65, 73.65; minus 50: 11.65 + 23.65 = 35.3; minus 75: none
    pair = (ARANGE, torch.ones_like(ARANGE))
    maps = torch.tensor([[-17.0, 1.0], [55.0, 73.0]])
    assert_map(one_conv_map(inputs=pair), [[0, 0.5], [27.5, 36.5]])
    actual = one_conv_map(inputs=pair, channel_weighting="score", relu_attributions=False)
    assert_map(actual, 35.3 * maps)


def test_additional_forward_args_are_not_masked() -> None:
    # windows of X∘H + 1: 31.65, 38.25, 65.25, 76.65; minus 50: 15.25 + 26.65 = 41.9; minus 75: 1.65, counted -1: 40.25
    ones, maps = torch.ones_like(ARANGE), torch.tensor([[-17.0, 1.0], [55.0, 73.0]])
    actual = one_conv_map(additional_forward_args=ones, channel_weighting="score", relu_attributions=False)
    assert_map(actual, 40.25 * maps)


def test_each_tensor_of_a_tuple_has_its_own_baseline() -> None:
    # baseline 1 for the tensor of ones leaves it at 1 whatever the mask: the unmasked ones of the test above
    ones, maps = torch.ones_like(ARANGE), torch.tensor([[-17.0, 1.0], [55.0, 73.0]])
    options: dict[str, Any] = {"channel_weighting": "score", "relu_attributions": False}
    assert_map(one_conv_map(inputs=(ARANGE, ones), baselines=(0, ones), **options), 40.25 * maps)
    assert_map(one_conv_map(inputs=(ARANGE, ones), baselines=(0.0, 1), **options), 40.25 * maps)


def ramp_net(rank: int) -> tuple[Any, Tensor]:
    """BasicModel_ConvNet of any rank with weights to compute by hand, and a ramp 0, …, 9 along the last axis.

    conv1 takes the pixel x and 9 - x; after ReLU and pooling the maps of pool1 are 2, 4, 6, 8 and 8, 6, 4, 2 along the
    last axis. conv2 takes the pixel of channel 0, pool2 the larger s of the two in the middle, and the output for
    class 0 is e^s / (e^s + 9).
    """
    net = {1: BasicModel_ConvNet_MaxPool1d, 2: BasicModel_ConvNet, 3: BasicModel_ConvNet_MaxPool3d}[rank]()
    centre = (1,) * rank
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.conv1.weight[(0, 0, *centre)] = 1
        net.conv1.weight[(1, 0, *centre)] = -1
        net.conv1.bias[1] = 9
        net.conv2.weight[(0, 0, *centre)] = 1
        net.fc1.weight.fill_(1)
        net.fc2.weight[0] = 1 / 8
    return net, torch.arange(10.0).expand(1, 1, *[10] * rank).contiguous()


def along_last_axis(values: Tensor, rank: int) -> Tensor:
    return values.expand(1, 1, *[4] * rank)


# U from 4 to 10 reads positions 0, .1, .5, .9, 1.3, 1.7, 2.1, 2.5, 2.9, 3 of the map; H_0 is that over 3, H_1 1 - H_0.
# The middle of pool1 sees the larger of x'_3, x'_4 and of x'_5, x'_6:
#   H_0: 6 · 2.1/3 = 4.2 is the largest;   H_1: 3 · 2.1/3 = 2.1, 4 · 1.7/3 = 34/15, 5 · 1.3/3 = 2.17, 6 · .9/3 = 1.8
RAMP_SCORES = [math.exp(s) / (math.exp(s) + 9) for s in (4.2, 34 / 15)]
RAMP_MAPS = (torch.tensor([2.0, 4.0, 6.0, 8.0]), torch.tensor([8.0, 6.0, 4.0, 2.0]))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ramp_in_one_two_and_three_dimensions_with_score_weights(rank: int) -> None:
    net, x = ramp_net(rank)
    torch.testing.assert_close(LayerActivation(net, net.pool1).attribute(x)[:, :1], along_last_axis(RAMP_MAPS[0], rank))
    expected = RAMP_SCORES[0] * RAMP_MAPS[0] + RAMP_SCORES[1] * RAMP_MAPS[1]
    actual = ScoreCAM(net, net.pool1, channel_weighting="score").attribute(x, target=0)
    torch.testing.assert_close(actual, along_last_axis(expected, rank), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ramp_in_one_two_and_three_dimensions_with_softmax_weights(rank: int) -> None:
    net, x = ramp_net(rank)
    weight = 1 / (1 + math.exp(RAMP_SCORES[1] - RAMP_SCORES[0]))
    expected = weight * RAMP_MAPS[0] + (1 - weight) * RAMP_MAPS[1]
    actual = ScoreCAM(net, net.pool1).attribute(x, target=0)
    torch.testing.assert_close(actual, along_last_axis(expected, rank), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ramp_increase_over_the_black_input(rank: int) -> None:
    # zeros: s = 0 for class 0, every class has 1/10. Class 1 has 1 / (e^s + 9), less than 1/10: a negative weight
    net, x = ramp_net(rank)
    for target, scores in ((0, RAMP_SCORES), (1, [(1 - p) / 9 for p in RAMP_SCORES])):
        expected = (scores[0] - 0.1) * RAMP_MAPS[0] + (scores[1] - 0.1) * RAMP_MAPS[1]
        explainer = ScoreCAM(net, net.pool1, channel_weighting="increase")
        actual = explainer.attribute(x, target=target, relu_attributions=False)
        torch.testing.assert_close(actual, along_last_axis(expected, rank), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_constant_channel_has_no_weight(rank: int) -> None:
    # with bias 9 gone, the second map of pool1 is ReLU(-x) = 0 everywhere; the softmax over the first alone is 1
    net, x = ramp_net(rank)
    net.conv1.bias.data[1] = 0
    actual = ScoreCAM(net, net.pool1).attribute(x, target=0)
    torch.testing.assert_close(actual, along_last_axis(RAMP_MAPS[0], rank), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", [BasicModel_ConvNet_MaxPool1d, BasicModel_ConvNet, BasicModel_ConvNet_MaxPool3d])
def test_model_that_ignores_its_input_weighs_every_channel_alike(network: type[nn.Module]) -> None:
    # fc2 is all ones: the softmax at the end depends on its biases only. All scores are equal, the weights are 1/2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net: Any = network()
        x = torch.randn(2, 1, *[10] * (net.conv1.weight.dim() - 2))
    maps = LayerActivation(net, net.conv1).attribute(x)
    expected = torch.relu(maps.mean(dim=1, keepdim=True))
    torch.testing.assert_close(ScoreCAM(net, net.conv1).attribute(x, target=[3, 7]), expected, rtol=1e-5, atol=1e-6)
