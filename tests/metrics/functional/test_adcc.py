"""ADCC and its parts: known values, extremes and undefined cases."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_scorecam.metrics.functional import (
    adcc,
    average_drop,
    coherency,
    explanation_map,
    l1_complexity,
    masked_input_scores,
)


def maps(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        (maps(1, 2, 3, 4), 1.0),
        (maps(-10, 0, 10, 20), 1.0),
        (maps(4, 3, 2, 1), 0.0),
        (maps(1, 4, 3, 2), (1 + 0.2) / 2),  # r = (2.25 − 0.75 + 0.25 − 0.75) / 5
        (maps(2, 2, 2, 2), 0.0),
    ],
)
def test_coherency_is_pearsons_correlation_in_0_to_1(others: Tensor, expected: float) -> None:
    assert coherency(maps(1, 2, 3, 4), others).item() == pytest.approx(expected, abs=1e-6)
    assert coherency(others, maps(1, 2, 3, 4)).item() == pytest.approx(expected, abs=1e-6)


def test_coherency_of_maps_of_any_scale() -> None:
    first = torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(0))
    second = torch.rand(2, 1, 5, 6, generator=torch.Generator().manual_seed(1))
    expected = [
        (torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] + 1) / 2
        for a, b in zip(first, second, strict=True)
    ]
    for scale in (1e-30, 1.0, 1e30):
        found = coherency(scale * first, second, reduction="none")
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_complexity_of_adcc_is_the_mean_of_the_scaled_map() -> None:
    assert l1_complexity(maps(-1, 0, 1, 3)).item() == pytest.approx((0 + 0.25 + 0.5 + 1) / 4)
    assert l1_complexity(maps(0, 0, 0, 5)).item() == 0.25
    assert l1_complexity(maps(2, 2, 2, 2)).item() == 0


def test_adcc_is_the_harmonic_mean_of_its_terms() -> None:
    drops, coherencies = torch.tensor([50.0, 0, 100, 0]), torch.tensor([1.0, 1, 1, 0])
    complexities = torch.tensor([0.5, 0, 0, 0])
    # 3 / (1/0.5 + 1/1 + 1/0.5); everything; nothing, as the drop is complete, or the map not coherent.
    assert adcc(drops, coherencies, complexities, reduction="none").tolist() == pytest.approx([0.6, 1, 0, 0])
    assert adcc(drops, coherencies, complexities).item() == pytest.approx(1.6 / 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([101.0], [1.0], [0.5]), r"Expected `drops` in \[0, 100\], but got 101.0 to 101.0"),
        (([50.0], [-0.5], [0.5]), r"Expected `coherencies` in \[0, 1\], but got -0.5 to -0.5"),
        (([50.0], [0.5], [1.5]), r"Expected `complexities` in \[0, 1\], but got 1.5 to 1.5"),
        (([50.0], [float("nan")], [0.5]), "Expected `coherencies` to be finite"),
        (([50.0, 1.0], [0.5], [0.5]), r"same shape .* but got shapes \(2,\), \(1,\), \(1,\)"),
        (([], [], []), r"at least one example, but got shapes \(0,\)"),
    ],
)
def test_values_out_of_range_are_refused(values: tuple[list[float], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adcc(*(torch.tensor(each) for each in values))


def test_maps_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected maps before and after masking .* but got \(1, 2\) and \(1, 3\)"):
        coherency(maps(1, 2), maps(1, 2, 3))


def test_the_explanation_map_is_what_average_drop_scores() -> None:
    x = torch.rand(2, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    attributions = torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(1))

    def model(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :5] * 4

    scores = masked_input_scores(model, x, attributions, [1, 2], keep_fraction=None, baselines=0.5)
    masked = explanation_map(x, attributions, baselines=0.5)
    torch.testing.assert_close(model(masked).softmax(1)[[0, 1], [1, 2]], scores.masked)
    assert average_drop(*scores) > 0


def test_the_explanation_map_of_several_inputs_is_a_tuple_and_of_a_constant_map_the_baseline() -> None:
    x = (torch.ones(1, 1, 2, 2), torch.ones(1, 2, 3))
    first, second = explanation_map(x, (maps(0, 1, 2, 4).reshape(1, 1, 2, 2), maps(0, 2, 4)))
    assert first.flatten().tolist() == [0, 0.25, 0.5, 1]
    assert second[0].tolist() == [[0, 0.5, 1]] * 2
    constant = explanation_map(x[0], torch.ones(1, 1, 2, 2), baselines=-3)
    assert constant.flatten().tolist() == [-3] * 4


@pytest.mark.parametrize("shape", [(2, 3), ()])
def test_values_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="of the same shape N with at least one example, but got shapes"):
        adcc(torch.full(shape, 50.0), torch.ones(shape), torch.full(shape, 0.5))


def test_a_map_that_is_constant_up_to_rounding_has_no_complexity() -> None:
    assert l1_complexity(torch.tensor([[[[1.0, 1.0000001], [1.0, 1.0]]]])) == 0
