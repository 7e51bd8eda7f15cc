"""Budgets at the edges: few or degenerate masks, extreme scores and precisions, options that don't fit."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import ChannelScores, ScoreCAM
from captum_scorecam.masking.channel_masks import ChannelMasks
from tests.support.attributions import flat
from tests.support.combinations import combinations
from tests.support.counting_net import CountingNet, noise
from tests.support.score_cam import last_run
from tests.support.small_net import Net, assert_close, images

BUDGETS: list[dict[str, Any]] = [{"max_forwards": 1}, {"max_forwards": 9}, {"error": 0.05}]
METHODS: list[dict[str, Any]] = [
    {},
    {"channel_weighting": "score"},
    {"channel_weighting": "increase", "score": "probability"},
    {"channel_weighting": "score", "score": "sigmoid"},
]


class Scored(nn.Module):
    """A network whose scores and whose layer's maps are what two functions make of them."""

    def __init__(
        self, of_scores: Callable[[Tensor], Tensor], of_maps: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.net, self.maps = Net(channels=24), nn.Identity()
        self.of_scores, self.of_maps = of_scores, of_maps or (lambda z: z)

    def forward(self, x: Tensor) -> Tensor:
        z = self.maps(self.of_maps(self.net.relu(self.net.norm(self.net.conv(x)))))
        return self.of_scores(self.net.fc(nn.functional.adaptive_avg_pool2d(z, 2).flatten(1)))


def explained(net: Scored, x: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor, ScoreCAM]:
    """Map and error before the ReLU, which are finite."""
    score_cam = ScoreCAM(net, net.maps, **options)
    x = images() if x is None else x
    maps, errors = score_cam.attribute_with_error(x, 2, relu_attributions=False, perturbations_per_eval=8)
    assert isinstance(maps, Tensor)
    assert isinstance(errors, Tensor)
    assert maps.isfinite().all()
    assert errors.isfinite().all()
    assert (errors >= 0).all()
    return maps, errors, score_cam


def assert_honest(net: Scored, x: Tensor | None = None, share: float = 0.8, **options: Any) -> None:
    """The map is exact up to rounding, or most of it is within three of its errors."""
    maps, errors, _ = explained(net, x, **options)
    method = {name: value for name, value in options.items() if name not in ("max_forwards", "error")}
    exact, _, _ = explained(net, x, **method)
    rounding = 4 * torch.finfo(maps.dtype).eps * float(exact.abs().max())
    within = (maps - exact).abs().double() <= 3 * errors.double() + rounding
    assert float(within.double().mean()) >= share


# --- Scores ----------------------------------------------------------------------------------------------------------

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "size 1e6": lambda y: 1e6 * y,
    "size 1e-6": lambda y: 1e-6 * y,
    "size 1e30": lambda y: 1e30 * y,
    "size 1e-30": lambda y: 1e-30 * y,
    "offset 1e6": lambda y: y + 1e6,
    "steps": lambda y: y.round(),
    "two values": lambda y: 30 * (y > 0).to(y.dtype),
}
STEPS = ("steps", "two values", "size 1e6", "size 1e30")  # the last two for bounded scores


@pytest.mark.parametrize(
    ("dtype", "name", "method"), combinations([torch.float64, torch.float32], SCORES, METHODS, quick=5)
)
def test_scores_of_every_size_give_exact_or_honestly_uncertain_maps(
    name: str, method: dict[str, Any], dtype: torch.dtype
) -> None:
    net, x = Scored(SCORES[name]).to(dtype), images(dtype=dtype)
    discontinuous = name in (STEPS if "score" in method else STEPS[:2])
    for budget in BUDGETS[1:]:
        if discontinuous:  # if all that were run are equal, nothing tells that others aren't
            explained(net, x, **budget, **method)
        else:
            assert_honest(net, x, **budget, **method)


