"""Rounding, and outputs in other forms, are no reason to refuse a twin."""

from __future__ import annotations

import copy
import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from tests.scoring.test_twin import UNMASKED, Twin, scores
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, assert_close, images

# --- Outputs that are no tensors -------------------------------------------------------------------------------------


def output_of(logits: Tensor, hidden: Tensor) -> SimpleNamespace:
    return SimpleNamespace(logits=logits, hidden=hidden)


def test_logits_of_a_model_and_of_its_twin() -> None:
    net, x = Net(), images()
    expected = naive_score_cam(net, net.relu, x, 2)
    for twin in (scores, lambda x: output_of(scores(x), x)):
        cam = ScoreCAM(lambda x: output_of(net(x), x), net.relu, masked_forward_func=twin)
        assert_close(cam.attribute(x, 2), expected)
    cam = ScoreCAM(lambda x: output_of(net(x), x), net.relu, masked_forward_func=lambda x: scores(x).softmax(1))
    with pytest.raises(ValueError, match=re.escape(UNMASKED)):
        cam.attribute(x, 2)


def test_a_part_of_the_output_that_only_the_score_reads_must_agree() -> None:
    net, x = Net(), images()
    expected = naive_score_cam(net, net.relu, x, 2)
    for factor in (1.0, 1.5):
        cam = ScoreCAM(
            lambda x: output_of(torch.zeros(len(x), 7), net(x)),
            net.relu,
            score=lambda output: output.hidden,
            masked_forward_func=lambda x, factor=factor: output_of(torch.zeros(len(x), 7), factor * scores(x)),
        )
        if factor == 1:
            assert_close(cam.attribute(x, 2), expected)
        else:
            with pytest.raises(ValueError, match="for the scores of the unmasked inputs they differ by"):
                cam.attribute(x, 2)


def test_a_dictionary_read_by_the_score() -> None:
    net, x = Net(), images()
    options: dict[str, Any] = {"score": lambda output: output["scores"]}
    cam = ScoreCAM(
        lambda x: {"scores": net(x)}, net.relu, masked_forward_func=lambda x: {"scores": scores(x)}, **options
    )
    assert_close(cam.attribute(x, 2), naive_score_cam(net, net.relu, x, 2))


# --- Rounding --------------------------------------------------------------------------------------------------------


def rounding(share: float) -> Twin:
    """A twin that is off by up to a share of the scores, differently for each class and row."""

    def twin(x: Tensor) -> Tensor:
        output = scores(x.double())
        noise = torch.rand(output.shape, generator=torch.Generator().manual_seed(len(x)), dtype=torch.float64)
        return (output + share * output.abs() * (2 * noise - 1)).to(x.dtype)

    return twin


@pytest.mark.parametrize(
    ("dtype", "share", "passes"),
    [
        (torch.float32, 5e-5, True),
        (torch.float32, 1e-3, False),
        (torch.float16, 8e-3, True),
        (torch.float16, 0.1, False),
        (torch.bfloat16, 0.06, True),
        (torch.bfloat16, 0.5, False),
    ],
)
def test_differences_that_the_precision_explains_pass(dtype: torch.dtype, share: float, passes: bool) -> None:
    net, x = Net().to(dtype), images(dtype=dtype)
    cam = ScoreCAM(net, net.relu, masked_forward_func=rounding(share))
    if passes:
        assert_close(cam.attribute(x, 2), naive_score_cam(net, net.relu, x, 2), 0.5)
    else:
        with pytest.raises(ValueError, match=re.escape(UNMASKED)):
            cam.attribute(x, 2)


def test_a_twin_that_returns_half_precision_may_round_as_such() -> None:
    net, x = Net().float(), images(dtype=torch.float32)
    twin = Net().half()
    actual = ScoreCAM(net, net.relu, masked_forward_func=lambda x: twin(x.half())).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2), 0.02)
    with pytest.raises(ValueError, match=re.escape(UNMASKED)):
        ScoreCAM(net, net.relu, masked_forward_func=lambda x: twin(x.half()).float()).attribute(x, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_of_the_model_alone(dtype: torch.dtype) -> None:
    net, x = Net().float(), images(dtype=torch.float32)
    twin = Net().float()

    def precise(x: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return twin(x)

    with torch.autocast("cpu", dtype):
        actual = ScoreCAM(net, net.relu, masked_forward_func=precise).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2), 0.05)


def test_classes_that_are_zero_or_infinite_in_both() -> None:
    class Unused(Net):
        def forward(self, x: Tensor) -> Tensor:
            output = super().forward(x)
            output[:, 0] = 0
            output[:, 1] = -torch.inf
            return output

    net, x = Unused(), images()
    actual = ScoreCAM(net, net.relu, masked_forward_func=Unused()).attribute(x, 2)
    assert_close(actual, naive_score_cam(net, net.relu, x, 2))


def test_a_model_that_gives_noise_nothing() -> None:
    """All rows of noise give the same, as those of a model with a threshold do."""
    net, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Threshold(9.0, 0.0), nn.Flatten(), nn.Linear(320, 7)).double(),
        images(),
    )
    cam = ScoreCAM(net, net[0], masked_forward_func=copy.deepcopy(net))
    assert torch.equal(cam.attribute(x, 2), ScoreCAM(net, net[0]).attribute(x, 2))
