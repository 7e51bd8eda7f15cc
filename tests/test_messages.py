"""Errors in one form, and warnings that point at the line of the user's that made the call."""

from __future__ import annotations

import linecache
import math
import re
import warnings
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from captum.attr import NoiseTunnel
from captum.metrics import sensitivity_max
from torch import nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam._messages import check_at_least, check_choice, check_positive, check_whole_number
from tests.support.sequential_net import sequential_net
from tests.support.small_net import images

Fruit = Literal["apple", "pear"]


def test_a_choice_is_one_of_the_literals() -> None:
    check_choice("fruit", "pear", Fruit)
    for value in ("plum", None, 3, ["apple"]):
        with pytest.raises(
            ValueError, match=re.escape(f"Expected `fruit` to be 'apple' or 'pear', but got {value!r}.")
        ):
            check_choice("fruit", value, Fruit)
    with pytest.raises(ValueError, match="Expected `fruit` to be 'apple', 'pear' or a callable, but got 'plum'"):
        check_choice("fruit", "plum", Fruit, otherwise="a callable")


def test_numbers_have_their_bounds() -> None:
    check_at_least("beta", 1.0, 1)
    check_positive("rate", 1e-9)
    check_whole_number("masks", 1, least=1)
    for value in (0.99, math.nan):
        with pytest.raises(ValueError, match=f"Expected `beta` to be at least 1, but got {value}"):
            check_at_least("beta", value, 1)
    for value in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"Expected `rate` to be positive, but got {value}"):
            check_positive("rate", value)
    with pytest.raises(ValueError, match="Expected `masks` to be at least 1, but got 0"):
        check_whole_number("masks", 0, least=1)
    with pytest.raises(TypeError, match=r"Expected `masks` to be an int, but got 2\.0"):
        check_whole_number("masks", 2.0, least=1)


def softmax_of_probabilities() -> None:
    net = sequential_net()
    ScoreCAM(net, net[2], score="probability", channel_weighting="softmax")


def explain(call: Callable[[ScoreCAM], Any]) -> Callable[[], None]:
    net = sequential_net()
    score_cam = ScoreCAM(nn.Sequential(net, nn.Softmax(1)), net[2])
    return lambda: call(score_cam)


CALLS: dict[str, Callable[[], None]] = {
    "constructor": softmax_of_probabilities,
    "attribute": explain(lambda it: it.attribute(images(), 0)),
    "attribute_targets": explain(lambda it: it.attribute_targets(images(), [0, 1])),
    "input space": explain(lambda it: InputSpaceAttribution(it).attribute(images(), target=0)),
    "NoiseTunnel": explain(lambda it: NoiseTunnel(it).attribute(images(), nt_samples=1, target=0)),
    "sensitivity_max": explain(
        lambda it: sensitivity_max(InputSpaceAttribution(it).attribute, images(), n_perturb_samples=1, target=0)
    ),
    "inference_mode": torch.inference_mode()(explain(lambda it: it.attribute(images(), 0))),
}


@pytest.mark.parametrize("name", CALLS)
def test_warnings_point_at_the_users_line(name: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    assert caught
    for each in caught:
        assert "hardly varies over the channels" in str(each.message)
        assert each.filename == __file__
        line = linecache.getline(__file__, each.lineno)
        assert "ScoreCAM(" in line if name == "constructor" else "images()" in line
