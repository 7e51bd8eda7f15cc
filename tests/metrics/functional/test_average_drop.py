"""Average drop, increase and gain, and the masked inputs that they score."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_scorecam.metrics import AverageDrop, AverageIncrease
from captum_scorecam.metrics.functional import (
    MaskedInputScores,
    average_drop,
    average_gain,
    average_increase,
    masked_input_scores,
)
from tests.support.evidence_model import EvidenceModel, ones, perfect, worst


def scores(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def recorded_mask(attributions: Tensor, **options: Any) -> Tensor:
    """Returns the masks N×H×W, as applied to images of ones with a baseline of 0."""
    model = EvidenceModel()
    masked_input_scores(model, ones(len(attributions)), attributions, 0, **options)
    rows = torch.cat(model.seen[1:])[: 2 * len(attributions)]  # a last chunk of one row is padded
    assert torch.equal(rows[0::2], ones(len(attributions)))
    assert torch.equal(rows[1::2, 0], rows[1::2, 2])
    return rows[1::2, 0]


def ramp(n: int = 1) -> Tensor:
    return torch.arange(24.0 * n).reshape(n, 1, 4, 6)


# --- From scores ------------------------------------------------------------------------------------------------------

# The drops are 75 %, 0 and 50 %, the gains 0, 0.1 / 0.5 and 0; only the second increases.
BEFORE, AFTER = scores([0.8, 0.5, 0.2]), scores([0.2, 0.6, 0.1])


def test_average_drop_by_hand() -> None:
    assert average_drop(BEFORE, AFTER).item() == pytest.approx((75 + 0 + 50) / 3)


def test_absolute_drop_by_hand() -> None:
    assert average_drop(BEFORE, AFTER, relative=False).item() == pytest.approx(100 * (0.6 + 0 + 0.1) / 3)


def test_average_increase_by_hand() -> None:
    assert average_increase(BEFORE, AFTER).item() == pytest.approx(100 / 3)


def test_average_gain_by_hand() -> None:
    assert average_gain(BEFORE, AFTER).item() == pytest.approx((0 + 20 + 0) / 3)


@pytest.mark.parametrize(
    ("metric", "expected"), [(average_drop, [75, 0, 50]), (average_increase, [0, 100, 0]), (average_gain, [0, 20, 0])]
)
def test_one_value_per_example(metric: Any, expected: list[float]) -> None:
    values = metric(BEFORE, AFTER, reduction="none")
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_any_floating_point_dtype(dtype: torch.dtype) -> None:
    assert average_drop(torch.tensor([0.5], dtype=dtype), torch.tensor([0.125], dtype=dtype)).item() == 75


def test_equal_scores_do_not_increase() -> None:
    assert average_increase(scores([0.5, 0.5]), scores([0.5, 0.6])).item() == 50


@pytest.mark.parametrize(("after", "drop"), [(0.0, 0.0), (0.3, 0.0)])
def test_nothing_drops_from_a_score_of_zero(after: float, drop: float) -> None:
    assert average_drop(scores([0.0]), scores([after])).item() == drop


def test_nothing_is_gained_on_a_score_of_one() -> None:
    assert average_gain(scores([1.0, 1.0]), scores([1.0, 0.2])).item() == 0


def test_a_drop_below_zero_exceeds_100_percent() -> None:
    assert average_drop(scores([2.0]), scores([-1.0])).item() == 150


@pytest.mark.parametrize(("before", "after"), [(-1.0, -2.0), (-1.0, 1.0), (0.0, -1.0)])
def test_a_relative_drop_of_negative_scores_is_an_error(before: float, after: float) -> None:
    with pytest.raises(
        ValueError, match=f"non-negative scores for a relative drop, but got {before} before and {after}"
    ):
        average_drop(scores([1.0, before]), scores([0.5, after]))
    assert average_drop(scores([before]), scores([after]), relative=False).item() == 100 * max(0, before - after)


@pytest.mark.parametrize(("before", "after"), [(1.5, 0.5), (0.5, 1.5), (-0.5, 0.5), (0.5, -0.5)])
def test_a_gain_needs_probabilities(before: float, after: float) -> None:
    with pytest.raises(ValueError, match=r"Expected probabilities in \[0, 1\]"):
        average_gain(scores([before]), scores([after]))


@pytest.mark.parametrize("metric", [average_drop, average_increase, average_gain])
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            [0.5, float("nan")],
            [0.5, 0.5],
            "Expected `original_scores` to be finite, .* for 1 of 2 examples, the first for example 1",
        ),
        (
            [0.5, 0.5],
            [0.5, float("inf")],
            "Expected `masked_scores` to be finite, .* for 1 of 2 examples, the first for example 1",
        ),
        ([0.5, 0.5], [0.5], r"but got shapes \(2,\) and \(1,\)"),
        ([], [], r"with at least one example, but got shapes \(0,\) and \(0,\)"),
    ],
)
def test_malformed_scores(metric: Any, before: list[float], after: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(scores(before), scores(after))


@pytest.mark.parametrize("metric", [average_drop, average_increase, average_gain])
def test_unknown_reduction(metric: Any) -> None:
    with pytest.raises(ValueError, match="Expected `reduction` to be 'mean' or 'none', but got 'sum'"):
        metric(BEFORE, AFTER, reduction="sum")


# --- Perfect and worst explanations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", ["soft", "binary"])
@pytest.mark.parametrize("keep_fraction", [0.25, 0.5])
def test_perfect_and_worst_explanation(mask: str, keep_fraction: float) -> None:
    options: dict[str, Any] = {"keep_fraction": keep_fraction, "mask": mask, "score": "output"}
    kept = masked_input_scores(EvidenceModel(), ones(2), perfect(2), 0, **options)
    lost = masked_input_scores(EvidenceModel(), ones(2), worst(2), 0, **options)
    assert isinstance(kept, MaskedInputScores)
    assert kept.original.tolist() == kept.masked.tolist() == lost.original.tolist() == [1, 1]
    assert lost.masked.tolist() == [0, 0]
    assert average_drop(*kept).item() == 0
    assert average_drop(*lost).item() == 100


def test_perfect_and_worst_explanation_in_probability() -> None:
    # Both classes score 1: class 0 has sigmoid(1) without the other's evidence, and sigmoid(-1) without its own.
    kept = masked_input_scores(EvidenceModel(), ones(), perfect(), 0, keep_fraction=None)
    lost = masked_input_scores(EvidenceModel(), ones(), worst(), 0, keep_fraction=None)
    sigmoid = torch.tensor(1.0).sigmoid().item()
    assert (average_increase(*kept).item(), average_increase(*lost).item()) == (100, 0)
    assert average_drop(*lost).item() == pytest.approx(100 * (0.5 - (1 - sigmoid)) / 0.5)
    assert average_gain(*kept).item() == pytest.approx(100 * (sigmoid - 0.5) / 0.5)
    assert average_gain(*lost).item() == 0


# --- Masks ------------------------------------------------------------------------------------------------------------


def test_the_soft_mask_is_the_scaled_map() -> None:
    torch.testing.assert_close(recorded_mask(ramp() - 7, keep_fraction=None), ramp()[:, 0] / 23)


def test_the_soft_mask_keeps_the_highest_half() -> None:
    expected = (ramp() / 23 * (ramp() >= 12))[:, 0]
    torch.testing.assert_close(recorded_mask(ramp()), expected)


def test_the_binary_mask_keeps_the_highest_quarter() -> None:
    assert torch.equal(recorded_mask(ramp(), mask="binary", keep_fraction=0.25), (ramp() >= 18).float()[:, 0])


def test_every_example_has_its_own_mask() -> None:
    maps = torch.cat([ramp(), -ramp()])
    expected = torch.cat([ramp() >= 12, ramp() < 12]).float()[:, 0]
    assert torch.equal(recorded_mask(maps, mask="binary"), expected)


@pytest.mark.parametrize(
    ("keep_fraction", "kept"), [(0.5, 12), (0.49, 11), (0.29, 6), (1 / 24, 1), (0.01, 1), (1.0, 24), (7 / 24, 7)]
)
def test_how_many_pixels_are_kept(keep_fraction: float, kept: int) -> None:
    assert recorded_mask(ramp(), mask="binary", keep_fraction=keep_fraction).sum() == kept


@pytest.mark.parametrize(("keep_fraction", "pixels", "kept"), [(0.29, 100, 29), (0.58, 50, 29), (0.7, 90, 63)])
def test_products_just_below_a_whole_number_round_up(keep_fraction: float, pixels: int, kept: int) -> None:
    assert int(keep_fraction * pixels) == kept - 1
    _, after = masked_input_scores(
        lambda x: x.sum((1, 2)), torch.ones(1, 1, pixels), torch.arange(1.0 * pixels).view(1, 1, -1),
        keep_fraction=keep_fraction, mask="binary", score="output",
    )  # fmt: skip
    assert after.item() == kept


def test_ties_go_to_the_earlier_pixels() -> None:
    maps = torch.zeros(1, 1, 4, 6)
    maps[..., 3, 5] = 1
    expected = torch.zeros(24)
    expected[[23, *range(11)]] = 1
    assert recorded_mask(maps, mask="binary").flatten().tolist() == expected.tolist()


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
@pytest.mark.parametrize(
    "options", [{}, {"keep_fraction": None}, {"mask": "binary"}, {"mask": "binary", "keep_fraction": 1.0}]
)
def test_a_constant_map_keeps_nothing(value: float, options: dict[str, Any]) -> None:
    assert recorded_mask(torch.full((1, 1, 4, 6), value), **options).count_nonzero() == 0


def test_channels_are_summed() -> None:
    parts = torch.stack([ramp()[0, 0], 2 * ramp()[0, 0].flip(0), -ramp()[0, 0]])[None]
    torch.testing.assert_close(recorded_mask(parts), recorded_mask(parts.sum(1, keepdim=True)))


def test_a_smaller_map_is_resized_linearly() -> None:
    small = torch.tensor([[[[0.0, 1.0, 0.0], [0.0, 3.0, 2.0]]]])
    resized = F.interpolate(small, (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(recorded_mask(small), recorded_mask(resized))


@pytest.mark.parametrize("size", [(9,), (3, 4), (2, 3, 4)])
def test_any_number_of_dimensions(size: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, maps = (torch.rand(2, c, *size, generator=generator, dtype=torch.float64) for c in (3, 1))
    before, after = masked_input_scores(lambda t: t.flatten(1).sum(1), x, maps, keep_fraction=None, score="output")
    low, high = maps.flatten(1).amin(1), maps.flatten(1).amax(1)
    expected = [float((x[n] * (maps[n] - low[n]) / (high[n] - low[n])).sum()) for n in range(2)]
    torch.testing.assert_close(before, x.flatten(1).sum(1))
    torch.testing.assert_close(after, torch.tensor(expected, dtype=torch.float64))


def test_the_pixels_of_two_inputs_are_ranked_together() -> None:
    x = (torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3))
    maps = (torch.tensor([[[[1.0, 7.0], [2.0, 3.0]]]]), torch.tensor([[[6.0, 5.0, 4.0]]]))
    _, after = masked_input_scores(
        lambda a, b: torch.stack([a.sum((1, 2, 3)), b.sum((1, 2))], 1), x, maps, 1,
        mask="binary", keep_fraction=3 / 7, score="output",
    )  # fmt: skip
    assert after.tolist() == [2]  # 7 is in the first input, 6 and 5 in the second


# --- Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baselines", "blank"),
    [
        (None, 0.0),
        (2.0, 2.0),
        (torch.tensor(2), 2.0),
        (torch.full((1, 3, 4, 6), 3.0), 3.0),
        (lambda x: 4 * x, 4.0),
        ("blur", 1.0),
    ],
    ids=["none", "number", "value", "tensor", "callable", "blur"],
)
def test_baselines(baselines: Any, blank: float) -> None:
    _, after = masked_input_scores(EvidenceModel(), ones(2), worst(2), 0, baselines=baselines, score="output")
    torch.testing.assert_close(after, torch.full((2,), blank))


def test_a_target_per_example() -> None:
    x = ones(2) * torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    before, after = masked_input_scores(EvidenceModel(), x, perfect(2), [0, 1], keep_fraction=None, score="output")
    assert before.tolist() == [1, 3]
    assert after.tolist() == [1, 0]


def test_additional_arguments_follow_their_example() -> None:
    before, after = masked_input_scores(
        lambda x, factor: factor * EvidenceModel()(x)[:, 0], ones(3), perfect(3), None,
        additional_forward_args=torch.tensor([1.0, 2.0, 3.0]), score="output",
    )  # fmt: skip
    assert before.tolist() == after.tolist() == [1, 2, 3]


@pytest.mark.parametrize("perturbations_per_eval", [1, 2, 5, None])
def test_any_chunk_size_returns_the_same_scores(perturbations_per_eval: int | None) -> None:
    model = EvidenceModel()
    x = torch.rand(3, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    result = masked_input_scores(model, x, ramp(3), 0, perturbations_per_eval=perturbations_per_eval)
    alone = [masked_input_scores(EvidenceModel(), x[n : n + 1], ramp(3)[n : n + 1], 0) for n in range(3)]
    torch.testing.assert_close(result.original, torch.cat([r.original for r in alone]))
    torch.testing.assert_close(result.masked, torch.cat([r.masked for r in alone]))
    assert max(map(len, model.seen)) <= 3 * (perturbations_per_eval or 2)


MISFIT = r"Expected attributions .* not larger than the input \(1, 3, 4, 6\), but got shape"


@pytest.mark.parametrize(
    ("attributions", "message"),
    [
        (torch.ones(2, 1, 4, 6), MISFIT),
        (torch.ones(1, 2, 4, 6), MISFIT),
        (torch.ones(1, 4, 6, 3), MISFIT),
        (torch.ones(1, 1, 5, 6), MISFIT),
        (torch.ones(1, 4, 6), MISFIT),
        (
            torch.tensor([[[[0.0, float("nan")]]]]),
            "Expected `attributions` to be finite, but got NaN or Inf for 1 of 1 examples, the first for example 0",
        ),
        ((torch.ones(1, 1, 4, 6),) * 2, "Expected an attribution for each of 1 inputs, but got 2"),
    ],
)
def test_attributions_that_do_not_fit(attributions: Any, message: str) -> None:
    model = EvidenceModel()
    with pytest.raises(ValueError, match=message):
        masked_input_scores(model, ones(), attributions, 0)
    assert model.seen == []


def test_scores_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="Expected finite scores"):
        masked_input_scores(lambda x: x.flatten(1).sum(1).log(), ones(), worst() * 0, score="output")


def test_a_compiled_model_returns_the_same_scores() -> None:
    x = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).requires_grad_(False)
    eager = masked_input_scores(model, x, ramp(2), 0)
    compiled = masked_input_scores(torch.compile(model, backend="eager"), x, ramp(2), 0)
    torch.testing.assert_close(compiled.masked, eager.masked)
    torch.testing.assert_close(compiled.original, eager.original)


@pytest.mark.parametrize(("metric", "of_class"), [(average_drop, AverageDrop), (average_increase, AverageIncrease)])
@pytest.mark.parametrize("shape", [(4, 1), (2, 2), (1, 4)])
def test_scores_of_any_shape_are_one_per_example(metric: Any, of_class: Any, shape: tuple[int, ...]) -> None:
    before, after = torch.tensor([0.8, 0.5, 0.5, 0.25]), torch.tensor([0.2, 0.6, 0.25, 0.25])
    expected, collected = metric(before, after), of_class()
    assert torch.equal(metric(before.view(shape), after.view(shape)), expected)
    collected.update(before.view(shape), after.view(shape))
    collected.update(before[0], after[0])
    torch.testing.assert_close(collected.compute(), (4 * expected + metric(before[:1], after[:1])) / 5)


def test_a_rounding_error_below_zero_or_above_one_is_none() -> None:
    tiny = 1e-7
    before, after = (
        torch.tensor([-tiny, 0.5, 1e-9], dtype=torch.double),
        torch.tensor([0.1, -tiny, 0], dtype=torch.double),
    )
    assert average_drop(before, after, reduction="none").tolist() == [0, 100, 100]
    before, after = torch.tensor([1 + tiny, 0.5], dtype=torch.double), torch.tensor([0.5, 1 + tiny], dtype=torch.double)
    assert average_gain(before, after, reduction="none").tolist() == [0, 100]
    with pytest.raises(ValueError, match="Expected non-negative scores"):
        average_drop(torch.tensor([-1e-3]), torch.tensor([0.1]))
