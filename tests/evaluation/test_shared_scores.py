"""Several of Score-CAM's weightings, scores and budgets in one run share their forward passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captum_scorecam.evaluation import (
    ExplanationRequest,
    MethodOptions,
    chosen_methods,
    measure_forwards,
    plan_evaluation,
    read_records,
    run_method,
)
from captum_scorecam.evaluation.image_evaluation import classify, explain
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.evaluation.method_choice import scores_to_share
from captum_scorecam.evaluation.shared_scores import SharedScores
from captum_scorecam.models import Classifier, find_layer
from tests.support.tiny_classifier import Pictures, picture
from tests.support.tiny_evaluation import OPTIONS, evaluate

FOUR = (
    "score_cam",
    "increase=score_cam:channel_weighting=increase",
    "released=score_cam:score=probability,channel_weighting=score",
    "small=score_cam:max_forwards=3",
)
EXACT, METRICS = FOUR[:3], ["average_drop", "coherency"]


def request_of(classifier: Classifier) -> ExplanationRequest:
    inputs = classifier.inputs(picture(1)[0])
    options = MethodOptions(perturbations_per_eval=2)
    return ExplanationRequest(classifier.model, find_layer(classifier.model, inputs), inputs, [2, 0], options=options)


def test_maps_are_the_same_as_alone(classifier: Classifier) -> None:
    alone = request_of(classifier)
    scores = scores_to_share(chosen_methods(FOUR), alone.options)
    assert scores == ("output", "probability")
    shared = replace(alone, shared=SharedScores(scores, alone.targets, 4))
    for name, method in chosen_methods(FOUR).items():
        (maps, run), (expected, expected_run) = run_method(method, shared), run_method(method, alone)
        assert torch.equal(maps, expected) or name == "small"
        torch.testing.assert_close(maps, expected)
        assert run.channels is not None
        assert expected_run.channels is not None
        assert run.forwards == expected_run.forwards
        assert run.channels.effective_channels == pytest.approx(expected_run.channels.effective_channels)
        assert run.channels.errors == pytest.approx(expected_run.channels.errors, rel=1e-3)


def test_a_class_without_shared_scores_is_explained_by_forward_passes_of_its_own(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(1), methods=FOUR, metrics=["random_logit"])
    (loaded,) = load_images(LoadedImages(plan.dataset, plan.indices, None, classifier.preprocess))
    found, _ = explain(plan, classify(plan, loaded), "score_cam", "image")
    for target in range(4):
        alone = replace(found.request, targets=[target], shared=None)
        torch.testing.assert_close(found.map_of(target)[0], run_method("score_cam", alone)[0])


def test_forward_passes_are_run_once(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(1), methods=FOUR, metrics=["average_drop"])
    forwards = measure_forwards(plan)
    assert [forwards[name]["map"] > 0 for name in plan.methods] == [True, False, False, False]


def test_nothing_is_shared_without_an_exact_map_or_with_other_masks() -> None:
    def shared(*texts: str, **options: int) -> tuple[str, ...]:
        return scores_to_share(chosen_methods(texts), MethodOptions(**options))  # type: ignore[arg-type]

    assert shared(FOUR[0]) == ()
    assert shared(FOUR[3], "other=score_cam:max_forwards=4") == ()
    assert shared(FOUR[0], FOUR[1], max_forwards=3) == ()
    assert shared(FOUR[0], "few=score_cam:max_channels=2") == ()
    assert shared(FOUR[0], "near=score_cam:tolerance=.1,score=probability,channel_weighting=score") == ()
    assert shared(FOUR[3], "all=score_cam:max_forwards=None", max_forwards=3) == ("output",)


def test_records_do_not_depend_on_which_method_ran_first(classifier: Classifier, tmp_path: Path) -> None:
    together, reversed_order = tmp_path / "together", tmp_path / "reversed"
    evaluate(classifier, Pictures(2), together, methods=FOUR, metrics=METRICS, options=OPTIONS)
    evaluate(classifier, Pictures(2), reversed_order, methods=FOUR[::-1], metrics=METRICS, options=OPTIONS)
    assert len(read_records(together)) == 8
    assert {(r.index, r.method): r for r in read_records(together)} == {
        (r.index, r.method): r for r in read_records(reversed_order)
    }
    for name in EXACT:
        alone = tmp_path / name.partition("=")[0]
        evaluate(classifier, Pictures(2), alone, methods=[name], metrics=METRICS, options=OPTIONS)
        same = [record for record in read_records(together) if record.method == name.partition("=")[0]]
        assert read_records(alone) == same
