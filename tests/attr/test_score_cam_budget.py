"""Score-CAM with `max_forwards` and `error`: exact where it must be, never more forwards, the same map however run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from captum_scorecam import ScoreCAM
from tests.support.attributions import flat
from tests.support.combinations import combinations
from tests.support.counting_net import CountingNet, noise
from tests.support.score_cam import last_run
from tests.support.small_net import Net, assert_close, images
from tests.support.two_ranks import results_of_ranks

METHODS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "increase": {"channel_weighting": "increase"},
    "probability": {"score": "probability", "channel_weighting": "score"},
    "sigmoid": {"score": "sigmoid", "channel_weighting": "increase"},
}
KINDS = ["plain", "shared", "constant", "tuple"]
ENTRIES: dict[str, Any] = {
    "attribute": {"target": 2},
    "attribute_targets": {"targets": [2, 0, 4]},
    "attribute_with_error": {"target": [2, 0, 1]},
    "channel_scores": {"targets": [2, 4]},
}


def explained(net: CountingNet, x: Tensor, entry: str = "attribute", call: Any = None, **options: Any) -> Any:
    """What `entry` returns for a batch of which each row brings the index of its example."""
    call = {"perturbations_per_eval": 8, **ENTRIES[entry], **(call or {})}
    index = torch.arange(len(x))
    return getattr(ScoreCAM(net, net.maps, **options), entry)(x, additional_forward_args=index, **call)


def tensors(result: Any) -> tuple[Tensor, ...]:
    """Maps as a tuple of tensors."""
    return flat(result)


# --- Enough forwards -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rank_and_kind", "method"),
    combinations([*((2, kind) for kind in KINDS), (1, "plain"), (3, "plain")], METHODS, quick=5),
)
def test_as_many_forwards_as_masks_give_the_exact_map_bit_for_bit(rank_and_kind: tuple[int, str], method: str) -> None:
    rank, kind = rank_and_kind
    net, x = CountingNet(rank, 12, kind), noise(3, rank)
    for entry in ("attribute", "attribute_targets"):
        exact = tensors(explained(net, x, entry, **METHODS[method]))
        for max_forwards in (8 if kind == "shared" else 12, 2**62, 2**70):
            actual = tensors(explained(net, x, entry, **METHODS[method], max_forwards=max_forwards))
            assert all(torch.equal(one, other) for one, other in zip(actual, exact, strict=True))
    maps, errors = explained(net, x, "attribute_with_error", {"target": 2}, **METHODS[method], max_forwards=12)
    exact = tensors(explained(net, x, **METHODS[method]))
    assert all(torch.equal(one, other) for one, other in zip(flat(maps), exact, strict=True))
    assert all(not error.any() for error in flat(errors))


@pytest.mark.parametrize("method", METHODS)
def test_without_a_budget_the_error_is_0(method: str) -> None:
    net, x = CountingNet(), noise(3)
    maps, errors = explained(net, x, "attribute_with_error", **METHODS[method])
    assert torch.equal(maps, explained(net, x, "attribute", {"target": [2, 0, 1]}, **METHODS[method]))
    assert torch.equal(errors, torch.zeros_like(maps))


def test_an_example_with_few_masks_is_exact_beside_one_that_is_predicted() -> None:
    net, x = CountingNet(kind="constant"), noise(2)
    score_cam = ScoreCAM(net, net.maps, max_forwards=16)
    maps, errors = score_cam.attribute_with_error(x, 2, torch.arange(2))
    exact = explained(net, x)
    assert_close(maps[0], exact[0])
    assert not errors[0].any()
    assert errors[1].min() > 0
    assert float((maps[1] - exact[1]).abs().max()) > 1e-4
    run = last_run(score_cam)
    assert (run.constant, run.rows, run.omitted) == (8, 32, 8)
    assert run.errors[0] == 0
    assert run.errors[1] == pytest.approx(float(errors[1].max() / maps[1].max()))


# --- No more forwards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "kind", "max_forwards"), combinations(ENTRIES, KINDS, [2, 5, 11], quick=5))
def test_at_most_max_forwards_run_for_each_example(entry: str, kind: str, max_forwards: int) -> None:
    masks = {"plain": [12] * 3, "shared": [8] * 3, "constant": [8, 12, 12], "tuple": [12] * 3}[kind]
    for method, batch in zip(METHODS.values(), (1, 3, 1, 3), strict=True):
        net, x = CountingNet(channels=12, kind=kind), noise(batch)
        call = {"target": 2} if entry == "attribute_with_error" else {}
        explained(net, x, entry, call, **method, max_forwards=max_forwards)
        assert net.masked_rows(x) == [min(max_forwards, n) for n in masks[:batch]]


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("options", [{"max_channels": 7}, {"error": 0.01}, {"error": 0.9}, {}], ids=str)
def test_other_options_keep_to_max_forwards(rank: int, options: dict[str, Any]) -> None:
    for max_forwards in (1, 5, 12):
        net, x = CountingNet(rank), noise(2, rank)
        explained(net, x, max_forwards=max_forwards, **options)
        expected = min(max_forwards, options.get("max_channels", max_forwards))
        assert all(n <= expected for n in net.masked_rows(x))
        if options.get("error") != 0.9:
            assert net.masked_rows(x) == [expected] * 2


def test_tensors_of_a_layer_share_the_forwards_in_proportion_to_their_masks() -> None:
    net, x = CountingNet(kind="tuple"), noise(2)
    for max_forwards, runs in [(2, (1, 1)), (9, (6, 3)), (12, (8, 4)), (23, (15, 8)), (24, (16, 8))]:
        parts = explained(net, x, "channel_scores", max_forwards=max_forwards)
        assert tuple(int(part.was_run[1].sum()) for part in parts) == runs


def test_statistics_tell_what_was_run() -> None:
    net, x = CountingNet(kind="shared"), noise(2)
    score_cam = ScoreCAM(net, net.maps, max_forwards=5)
    score_cam.attribute(x, 2, torch.arange(2))
    run = last_run(score_cam)
    assert (run.channels, run.shared, run.rows, run.omitted) == (48, 16, 10, 22)
    assert len(run.errors) == 2
    assert min(run.errors) > 0
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 2, torch.arange(2))
    assert last_run(score_cam).errors == ()


# --- The same map ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "kind", "budget"),
    [
        *((method, "plain", {"max_forwards": 10}) for method in METHODS),
        ("softmax", "plain", {"error": 0.05}),
        ("probability", "constant", {"error": 0.05}),
        ("increase", "shared", {"max_forwards": 10}),
        ("softmax", "tuple", {"max_forwards": 10}),
    ],
    ids=str,
)
def test_chunks_and_batches_change_nothing(method: str, kind: str, budget: dict[str, Any]) -> None:
    net, x, options = CountingNet(kind=kind), noise(3), {**METHODS[method], **budget}
    expected = tensors(explained(net, x, "attribute_with_error", **options))
    for perturbations_per_eval in (1, 7):
        call = {"perturbations_per_eval": perturbations_per_eval}
        actual = tensors(explained(net, x, "attribute_with_error", call, **options))
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    for n, target in enumerate([2, 0, 1]):
        alone = ScoreCAM(net, net.maps, **options).attribute_with_error(x[n : n + 1], target, torch.tensor([n]))
        for one, other in zip(tensors(alone), expected, strict=True):
            torch.testing.assert_close(one[0], other[n], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [{"max_forwards": 10}, {"error": 0.05}], ids=str)
def test_the_same_call_gives_the_same_map_and_draws_from_no_global_generator(
    method: str, budget: dict[str, Any]
) -> None:
    net, x = CountingNet(), noise(2)
    call = {"target": [2, 0]}
    results = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            state = torch.get_rng_state()
            results.append(explained(net, x, "attribute_with_error", call, **METHODS[method], **budget))
            assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_more_targets_share_the_choice_of_masks() -> None:
    net, x = CountingNet(), noise(2)
    one, three = (
        explained(net, x, "attribute_targets", {"targets": targets}, max_forwards=10) for targets in ([2], [2, 2, 2])
    )
    for t in range(3):
        assert_close(three[:, t : t + 1], one)


class RankNet(CountingNet):
    """The scores of unmasked inputs differ between ranks."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        first = not self.calls
        return super().forward(x, index) + (self.shift if first else 0.0)


