"""Insertion and deletion: curves with known values, a naive loop, and the order of the pixels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from captum_scorecam.masking.baselines import gaussian_blur
from captum_scorecam.metrics.functional import PerturbationCurve, deletion, insertion
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst

METRICS = [insertion, deletion]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear_model(n_inputs: int, n_classes: int = 3) -> nn.Module:
    linear = nn.Linear(n_inputs, n_classes, dtype=torch.float64).requires_grad_(False)
    linear.weight.copy_(noise(n_classes, n_inputs, seed=7))
    return nn.Sequential(nn.Flatten(), linear)


# --- Perfect and worst explanations -----------------------------------------------------------------------------------

# The evidence is a quarter of the pixels: with steps of a quarter the score is complete, or gone, after the first.
PERFECT_INSERTION, WORST_INSERTION = [0, 1, 1, 1, 1], [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("metric", "maps", "scores", "auc"),
    [
        (insertion, perfect(2), PERFECT_INSERTION, 0.875),
        (insertion, worst(2), WORST_INSERTION, 0.125),
        (deletion, perfect(2), WORST_INSERTION[::-1], 0.125),
        (deletion, worst(2), PERFECT_INSERTION[::-1], 0.875),
    ],
    ids=["insertion-perfect", "insertion-worst", "deletion-perfect", "deletion-worst"],
)
def test_perfect_and_worst_explanation(metric: Any, maps: Tensor, scores: list[float], auc: float) -> None:
    curve = metric(EvidenceModel(), ones(2), maps, 0, step=0.25, baselines=0, score="output")
    assert isinstance(curve, PerturbationCurve)
    assert curve.fractions.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.scores.tolist() == [scores, scores]
    assert curve.auc.tolist() == [auc, auc]


def test_a_perfect_explanation_pixel_by_pixel() -> None:
    # In proportion to the pixels up to a quarter, then 1: 1/8 · 1 + 3/4.
    curve = insertion(EvidenceModel(), ones(), perfect(), 0, step=1 / 24, baselines=0, score="output")
    torch.testing.assert_close(curve.scores[0], (torch.arange(25.0) / 6).clamp(max=1))
    assert curve.auc.item() == pytest.approx(0.125 + 0.75)


@pytest.mark.parametrize(("metric", "expected"), [(insertion, True), (deletion, False)])
def test_probability_is_the_default(metric: Any, expected: bool) -> None:
    curve = metric(EvidenceModel(), ones(), perfect(), 0, step=0.25, baselines=0)
    after_first = torch.tensor(1.0 if expected else -1.0).sigmoid()
    torch.testing.assert_close(
        curve.scores[0, [0, 1, 4]], torch.stack([torch.tensor(0.5), after_first, torch.tensor(0.5)])
    )


# --- A naive loop -----------------------------------------------------------------------------------------------------


def naive_curve(
    model: nn.Module, x: Tensor, maps: Tensor, target: int, counts: list[int], blank: Tensor, inserts: bool
) -> Tensor:
    """Computes the curves one example, one step and one pixel at a time, in float64."""
    curves = []
    for n in range(len(x)):
        order = sorted(range(maps[n].numel()), key=lambda pixel: (-float(maps[n].flatten()[pixel]), pixel))
        scores = []
        for count in counts:
            image = (blank if inserts else x)[n].clone()
            for pixel in order[:count]:
                place = divmod(pixel, x.shape[3])
                image[:, place[0], place[1]] = (x if inserts else blank)[n][:, place[0], place[1]]
            scores.append(float(softmax(model(image[None])[0], 0)[target]))
        curves.append(scores)
    return torch.tensor(curves, dtype=torch.float64)


@pytest.mark.parametrize("inserts", [True, False], ids=["insertion", "deletion"])
def test_agrees_with_a_naive_loop(inserts: bool) -> None:
    x, maps, blank = noise(2, 3, 5, 7), noise(2, 1, 5, 7, seed=1).round(decimals=1), noise(2, 3, 5, 7, seed=2)
    counts = [0, 4, 7, 11, 14, 18, 21, 25, 28, 32, 35]  # a tenth of 35 pixels each, halves rounded up
    model = linear_model(105)
    curve = (insertion if inserts else deletion)(model, x, maps, 1, step=0.1, baselines=blank)
    expected = naive_curve(model, x, maps, 1, counts, blank, inserts)
    torch.testing.assert_close(curve.fractions, torch.tensor(counts, dtype=torch.float64) / 35)
    torch.testing.assert_close(curve.scores, expected)
    heights = (expected[:, 1:] + expected[:, :-1]) / 2
    torch.testing.assert_close(curve.auc, (heights * curve.fractions.diff()).sum(1))


# --- The order of the pixels ------------------------------------------------------------------------------------------


def inserted(maps: Tensor, step: float) -> list[list[int]]:
    """Returns the pixels that each step of an insertion into zeros adds."""
    model = EvidenceModel().eval()
    insertion(model, ones(), maps, 0, step=step, baselines=0)
    rows = torch.cat(model.seen)[:, 0].flatten(1)
    first = int((rows.sum(1) == 0).nonzero()[0])  # after forwards of the unmasked image
    steps = [difference.nonzero().flatten().tolist() for difference in rows[first:].diff(dim=0)]
    return [step for step in steps if step]  # a last chunk of one row is padded


def test_ties_go_to_the_earlier_pixels() -> None:
    assert inserted(torch.zeros(1, 1, 4, 6), 0.25) == [list(range(first, first + 6)) for first in range(0, 24, 6)]


def test_the_highest_pixels_come_first() -> None:
    maps = torch.arange(24.0).reshape(1, 1, 4, 6)
    maps[0, 0, 0, 0] = 100
    assert inserted(maps, 1 / 24) == [[0], *([pixel] for pixel in range(23, 0, -1))]


def test_a_smaller_map_is_resized() -> None:
    assert inserted(torch.tensor([[[[1.0, 0.0]]]]), 0.5)[0] == [0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]


@pytest.mark.parametrize(
    ("step", "counts"),
    [
        (1.0, [0, 24]),
        (0.5, [0, 12, 24]),
        (0.4, [0, 10, 19, 24]),
        (0.1, [0, 2, 5, 7, 10, 12, 14, 17, 19, 22, 24]),
        (0.01, list(range(25))),  # every step changes a pixel
        (1e-12, list(range(25))),
        (1 / 49, list(range(25))),
        (1 / 3, [0, 8, 16, 24]),
    ],
)
@pytest.mark.parametrize("metric", METRICS)
def test_steps(metric: Any, step: float, counts: list[int]) -> None:
    curve = metric(EvidenceModel(), ones(), perfect(), 0, step=step)
    assert (curve.fractions * 24).round().tolist() == counts
    assert curve.scores.shape == (1, len(counts))


def test_halves_of_a_pixel_are_rounded_up() -> None:
    x = torch.ones(1, 1, 45)
    assert 6 * 0.15 * 45 < 40.5  # 40.499…
    curve = deletion(lambda rows: rows.sum((1, 2)), x, x, step=0.15, score="output")
    assert (45 - curve.scores[0]).tolist() == [0, 7, 14, 20, 27, 34, 41, 45]


def test_one_percent_of_a_large_image_takes_a_hundred_steps() -> None:
    curve = deletion(lambda x: x.sum((1, 2, 3)), torch.ones(1, 1, 40, 50), torch.ones(1, 1, 40, 50), score="output")
    torch.testing.assert_close(curve.fractions, torch.arange(101) / 100)
    torch.testing.assert_close(curve.scores[0], 2000 - 20 * torch.arange(101.0))
    assert curve.auc.item() == pytest.approx(1000)


@pytest.mark.parametrize("metric", METRICS)
def test_the_pixels_of_two_inputs_are_ranked_together(metric: Any) -> None:
    x = (torch.ones(1, 1, 2), torch.ones(1, 1, 1, 2))
    maps = (torch.tensor([[[4.0, 1.0]]]), torch.tensor([[[[2.0, 3.0]]]]))
    curve = metric(
        lambda a, b: a.sum((1, 2)) + 10 * b.sum((1, 2, 3)), x, maps, step=0.25, baselines=(0, 0), score="output"
    )
    assert curve.scores.tolist() == [[0, 1, 11, 21, 22] if metric is insertion else [22, 21, 11, 1, 0]]


@pytest.mark.parametrize("size", [(9,), (2, 3, 4)])
def test_one_and_three_dimensions(size: tuple[int, ...]) -> None:
    x = torch.rand(2, 2, *size, generator=torch.Generator().manual_seed(0))
    maps = x.sum(1, keepdim=True)
    curve = insertion(lambda t: t.flatten(1).sum(1), x, maps, step=1 / maps[0].numel(), baselines=0, score="output")
    expected = maps.flatten(1).sort(1, descending=True).values.cumsum(1)
    torch.testing.assert_close(curve.scores[:, 1:], expected)


# --- Ends, baselines, batches -----------------------------------------------------------------------------------------


def test_the_ends_are_the_input_and_the_baseline() -> None:
    model, x, maps = linear_model(72), noise(2, 3, 4, 6), noise(2, 1, 4, 6, seed=1)
    of_input, of_zeros = softmax(model(x), 1)[:, 2], softmax(model(x * 0), 1)[:, 2]
    for metric, start, end in [(insertion, of_zeros, of_input), (deletion, of_input, of_zeros)]:
        scores = metric(model, x, maps, 2, baselines=0).scores
        torch.testing.assert_close(scores[:, [0, -1]], torch.stack([start, end], 1))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("given", ["number", "value", "tensor", "callable"])
def test_baselines(metric: Any, given: str) -> None:
    x = noise(2, 3, 4, 6)
    values = {
        "number": 0.5,
        "value": torch.tensor(0.5),
        "tensor": torch.full_like(x, 0.5),
        "callable": lambda t: torch.full_like(t, 0.5),
    }
    model = EvidenceModel()
    curve = metric(model, x, perfect(2), 0, step=0.5, baselines=values[given], score="output")
    blank = curve.scores[:, 0 if metric is insertion else -1]
    torch.testing.assert_close(blank, torch.full_like(blank, 0.5))


def test_insertion_starts_from_a_blur_and_deletion_ends_in_zeros() -> None:
    x = torch.zeros(1, 3, 4, 6)
    x[..., :3] = 1
    start = insertion(EvidenceModel(), x, perfect(), 1, step=1.0, score="output").scores[:, 0]
    torch.testing.assert_close(start, EvidenceModel()(gaussian_blur(x, 11, 5.0))[:, 1])
    assert start.item() != pytest.approx(EvidenceModel()(x)[0, 1].item(), abs=0.01)
    assert deletion(EvidenceModel(), x, perfect(), 1, step=1.0, score="output").scores[0, 1].item() == 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("perturbations_per_eval", [1, 7, None])
def test_a_batch_agrees_with_its_examples(metric: Any, perturbations_per_eval: int | None) -> None:
    model, x, maps, targets = linear_model(72), noise(3, 3, 4, 6), noise(3, 3, 4, 6, seed=1), torch.tensor([0, 2, 1])
    curve = metric(model, x, maps, targets, step=0.1, perturbations_per_eval=perturbations_per_eval)
    for n in range(3):
        alone = metric(model, x[n : n + 1], maps[n : n + 1], int(targets[n]), step=0.1)
        torch.testing.assert_close(curve.scores[n : n + 1], alone.scores)
        torch.testing.assert_close(curve.auc[n : n + 1], alone.auc)


@pytest.mark.parametrize("metric", METRICS)
def test_one_row_per_example_and_step(metric: Any) -> None:
    model = EvidenceModel()
    metric(model, ones(3), perfect(3), 0, step=0.25)
    assert sum(map(len, model.seen[1:])) == 15 + 1  # a last chunk of one row is filled


@pytest.mark.parametrize("metric", METRICS)
def test_attributions_must_be_finite(metric: Any) -> None:
    with pytest.raises(ValueError, match="NaN or Inf for 1 of 2 examples, the first for example 1"):
        metric(EvidenceModel(), ones(2), torch.cat([perfect(), perfect() / 0]), 0)
