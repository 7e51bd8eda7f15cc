"""All metric classes: batches, copies, saved states and processes give the result of the function."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from captum_scorecam.metrics import (
    ADCC,
    ROAD,
    SRG,
    AverageDrop,
    AverageGain,
    AverageIncrease,
    Coherency,
    Complexity,
    DeletionAUC,
    EnergyPointingGame,
    InsertionAUC,
    IoU,
    L1Complexity,
    LeRFAUC,
    MaxBoxAcc,
    MoRFAUC,
    PointingGame,
    RandomLogit,
    RelevanceMass,
    RelevanceRank,
    Sparseness,
)
from captum_scorecam.metrics import functional as F
from tests.support.two_ranks import results_of_ranks

N = 7


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


SCORES = (noise(2, N)[0], noise(2, N)[1])
FRACTIONS = torch.tensor([0, 0.2, 0.5, 1])
CURVES = (FRACTIONS, noise(N, 4))
MAPS = noise(N, 2, 12, 15) - 0.3
BOXES = [torch.tensor([[n, 1, n + 3, 5], [0, 7 - n, 2, 9]]) for n in range(N)]
LARGE_BOXES = [torch.tensor([[n, 0, 15, 12 - n]]) for n in range(N)]
AUC = ((CURVES[1][:, 1:] + CURVES[1][:, :-1]) / 2 * FRACTIONS.diff()).sum(1).mean()


OTHER_CURVES, OTHER_MAPS = noise(2 * N, 4)[N:], noise(2 * N, 2, 12, 15)[N:]
PARTS = tuple(noise(3, N))  # shares, as ADCC takes


def examples(data: tuple[Any, ...], chosen: slice) -> tuple[Any, ...]:
    """Returns some of the examples of a metric's input."""
    return tuple(part if part is FRACTIONS else part[chosen] for part in data)


# A constructor, its metric's input, and what the function returns for all of that input.
METRICS: dict[str, tuple[Callable[[], Metric], tuple[Any, ...], Tensor]] = {
    "AverageDrop": (AverageDrop, SCORES, F.average_drop(*SCORES)),
    "AverageDrop, absolute": (lambda: AverageDrop(relative=False), SCORES, F.average_drop(*SCORES, relative=False)),
    "AverageIncrease": (AverageIncrease, SCORES, F.average_increase(*SCORES)),
    "AverageGain": (AverageGain, SCORES, F.average_gain(*SCORES)),
    "InsertionAUC": (InsertionAUC, CURVES, AUC),
    "DeletionAUC": (DeletionAUC, CURVES, AUC),
    "MoRFAUC": (MoRFAUC, CURVES, AUC),
    "LeRFAUC": (LeRFAUC, CURVES, AUC),
    "SRG": (
        SRG, (*CURVES, OTHER_CURVES), torch.trapezoid(OTHER_CURVES - CURVES[1], FRACTIONS, dim=1).mean()
    ),
    "ROAD": (ROAD, (CURVES[1], OTHER_CURVES), (OTHER_CURVES - CURVES[1]).mean() / 2),
    "Sparseness": (Sparseness, (MAPS,), F.sparseness(MAPS)),
    "Complexity": (Complexity, (MAPS,), F.complexity(MAPS)),
    "L1Complexity": (L1Complexity, (MAPS,), F.l1_complexity(MAPS)),
    "Coherency": (Coherency, (MAPS, OTHER_MAPS), F.coherency(MAPS, OTHER_MAPS)),
    "ADCC": (ADCC, PARTS, F.adcc(*PARTS)),
    "RandomLogit": (RandomLogit, (MAPS, OTHER_MAPS), F.random_logit(MAPS, OTHER_MAPS)),
    "RandomLogit, rank correlation": (
        lambda: RandomLogit("spearman"), (MAPS, OTHER_MAPS), F.random_logit(MAPS, OTHER_MAPS, similarity="spearman")
    ),
    "RelevanceMass": (RelevanceMass, (MAPS, BOXES), F.relevance_mass(MAPS, BOXES)),
    "RelevanceRank": (RelevanceRank, (MAPS, BOXES), F.relevance_rank(MAPS, BOXES)),
    "IoU": (IoU, (MAPS, BOXES), F.iou(MAPS, BOXES)),
    "IoU, threshold": (lambda: IoU(threshold=0.55), (MAPS, BOXES), F.iou(MAPS, BOXES, threshold=0.55)),
    "MaxBoxAcc": (MaxBoxAcc, (MAPS, LARGE_BOXES), F.max_box_acc(MAPS, LARGE_BOXES).max_box_acc),
    "MaxBoxAcc, all components": (
        lambda: MaxBoxAcc(0.8, "all"),
        (MAPS, LARGE_BOXES),
        F.max_box_acc(MAPS, LARGE_BOXES, iou_threshold=0.8, components="all").max_box_acc,
    ),
    "EnergyPointingGame": (EnergyPointingGame, (MAPS, BOXES), F.energy_pointing_game(MAPS, BOXES)),
    "PointingGame": (PointingGame, (MAPS, BOXES), F.pointing_game(MAPS, BOXES)),
    "PointingGame, tolerance": (
        lambda: PointingGame(tolerance=1.5), (MAPS, BOXES), F.pointing_game(MAPS, BOXES, tolerance=1.5)
    ),
}  # fmt: skip
all_metrics = pytest.mark.parametrize("name", METRICS)


