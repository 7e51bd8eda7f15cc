"""ROAD: imputation against a dense solve, known values, ties, chunks and seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.metrics.functional import RoadCurves, road
from captum_scorecam.metrics.functional.linear_imputation import impute_linearly
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.evidence_model import EvidenceModel, perfect, worst


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 2, channels: int = 3) -> Tensor:
    return torch.rand(n, channels, 8, 10, generator=seeded())


def maps(n: int = 2) -> Tensor:
    return torch.rand(n, 1, 8, 10, generator=seeded(1))


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 48, 5)).eval()


# --- Imputation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_each_removed_pixel_is_the_mean_of_its_neighbours(share: float) -> None:
    image, removed = images(1)[0], torch.rand(8, 10, generator=seeded(2)) < share
    found = impute_linearly(image, removed).double()
    weights = {(r, c): (1 / 6 if 0 in (r, c) else 1 / 12) for r in (-1, 0, 1) for c in (-1, 0, 1) if (r, c) != (0, 0)}
    for row, column in removed.nonzero().tolist():
        beside = {(row + r, column + c): weight for (r, c), weight in weights.items()}
        inside = {place: weight for place, weight in beside.items() if 0 <= place[0] < 8 and 0 <= place[1] < 10}
        mean = sum(weight * found[:, r, c] for (r, c), weight in inside.items()) / sum(inside.values())
        torch.testing.assert_close(found[:, row, column], mean, atol=1e-6, rtol=0)
    assert torch.equal(found[:, ~removed], image.double()[:, ~removed])


def test_a_lone_pixel_by_hand_and_nothing_to_impute() -> None:
    image = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 100.0, 6.0], [7.0, 8.0, 9.0]]])
    middle = torch.zeros(3, 3, dtype=torch.bool)
    assert torch.equal(impute_linearly(image, middle), image)
    middle[1, 1] = True
    assert impute_linearly(image, middle)[0, 1, 1].item() == pytest.approx((2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 9) / 12)


def test_the_image_and_its_dtype_are_kept() -> None:
    image = images(1)[0].half()
    before, removed = image.clone(), torch.rand(8, 10, generator=seeded(2)) < 0.5
    assert impute_linearly(image, removed).dtype == torch.float16
    assert torch.equal(image, before)


# --- The metric -------------------------------------------------------------------------------------------------------


def flat_images(n: int = 2) -> Tensor:
    """The patch of the evidence model is 1 and the rest 0, so that imputation erases a removed patch in part."""
    return perfect(n).repeat(1, 3, 1, 1)


def test_perfect_and_worst_explanation() -> None:
    options: dict[str, Any] = {"fractions": [0.25, 0.5, 0.75], "noise": 0, "score": "output"}
    best = road(EvidenceModel(), flat_images(), perfect(2), 0, **options)
    least = road(EvidenceModel(), flat_images(), worst(2), 0, **options)
    assert isinstance(best, RoadCurves)
    assert best.fractions.tolist() == [0.25, 0.5, 0.75]
    # Without its patch, the image is 0 all over; without the rest, the patch is all there.
    assert best.morf[0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert best.lerf[0, :2].tolist() == pytest.approx([1, 1])
    assert best.road[0] > 0.4
    assert least.road[0] < -0.4
    torch.testing.assert_close(best.road, (best.lerf - best.morf).mean(1) / 2)


def test_scores_are_those_of_imputed_images() -> None:
    net, x, attributions = model(), images(), maps()
    found = road(net, x, attributions, [1, 2], fractions=[0.2, 0.7], noise=0)
    order = attributions.flatten(1).argsort(1, descending=True)
    for example, target in enumerate([1, 2]):
        for step, count in enumerate([16, 56]):
            for curve, ranked in [(found.morf, order[example]), (found.lerf, order[example].flip(0))]:
                removed = torch.zeros(80, dtype=torch.bool)
                removed[ranked[:count]] = True
                imputed = impute_linearly(x[example], removed.reshape(8, 10)).unsqueeze(0)
                torch.testing.assert_close(curve[example, step], net(imputed).softmax(1)[0, target].detach())


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_chunks_change_nothing_and_a_seed_gives_the_same_noise(rows: int) -> None:
    net, x, attributions = model(), images(), maps()
    whole = road(net, x, attributions, 1, noise=0.5, generator=seeded(), fractions=[0.3, 0.6])
    chunked = road(
        net, x, attributions, 1, noise=0.5, generator=seeded(), fractions=[0.3, 0.6], perturbations_per_eval=rows
    )
    torch.testing.assert_close(chunked.morf, whole.morf)
    torch.testing.assert_close(chunked.lerf, whole.lerf)
    other = road(net, x, attributions, 1, noise=0.5, generator=seeded(5), fractions=[0.3, 0.6])
    assert not torch.allclose(other.morf, whole.morf)


def test_noise_is_added_where_pixels_are_removed() -> None:
    seen: list[Tensor] = []

    def recorded(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return x.flatten(1)[:, :2]

    x = torch.zeros(1, 3, 40, 50)
    attributions = torch.rand(1, 1, 40, 50, generator=seeded(1))
    road(recorded, x, attributions, 0, noise=0.1, fractions=[0.5], score="output", generator=seeded())
    images_seen = torch.cat(seen)
    noisy = images_seen[images_seen.flatten(1).any(1)]
    assert len(noisy) >= 2
    for image in noisy[:2]:
        changed = image != 0
        assert changed.any(0).sum() == 1000
        assert image[changed].std().item() == pytest.approx(0.1, rel=0.1)


def test_ties_are_in_one_random_order_so_that_a_constant_map_is_worth_nothing() -> None:
    constant = road(model(), images(), torch.ones(2, 1, 8, 10), 0, noise=0, generator=seeded(), fractions=[0.3, 0.6])
    torch.testing.assert_close(constant.morf, constant.lerf)
    again = road(model(), images(), torch.ones(2, 1, 8, 10), 0, noise=0, generator=seeded(), fractions=[0.3, 0.6])
    other = road(model(), images(), torch.ones(2, 1, 8, 10), 0, noise=0, generator=seeded(1), fractions=[0.3, 0.6])
    torch.testing.assert_close(constant.morf, again.morf)
    assert not torch.allclose(constant.morf, other.morf)


@other_default_dtypes
def test_the_order_of_ties_does_not_depend_on_the_default_dtype(dtype: torch.dtype) -> None:
    net, x, tied = model(), images(), torch.ones(2, 1, 8, 10)
    expected = road(net, x, tied, 0, generator=seeded(), fractions=[0.3, 0.6], perturbations_per_eval=4)
    with default_dtype(dtype):
        found = road(net, x, tied, 0, generator=seeded(), fractions=[0.3, 0.6], perturbations_per_eval=4)
    assert torch.equal(found.morf, expected.morf)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fractions": [0.5, 0.2]}, ValueError, r"Expected `fractions` to ascend, but got \[0.5, 0.2\]"),
        ({"fractions": [0.5, 1.0]}, ValueError, r"Expected `fractions` in \(0, 1\), but got 1.0"),
        ({"fractions": []}, TypeError, r"Expected `fractions` to be a sequence of numbers, but got \[\]"),
        ({"fractions": [0.5, 0.501]}, ValueError, "Expected `fractions` that differ by a pixel of 80"),
        ({"noise": -1.0}, ValueError, "Expected `noise` to be at least 0"),
        ({"generator": 3}, TypeError, "Expected `generator` to be"),
        ({"inputs": torch.ones(2, 3, 8)}, ValueError, r"Expected `inputs` to be images N×C×H×W, but got a tensor of"),
        ({"inputs": (images(),)}, TypeError, "Expected `inputs` to be images N×C×H×W, but got tuple"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"inputs": images(), "attributions": maps(), "target": 0} | options
    with pytest.raises(error, match=message):
        road(model(), **arguments)


def test_imputation_leaves_numpys_random_state_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    road(model(), images(), maps(), 0, fractions=[0.5])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before
