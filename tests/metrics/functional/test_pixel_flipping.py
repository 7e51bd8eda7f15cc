"""MoRF, LeRF and SRG: curves with known values, ties, and the order of the pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.metrics.functional import PerturbationCurve, RelevanceGain, deletion, lerf, morf, srg
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_model(n_inputs: int) -> nn.Module:
    linear = nn.Linear(n_inputs, 3, dtype=torch.float64).requires_grad_(False)
    linear.weight.copy_(noise(3, n_inputs, seed=7))
    return nn.Sequential(nn.Flatten(), linear)


# The evidence is a quarter of the pixels: with steps of a quarter the score is gone after the first, or at the last.
EARLY, LATE = [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("metric", "maps", "scores", "auc"),
    [
        (morf, perfect, EARLY, 0.125),
        (morf, worst, LATE, 0.875),
        (lerf, perfect, LATE, 0.875),
        (lerf, worst, EARLY, 0.125),
    ],
    ids=["morf-perfect", "morf-worst", "lerf-perfect", "lerf-worst"],
)
def test_perfect_and_worst_explanation(metric: Any, maps: Any, scores: list[float], auc: float) -> None:
    curve = metric(EvidenceModel(), ones(2), maps(2), 0, step=0.25, score="output")
    assert isinstance(curve, PerturbationCurve)
    assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores.tolist() == [scores, scores]
    assert curve.auc.tolist() == [auc, auc]


@pytest.mark.parametrize(("maps", "gain"), [(perfect, 0.75), (worst, -0.75)])
def test_the_gain_of_a_perfect_and_of_the_worst_explanation(maps: Any, gain: float) -> None:
    found = srg(EvidenceModel(), ones(2), maps(2), 0, step=0.25, score="output")
    assert isinstance(found, RelevanceGain)
    assert found.srg.tolist() == [gain, gain]
    assert found.morf[0].tolist() == (EARLY if gain > 0 else LATE)
    assert found.lerf[0].tolist() == (LATE if gain > 0 else EARLY)


def test_without_ties_morf_is_deletion_and_lerf_that_of_the_negated_map() -> None:
    x, maps, model = noise(2, 2, 5, 6), noise(2, 1, 5, 6, seed=1), linear_model(60)
    options: dict[str, Any] = {"step": 0.1, "score": "output"}
    gain = srg(model, x, maps, 1, **options)
    for metric, of_gain, reference in [
        (morf, gain.morf, deletion(model, x, maps, 1, **options)),
        (lerf, gain.lerf, deletion(model, x, -maps, 1, **options)),
    ]:
        curve = metric(model, x, maps, 1, **options)
        torch.testing.assert_close(curve.scores, reference.scores)
        torch.testing.assert_close(of_gain, reference.scores)
        torch.testing.assert_close(curve.auc, reference.auc)
    torch.testing.assert_close(gain.srg, torch.trapezoid(gain.lerf - gain.morf, gain.fractions, dim=1))


def test_tied_pixels_fade_together() -> None:
    """The pixels 4, 1, 1, 1 with the weights 8, 4, 2, 1, by hand: after two pixels, a third of the ties is gone."""
    weights = torch.tensor([8.0, 4.0, 2.0, 1.0])
    maps = torch.tensor([[[[4.0, 1.0], [1.0, 1.0]]]])

    def model(x: Tensor) -> Tensor:
        return (x.flatten(1) * weights).sum(1, keepdim=True)

    assert morf(model, torch.ones(1, 1, 2, 2), maps, 0, step=0.25, score="output").scores[0].tolist() == pytest.approx(
        [15, 7, 7 * 2 / 3, 7 / 3, 0]
    )
    assert lerf(model, torch.ones(1, 1, 2, 2), maps, 0, step=0.25, score="output").scores[0].tolist() == pytest.approx(
        [15, 8 + 7 * 2 / 3, 8 + 7 / 3, 8, 0]
    )


@other_default_dtypes
def test_ties_do_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    x, maps, model = noise(2, 2, 5, 6).float(), noise(2, 1, 5, 6).relu().float(), linear_model(60).float()
    expected = srg(model, x, maps, 0, perturbations_per_eval=4)
    with default_dtype(dtype):
        found = srg(model, x, maps, 0, perturbations_per_eval=4)
    assert torch.equal(found.morf, expected.morf)
    assert torch.equal(found.lerf, expected.lerf)


def test_a_constant_map_gains_nothing_and_a_turned_image_changes_nothing() -> None:
    x, model = noise(1, 2, 4, 4), linear_model(32)
    constant = srg(model, x, torch.full((1, 1, 4, 4), 0.3), 0, score="output")
    assert constant.srg.item() == pytest.approx(0, abs=1e-12)
    # A row of ties: turned with its image, it gets the same curve, so no pixel is favoured for its place.
    maps = torch.tensor([2.0, 0.0, 0.0, 1.0]).reshape(1, 1, 4, 1).expand(1, 1, 4, 4)

    def turned(x: Tensor) -> Tensor:
        scores: Tensor = model(x.flip(2, 3))
        return scores

    there = srg(model, x, maps, 0, score="output")
    back = srg(turned, x.flip(2, 3), maps.flip(2, 3), 0, score="output")
    torch.testing.assert_close(there.morf, back.morf)
    torch.testing.assert_close(there.lerf, back.lerf)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_chunks_and_batches_change_nothing(rows: int) -> None:
    x, maps, model = noise(3, 2, 5, 6), noise(3, 1, 5, 6, seed=1).relu(), linear_model(60)
    whole = srg(model, x, maps, [0, 1, 2], step=0.2)
    chunked = srg(model, x, maps, [0, 1, 2], step=0.2, perturbations_per_eval=rows)
    torch.testing.assert_close(chunked.srg, whole.srg)
    single = srg(model, x[1:2], maps[1:2], 1, step=0.2)
    torch.testing.assert_close(single.lerf, whole.lerf[1:2])


def test_several_inputs_share_one_order() -> None:
    x = (noise(2, 1, 3, 4), noise(2, 2, 5, seed=3))
    maps = (noise(2, 1, 3, 4, seed=4), noise(2, 1, 5, seed=5))
    weights = noise(12, seed=6), noise(10, seed=7)

    def model(first: Tensor, second: Tensor) -> Tensor:
        return (first.flatten(1) @ weights[0] + second.flatten(1) @ weights[1]).unsqueeze(1)

    curve = morf(model, x, maps, 0, step=0.5, score="output")
    ranks = torch.cat([part.flatten(1) for part in maps], 1).argsort(1, descending=True).argsort(1)
    kept = (ranks >= 9).double()  # of 17 pixels, 9 are half, rounded up
    expected = model(x[0] * kept[:, :12].reshape(2, 1, 3, 4), x[1] * kept[:, 12:].unsqueeze(1))
    torch.testing.assert_close(curve.scores[:, 1], expected[:, 0])