def updated(name: str, *slices: slice) -> Metric:
    make, data, _ = METRICS[name]
    metric = make()
    for chosen in slices:
        metric.update(*examples(data, chosen))
    return metric


def test_the_values_are_not_trivial() -> None:
    values = {round(expected.item(), 6) for _, _, expected in METRICS.values()}
    assert len(values) == len(METRICS) - 4  # the same AUC four times, the energy twice


@all_metrics
def test_any_split_into_batches_agrees_with_the_function(name: str) -> None:
    for bounds in [(0, N), (0, 1, N), (0, 3, 5, N), tuple(range(N + 1))]:
        metric = updated(name, *(slice(a, b) for a, b in pairwise(bounds)))
        torch.testing.assert_close(metric.compute(), METRICS[name][2], rtol=1e-6, atol=0)


@all_metrics
def test_forward_returns_the_batch_value_and_accumulates(name: str) -> None:
    make, data, expected = METRICS[name]
    metric = make()
    of_batches = [metric(*examples(data, chosen)) for chosen in (slice(0, 3), slice(3, N))]
    for value, chosen in zip(of_batches, (slice(0, 3), slice(3, N)), strict=True):
        assert torch.equal(value, updated(name, chosen).compute())
    torch.testing.assert_close(metric.compute(), expected, rtol=1e-6, atol=0)


@all_metrics
def test_reset(name: str) -> None:
    metric = updated(name, slice(0, 3))
    metric.reset()
    metric.update(*examples(METRICS[name][1], slice(3, N)))
    assert torch.equal(metric.compute(), updated(name, slice(3, N)).compute())


@all_metrics
def test_a_copy_is_independent(name: str) -> None:
    metric = updated(name, slice(0, 3))
    for twin in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        twin.update(*examples(METRICS[name][1], slice(3, N)))
        torch.testing.assert_close(twin.compute(), METRICS[name][2], rtol=1e-6, atol=0)
    assert torch.equal(metric.compute(), updated(name, slice(0, 3)).compute())


@all_metrics
def test_a_saved_state_resumes(name: str, tmp_path: Path) -> None:
    make, data, expected = METRICS[name]
    metric = updated(name, slice(0, 3))
    assert metric.state_dict() == {}
    metric.persistent(True)
    torch.save(metric.state_dict(), tmp_path / "state")
    resumed = make()
    resumed.persistent(True)
    resumed.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    resumed.update(*examples(data, slice(3, N)))
    torch.testing.assert_close(resumed.compute(), expected, rtol=1e-6, atol=0)


@all_metrics
def test_half_of_a_module_leaves_states_alone(name: str) -> None:
    module = nn.Module()
    module.metric = updated(name, slice(0, N))
    module.half()  # torchmetrics keeps the dtype of states
    torch.testing.assert_close(module.metric.compute(), METRICS[name][2], rtol=1e-6, atol=0)


@all_metrics
def test_no_examples_is_an_error(name: str) -> None:
    with (
        pytest.warns(UserWarning, match="was called before the ``update`` method"),
        pytest.raises(ValueError, match="Expected at least one example, but got none"),
    ):
        METRICS[name][0]().compute()


@pytest.mark.parametrize(
    ("metric", "higher"),
    [(AverageDrop, False), (AverageIncrease, True), (AverageGain, True), (InsertionAUC, True), (DeletionAUC, False),
     (EnergyPointingGame, True), (PointingGame, True), (MoRFAUC, False), (LeRFAUC, True), (SRG, True), (ROAD, True),
     (Sparseness, True), (Complexity, False), (L1Complexity, False), (Coherency, True), (ADCC, True),
     (RandomLogit, False), (RelevanceMass, True), (RelevanceRank, True), (IoU, True),
     (MaxBoxAcc, True)],
)  # fmt: skip
def test_metadata(metric: type[Metric], higher: bool) -> None:
    assert (metric.higher_is_better, metric.is_differentiable, metric.full_state_update) == (higher, False, False)


# --- Two processes ----------------------------------------------------------------------------------------------------


def computed_by_rank(rank: int) -> dict[str, Tensor]:
    share = slice(0, 2) if rank == 0 else slice(2, N)  # of different length
    return {name: updated(name, share).compute() for name in METRICS}


def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    for found in results_of_ranks(computed_by_rank, tmp_path):
        for name, (_, _, expected) in METRICS.items():
            torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=0)
