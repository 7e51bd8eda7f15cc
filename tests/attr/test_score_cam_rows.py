"""The rows that are run: a model that records its inputs, compared with masked inputs computed here.

A plausible map hides a wrong mask, a row run twice or an argument of another example; a recorder doesn't.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.weighting import ChannelWeighting
from tests.naive_reference import upsample
from tests.support.score_cam import last_run

CHANNELS = 6
TOLERANCE = 1e-12


class Recorder(nn.Module):
    """Records the inputs of every forward pass. The maps of its layer are the pooled channels of its first input.

    `constant` lists (example, channel) pairs to blank; an example is known by the marker that `marked_images` writes,
    wherever it stands in a chunk. `copies` maps a channel to (original, scale, offset).
    """

    def __init__(
        self,
        constant: tuple[tuple[int, int], ...] = (),
        copies: dict[int, tuple[int, float, float]] | None = None,
    ) -> None:
        super().__init__()
        self.maps: nn.Module = nn.Identity()
        self.constant, self.copies = constant, copies or {}
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        self.calls.append(tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in (x, *others)))
        maps = getattr(F, f"avg_pool{x.dim() - 2}d")(x, 2)
        for k, (original, scale, offset) in self.copies.items():
            maps[:, k] = scale * maps[:, original] + offset
        for n, k in self.constant:
            maps[x.flatten(1)[:, 0] == n + 1, k] = 0.5
        self.maps(maps)
        return torch.stack([x.flatten(1).mean(dim=1), x.flatten(1).square().mean(dim=1)], dim=1)

    @property
    def masked_calls(self) -> list[tuple[Any, ...]]:
        return self.calls[1:]

    def masked_rows(self, argument: int = 0) -> Tensor:
        """The rows, but for copies of the last one, which fill the last chunk."""
        *full, last = self.masked_calls
        return torch.cat([*(call[argument] for call in full), last[argument][: len(last[0]) - n_filled(last)]])


def n_filled(call: tuple[Any, ...]) -> int:
    tensors = [each for each in call if isinstance(each, Tensor)]
    n = 0
    while n + 1 < len(call[0]) and all(torch.equal(each[-1 - n], each[-2 - n]) for each in tensors):
        n += 1
    return n


def marked_images(batch: int, *size: int, seed: int = 0) -> Tensor:
    """Noise, N×K×size, with n + 1 as the first number of example n."""
    x = torch.randn(batch, CHANNELS, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x.flatten(1)[:, 0] = torch.arange(1.0, batch + 1)
    return x


def layer_maps(net: Recorder, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    hook = net.maps.register_forward_hook(lambda _module, _taken, given: kept.append(given.clone()))
    net(x)
    hook.remove()
    net.calls.clear()
    return kept[0]


def expected_rows(
    maps: Tensor, x: Tensor, baseline: Tensor | float = 0.0, skip: Any = ()
) -> dict[tuple[int, int], Tensor]:
    """The masked input of every example and channel that has one, but for those in `skip`."""
    rows = {}
    for n in range(len(x)):
        for k in range(maps.shape[1]):
            if (n, k) not in skip:
                own = baseline[n if len(baseline) > 1 else 0] if isinstance(baseline, Tensor) else baseline
                mask = upsample(maps[n, k], tuple(x.shape[2:]))
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                rows[n, k] = own + mask * (x[n] - own)
    return rows


def assert_same_rows(recorded: Tensor, expected: dict[tuple[int, int], Tensor]) -> list[tuple[int, int]]:
    """Checks that exactly the expected rows were recorded; returns the (example, channel) of each recorded row."""
    assert len(recorded) == len(expected)
    names, rows = list(expected), torch.stack(list(expected.values()))
    distance = (recorded.flatten(1)[:, None] - rows.flatten(1)[None]).abs().amax(dim=2)
    match = distance <= TOLERANCE
    assert match.sum(dim=0).tolist() == match.sum(dim=1).tolist() == [1] * len(names)
    return [names[i] for i in match.int().argmax(dim=1).tolist()]


@pytest.mark.parametrize("size", [(7,), (6, 9), (4, 5, 6)])
@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 2, 4, 6, 50])
@pytest.mark.parametrize("batch", [1, 3])
def test_each_mask_of_each_example_is_run_once(
    batch: int, perturbations_per_eval: int | None, size: tuple[int, ...]
) -> None:
    net, x = Recorder(), marked_images(batch, *size)
    maps = layer_maps(net, x)
    ScoreCAM(net, net.maps).attribute(x, 0, perturbations_per_eval=perturbations_per_eval)
    torch.testing.assert_close(net.calls[0][0], x, rtol=0, atol=0)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x))
    if perturbations_per_eval is not None:
        limit = perturbations_per_eval * batch
        lengths = [len(call[0]) for call in net.masked_calls]
        assert max(lengths) <= limit
        assert len(lengths) == math.ceil(batch * CHANNELS / limit)  # one stream over the batch: the chunks are full


def test_statistics_record_the_rows_per_forward() -> None:
    net, x = Recorder(), marked_images(2, 6, 8)
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 0, perturbations_per_eval=4)
    assert last_run(score_cam).rows_per_forward == 8 == len(net.masked_calls[0][0])
    net.calls.clear()
    score_cam.attribute(x, 0)  # tuned; too few rows to try a second size
    assert {len(call[0]) for call in net.masked_calls} == {last_run(score_cam).rows_per_forward}


def test_constant_channels_are_never_run() -> None:
    constant = ((0, 1), (0, 4), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4))
    net, x = Recorder(constant), marked_images(3, 6, 8)
    maps = layer_maps(net, x)
    assert bool((maps[0, 1] == 0.5).all())
    assert not bool((maps[1, 1] == 0.5).any())
    score_cam = ScoreCAM(net, net.maps)
    assert score_cam.last_run is None
    attribution = score_cam.attribute(x, 0, perturbations_per_eval=2, attr_dim_summation=False)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=constant))
    assert len(net.masked_calls) == 2  # ten rows in chunks of six
    assert all(float(attribution[n, k].abs().max()) == 0.0 for n, k in constant)
    run = last_run(score_cam)
    assert (run.channels, run.constant, run.shared, run.rows) == (18, 8, 0, 10)


def test_channel_that_is_constant_to_rounding_is_not_run() -> None:
    net, x = Recorder(copies={1: (0, 1.5e-16, 1.0), 2: (0, 1e-9, 1.0)}), marked_images(1, 6, 8)
    maps = layer_maps(net, x)
    assert 0 < float(maps[0, 1].max() - maps[0, 1].min()) < 1e-15  # the last bit differs here and there
    score_cam = ScoreCAM(net, net.maps)
    attribution = score_cam.attribute(x, 0, attr_dim_summation=False)
    rows = expected_rows(maps, x, skip=[(0, 1), (0, 2)])
    extra = [n for n, row in enumerate(net.masked_rows()) if all((row - r).abs().max() > 1e-5 for r in rows.values())]
    assert extra == []
    assert float(attribution[0, 1].abs().max()) == 0.0 < float(attribution[0, 2].min())
    assert last_run(score_cam).constant == 1


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_constant_is_judged_by_the_size_of_the_map(size: float) -> None:
    copies = {1: (0, size, 0.0), 2: (3, size, 5 * size), 4: (0, 1.5e-16 * size, size)}
    net, x = Recorder(copies=copies), marked_images(1, 6, 8)
    maps = layer_maps(net, x)
    assert 0 < float(maps[0, 4].max() - maps[0, 4].min()) < 1e-15 * size
    score_cam = ScoreCAM(net, net.maps)
    attribution = score_cam.attribute(x, 0, attr_dim_summation=False, relu_attributions=False)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=[(0, 1), (0, 2), (0, 4)]))  # 1 and 2 share
    assert float(attribution[0, 4].abs().max()) == 0.0
    assert float(attribution[0, 1].abs().max()) > 0.01 * size
    assert (last_run(score_cam).constant, last_run(score_cam).shared) == (1, 2)


COPIES = {
    "scaled by powers of two": {1: (0, 2.0, 0.0), 3: (0, 0.5, 0.0), 5: (2, 8.0, 0.0)},
    "scaled": {1: (0, 3.0, 0.0), 3: (0, 0.7, 0.0), 5: (2, 1e-3, 0.0)},
    "shifted": {1: (0, 1.0, 1.0), 3: (0, 1.0, -4.0), 5: (2, 1.0, 0.3)},
    "scaled and shifted": {1: (0, 2.0, 1.0), 3: (0, 0.5, -4.0), 5: (2, 3.0, 0.1)},
}


@pytest.mark.parametrize("kind", COPIES)
def test_positive_affine_copies_of_an_example_are_run_once(kind: str) -> None:
    net, x = Recorder(copies=COPIES[kind]), marked_images(2, 6, 8)
    maps = layer_maps(net, x)
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 0)
    copies = [(n, k) for n in range(2) for k in COPIES[kind]]
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=copies))
    run = last_run(score_cam)
    assert (run.channels, run.constant, run.shared, run.rows) == (12, 0, 6, 6)


def test_maps_with_a_single_peak_in_the_same_place_are_run_once() -> None:
    """A map with a single positive value of any size, as a ReLU often leaves it."""
    net, x = Recorder(), marked_images(1, 6, 8)
    x[:, 1:] = 0
    for k, height in enumerate([0.3, 7.1, 0.011, 123.0], start=1):
        x[0, k, 2:4, 4:6] = height
    x[0, 5, 0:2, 4:6] = 0.7  # another place
    maps = layer_maps(net, x)
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 0)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=[(0, 2), (0, 3), (0, 4)]))
    assert last_run(score_cam).shared == 3


def test_negated_and_nearly_equal_masks_are_run() -> None:
    net, x = Recorder(copies={1: (0, -1.0, 0.0)}), marked_images(1, 6, 8)
    x[:, 3] = x[:, 2]
    x[:, 3, 2, 2] += 1e-4  # a mask that differs in one place, by little
    maps = layer_maps(net, x)
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 0)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x))
    assert last_run(score_cam).shared == 0


def test_equal_masks_over_different_examples_are_both_run() -> None:
    net, x = Recorder(), marked_images(2, 6, 8)
    x[1, 2:] = 3 * x[0, 2:]
    maps = layer_maps(net, x)
    ScoreCAM(net, net.maps).attribute(x, 0)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x))


@pytest.mark.parametrize("perturbations_per_eval", [None, 1, 4])
def test_additional_forward_args_follow_their_example(perturbations_per_eval: int | None) -> None:
    net, x = Recorder(((0, 3), (1, 0), (1, 5))), marked_images(3, 6, 8)
    maps = layer_maps(net, x)
    own = torch.tensor([[10.0, 0.5], [20.0, 0.25], [30.0, 0.125]])
    words = {"not": "a tensor"}
    arguments = (own, None, 7, words)
    ScoreCAM(net, net.maps).attribute(x, 0, arguments, perturbations_per_eval=perturbations_per_eval)
    names = assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=net.constant))
    torch.testing.assert_close(net.masked_rows(argument=1), own[[n for n, _ in names]], rtol=0, atol=0)
    for call in net.calls:
        assert call[2] is None
        assert call[3] == 7
        assert call[4] == words


BASELINES: dict[str, Any] = {
    "scalar": -0.75,
    "int": 2,
    "one for all": marked_images(1, 6, 8, seed=5),
    "one each": marked_images(3, 6, 8, seed=6),
}


@pytest.mark.parametrize("kind", BASELINES)
def test_baseline_replaces_the_input_where_the_mask_is_zero(kind: str) -> None:
    net, x, baseline = Recorder(), marked_images(3, 6, 8), BASELINES[kind]
    maps = layer_maps(net, x)
    ScoreCAM(net, net.maps).attribute(x, 0, baselines=baseline)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, baseline))


@pytest.mark.parametrize("kind", [None, *BASELINES])
@pytest.mark.parametrize("channel_weighting", ["softmax", "increase", "score"])
def test_baseline_is_run_only_where_its_score_counts(channel_weighting: ChannelWeighting, kind: str | None) -> None:
    net, x = Recorder(), marked_images(3, 6, 8)
    baseline = BASELINES[kind] if kind else 0.0
    maps = layer_maps(net, x)
    options = {"baselines": BASELINES[kind]} if kind else {}
    score_cam = ScoreCAM(net, net.maps, channel_weighting=channel_weighting)
    score_cam.attribute(x, 0, perturbations_per_eval=2, **options)
    rows = net.masked_rows()
    blank = torch.as_tensor(baseline, dtype=x.dtype).expand_as(x) if not isinstance(baseline, Tensor) else baseline
    of_baseline = (rows.flatten(1)[:, None] - blank.flatten(1)[None]).abs().amax(dim=2) <= TOLERANCE
    is_baseline = of_baseline.any(dim=1)
    assert_same_rows(rows[~is_baseline], expected_rows(maps, x, baseline))
    if channel_weighting == "increase":
        assert 1 <= int(is_baseline.sum()) <= 3
        assert bool(of_baseline.any(dim=0).all())
    else:
        assert int(is_baseline.sum()) == 0
    assert max(len(call[0]) for call in net.calls) <= 2 * 3


def test_baseline_is_scored_with_the_arguments_of_each_example() -> None:
    net, x = Recorder(), marked_images(3, 6, 8)
    own = torch.tensor([10.0, 20.0, 30.0])
    ScoreCAM(net, net.maps, channel_weighting="increase").attribute(x, 0, own, perturbations_per_eval=1)
    blank = net.masked_rows().flatten(1).abs().amax(dim=1) == 0
    assert net.masked_rows(argument=1)[blank].tolist() == own.tolist()


def test_every_tensor_of_a_tuple_is_masked_at_its_own_size() -> None:
    net, x, second = Recorder(), marked_images(2, 6, 8), marked_images(2, 3, 11, seed=7)
    third = marked_images(2, 9, 4, seed=8)
    baselines = (0.5, second.flip(0), 0)
    maps = layer_maps(net, x)
    ScoreCAM(net, net.maps).attribute((x, second), 1, third, baselines=baselines[:2], perturbations_per_eval=2)
    names = assert_same_rows(net.masked_rows(), expected_rows(maps, x, 0.5))
    of_second = expected_rows(maps, second, second.flip(0))
    assert_same_rows(net.masked_rows(argument=1), of_second)
    torch.testing.assert_close(net.masked_rows(argument=1), torch.stack([of_second[name] for name in names]))
    torch.testing.assert_close(net.masked_rows(argument=2), third[[n for n, _ in names]], rtol=0, atol=0)


@pytest.mark.parametrize("max_channels", [1, 3, 6, 100])
def test_max_channels_runs_the_channels_with_the_largest_spread(max_channels: int) -> None:
    net, x = Recorder(((0, 3),)), marked_images(2, 6, 8)
    x *= torch.tensor([[1, 5, 3, 2, 6, 4], [6, 5, 4, 3, 2, 1.0]], dtype=x.dtype)[:, :, None, None]
    x.flatten(1)[:, 0] = torch.tensor([1.0, 2.0])
    maps = layer_maps(net, x)
    spread = maps.flatten(2).std(dim=2, correction=0)
    order = spread.argsort(dim=1, descending=True)
    dropped = [(n, k) for n in range(2) for k in order[n, max_channels:].tolist()]
    ScoreCAM(net, net.maps, max_channels=max_channels).attribute(x, 0)
    assert order[0].tolist() != order[1].tolist()
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=[*dropped, (0, 3)]))


@pytest.mark.parametrize("targets", [[0], [0, 1, [1, 0]], torch.tensor([[0, 1], [1, 0]])])
def test_more_targets_cost_no_more_rows(targets: Any) -> None:
    net, x = Recorder(((0, 3),)), marked_images(2, 6, 8)
    maps = layer_maps(net, x)
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute_targets(x, targets, perturbations_per_eval=4)
    assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=[(0, 3)]))
    assert len(net.masked_calls) == 2  # eleven rows in chunks of eight
    assert last_run(score_cam).rows == 11


def test_tuple_layer_runs_the_masks_of_each_tensor() -> None:
    class Halves(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return z[:, :2], F.avg_pool2d(z[:, 2:], 2)

    net, x = Recorder(), marked_images(2, 8, 8)
    maps = layer_maps(net, x)
    net.maps = Halves()
    score_cam = ScoreCAM(net, net.maps)
    score_cam.attribute(x, 0, perturbations_per_eval=2)
    first, second = expected_rows(maps[:, :2], x), expected_rows(F.avg_pool2d(maps[:, 2:], 2), x)
    assert_same_rows(net.masked_rows(), {**first, **{(n, k + 2): row for (n, k), row in second.items()}})
    assert (last_run(score_cam).channels, last_run(score_cam).rows) == (12, 12)


@pytest.mark.parametrize("attribute_to_layer_input", [False, True])
def test_layer_input_and_output_are_masked_from_the_same_single_pass(attribute_to_layer_input: bool) -> None:
    net, x = Recorder(), marked_images(2, 6, 8)
    maps = layer_maps(net, x)
    net.maps = nn.Sigmoid()
    ScoreCAM(net, net.maps).attribute(x, 0, attribute_to_layer_input=attribute_to_layer_input)
    expected = expected_rows(maps if attribute_to_layer_input else torch.sigmoid(maps), x)
    assert_same_rows(net.masked_rows(), expected)


def test_activation_transform_runs_on_the_whole_batch_and_makes_the_masks() -> None:
    net, x = Recorder(), marked_images(2, 6, 8)
    maps = layer_maps(net, x)
    taken: list[tuple[int, ...]] = []

    def transform(activations: Tensor) -> Tensor:
        taken.append(tuple(activations.shape))
        return activations[:, ::2].square()

    ScoreCAM(net, net.maps, activation_transform=transform).attribute(x, 0)
    assert taken == [tuple(maps.shape)]
    assert_same_rows(net.masked_rows(), expected_rows(maps[:, ::2].square(), x))


def test_second_call_runs_the_same_rows_as_the_first() -> None:
    net, x = Recorder(((0, 3),)), marked_images(2, 6, 8)
    maps = layer_maps(net, x)
    score_cam = ScoreCAM(net, net.maps)
    for _ in range(3):
        net.calls.clear()
        score_cam.attribute(x, 0)
        assert_same_rows(net.masked_rows(), expected_rows(maps, x, skip=[(0, 3)]))
