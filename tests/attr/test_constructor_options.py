"""Errors for invalid constructor options, and for options passed to `attribute`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NoiseTunnel

from captum_scorecam import RISE, InputSpaceAttribution, LayerGradCamPlusPlus, MeaningfulPerturbation, ScoreCAM
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, images


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_channels": 0}, ValueError, "Expected `max_channels` to be at least 1, but got 0."),
        ({"max_channels": -1}, ValueError, "Expected `max_channels` to be at least 1, but got -1."),
        ({"max_channels": 2.5}, TypeError, "Expected `max_channels` to be an int, but got 2.5."),
        (
            {"score": "logit"},
            ValueError,
            "Expected `score` to be 'output', 'probability' or a callable, but got 'logit'.",
        ),
        ({"score": 3}, ValueError, "Expected `score` to be 'output', 'probability' or a callable, but got 3."),
        (
            {"channel_weighting": "sigmoid"},
            ValueError,
            "Expected `channel_weighting` to be 'softmax', 'increase' or 'score', but got 'sigmoid'.",
        ),
        (
            {"channel_weighting": 3},
            ValueError,
            "Expected `channel_weighting` to be 'softmax', 'increase' or 'score', but got 3.",
        ),
        ({"activation_transform": 3}, TypeError, "Expected `activation_transform` to be callable, but got 3."),
    ],
)
def test_bad_option_raises_in_the_constructor(options: dict[str, Any], error: type[Exception], message: str) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        ScoreCAM(net, net.relu, **options)


def test_softmax_of_probabilities_warns_and_goes_on() -> None:
    net, x = Net(), images()
    with pytest.warns(UserWarning, match="The softmax of probabilities hardly varies over the channels"):
        score_cam = ScoreCAM(net, net.relu, score="probability", channel_weighting="softmax")
    actual = score_cam.attribute(x, 0)  # the constructor has warned
    expected = naive_score_cam(net, net.relu, x, 0, score="probability", channel_weighting="softmax")
    torch.testing.assert_close(actual, expected)


OPTIONS: dict[type[Attribution], dict[str, Any]] = {
    ScoreCAM: {
        "score": "probability", "channel_weighting": "score", "activation_transform": None, "max_channels": 5,
        "tolerance": 0.1,
    },
    RISE: {"n_masks": 9, "grid_size": 7, "keep_probability": 0.5, "score": "output"},
    MeaningfulPerturbation: {
        "perturbation": "noise", "n_iterations": 9, "learning_rate": 0.1, "l1_weight": 0.1, "tv_weight": 0.1,
        "tv_beta": 3.0, "grid_size": 7, "mask_blur": 5.0, "jitter": 4, "score": "output",
    },
    LayerGradCamPlusPlus: {"score": "probability", "activation_transform": None},
}  # fmt: skip
CALLS: dict[type[Attribution], list[str]] = {
    ScoreCAM: ["attribute", "attribute_targets"],
    RISE: ["attribute", "attribute_targets", "attribute_with_error"],
    MeaningfulPerturbation: ["attribute"],
    LayerGradCamPlusPlus: ["attribute"],
}


def explainer_of(method: type[Attribution], net: Net) -> Attribution:
    return method(net, net.relu) if issubclass(method, LayerAttribution) else method(net)


@pytest.mark.parametrize("method", OPTIONS)
def test_every_option_is_tested_here(method: type[Attribution]) -> None:
    parameters = inspect.signature(method).parameters.values()
    assert [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY] == list(OPTIONS[method])


@pytest.mark.parametrize(
    ("method", "call", "option"),
    [(method, call, option) for method in OPTIONS for call in CALLS[method] for option in OPTIONS[method]],
)
def test_option_given_to_a_call_is_sent_to_the_constructor(method: type[Attribution], call: str, option: str) -> None:
    net = Net()
    explainer, given = explainer_of(method, net), {option: OPTIONS[method][option]}
    with pytest.raises(TypeError, match=re.escape(misplaced(method, call, **given))):
        getattr(explainer, call)(images(), [0], **given)
    assert net.forwards == 0


@pytest.mark.parametrize(("method", "option"), [(method, option) for method in OPTIONS for option in OPTIONS[method]])
def test_option_given_through_captums_tools_is_sent_to_the_constructor(method: type[Attribution], option: str) -> None:
    net = Net()
    explainer, given = explainer_of(method, net), {option: OPTIONS[method][option]}
    message = re.escape(misplaced(method, "attribute", **given))
    with pytest.raises(TypeError, match=message):
        NoiseTunnel(explainer).attribute(images(), nt_samples=2, target=0, **given)
    if isinstance(explainer, LayerAttribution):
        in_input_space = InputSpaceAttribution(explainer)
        with pytest.raises(TypeError, match=message):
            in_input_space.attribute(images(), target=0, **given)
        with pytest.raises(TypeError, match=message):
            NoiseTunnel(in_input_space).attribute(images(), nt_samples=2, target=0, **given)
    assert net.forwards == 0


def misplaced(method: type[Attribution], call: str, **given: Any) -> str:
    ((option, value),) = given.items()
    name = method.__name__
    return (
        f"`{option}` is an option of {name}, not of {name}.{call}: "
        f"pass it to the constructor, as in {name}(..., {option}={value!r})."
    )


def test_a_name_that_nobody_knows_is_pythons_error() -> None:
    net = Net()
    with pytest.raises(TypeError, match="unexpected keyword argument 'channel_weights'"):
        ScoreCAM(net, net.relu).attribute(images(), 0, channel_weights="score")
    with pytest.raises(TypeError, match="unexpected keyword argument 'channel_weights'"):
        ScoreCAM(net, net.relu, channel_weights="score")  # type: ignore[call-arg]


@pytest.mark.parametrize("method", [ScoreCAM.attribute, ScoreCAM.attribute_targets])
def test_a_call_has_at_most_twelve_parameters(method: Callable[..., Any]) -> None:
    parameters = inspect.signature(method).parameters
    assert next(iter(parameters)) == "self"
    assert len(parameters) - 1 <= 12
