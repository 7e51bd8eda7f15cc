"""A wrong twin is refused before any masked forward pass, and rounding is no reason to refuse one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam import RISE, ScoreCAM
from tests.support.score_cam import naive_score_cam
from tests.support.small_net import Net, assert_close, images

GIVES = "Expected `masked_forward_func` to give what `forward_func` gives, but for "
RETURNS = "Expected `masked_forward_func` to return "
UNMASKED = GIVES + "the unmasked inputs they differ by "
TAKES = "Expected `masked_forward_func` to take batches of any size, but it "
BATCH = GIVES + "a batch of 4 (an input, the input half masked and fully masked, and noise) they differ by "

Twin = Callable[[Tensor], Any]


def scores(x: Tensor) -> Tensor:
    output: Tensor = Net()(x)
    return output


def other_weights(x: Tensor) -> Any:
    net = Net()
    net.fc.weight.data[4] *= 1.001  # of one class
    return net(x)


def one_row_at_a_time(x: Tensor) -> Tensor:
    return scores(x.reshape(1, 3, 12, 10))


def same(twin: Twin, message: str) -> tuple[Twin, str, str]:
    return twin, message, message


# What is wrong → the twin, the beginning of the message for one example, and for two.
WRONG: dict[str, tuple[Twin, str, str]] = {
    "weights of one class": same(other_weights, UNMASKED),
    "preprocessing": same(lambda x: scores(x * 1.01), UNMASKED),
    "channels": same(lambda x: scores(x.flip(1)), UNMASKED),
    "probabilities": same(lambda x: scores(x).softmax(1), UNMASKED),
    "rounded": same(lambda x: scores(x).round(decimals=2), UNMASKED),
    "precision": same(lambda x: scores(x).half().double(), UNMASKED),
    "NaN": same(lambda x: scores(x) / 0, GIVES + "the unmasked inputs only one of them gives NaN or Inf."),
    "rows in another order": (lambda x: scores(x).flip(0), BATCH, UNMASKED),
    "rows shifted": (lambda x: scores(x).roll(1, 0), BATCH, UNMASKED),
    "constant": (lambda x: scores(x)[:1].repeat(len(x), 1), BATCH, UNMASKED),
    "statistics of the batch": (lambda x: scores(x) + x.mean() - x.mean((1, 2, 3))[:, None], BATCH, UNMASKED),
    "fixed batch": (one_row_at_a_time, TAKES + "took 1 and failed for 4.", "shape"),
    "rows dropped": (
        lambda x: scores(x)[:1],
        TAKES + "took 1 and failed for 4.",
        RETURNS + "shape (2, 7) on cpu, as `forward_func` does, but got (1, 7) on cpu.",
    ),
    "classes": same(lambda x: scores(x)[:, :5], RETURNS + "shape ({n}, 7) on cpu, as `forward_func` does, but got"),
    "device": same(lambda x: scores(x).to("meta"), RETURNS + "shape ({n}, 7) on cpu, as `forward_func` does, but got"),
    "array": same(
        lambda x: scores(x).numpy(),
        RETURNS + "a tensor, as `forward_func` does, but got ndarray; use torch.from_numpy.",
    ),
    "list": same(lambda x: [scores(x)], RETURNS + "a tensor, as `forward_func` does, but got list."),
    "nothing": same(lambda _: None, RETURNS + "a tensor, as `forward_func` does, but got NoneType."),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("attribution", [ScoreCAM, RISE])
def test_a_wrong_twin_is_refused_before_any_masked_forward(attribution: Any, name: str, batch: int) -> None:
    twin, *messages = WRONG[name]
    net, rows = Net(), 0

    def counted(x: Tensor) -> Any:
        nonlocal rows
        rows += len(x)
        return twin(x)

    explained = (
        ScoreCAM(net, net.relu, masked_forward_func=counted)
        if attribution is ScoreCAM
        else RISE(net, masked_forward_func=counted)
    )
    error = RuntimeError if name == "fixed batch" and batch == 2 else (ValueError, TypeError)
    with pytest.raises(error, match=re.escape(messages[batch - 1].format(n=batch))):
        explained.attribute(images(batch), 2)
    assert rows <= batch + 4


def test_the_message_says_how_far_the_outputs_lie_apart() -> None:
    net, x = Net(), images(1)

    def shifted(x: Tensor) -> Tensor:
        return scores(x) + torch.tensor([0, 0, 0, 0.25, 0, 0, 0])

    with pytest.raises(ValueError, match=r"they differ by 0\.25, of which rounding explains 5\.8e-05\.$"):
        ScoreCAM(net, net.relu, masked_forward_func=shifted).attribute(x, 2)


def test_weights_that_change_after_a_call_are_noticed() -> None:
    net, x = Net(), images()
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=copy.deepcopy(net))
    score_cam.attribute(x, 2)
    net.fc.bias.data[5] += 0.01
    with pytest.raises(ValueError, match=re.escape(UNMASKED + "0.01, of")):
        score_cam.attribute(x, 2)


def test_another_twin_of_the_same_attribution_is_compared_anew() -> None:
    net, x = Net(), images(1)
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=copy.deepcopy(net))
    score_cam.attribute(x, 2)
    score_cam.masked_forward_func = lambda x: scores(x).flip(0)
    with pytest.raises(ValueError, match=re.escape(BATCH)):
        score_cam.attribute(x, 2)


# A twin that clips its inputs → inputs and a baseline of which only the masked inputs are clipped.
CLIPPED: dict[str, tuple[Twin, float, float]] = {
    "below the inputs": (lambda x: scores(x.clamp(min=0.2)), 1.0, 0.0),
    "far baseline": (lambda x: scores(x.clamp(min=-0.5)), 0.0, -3.0),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_a_twin_that_differs_only_for_the_baseline_is_refused(name: str) -> None:
    twin, least, baseline = CLIPPED[name]
    net, x = Net(), images().sigmoid() + least
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=twin)
    with pytest.raises(ValueError, match=re.escape(BATCH)):
        score_cam.attribute(x, 2, baselines=baseline)


def test_a_twin_is_compared_again_for_another_baseline() -> None:
    net, x = Net(), images(1).sigmoid()
    score_cam = ScoreCAM(net, net.relu, masked_forward_func=lambda x: scores(x.clamp(min=0)))
    score_cam.attribute(x, 2)
    with pytest.raises(ValueError, match=re.escape(BATCH)):
        score_cam.attribute(x, 2, baselines=-2.0)


@pytest.mark.parametrize("weights", ["model", "twin"])
def test_a_single_output_per_example(weights: str) -> None:
    net, x = Net(), images(1)
    factor = 1.0 if weights == "model" else 1.001
    score_cam = ScoreCAM(lambda x: net(x)[:, 2], net.relu, masked_forward_func=lambda x: scores(x)[:, 2] * factor)
    if weights == "model":
        assert_close(score_cam.attribute(x), naive_score_cam(net, net.relu, x, 2))
    else:
        with pytest.raises(ValueError, match=re.escape(UNMASKED)):
            score_cam.attribute(x)


@pytest.mark.parametrize("saturated", [1.0, 1e4])
def test_equal_scores_do_not_hide_other_outputs(saturated: float) -> None:
    net, x = Net(), images(1)
    options: dict[str, Any] = {"score": "probability", "channel_weighting": "score"}
    cam = ScoreCAM(
        lambda x: net(x) * saturated, net.relu, masked_forward_func=lambda x: 1.01 * scores(x) * saturated, **options
    )
    with pytest.raises(ValueError, match=re.escape(UNMASKED)):
        cam.attribute(x, 2)


# --- Side effects ----------------------------------------------------------------------------------------------------


def test_an_error_of_the_twin_is_the_users_to_see() -> None:
    net = Net()

    def failing(_: Tensor) -> Tensor:
        raise OSError("no session")

    with pytest.raises(OSError, match="no session") as raised:
        ScoreCAM(net, net.relu, masked_forward_func=failing).attribute(images(), 2)
    notes = getattr(raised.value, "__notes__", ["`masked_forward_func` failed"])
    assert "`masked_forward_func` failed" in notes[0]


def test_statistics_and_random_state_of_a_twin_in_training_mode_are_kept() -> None:
    net, x = Net(), images()
    for twin in (Net(dropout=0.5).train(), Net().train()):
        before, random_state = copy.deepcopy(twin.state_dict()), torch.get_rng_state()
        for given in (twin, lambda x, twin=twin: twin(x)):
            with pytest.raises(ValueError, match=re.escape(UNMASKED)):
                ScoreCAM(net, net.relu, masked_forward_func=given).attribute(x, 2)
        torch.testing.assert_close(dict(twin.state_dict()), dict(before), rtol=0, atol=0)
        assert torch.equal(torch.get_rng_state(), random_state)


def test_a_model_in_training_mode_and_a_twin_that_shares_its_modules() -> None:
    net, x = Net().train(), images(2)
    before = copy.deepcopy(net.state_dict())
    with pytest.warns(UserWarning, match="training mode"):
        actual = ScoreCAM(net, net.relu, masked_forward_func=lambda x: net(x)).attribute(x, 2, perturbations_per_eval=1)
    with pytest.warns(UserWarning, match="training mode"):
        expected = ScoreCAM(net, net.relu).attribute(x, 2, perturbations_per_eval=1)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(dict(net.state_dict()), dict(before), rtol=0, atol=0)