BUDGETS: list[dict[str, Any]] = [{"max_forwards": 10}, {"error": 0.05, "channel_weighting": "increase"}]


SHIFTS = [(0.0, 0.0), (0.0, 50.0)]  # of both ranks


def of_rank(rank: int) -> list[tuple[Tensor, ...]]:
    found = []
    for shifts, options in itertools.product(SHIFTS, BUDGETS):
        call = {"target": [2, 0], "process_group": dist.group.WORLD}
        found.append(tuple(explained(RankNet(shifts[rank]), noise(2), "attribute_with_error", call, **options)))
    return found


def test_two_ranks_give_the_maps_of_the_first(tmp_path: Path) -> None:
    results = results_of_ranks(of_rank, tmp_path)
    for i, (shifts, options) in enumerate(itertools.product(SHIFTS, BUDGETS)):
        alone = explained(RankNet(shifts[0]), noise(2), "attribute_with_error", {"target": [2, 0]}, **options)
        for found in (rank[i] for rank in results):
            for one, other in zip(found, alone, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


# --- Until an error is reached ---------------------------------------------------------------------------------------


class Linear(CountingNet):
    """A score that is linear in the masked input, which few masks tell."""

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        super().forward(x, index)
        ramp = torch.linspace(-1, 2, 12, dtype=x.dtype).view(12, 1)
        return torch.stack([(x.sum(1) * ramp).mean((1, 2)) + 5] * 5, dim=1)


@pytest.mark.parametrize("error", [0.3, 0.05])
@pytest.mark.parametrize("weighting", ["softmax", "score"])
def test_an_easy_model_stops_early_with_an_error_below_the_given_one(weighting: Any, error: float) -> None:
    net, x = Linear(channels=96), noise(2)
    score_cam = ScoreCAM(net, net.maps, channel_weighting=weighting, error=error)
    maps, errors = score_cam.attribute_with_error(x, 2, torch.arange(2))
    run = last_run(score_cam)
    assert run.rows + run.omitted == 192
    assert run.rows < 96
    assert sum(net.masked_rows(x)) == run.rows
    assert 0 < max(run.errors) <= error
    assert float((errors / maps.amax((1, 2, 3), keepdim=True)).max()) == pytest.approx(max(run.errors))
    exact = ScoreCAM(net, net.maps, channel_weighting=weighting).attribute(x, 2, torch.arange(2))
    assert ((maps - exact).abs() <= 2 * errors).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_error_gives_the_exact_map(method: str) -> None:
    net, x = CountingNet(), noise(2)
    for error in (1e-7, 5e-324):
        score_cam = ScoreCAM(net, net.maps, **METHODS[method], error=error)
        maps, errors = score_cam.attribute_with_error(x, 2, torch.arange(2))
        assert_close(maps, explained(net, x, **METHODS[method]))
        assert not errors.any()
        assert last_run(score_cam).errors == (0.0, 0.0)
        assert last_run(score_cam).omitted == 0


def test_a_smaller_error_runs_more_masks_and_each_example_stops_by_itself() -> None:
    x, rows = noise(3), []
    for error in (0.5, 0.1, 0.02):
        net = CountingNet(channels=48)
        explained(net, x, error=error)
        rows.append(net.masked_rows(x))
    for first, second in itertools.pairwise(rows):
        assert all(fewer <= more for fewer, more in zip(first, second, strict=True))
    assert sum(rows[0]) < sum(rows[1]) < sum(rows[2])
    assert len({*rows[0], *rows[1], *rows[2]}) > 3
    assert any(len(set(each)) > 1 for each in rows)


def test_max_forwards_ends_the_search_with_the_error_that_is_left() -> None:
    net, x = CountingNet(channels=48), noise(2)
    score_cam = ScoreCAM(net, net.maps, error=0.001, max_forwards=15)
    score_cam.attribute(x, 2, torch.arange(2))
    assert last_run(score_cam).rows == 30
    assert min(last_run(score_cam).errors) > 0.001


# --- Errors are honest -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_most_cells_are_within_two_errors_which_are_not_vague(method: str, share: float) -> None:
    net, x = CountingNet(channels=90), noise(6)
    call = {"target": 2, "relu_attributions": False}
    maps, errors = explained(net, x, "attribute_with_error", call, **METHODS[method], max_forwards=int(share * 90))
    exact = explained(net, x, "attribute", call, **METHODS[method])
    ratio = ((maps - exact).abs() / errors).flatten(1)
    within = (ratio <= 2).double().mean(1)
    assert float(within.mean()) >= 0.9
    assert float(within.min()) >= 0.6
    assert float(ratio.median()) >= 0.2


@pytest.mark.parametrize("weighting", ["softmax", "increase"])
def test_predictions_have_full_precision_under_autocast(weighting: Any) -> None:
    net, x = Net(channels=24).float(), images(dtype=torch.float32)

    def forward(x: Tensor) -> Any:
        with torch.autocast("cpu", enabled=False):
            return net(x)

    attribution = ScoreCAM(forward, net.relu, channel_weighting=weighting, max_forwards=12)
    expected = attribution.attribute_with_error(x, 1, perturbations_per_eval=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = attribution.attribute_with_error(x, 1, perturbations_per_eval=8)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
