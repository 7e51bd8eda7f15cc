"""The measures by name: each gives what its function gives, and runs no more forwards than it says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam import InputSpaceAttribution, ScoreCAM
from captum_scorecam.evaluation import MEASURES, Case, Measure, Measured, MethodOptions, register_measure
from captum_scorecam.evaluation.methods import METHODS, Method, most_forwards, register_method, run_method
from captum_scorecam.evaluation.metrics.registered import check_measures
from captum_scorecam.evaluation.request import Question
from captum_scorecam.metrics import functional
from captum_scorecam.models import ExplainedLayer
from tests.support import tiny_classifier

OPTIONS = MethodOptions(n_masks=30, seed=2, mask_iterations=4, perturbations_per_eval=8)
TARGET = 1


class CountedModel(nn.Module):
    """Counts the rows that run."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_classifier.TinyClassifier().eval()
        self.rows = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows += len(inputs)
        return self.model(inputs)


def case_of(method: str = "score_cam") -> Case:
    model = CountedModel()
    inputs = tiny_classifier.preprocess(tiny_classifier.picture(1)[0]).unsqueeze(0)
    layer = ExplainedLayer("model.features", model.model.features)
    question = Question(model, layer, inputs, [TARGET], options=OPTIONS)
    region = torch.zeros(21, 21, dtype=torch.bool)
    region[5:14, 3:12] = True
    return Case(method, question, run_method(method, question)[0].unsqueeze(1), region)


def scores(case: Case, keep_fraction: float | None) -> functional.MaskedInputScores:
    question = case.question
    return functional.masked_input_scores(
        question.model, question.inputs, case.maps, TARGET, keep_fraction=keep_fraction
    )


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(OPTIONS.seed)


def infidelity(case: Case) -> Tensor:
    score_cam = InputSpaceAttribution(ScoreCAM(case.question.model, case.question.layer.module))
    return functional.infidelity(score_cam, case.question.inputs, TARGET, generator=noise(), max_examples_per_batch=8)


def sensitivity(case: Case) -> Tensor:
    score_cam = ScoreCAM(case.question.model, case.question.layer.module)
    return functional.sensitivity_max(
        score_cam, case.question.inputs, TARGET, generator=noise(), max_examples_per_batch=1
    )


def similarities(case: Case) -> Tensor:
    model, inputs = case.question.model, case.question.inputs
    score_cam = InputSpaceAttribution(ScoreCAM(model, case.question.layer.module))
    records = functional.cascading_parameter_randomization(
        model, lambda x: score_cam.attribute(x, TARGET)[:, :1], inputs, generator=noise(), layers=["model"]
    )
    return torch.cat([record.spearman for record in records])


