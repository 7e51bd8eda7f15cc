"""The random-logit test: known values, extremes, and the draw of other classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam import ScoreCAM
from captum_scorecam.metrics.functional import other_classes, random_logit
from captum_scorecam.metrics.functional.map_similarity import cosine, rank_correlation, structural_similarity
from tests.support.small_net import Net, images

MAPS = torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(0))
OTHERS = torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("similarity", ["ssim", "spearman", "cosine"])
def test_equal_maps_are_the_worst_and_opposite_ones_the_best(similarity: Any) -> None:
    assert random_logit(MAPS, MAPS, similarity=similarity).item() == pytest.approx(1)
    centred = MAPS - MAPS.mean((2, 3), keepdim=True)
    opposite = random_logit(centred, -centred, similarity=similarity).item()
    assert opposite == pytest.approx(-1) if similarity != "ssim" else opposite < -0.5


def test_the_similarities_are_those_of_the_randomisation_test() -> None:
    flat = MAPS.flatten(1), OTHERS.flatten(1)
    for similarity, expected in [
        ("ssim", structural_similarity(MAPS, OTHERS)),
        ("spearman", rank_correlation(*flat)),
        ("cosine", cosine(*flat)),
    ]:
        kind: Any = similarity
        assert torch.equal(random_logit(MAPS, OTHERS, similarity=kind, reduction="none"), expected)


def test_maps_of_two_classes_come_from_one_set_of_forwards() -> None:
    net, x = Net().eval(), images()
    targets = torch.tensor([0, 1])
    others = other_classes(targets, 3, torch.Generator().manual_seed(0))
    cam = ScoreCAM(net, net.relu)
    both: Tensor = cam.attribute_targets(x, torch.stack([targets, others], 1))
    apart = random_logit(cam.attribute(x, targets), cam.attribute(x, others))
    torch.testing.assert_close(random_logit(both[:, :1], both[:, 1:]), apart)


def test_other_classes_are_never_the_same_and_all_are_drawn() -> None:
    targets = torch.arange(4).repeat(200)
    found = other_classes(targets, 4, torch.Generator().manual_seed(0))
    assert not (found == targets).any()
    assert torch.bincount(found * 4 + targets, minlength=16).reshape(4, 4).fill_diagonal_(60).gt(40).all()
    assert torch.equal(found, other_classes(targets, 4, torch.Generator().manual_seed(0)))


def test_the_global_random_state_is_left_unchanged() -> None:
    before = torch.get_rng_state()
    other_classes(torch.zeros(5, dtype=torch.long), 10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("targets", "n_classes", "error", "message"),
    [
        (torch.tensor([0]), 1, ValueError, "Expected `n_classes` to be at least 2, but got 1"),
        (torch.tensor([3]), 3, ValueError, r"Expected `targets` in \[0, 3\), but got \[3\]"),
        (torch.tensor([-1]), 3, ValueError, r"Expected `targets` in \[0, 3\), but got \[-1\]"),
        (torch.tensor([0.0]), 3, TypeError, "tensor of integers of shape N, but got torch.float32 of shape"),
        ([0], 3, TypeError, "tensor of integers of shape N, but got list"),
    ],
)
def test_other_classes_need_classes(targets: Any, n_classes: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        other_classes(targets, n_classes)


def test_bad_arguments() -> None:
    unknown: Any = "mse"
    with pytest.raises(ValueError, match="Expected `similarity` to be 'ssim', 'spearman' or 'cosine', but got 'mse'"):
        random_logit(MAPS, OTHERS, similarity=unknown)
    with pytest.raises(ValueError, match=r"Expected maps of both classes .* but got \(3, 9, 8\) and \(2, 9, 8\)"):
        random_logit(MAPS, OTHERS[:2])
