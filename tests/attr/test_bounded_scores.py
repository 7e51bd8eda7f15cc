"""Scores that hardly differ make softmax weights uniform: a warning, and the effective number of channels, say so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.weighting import effective_channels
from tests.support.score_cam import last_run
from tests.support.small_net import NARROW, Net, images


def cosine(output: Tensor) -> Tensor:
    return nn.functional.normalize(output, dim=1)


def overlap(output: Tensor) -> Tensor:
    """As IoU × probability: in [0, 1]."""
    return 0.8 * output.softmax(1)


@pytest.mark.parametrize("score", ["sigmoid", torch.sigmoid, cosine, overlap])
def test_the_softmax_of_any_bounded_score_warns_and_is_nearly_uniform(score: Any) -> None:
    net = Net(gain=100.0)
    score_cam = ScoreCAM(net, net.relu, score=score)
    with pytest.warns(UserWarning, match=NARROW) as caught:
        score_cam.attribute(images(), 2)
    assert len(caught) == 1
    run = last_run(score_cam)
    assert len(run.effective_channels) == 2
    assert min(run.effective_channels) > 0.85 * (run.channels - run.constant) / 2


@pytest.mark.parametrize("channel_weighting", ["increase", "score"])
def test_other_weightings_of_bounded_scores_do_not_warn(channel_weighting: Any) -> None:
    net = Net(gain=100.0)
    score_cam = ScoreCAM(net, net.relu, score="sigmoid", channel_weighting=channel_weighting)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_cam.attribute(images(), 2)
    assert last_run(score_cam).effective_channels == ()


@pytest.mark.parametrize("gain", [2e3, 1e5])
def test_wide_scores_do_not_warn_and_few_channels_count(gain: float) -> None:
    net = Net(gain=gain)
    score_cam = ScoreCAM(net, net.relu)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_cam.attribute_targets(images(), [2, 5])
    run = last_run(score_cam)
    assert len(run.effective_channels) == 4
    assert all(1 <= number < 4 for number in run.effective_channels)


def test_effective_channels_of_known_weights() -> None:
    weights = torch.tensor([[[1 / 6, 0.25, 0.0], [2 / 6, 0.25, 1.0], [3 / 6, 0.5, 0.0]]])
    assert effective_channels(weights)[0].tolist() == pytest.approx([36 / 14, 1 / 0.375, 1.0])
    assert effective_channels(torch.zeros(1, 3, 1)).tolist() == [[0.0]]


def test_one_map_among_several_is_enough() -> None:
    net = Net(gain=2e3)
    x = torch.cat([images(1), 1e-3 * images(1)])
    with pytest.warns(UserWarning, match=NARROW):
        ScoreCAM(net, net.relu).attribute(x, 2)