DIRECT: dict[str, Callable[[Case], Tensor]] = {
    "average_drop": lambda case: functional.average_drop(*scores(case, None)),
    "average_increase": lambda case: functional.average_increase(*scores(case, None)),
    "average_gain": lambda case: functional.average_gain(*scores(case, None)),
    "average_drop_half": lambda case: functional.average_drop(*scores(case, 0.5)),
    "average_increase_half": lambda case: functional.average_increase(*scores(case, 0.5)),
    "insertion": lambda case: functional.insertion(case.question.model, case.question.inputs, case.maps, TARGET).auc,
    "deletion": lambda case: functional.deletion(case.question.model, case.question.inputs, case.maps, TARGET).auc,
    "pointing_game": lambda case: functional.pointing_game(case.maps, case.region[None]),
    "energy_pointing_game": lambda case: functional.energy_pointing_game(case.maps, case.region[None]),
    "mosaic_pointing_game": lambda case: functional.energy_pointing_game(case.maps, case.region[None]),
    "infidelity": infidelity,
    "sensitivity_max": sensitivity,
    "sanity_check": lambda case: similarities(case).mean(),
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_gives_what_its_function_gives(name: str) -> None:
    case = case_of()
    measured = MEASURES[name].measure(case)
    assert measured.value == pytest.approx(float(DIRECT[name](case)), rel=1e-4, abs=1e-6)
    assert math.isfinite(measured.value)


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_runs_the_forwards_that_it_says(name: str) -> None:
    case = case_of("rise")  # which, unlike ScoreCAM, leaves out none
    per_map = most_forwards("rise", case.question)
    most = MEASURES[name].forwards(case.question, per_map)
    case.question.model.rows = 0
    MEASURES[name].measure(case)
    ran = case.question.model.rows
    if name == "mosaic_pointing_game":
        assert (ran, most) == (0, per_map)  # the mosaic's map is made before it is measured
    else:
        assert ran == most


@pytest.mark.parametrize("name", METHODS)
def test_a_method_runs_at_most_the_forwards_that_it_says(name: str) -> None:
    case = case_of(name)
    case.question.model.rows = 0
    _, run = run_method(name, case.question)
    ran, most = case.question.model.rows, most_forwards(name, case.question)
    assert run.forwards <= ran <= most
    assert most == {"grad_cam": 1, "grad_cam_plus_plus": 1, "score_cam": 6, "rise": 31, "mask": 21}[name]


def test_curves_are_those_of_the_functions() -> None:
    case = case_of()
    curve = functional.insertion(case.question.model, case.question.inputs, case.maps, TARGET)
    found = MEASURES["insertion"].measure(case).curve
    assert found.x == pytest.approx(curve.fractions.tolist(), rel=1e-5)
    assert found.y == pytest.approx(curve.scores[0].tolist(), rel=1e-4)
    assert len(found.x) == 101
    layers = MEASURES["sanity_check"].measure(case).curve
    assert (layers.x, layers.y) == (["model"], pytest.approx(similarities(case).tolist(), rel=1e-4))


def test_without_a_region_there_is_nothing_to_point_at() -> None:
    case = replace(case_of(), region=None)
    for name in ("pointing_game", "energy_pointing_game", "mosaic_pointing_game"):
        assert MEASURES[name].measure(case) == Measured(None)


def test_nothing_is_similar_to_a_constant_map() -> None:
    case = case_of()
    assert MEASURES["sanity_check"].measure(replace(case, maps=torch.ones_like(case.maps))) == Measured(None)


def test_only_the_sanity_check_of_a_model_that_learned_nothing_stays_similar() -> None:
    """A map that does not look at the model is as similar as can be."""
    case = replace(case_of(), method="fixed")
    edges = Method(lambda question: (question.inputs.sum(1, keepdim=True), run_method("grad_cam", question)[1]))
    METHODS["fixed"] = edges
    try:
        assert MEASURES["sanity_check"].measure(replace(case, maps=case.question.inputs.sum(1)[None])).value == 1
    finally:
        del METHODS["fixed"]


def test_names_of_measures_are_checked_and_taken_once() -> None:
    assert check_measures(["deletion", "insertion", "deletion"]) == ("deletion", "insertion")
    with pytest.raises(ValueError, match=r"Expected `--metric` to be one of average_drop, .*, but got 'accuracy'"):
        check_measures(["accuracy"])


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (Measure("a b", "", True, lambda _: Measured(0)), "letters, digits and underscores, but got 'a b'"),
        (Measure("insertion", "", True, lambda _: Measured(0)), "'insertion' is taken"),
        (Measure("x", "", True, lambda _: Measured(0), on="video"), "'image' or 'mosaic', but got 'video'"),
        (Measure("x", "", True, lambda _: Measured(0), needs=frozenset({"sound"})), r"but got \['sound'\]"),
    ],
)
def test_a_measure_that_does_not_fit_is_not_registered(measure: Measure, message: str) -> None:
    before = dict(MEASURES)
    with pytest.raises(ValueError, match=message):
        register_measure(measure)
    assert before == MEASURES


@pytest.mark.parametrize("name", ["score_cam", "../up", ""])
def test_a_method_that_does_not_fit_is_not_registered(name: str) -> None:
    before = dict(METHODS)
    with pytest.raises(ValueError, match="Expected a"):
        register_method(name, Method(METHODS["rise"].explain))
    assert before == METHODS
