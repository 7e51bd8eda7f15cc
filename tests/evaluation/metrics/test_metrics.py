"""The metrics by name: each returns what its function returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.evaluation import (
    METRICS,
    Curve,
    ExplanationRequest,
    Method,
    MethodOptions,
    MetricInput,
    MetricResult,
    register_method,
    run_method,
)
from captum_scorecam.metrics import functional
from captum_scorecam.models import find_layer
from tests.support import tiny_classifier

OPTIONS = MethodOptions(n_masks=30, seed=2, mask_iterations=4, perturbations_per_eval=8)
TARGET = 1
REGION = torch.zeros(21, 21, dtype=torch.bool)
REGION[5:14, 3:12] = True


@pytest.fixture
def score_cam() -> MetricInput:
    """Score-CAM's map of a picture, and the region of the object in it."""
    model = tiny_classifier.TinyClassifier().eval()
    inputs = tiny_classifier.preprocess(tiny_classifier.picture(1)[0]).unsqueeze(0)
    request = ExplanationRequest(model, find_layer(model, inputs), inputs, [TARGET], options=OPTIONS)
    return MetricInput("score_cam", request, run_method("score_cam", request)[0].unsqueeze(1), REGION)


def scores(given: MetricInput, keep_fraction: float | None) -> functional.MaskedInputScores:
    model, inputs = given.request.model, given.request.inputs
    return functional.masked_input_scores(model, inputs, given.maps, TARGET, keep_fraction=keep_fraction)


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(OPTIONS.seed)


def insertion(given: MetricInput) -> functional.PerturbationCurve:
    return functional.insertion(given.request.model, given.request.inputs, given.maps, TARGET)


def deletion(given: MetricInput) -> functional.PerturbationCurve:
    return functional.deletion(given.request.model, given.request.inputs, given.maps, TARGET)


def infidelity(given: MetricInput) -> Tensor:
    method = InputSpaceAttribution(ScoreCAM(given.request.model, given.request.layer.module))
    return functional.infidelity(method, given.request.inputs, TARGET, generator=noise(), max_examples_per_batch=8)


def sensitivity(given: MetricInput) -> Tensor:
    method = ScoreCAM(given.request.model, given.request.layer.module)
    return functional.sensitivity_max(method, given.request.inputs, TARGET, generator=noise(), max_examples_per_batch=1)


def similarities(given: MetricInput) -> Tensor:
    model, inputs = given.request.model, given.request.inputs
    method = InputSpaceAttribution(ScoreCAM(model, given.request.layer.module))

    def explain(x: Any) -> Tensor:
        maps: Tensor = method.attribute(x, TARGET)[:, :1]
        return maps

    records = functional.cascading_parameter_randomization(
        model, explain, inputs, generator=noise(), layers=["features", "score"]
    )
    return torch.cat([record.spearman for record in records])


DIRECT: dict[str, Callable[[MetricInput], Tensor]] = {
    "average_drop": lambda given: functional.average_drop(*scores(given, None)),
    "average_increase": lambda given: functional.average_increase(*scores(given, None)),
    "average_gain": lambda given: functional.average_gain(*scores(given, None)),
    "average_drop_half": lambda given: functional.average_drop(*scores(given, 0.5)),
    "average_increase_half": lambda given: functional.average_increase(*scores(given, 0.5)),
    "insertion": lambda given: insertion(given).auc,
    "deletion": lambda given: deletion(given).auc,
    "pointing_game": lambda given: functional.pointing_game(given.maps, REGION[None]),
    "energy_pointing_game": lambda given: functional.energy_pointing_game(given.maps, REGION[None]),
    "mosaic_pointing_game": lambda given: functional.energy_pointing_game(given.maps, REGION[None]),
    "infidelity": infidelity,
    "sensitivity_max": sensitivity,
    "sanity_check": lambda given: similarities(given).mean(),
}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_returns_what_its_function_returns(name: str, score_cam: MetricInput) -> None:
    value = METRICS[name].compute(score_cam).value
    assert value == pytest.approx(float(DIRECT[name](score_cam)), rel=1e-4, abs=1e-6)
    assert value is not None
    assert math.isfinite(value)


def test_curves_are_those_of_the_functions(score_cam: MetricInput) -> None:
    expected, found = insertion(score_cam), METRICS["insertion"].compute(score_cam).curve
    assert found is not None
    assert list(found.x) == pytest.approx(expected.fractions.tolist(), rel=1e-5)
    assert list(found.y) == pytest.approx(expected.scores[0].tolist(), rel=1e-4)
    assert len(found.x) == 101
    layers = METRICS["sanity_check"].compute(score_cam).curve
    assert layers is not None
    assert list(layers.x) == ["score", "features"]
    assert list(layers.y) == pytest.approx(similarities(score_cam).tolist(), rel=1e-4)


@pytest.mark.parametrize("name", ["pointing_game", "energy_pointing_game", "mosaic_pointing_game"])
def test_without_a_region_pointing_games_are_undefined(name: str, score_cam: MetricInput) -> None:
    assert METRICS[name].compute(replace(score_cam, region=None)) == MetricResult(None)


def test_nothing_is_similar_to_a_constant_map(score_cam: MetricInput) -> None:
    constant = replace(score_cam, maps=torch.ones_like(score_cam.maps))
    assert METRICS["sanity_check"].compute(constant) == MetricResult(None)


def test_a_map_that_does_not_depend_on_the_model_stays_as_similar_as_can_be(score_cam: MetricInput) -> None:
    def explain(request: ExplanationRequest) -> Any:
        return request.inputs.sum(1, keepdim=True), run_method("grad_cam", request)[1]

    register_method("fixed", Method(explain))
    fixed = replace(score_cam, method="fixed", maps=score_cam.request.inputs.sum(1)[None])
    assert METRICS["sanity_check"].compute(fixed) == MetricResult(1.0, Curve(["score", "features"], [1.0, 1.0]))
