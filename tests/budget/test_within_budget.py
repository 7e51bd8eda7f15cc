"""The errors of maps: what is left of one, and that none is computed twice."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from captum_scorecam import ChannelScores, ScoreCAM
from captum_scorecam.budget import channel_scores, within_budget
from captum_scorecam.budget.within_budget import remaining_errors
from captum_scorecam.masking.channel_masks import ChannelMasks
from tests.support.counting_net import CountingNet, noise


@pytest.mark.parametrize(
    ("score", "errors", "expected"),
    [
        (3.0, [0.1, 0.6], 0.1),
        (3.0, [0.6, 0.1], 0.1),
        (3.0, [0.0, 0.0], 0.0),
        # Below 0, by two errors at both positions or not
        (-3.0, [0.1, 0.6], 0.1),
        (-3.0, [1.5, 0.6], 0.25),
        (-3.0, [1.6, 0.6], math.inf),
        (-3.0, [0.0, 0.0], 0.0),
        (0.0, [0.1, 0.1], math.inf),
        (0.0, [0.0, 0.0], 0.0),
    ],
)
def test_remaining_errors_by_hand(score: float, errors: list[float], expected: float) -> None:
    activations = torch.tensor([[[1.0, 2.0]]])
    masks = ChannelMasks.from_activations(activations, ((2,),))
    found = ChannelScores(activations, masks, torch.tensor([[score]]), torch.zeros(1, 1))
    found.known_errors["score"] = torch.tensor([[errors]])
    assert remaining_errors(found, "score").tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize("entry", ["attribute", "attribute_with_error", "channel_scores"])
@pytest.mark.parametrize("budget", [{"max_forwards": 10}, {"error": 0.2}, {"error": 0.5}], ids=str)
def test_errors_are_computed_once_for_each_prediction(
    entry: str, budget: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def count(module: Any, name: str) -> None:
        function = getattr(module, name)

        def counted(*args: Any) -> Any:
            calls[name] += 1
            return function(*args)

        monkeypatch.setattr(module, name, counted)

    count(within_budget, "fit")
    count(within_budget, "map_errors")
    count(channel_scores, "map_errors")
    net, x = CountingNet(channels=48), noise(3)
    call: dict[str, Any] = {"targets": [2]} if entry == "channel_scores" else {"target": 2}
    found = getattr(ScoreCAM(net, net.maps, **budget), entry)(x, additional_forward_args=torch.arange(3), **call)
    if entry == "channel_scores":
        found.standard_errors()
    # A limit has two stages here and needs the errors of the second; an error needs them after each.
    assert calls["map_errors"] == (3 if "max_forwards" in budget else calls["fit"])
    assert calls["fit"] >= 3


def test_errors_that_a_caller_changes_stay_known() -> None:
    net = CountingNet()
    found = ScoreCAM(net, net.maps, max_forwards=9).channel_scores(noise(1), [2], torch.arange(1))
    assert isinstance(found, ChannelScores)
    for weighting in ("softmax", "increase"):
        errors = found.standard_errors(weighting)
        expected = errors.clone()
        errors.zero_()
        assert torch.equal(found.standard_errors(weighting), expected)