@pytest.mark.parametrize(
    ("value", "budget", "method"), combinations([0.0, 3.0, 1e6, -1e-6], BUDGETS, METHODS[:2], quick=5)
)
def test_constant_scores_are_exact_after_the_first_masks(
    value: float, budget: dict[str, Any], method: dict[str, Any]
) -> None:
    net = Scored(lambda y: torch.full_like(y, value))
    maps, errors, score_cam = explained(net, **method, **budget)
    torch.testing.assert_close(maps, explained(net, **method)[0])
    assert not errors.any()
    assert last_run(score_cam).errors == (0.0, 0.0)
    assert last_run(score_cam).rows == 2 * budget.get("max_forwards", 8)


@pytest.mark.parametrize("score", ["probability", "sigmoid"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("weighting", ["score", "increase"])
def test_probabilities_of_exactly_0_and_1(score: Any, sign: int, weighting: Any) -> None:
    def saturated(y: Tensor) -> Tensor:
        far = torch.zeros_like(y)
        far[:, 2] = sign * 1e4
        return far

    net, method = Scored(saturated), {"score": score, "channel_weighting": weighting}
    exact, _, _ = explained(net, **method)
    maps, errors, _ = explained(net, **method, max_forwards=5)
    torch.testing.assert_close(maps, exact, rtol=1e-12, atol=1e-12)
    assert float(errors.max()) < 1e-12
    if (sign, weighting) == (1, "score"):
        assert float(maps.max()) > 1


def test_an_offset_of_the_scores_changes_no_choice() -> None:
    x, chosen = images(), []
    for offset in (0, 1e4, -1e4):
        net = Scored(lambda y, offset=offset: y + offset)  # type: ignore[misc]
        found = ScoreCAM(net, net.maps, max_forwards=14).channel_scores(x, [2])
        assert isinstance(found, ChannelScores)
        chosen.append(found.was_run)
    assert torch.equal(chosen[1], chosen[0])
    assert torch.equal(chosen[2], chosen[0])


def test_a_map_that_is_surely_zero_after_the_relu_takes_as_few_masks_as_its_opposite() -> None:
    runs = []
    for offset in (100, -100):
        net = Scored(lambda y, offset=offset: y + offset)  # type: ignore[misc]
        maps, _, score_cam = explained(net, channel_weighting="score", error=0.05)
        assert bool((maps > 0).all()) == (offset > 0)
        assert bool((maps < 0).all()) == (offset < 0)
        runs.append(last_run(score_cam))
    assert runs[0].rows == runs[1].rows < 24
    assert runs[1].errors == pytest.approx(runs[0].errors, rel=0.05)


def test_scores_that_are_not_finite_raise_as_without_a_budget() -> None:
    net = Scored(lambda y: y)
    calls: list[int] = []

    def broken(y: Tensor) -> Tensor:
        calls.append(len(y))
        return y * (torch.nan if len(calls) > 2 else 1)

    net.of_scores = broken
    for budget in ({}, *BUDGETS):
        calls.clear()
        with pytest.raises(
            ValueError, match=r"Expected finite scores, but got NaN or Inf for \d+ of \d+ masked inputs"
        ):
            ScoreCAM(net, net.maps, **budget).attribute(images(), 2, perturbations_per_eval=1)


# --- Masks -----------------------------------------------------------------------------------------------------------


def near_copies(step: float) -> Callable[[Tensor], Tensor]:
    """All channels are the first with one value moved a little: masks nearly equal, kernels nearly singular."""

    def copied(z: Tensor) -> Tensor:
        base = z[:, :1].repeat(1, 24, 1, 1)
        corner = base[:, :, 1, 1] + 0.1 + step * torch.arange(24, dtype=z.dtype)
        return base.index_put((torch.arange(len(z))[:, None], torch.arange(24)[None], *[torch.tensor(1)] * 2), corner)

    return copied


def in_pairs(z: Tensor) -> Tensor:
    """Every mask has another that differs from it by far less than from the rest: rows of the kernel that are equal."""
    second = z[:, :12].clone()
    second[:, :, 1, 1] += 1e-12
    return torch.cat([z[:, :12], second], dim=1)


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "duplicated": lambda z: z[:, :12].repeat(1, 2, 1, 1),
    "two masks": lambda z: z[:, :2].repeat(1, 12, 1, 1),
    "one mask": lambda z: z[:, :1].repeat(1, 24, 1, 1) * torch.arange(1, 25, dtype=z.dtype).view(1, 24, 1, 1),
    "nearly equal": near_copies(1e-7),
    "equal to a few bits": near_copies(1e-13),
    "in pairs": in_pairs,
    "one position": lambda z: (z == z.amax((2, 3), keepdim=True)).to(z.dtype),
    "opposite": lambda z: torch.cat([z[:, :12], -z[:, :12]], dim=1),
}


@pytest.mark.parametrize(("name", "budget", "method"), combinations(MAPS, BUDGETS, METHODS, quick=5))
def test_degenerate_masks_give_exact_or_honestly_uncertain_maps(
    name: str, budget: dict[str, Any], method: dict[str, Any]
) -> None:
    share = 0.6 if budget == {"max_forwards": 1} else 0.8
    assert_honest(Scored(lambda y: y, MAPS[name]), share=share, **budget, **method)


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_a_layer_of_constant_channels_gives_a_zero_map_without_error(budget: dict[str, Any]) -> None:
    net = Scored(lambda y: y, torch.ones_like)
    with pytest.warns(UserWarning, match="All channels of the layer are constant for 2 of 2 examples"):
        maps, errors, score_cam = explained(net, **budget)
    assert not maps.any()
    assert not errors.any()
    assert last_run(score_cam).rows == 0
    assert last_run(score_cam).errors == (0.0, 0.0)


def test_an_example_of_constant_channels_beside_another() -> None:
    def first_constant(z: Tensor) -> Tensor:
        return torch.where((z.sum((1, 2, 3), keepdim=True) - first).abs() < 1e-9, 1.0, z)

    x, plain = images(), Net(channels=24)
    first = plain.relu(plain.norm(plain.conv(x[:1]))).sum()
    net = Scored(lambda y: y, first_constant)
    with pytest.warns(UserWarning, match="All channels of the layer are constant for 1 of 2 examples"):
        maps, errors, score_cam = explained(net, x, max_forwards=6)
    alone, error_alone, _ = explained(Scored(lambda y: y), x[1:], max_forwards=6)
    assert not maps[0].any()
    assert not errors[0].any()
    assert_close(maps[1:], alone)
    assert_close(errors[1:], error_alone)
    assert last_run(score_cam).rows == 6


# --- Precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "budget", "method"),
    combinations([torch.float16, torch.bfloat16, torch.float32, torch.float64], BUDGETS, METHODS, quick=5),
)
def test_every_precision(dtype: torch.dtype, budget: dict[str, Any], method: dict[str, Any]) -> None:
    net, x = Scored(lambda y: y).to(dtype), images(dtype=dtype)
    maps, errors, _ = explained(net, x, **budget, **method)
    assert {maps.dtype, errors.dtype} == {dtype}
    assert_honest(net, x, 0.6 if budget == {"max_forwards": 1} else 0.8, **budget, **method)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_the_default_dtype_and_device_do_not_matter(dtype: torch.dtype, budget: dict[str, Any]) -> None:
    net, x = Scored(lambda y: y).float(), images(dtype=torch.float32)
    expected = explained(net, x, **budget)[:2]
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            score_cam = ScoreCAM(net, net.maps, **budget)
            actual = score_cam.attribute_with_error(x, 2, relu_attributions=False, perturbations_per_eval=8)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(flat(actual), expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_dtype_does_not_matter_for_many_masks(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(3, 330, 3)
    net = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(330, 3)).float()
    budget = ScoreCAM(net, net[1], max_forwards=300, channel_weighting="increase")
    x = images(dtype=torch.float32)[:1]
    expected = budget.attribute(x, 2, perturbations_per_eval=64)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(budget.attribute(x, 2, perturbations_per_eval=64), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# --- Options ---------------------------------------------------------------------------------------------------------

TOLERANT: dict[str, Any] = {"score": "probability", "channel_weighting": "score", "tolerance": 0.1}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({**TOLERANT, "max_forwards": 9}, ValueError, "Expected neither `max_forwards` nor `error` with `tolerance`."),
        ({**TOLERANT, "error": 0.1}, ValueError, "Expected neither `max_forwards` nor `error` with `tolerance`."),
    ],
    ids=str,
)
def test_options_that_do_not_fit_raise_in_the_constructor(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    net = Net()
    with pytest.raises(error, match=re.escape(message)):
        ScoreCAM(net, net.relu, **options)


@pytest.mark.parametrize("entry", ["attribute_with_error", "channel_scores"])
def test_tolerance_has_neither_errors_nor_all_scores(entry: str) -> None:
    net = Net()
    call = {"targets": [2]} if entry == "channel_scores" else {"target": 2}
    with pytest.raises(
        ValueError, match="Expected no `tolerance`, with which the scores of some channels stay unknown"
    ):
        getattr(ScoreCAM(net, net.relu, **TOLERANT), entry)(images(), **call)
    assert net.forwards == 0


def test_fewer_forwards_than_tensors_raise_before_any_masked_forward() -> None:
    net, x = CountingNet(kind="tuple"), noise(2)
    with pytest.raises(ValueError, match="to be at least 2, one for each tensor that the layer returns, but got 1"):
        ScoreCAM(net, net.maps, max_forwards=1).attribute(x, 2, torch.arange(2))
    assert net.masked_rows(x) == [0, 0]


TOLERANCE = {"tolerance": 0.2, "score": "probability", "channel_weighting": "score"}


@pytest.mark.parametrize("options", [*BUDGETS, TOLERANCE], ids=str)
def test_outputs_of_another_precision_than_inputs(options: dict[str, Any]) -> None:
    double, x = Net(channels=24), images()
    single = copy.deepcopy(double).float()
    outputs_in_single = ScoreCAM(lambda x: double(x).float(), double.relu, **options).attribute(x, 2)
    assert_close(outputs_in_single, ScoreCAM(double, double.relu, **options).attribute(x, 2), 1e-6)

    def outputs_in_double(x: Tensor) -> Any:
        return single(x).double()

    expected = ScoreCAM(single, single.relu, **options).attribute(x.float(), 2)
    assert_close(ScoreCAM(outputs_in_double, single.relu, **options).attribute(x.float(), 2), expected, 1e-6)
    through_twin = ScoreCAM(single, single.relu, masked_forward_func=outputs_in_double, **options)
    assert_close(through_twin.attribute(x.float(), 2), expected, 1e-6)


def test_masks_that_share_channels_are_summed() -> None:
    maps = torch.rand(2, 12, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    maps[:, 6:] = 2 * maps[:, :6] + 1
    masks = ChannelMasks.from_activations(maps, ((6, 6),))
    expected = maps[:, :6] + maps[:, 6:]
    for n in range(2):
        for k in range(6):
            row = masks.index[n, k]
            torch.testing.assert_close(masks.sums(maps.flatten(2))[row], expected[n, k].flatten())
            assert int(masks.n_sharing[row]) == 2
            assert int(row) in masks.rows_of(n).tolist()


class OfManyChannels(nn.Module):
    """Scores the negative mean of its inputs, which are the layer's maps."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        means: Tensor = self.maps(x).float().mean((1, 2, 3))
        return -means.unsqueeze(1)


@pytest.mark.parametrize("options", [{}, {"max_forwards": 10}, {"max_forwards": 100}, {"error": 0.2}])
def test_sums_beyond_the_range_of_float16_are_zero_after_the_relu(options: dict[str, Any]) -> None:
    net = OfManyChannels()
    x = 300 * torch.rand(1, 64, 6, 6, generator=torch.Generator().manual_seed(0)).half()
    maps = ScoreCAM(net, net.maps, channel_weighting="score", **options).attribute(x, 0)
    assert not maps.any()
    assert maps.dtype == torch.float16


@pytest.mark.parametrize("max_forwards", [1, 2, 9])
def test_scores_that_were_not_run_do_not_warn_of_narrow_scores(max_forwards: int) -> None:
    net, x = CountingNet(channels=48, gain=2000.0), noise(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ScoreCAM(net, net.maps, max_forwards=max_forwards).attribute(x, 1, torch.arange(2))
    assert not [each for each in caught if "differ by less than 1" in str(each.message)]
