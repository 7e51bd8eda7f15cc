"""Channel scores: the maps of every weighting, their errors against draws of the scores, and files."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor

from captum_scorecam import ChannelScores, ScoreCAM
from captum_scorecam.budget.channel_scores import Prediction
from captum_scorecam.budget.gaussian_process import Kernel, MaskSpace
from captum_scorecam.budget.map_errors import WIDENING, map_widening, widening
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.weighting import ChannelWeighting, channel_weights
from tests.support.counting_net import CountingNet, noise
from tests.support.small_net import Net, images

WEIGHTINGS: tuple[ChannelWeighting, ...] = ("softmax", "increase", "score")


ROWS = {"perturbations_per_eval": 4}  # tuned ones depend on time, and rounding on them


def scored(kind: str = "plain", batch: int = 2, targets: Any = (2, 0), **options: Any) -> ChannelScores:
    net = CountingNet(kind=kind)
    found = ScoreCAM(net, net.maps, **options).channel_scores(noise(batch), targets, torch.arange(batch), **ROWS)
    assert isinstance(found, ChannelScores)
    return found


# --- Maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "shared", "constant", "tuple"])
@pytest.mark.parametrize("score", ["output", "probability"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.filterwarnings("ignore:The softmax of probabilities hardly varies")
def test_maps_of_every_weighting_are_score_cams_bit_for_bit(kind: str, score: Any, weighting: ChannelWeighting) -> None:
    net, x = CountingNet(kind=kind), noise(2)
    found = ScoreCAM(net, net.maps, score=score).channel_scores(x, [2, 0], torch.arange(2), **ROWS)
    parts = found if isinstance(found, tuple) else (found,)
    for flags in ({}, {"relu_attributions": False}, {"attr_dim_summation": False}):
        score_cam = ScoreCAM(net, net.maps, score=score, channel_weighting=weighting)
        maps = score_cam.attribute_targets(x, [2, 0], torch.arange(2), **ROWS, **flags)
        for part, expected in zip(parts, maps if isinstance(maps, tuple) else (maps,), strict=True):
            assert torch.equal(part.maps(weighting, **flags), expected)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_maps_and_errors_on_a_budget_are_score_cams(weighting: ChannelWeighting) -> None:
    net, x = CountingNet(), noise(2)
    score_cam = ScoreCAM(net, net.maps, channel_weighting=weighting, max_forwards=9)
    maps, errors = score_cam.attribute_with_error(x, 2, torch.arange(2), **ROWS)
    found = scored(targets=[2], channel_weighting=weighting, max_forwards=9)
    assert torch.equal(found.maps(weighting), maps)
    assert torch.equal(found.standard_errors(weighting), errors)


def test_scores_are_those_of_the_masked_inputs() -> None:
    net, x = CountingNet(kind="constant"), noise(2)
    found = scored("constant")
    assert found.has_mask.tolist() == [[False] * 8 + [True] * 16, [True] * 24]
    index = torch.arange(2)
    assert found.baseline_scores is not None
    torch.testing.assert_close(found.unmasked_scores, net(x, index)[:, [2, 0]])
    torch.testing.assert_close(found.baseline_scores, net(0 * x, index)[:, [2, 0]])
    for n, k in ((0, 8), (0, 23), (1, 0), (1, 11)):
        row = found.masks.index[n, k : k + 1]
        (mask,) = found.masks[row]
        torch.testing.assert_close(found.scores[n, k], net(mask * x[n : n + 1], index[n : n + 1])[0, [2, 0]])
    assert not found.scores[0, :8].any()


def test_a_score_that_overwrites_the_output_is_computed_from_the_models_own() -> None:
    net, x = Net(), images()
    expected = ScoreCAM(net, net.relu, score="sigmoid").channel_scores(x, [2, 0])
    found = ScoreCAM(net, net.relu, score=lambda output: output.sigmoid_()).channel_scores(x, [2, 0])
    torch.testing.assert_close(found.unmasked_scores, net(x)[:, [2, 0]].sigmoid())
    torch.testing.assert_close(found.mask_scores, expected.mask_scores)


@pytest.mark.parametrize("with_twin", [False, True])
def test_a_model_may_reuse_the_memory_of_its_output(with_twin: bool) -> None:
    net, x, memory = Net(channels=24).train(), images(), torch.empty(64, 7, dtype=torch.float64)
    net.norm.eval()
    net.dropout.eval()

    def forward(x: Tensor) -> Tensor:
        return memory[: len(x)].copy_(net(x))

    twin = copy.deepcopy(net) if with_twin else None
    found = ScoreCAM(forward, net.relu, masked_forward_func=twin).channel_scores(x, [2, 0])
    torch.testing.assert_close(found.unmasked_scores, net(x)[:, [2, 0]])


def test_what_was_run() -> None:
    exact = scored("constant")
    assert torch.equal(exact.was_run, exact.has_mask)
    assert exact.n_forwards == 40
    budget = scored("constant", max_forwards=5)
    assert budget.was_run.sum(1).tolist() == [5, 5]
    assert budget.n_forwards == 10
    assert not (budget.was_run & ~budget.has_mask).any()
    torch.testing.assert_close(budget.scores[budget.was_run], exact.scores[budget.was_run])
    assert (budget.scores - exact.scores)[budget.has_mask & ~budget.was_run].abs().min() > 0
    shared = scored("shared", max_forwards=5)
    assert torch.equal(shared.was_run[:, :8], shared.was_run[:, 8:16])
    assert shared.n_forwards == 10


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_strongest_channels(weighting: ChannelWeighting) -> None:
    found = scored("constant")
    weights = found.weights(weighting)
    channels, largest = found.strongest_channels(3, weighting)
    assert channels.shape == largest.shape == (2, 3, 2)
    for n in range(2):
        for t in range(2):
            having = [k for k in range(24) if found.has_mask[n, k]]
            ranked = sorted(having, key=lambda k, n=n, t=t: -float(weights[n, k, t]))  # type: ignore[misc]
            assert channels[n, :, t].tolist() == ranked[:3]
            assert torch.equal(largest[n, :, t], weights[n, ranked[:3], t])
    channels, largest = found.strongest_channels(100, weighting)
    assert channels.sort(1).values[0, :, 0].tolist() == list(range(24))
    assert sorted(channels[0, 16:, 0].tolist()) == list(range(8))  # those without a mask come last
    assert not largest[0, 16:].any()


def test_bad_arguments() -> None:
    found = replace(scored(), baseline_scores=None)
    with pytest.raises(ValueError, match="Expected `baseline_scores` for the weighting 'increase', but got None"):
        found.maps("increase")
    for function in (found.maps, found.standard_errors, found.weights):
        with pytest.raises(ValueError, match=r"Expected `channel_weighting` to be .*, but got 'mean'"):
            function("mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected `n_channels` to be at least 1, but got 0"):
        found.strongest_channels(0)
    with pytest.raises(TypeError, match="Expected `relu_attributions` to be True or False, but got 1"):
        found.maps(relu_attributions=1)  # type: ignore[arg-type]


# --- Errors ----------------------------------------------------------------------------------------------------------


def predicted(deviation: float, kind: str = "shared") -> ChannelScores:
    """Channel scores of which a third was run; the deviations of the others are between half and all of the given."""
    found = scored(kind, max_forwards=6)
    assert found.prediction is not None
    spread = torch.linspace(0.5, 1, len(found.masks), dtype=torch.float64).unsqueeze(1).repeat(1, 2) * deviation
    prediction = replace(found.prediction, deviations=spread.masked_fill(found.prediction.run.unsqueeze(1), 0.0))
    return replace(found, prediction=prediction)


def draws(found: ChannelScores, n: int) -> Tensor:
    """Scores drawn from the prediction, n×P×T. Those of the masks that were run are known."""
    assert found.prediction is not None
    generator, drawn = torch.Generator().manual_seed(0), found.mask_scores.repeat(n, 1, 1)
    for example in range(2):
        rows = found.masks.rows_of(example)
        run = found.prediction.run[rows]
        kernel = Kernel(*found.prediction.kernels[example].tolist())
        covariance = MaskSpace(found.masks.maps[rows].flatten(1)).covariance(kernel)
        covariance += kernel.nugget * torch.eye(len(rows))
        # With a mean of which nothing is known, as in the Gaussian process of infinitely varying constants
        known = covariance[run][:, run].inverse()
        ones = torch.ones(int(run.sum()), 1, dtype=torch.float64)
        lever = 1 - covariance[~run][:, run] @ known @ ones
        left = covariance[~run][:, ~run] - covariance[~run][:, run] @ known @ covariance[run][:, ~run]
        left += lever @ lever.T / (ones.T @ known @ ones)
        scale = left.diagonal().sqrt()
        factor = torch.linalg.cholesky(left / torch.outer(scale, scale))
        for target in range(2):
            normal = torch.randn(n, len(scale), generator=generator, dtype=torch.float64)
            deviations = found.prediction.deviations[rows[~run], target]
            drawn[:, rows[~run], target] += (normal @ factor.T) * deviations
    return drawn


def maps_of_draws(found: ChannelScores, drawn: Tensor, weighting: ChannelWeighting) -> Tensor:
    by_channel = torch.cat([drawn, drawn.new_zeros(len(drawn), 1, 2)], dim=1)[:, found.masks.index]
    weights = torch.stack(
        [channel_weights(each, found.has_mask, weighting, found.baseline_scores) for each in by_channel]
    )
    return torch.einsum("nk...,dnkt->dnt...", found.activations, weights)


@pytest.mark.parametrize("kind", ["shared", "constant"])
@pytest.mark.parametrize(
    ("weighting", "deviation", "tolerance"),
    [("score", 2.0, 0.06), ("increase", 0.1, 0.06), ("softmax", 0.1, 0.1), ("softmax", 0.7, 0.35)],
)
def test_errors_are_those_of_maps_of_scores_drawn_from_the_prediction(
    kind: str, weighting: ChannelWeighting, deviation: float, tolerance: float
) -> None:
    found = predicted(deviation, kind)
    maps = maps_of_draws(found, draws(found, 2000), weighting)
    expected = (maps - found.maps(weighting, relu_attributions=False)).square().mean(0).sqrt()
    errors = found.standard_errors(weighting) / map_widening(weighting, 6, len(found.masks) // 2)
    assert errors.min() > 0
    ratio = (errors / expected).log()
    assert float(ratio.abs().amax()) < 3 * tolerance
    assert float(ratio.square().mean().sqrt()) < tolerance


@pytest.mark.parametrize("size", [3.0, 1e3, 1e6, 1e30])
def test_the_softmax_of_scores_far_apart_and_as_uncertain_has_errors_of_the_size_of_the_map(size: float) -> None:
    found = predicted(size)
    found = replace(found, mask_scores=found.mask_scores / found.mask_scores.std() * size)
    errors = found.standard_errors("softmax") / map_widening("softmax", 6, len(found.masks) // 2)
    assert errors.isfinite().all()
    maps = maps_of_draws(found, draws(found, 1000), "softmax")
    expected = (maps - found.maps("softmax", relu_attributions=False)).square().mean(0).sqrt()
    assert 0.5 < float(errors.mean() / expected.mean()) < 3


@pytest.mark.parametrize("n_run", [1, 2, 3, 5, 10, 30, 300])
def test_few_scores_widen_the_errors_as_students_t_does(n_run: int) -> None:
    quantile = stats.t.ppf(0.975, n_run - 1 + 1 / n_run) / stats.norm.ppf(0.975)
    assert widening(n_run) / WIDENING == pytest.approx(quantile, rel=0.15 if n_run == 1 else 0.07)


def test_errors_of_maps_are_wider_where_their_cells_share_an_error() -> None:
    assert map_widening("softmax", 57, 570) == pytest.approx(1.08 * widening(57))
    assert map_widening("softmax", 228, 570) == pytest.approx(1.08 * 4**0.28 * widening(228))
    assert map_widening("softmax", 57, 5700) == pytest.approx(1.08 * 0.5**0.28 * widening(57))  # not measured below 5 %
    assert map_widening("score", 9, 570) == map_widening("increase", 9, 90) == pytest.approx(2.48 * widening(9))


def test_error_by_hand() -> None:
    """Three masks, of which the first was run, and one deviation: an error of the second alone."""
    maps = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 1.0]]).view(1, 3, 1, 2)
    masks = ChannelMasks.from_activations(maps, ((1, 2),))
    scores, run = torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([False] * 3)
    order = masks.index[0]
    run[order[0]] = True
    deviations = torch.zeros(3, 1)
    deviations[order[1]] = 0.25
    prediction = Prediction(run, deviations, torch.tensor([[1.0, 1.0, 0.1]]))
    found = ChannelScores(maps, masks, scores, torch.ones(1, 1), torch.zeros(1, 1), prediction)
    # M of the second mask is (1, 0): the error is 0.25 there, and 0 at the other position
    assert found.standard_errors("score").flatten().tolist() == pytest.approx([12.4 * widening(1) * 0.25, 0.0])


# --- Files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"max_forwards": 5}, {"error": 0.2}], ids=str)
@pytest.mark.parametrize("kind", ["plain", "shared", "constant"])
def test_what_is_loaded_is_what_was_saved(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    found, path = scored(kind, **options), tmp_path / "scores.safetensors"
    found.save(path)
    loaded = ChannelScores.load(str(path))
    for name in ("activations", "mask_scores", "unmasked_scores", "baseline_scores"):
        assert torch.equal(getattr(loaded, name), getattr(found, name))
    assert (loaded.masks.sizes, loaded.masks.n_constant) == (found.masks.sizes, found.masks.n_constant)
    assert loaded.n_forwards == found.n_forwards
    assert torch.equal(loaded.was_run, found.was_run)
    for weighting in WEIGHTINGS:
        assert torch.equal(loaded.maps(weighting), found.maps(weighting))
        assert torch.equal(loaded.standard_errors(weighting), found.standard_errors(weighting))
    assert (loaded.standard_errors().amax((2, 3)) > 0).any() == bool(options)
    loaded.save(path)  # over the file that it came from
    assert torch.equal(ChannelScores.load(path).maps(), found.maps())
    assert torch.equal(loaded.maps(), found.maps())


def test_scores_without_a_baseline_stay_without(tmp_path: Path) -> None:
    found = replace(scored(), baseline_scores=None)
    found.save(tmp_path / "scores")
    assert ChannelScores.load(tmp_path / "scores").baseline_scores is None


@pytest.mark.parametrize(
    "content", [b"", b"no tensors at all, but a text", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_file_that_holds_no_tensors_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"Expected `path` to be a file written by ChannelScores.save, but '.*file\.sa"
    ):
        ChannelScores.load(path)


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.ones(2)}, tmp_path / "weights")
    save_file({"activations": torch.ones(2), "index": torch.ones(2)}, tmp_path / "some", {"sizes": "3,3"})
    for name in ("weights", "some"):
        with pytest.raises(ValueError, match=f"to be a file written by ChannelScores.save, but '.*{name}' is not"):
            ChannelScores.load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("activations", lambda x: x[:, 1:]),
        ("mask_maps", lambda x: x[:, :, 1:]),
        ("mask_scores", lambda x: x[:, 0]),
        ("unmasked_scores", lambda x: x.repeat(1, 2)),
        ("examples", lambda x: x + 10),
        ("index", lambda x: x + 1000),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_refused(name: str, changed: Any, tmp_path: Path) -> None:
    path = tmp_path / "scores"
    scored().save(path)
    with safe_open(path, "pt") as file:
        tensors, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors | {name: changed(tensors[name]).contiguous()}, path, metadata)
    with pytest.raises(ValueError, match=r"Expected `path` to be a file written by ChannelScores.save"):
        ChannelScores.load(path)


@pytest.mark.parametrize("device", ["nowhere", "cuda:97"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    scored().save(tmp_path / "scores")
    with pytest.raises(ValueError, match=f"Expected `device` to be a device .*, but got '{device}'"):
        ChannelScores.load(tmp_path / "scores", device)


def test_paths_that_cannot_be_read_or_written_raise_the_usual_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*missing'"):
        ChannelScores.load(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*missing.*scores'"):
        scored().save(tmp_path / "missing" / "scores")
    for function in (ChannelScores.load, scored().save):
        with pytest.raises(OSError, match=r"Is a directory|Permission denied"):
            function(tmp_path)


def test_tiny_probabilities_are_predicted_on_their_own_scale() -> None:
    net, x = CountingNet(), noise(2)

    def found(shift: float) -> tuple[Tensor, Tensor]:
        score_cam = ScoreCAM(
            lambda inputs, index: net(inputs, index) - shift,
            net.maps,
            score="sigmoid",
            channel_weighting="score",
            max_forwards=9,
        )
        maps, errors = score_cam.attribute_with_error(x, 2, torch.arange(2))
        assert isinstance(maps, Tensor)
        assert isinstance(errors, Tensor)
        return maps, errors

    assert (found(40)[1] > 0).all()
    for small, tiny in zip(found(40), found(65), strict=True):
        torch.testing.assert_close(tiny * math.exp(25), small, rtol=1e-3, atol=1e-3 * float(small.max()))


def test_many_targets_are_split_when_errors_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scored(targets=[2, 0, 1], max_forwards=9)
    monkeypatch.setattr("captum_scorecam.budget.map_errors.MOST_CHANGES", 1)
    found = scored(targets=[2, 0, 1], max_forwards=9)
    for weighting in WEIGHTINGS:
        torch.testing.assert_close(found.standard_errors(weighting), expected.standard_errors(weighting))
