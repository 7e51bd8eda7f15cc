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
    return MetricInput("score_cam", request, run_method("score_cam", request)[0].unsqueeze(1), REGION, 3)


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


def of_masked(given: MetricInput) -> Tensor:
    """Score-CAM's map of the image masked with the map."""
    masked = functional.explanation_map(given.request.inputs, given.maps)
    return run_method("score_cam", replace(given.request, inputs=masked))[0].unsqueeze(1)


def similarities_to_others(given: MetricInput) -> list[float]:
    others = [run_method("score_cam", replace(given.request, targets=[c]))[0].unsqueeze(1) for c in (0, 2)]
    return [float(functional.random_logit(given.maps, other)) for other in others]


def adcc(given: MetricInput) -> Tensor:
    drop = functional.average_drop(*scores(given, None), reduction="none")
    coherency = functional.coherency(given.maps, of_masked(given), reduction="none")
    return functional.adcc(drop, coherency, functional.l1_complexity(given.maps, reduction="none"))


def curve(function: Any, given: MetricInput, **options: Any) -> Any:
    return function(given.request.model, given.request.inputs, given.maps, TARGET, **options)


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
    "morf": lambda given: curve(functional.morf, given).auc,
    "lerf": lambda given: curve(functional.lerf, given).auc,
    "srg": lambda given: curve(functional.srg, given).srg,
    "road": lambda given: curve(functional.road, given, generator=noise()).road,
    "sparseness": lambda given: functional.sparseness(given.maps),
    "complexity": lambda given: functional.complexity(given.maps),
    "relevance_mass": lambda given: functional.relevance_mass(given.maps, REGION[None]),
    "relevance_rank": lambda given: functional.relevance_rank(given.maps, REGION[None]),
    "iou": lambda given: functional.iou(given.maps, REGION[None]),
    "coherency": lambda given: functional.coherency(given.maps, of_masked(given)),
    "adcc": adcc,
    "infidelity": infidelity,
    "sensitivity_max": sensitivity,
    "sanity_check": lambda given: similarities(given).mean(),
}


@pytest.mark.parametrize("name", DIRECT)
def test_a_metric_returns_what_its_function_returns(name: str, score_cam: MetricInput) -> None:
    value = METRICS[name].compute(score_cam).value
    assert value == pytest.approx(float(DIRECT[name](score_cam)), rel=1e-4, abs=1e-6)
    assert value is not None
    assert math.isfinite(value)


def test_every_metric_is_compared_with_its_function() -> None:
    assert {*DIRECT} | {"random_logit", "max_box_acc"} == {*METRICS}


def test_the_random_logit_test_is_the_similarity_to_one_of_the_other_classes(score_cam: MetricInput) -> None:
    found = METRICS["random_logit"].compute(score_cam)
    assert any(found.value == pytest.approx(value, abs=1e-5) for value in similarities_to_others(score_cam))
    assert METRICS["random_logit"].compute(score_cam) == found
    for n_classes in (None, 1):
        assert METRICS["random_logit"].compute(replace(score_cam, n_classes=n_classes)) == MetricResult(None)


def test_another_class_is_drawn_for_each_image(score_cam: MetricInput, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def recorded(given: MetricInput, target: int) -> Tensor:
        drawn.append(target)
        return given.maps

    monkeypatch.setattr(MetricInput, "map_of", recorded)
    for shift in range(12):
        request = replace(score_cam.request, inputs=score_cam.request.inputs + shift)
        METRICS["random_logit"].compute(replace(score_cam, request=request))
    assert {*drawn} == {0, 2}


def test_curves_of_gains_are_differences(score_cam: MetricInput) -> None:
    for name, scale, of_function in [
        ("srg", 1, curve(functional.srg, score_cam)),
        ("road", 0.5, curve(functional.road, score_cam, generator=noise())),
    ]:
        found = METRICS[name].compute(score_cam).curve
        assert found is not None
        assert list(found.x) == pytest.approx(of_function.fractions.tolist(), rel=1e-5)
        assert list(found.y) == pytest.approx((scale * (of_function.lerf - of_function.morf))[0].tolist(), abs=1e-5)


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


def test_box_accuracy_is_a_curve_of_hits_with_any_box(score_cam: MetricInput) -> None:
    around, other = torch.tensor([[3, 5, 12, 14]]), torch.tensor([[0, 0, 21, 20]])
    for boxes, given in (
        (around, score_cam),  # the box around the region
        (torch.cat([around, other]), replace(score_cam, boxes=torch.cat([around, other]))),
    ):
        found, expected = METRICS["max_box_acc"].compute(given), functional.max_box_acc(given.maps, [boxes])
        assert found == MetricResult(None, Curve(approx(expected.thresholds), approx(expected.hits[0])))
    assert expected.hits.sum() > functional.max_box_acc(score_cam.maps, [around]).hits.sum()


def approx(values: Tensor) -> Any:
    return pytest.approx(values.tolist())


OF_PIXELS = ["relevance_mass", "relevance_rank", "iou"]
OF_REGIONS = ["pointing_game", "energy_pointing_game", "mosaic_pointing_game"]


@pytest.mark.parametrize("name", OF_PIXELS + OF_REGIONS)
def test_a_mask_replaces_the_region_where_pixels_are_compared(name: str, score_cam: MetricInput) -> None:
    mask = torch.zeros_like(REGION)
    mask[7:11, 4:9] = True
    metric, given = METRICS[name].compute, replace(score_cam, mask=mask)
    assert metric(given) == metric(replace(score_cam, region=mask) if name in OF_PIXELS else score_cam)
    assert metric(replace(score_cam, region=mask)) != metric(score_cam) or name == "pointing_game"
    cropped_away = replace(score_cam, mask=torch.zeros_like(REGION))
    assert metric(cropped_away) == (MetricResult(None) if name in OF_PIXELS else metric(score_cam))


@pytest.mark.parametrize("name", [*OF_PIXELS, *OF_REGIONS, "max_box_acc"])
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


def test_an_object_in_the_first_pixel_only_has_a_box(score_cam: MetricInput) -> None:
    region = torch.zeros_like(REGION)
    region[0, 0] = True
    given = replace(score_cam, region=region)
    assert given.object_boxes is not None
    assert given.object_boxes.tolist() == [[0, 0, 1, 1]]
    curve = METRICS["max_box_acc"].compute(given).curve
    assert curve is not None
    assert curve.y == [float(hit) for hit in functional.max_box_acc(score_cam.maps, [given.object_boxes]).hits[0]]
