"""The forward passes of an image: the rows run through the model, counted by the model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from captum_scorecam.datasets import Sample
from captum_scorecam.evaluation import (
    METHODS,
    METRICS,
    Method,
    MethodOptions,
    Plan,
    measure_forwards,
    plan_evaluation,
    register_method,
    run_method,
)
from captum_scorecam.evaluation.image_evaluation import classify, explain
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import NAMES, Pictures, TinyClassifier, preprocess

OPTIONS = MethodOptions(n_masks=30, seed=2, mask_iterations=4, perturbations_per_eval=8)
OF_A_MAP = {
    "grad_cam": 1,
    "grad_cam_plus_plus": 1,
    "score_cam": 5,
    "rise": 31,
    "mask": 21,
}  # RISE: masks, image
OF_METRICS = {  # of RISE, whose maps take 31 forwards
    "average_drop": 3,
    "average_increase": 0,  # shares those of average_drop
    "average_gain": 0,
    "average_drop_half": 3,
    "average_increase_half": 0,
    "insertion": 102,
    "deletion": 102,
    "morf": 102,
    "lerf": 102,
    "srg": 0,  # has the curves of morf and lerf
    "road": 19,
    "sparseness": 0,
    "complexity": 0,
    "pointing_game": 0,
    "energy_pointing_game": 0,
    "relevance_mass": 0,
    "relevance_rank": 0,
    "iou": 0,
    "max_box_acc": 0,
    "mosaic_pointing_game": 31,
    "coherency": 31,
    "adcc": 0,  # shares those of average_drop and coherency
    "random_logit": 0,  # RISE explains both classes at once
    "infidelity": 13,  # one, ten noisy images, and the image beside each of two chunks
    "sensitivity_max": 1 + 11 * 31,
    "sanity_check": 2 * 31,
}


class CountedModel(nn.Module):
    """Counts the rows that it classifies."""

    def __init__(self) -> None:
        super().__init__()
        self.model = TinyClassifier()
        self.rows = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows += len(inputs)
        scores: Tensor = self.model(inputs)
        return scores


class Unreadable(Pictures):
    """Pictures of which some can't be read."""

    def __init__(self, number: int, broken: Sequence[int]) -> None:
        super().__init__(number)
        self.broken = broken

    def __getitem__(self, index: int) -> Sample:
        if index in self.broken:
            raise OSError(f"no picture {index}")
        return super().__getitem__(index)


@pytest.fixture
def model() -> CountedModel:
    return CountedModel().eval()


def plan(model: CountedModel, data: Pictures | None = None, **changed: Any) -> Plan:
    classifier = Classifier("counted", model, preprocess, NAMES, layer="model.features")
    return plan_evaluation(classifier, data or Pictures(4), options=OPTIONS, **changed)


@pytest.mark.parametrize("name", METHODS)
def test_the_forwards_of_a_map_are_the_rows_that_the_model_counts(name: str, model: CountedModel) -> None:
    planned = plan(model, methods=[name], metrics=["pointing_game"], target="label")
    model.rows = 0
    assert measure_forwards(planned) == {name: {"map": OF_A_MAP[name], "pointing_game": 0}}
    assert model.rows == OF_A_MAP[name] + 1  # the prediction


def test_the_forwards_of_metrics_are_the_rows_that_the_model_counts(model: CountedModel) -> None:
    planned = plan(model, methods=["rise"], metrics=list(METRICS), target="label")
    model.rows = 0
    assert measure_forwards(planned) == {"rise": {"map": 31} | OF_METRICS}
    assert model.rows == 1 + 31 + sum(OF_METRICS.values())


def test_another_class_is_explained_by_the_same_forward_passes_where_they_give_it(model: CountedModel) -> None:
    budget = "small=score_cam:max_forwards=3"
    for methods, expected in (
        (["rise", "score_cam", "grad_cam", budget], {"rise": 0, "score_cam": 0, "grad_cam": 1, "small": 0}),
        ([budget], {"small": 4}),  # a budget for both classes would change the first one's map
    ):
        planned = plan(model, methods=methods, metrics=["random_logit"])
        found = measure_forwards(planned)
        assert {method: rows["random_logit"] for method, rows in found.items()} == expected
        for method in planned.methods:
            (loaded,) = load_images(LoadedImages(planned.dataset, planned.indices[:1], None, preprocess))
            explained, _ = explain(planned, classify(planned, loaded), method, "image")
            alone, _ = run_method(planned.methods[method], replace(explained.request, shared=None))
            assert torch.equal(explained.maps[0], alone) or method == "small"
            assert_close(explained.maps[0], alone)
            similarity = METRICS["random_logit"].compute
            ran_again = replace(explained, request=replace(explained.request, shared=None), other_map=None)
            assert similarity(explained).value == pytest.approx(similarity(ran_again).value, rel=1e-3)


def test_the_first_image_that_can_be_classified_is_measured(model: CountedModel) -> None:
    planned = plan(model, Unreadable(4, broken=[0, 1]), methods=["rise"], metrics=["deletion"])
    model.rows = 0
    assert measure_forwards(planned) == {"rise": {"map": 31, "deletion": 102}}
    assert model.rows == 1 + 31 + 102


class Shifted(nn.Module):
    """A counted model whose outputs are negative for one image."""

    def __init__(self, negative: Tensor) -> None:
        super().__init__()
        self.model, self.negative = CountedModel(), negative

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.model(inputs) + 50
        return scores - 100 if torch.equal(inputs[:1], self.negative) else scores


def test_an_image_is_measured_for_which_the_metrics_are_defined() -> None:
    data = Pictures(4)
    model = Shifted(preprocess(data[0].image)[None]).eval()
    classifier = Classifier("shifted", model, preprocess, NAMES, layer="model.model.features", score="output")
    planned = plan_evaluation(classifier, data, methods=["grad_cam"], metrics=["average_drop"], options=OPTIONS)
    assert measure_forwards(planned) == {"grad_cam": {"map": 1, "average_drop": 3}}


def test_without_an_image_that_can_be_classified_there_is_an_error(model: CountedModel) -> None:
    planned = plan(model, Unreadable(2, broken=[0, 1]))
    message = "Expected at least one image that can be evaluated, but all failed. The first error: no picture 0$"
    with pytest.raises(ValueError, match=message):
        measure_forwards(planned)


def test_no_hook_stays_on_the_model_even_after_an_error(model: CountedModel) -> None:
    def raising(*_: Any) -> Any:
        raise RuntimeError("no map")

    measure_forwards(plan(model))
    register_method("raising", Method(raising))
    with pytest.raises(RuntimeError, match="no map"):
        measure_forwards(plan(model, methods=["raising"]))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_every_warning_about_a_model_in_training_mode_points_at_the_callers_line(model: CountedModel) -> None:
    model.model.features.append(nn.Dropout(0.1))
    planned = plan(model.train(), methods=list(METHODS), metrics=list(METRICS), target="label")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        measure_forwards(planned)
    assert {warning.filename for warning in found} == {__file__}
