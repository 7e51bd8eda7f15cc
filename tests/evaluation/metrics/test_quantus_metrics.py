"""Metrics of Quantus in an evaluation: which of them fit, with which options, and that they are Quantus's numbers."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from quantus.helpers.model.pytorch_model import PyTorchModel
from torch import nn

from captum_scorecam.evaluation import (
    METRICS,
    MetricInput,
    export_run,
    plan_evaluation,
    read_records,
    read_settings,
    run_evaluation,
    write_report,
)
from captum_scorecam.evaluation.metric_choice import check_metrics_run, chosen_metrics
from captum_scorecam.evaluation.metrics.quantus_metrics import quantus_classes
from captum_scorecam.evaluation.settings import read_configuration
from captum_scorecam.models import Classifier, load_classifier
from captum_scorecam.scoring.class_scores import NamedScore, score_function
from tests.support.default_dtype import default_dtype, other_default_dtypes
from tests.support.guide_tables import rows_below
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import OPTIONS, evaluate, metric_input

pytestmark = pytest.mark.slow

OPTIONS_OF = {
    "FaithfulnessCorrelation": "nr_runs=8,subset_size=20",
    "FaithfulnessEstimate": "features_in_step=63",
    "Infidelity": "n_perturb_samples=2,perturb_patch_sizes=[7]",
    "MPRT": "return_average_correlation=True",
    "Monotonicity": "features_in_step=63",
    "MonotonicityCorrelation": "nr_samples=2,features_in_step=63",
    "PixelFlipping": "features_in_step=63",
    "RandomLogit": "num_classes=4",
    "RegionPerturbation": "patch_size=7,regions_evaluation=4",
    "Selectivity": "patch_size=7",
    "SensitivityN": "features_in_step=63",
    "SmoothMPRT": "return_average_correlation=True,nr_samples=2",
    "TopKIntersection": "k=50",
    **dict.fromkeys(
        (
            *("AvgSensitivity", "LocalLipschitzEstimate", "MaxSensitivity"),
            *("RelativeInputStability", "RelativeOutputStability", "RelativeRepresentationStability"),
        ),
        "nr_samples=3",
    ),
}


DOES_NOT_FIT = {  # with the beginning of what Quantus 0.6 raises
    "Focus": "'NoneType' object is not iterable",  # needs maps of mosaics
    "IROF": "The shape of arr must be the same as the mask shape",  # of images with colours
    "InputInvariance": "'Sequential' object has no attribute 'out_channels'",  # the first module must be a convolution
    "ROAD": "index .* is out of bounds",  # counts each colour as a pixel; ours is ``road``
    "SensitivityN": "`x` and `y` must have length at least 2",  # correlates over images
}


def texts() -> list[str]:
    return [f"quantus:{name}:{OPTIONS_OF.get(name, '')}" for name in quantus_classes()]


@pytest.fixture(scope="module")
def given() -> MetricInput:
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    return replace(metric_input(classifier, "score_cam", Pictures(1)[0], 0), n_classes=4)


@pytest.mark.parametrize("text", texts())
def test_each_metric_gives_a_number_or_says_why_not(text: str, given: MetricInput) -> None:
    (metric,) = chosen_metrics([text]).values()
    torch.manual_seed(3)
    np.random.seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]
    name = text.split(":")[1]
    if name in DOES_NOT_FIT:
        with pytest.raises(Exception, match=DOES_NOT_FIT[name]):
            metric.compute(given)
    else:
        found = metric.compute(given).value
        assert found is not None
        assert np.isfinite(found)
        assert metric.compute(given).value == found
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy_state)


def test_the_guide_lists_the_metrics_that_do_not_fit() -> None:
    rows = rows_below("methods_and_options.rst", "Metrics of Quantus")
    assert set[str]().union(*(names for names, _ in rows)) == {*DOES_NOT_FIT}


@pytest.mark.parametrize("value", [0.0, 1.0, 0.3])
def test_a_constant_map_has_no_value(given: MetricInput, value: float) -> None:
    (metric,) = chosen_metrics(["quantus:Sparseness"]).values()
    assert metric.compute(replace(given, maps=torch.full_like(given.maps, value))).value is None


def test_a_result_that_is_not_finite_is_no_value(given: MetricInput, monkeypatch: pytest.MonkeyPatch) -> None:
    (metric,) = chosen_metrics(["quantus:Sparseness"]).values()
    monkeypatch.setattr(quantus.Sparseness, "__call__", lambda *_, **__: [math.nan])
    assert metric.compute(given).value is None
    with pytest.raises(ValueError, match="Sparseness gives no finite number for a map of noise"):
        check_metrics_run([metric], given.request)


@pytest.mark.parametrize("score", ["output", "probability", "sigmoid"])
@pytest.mark.parametrize("ends_in_softmax", [False, True])
def test_scores_are_those_of_the_run(
    given: MetricInput, score: NamedScore, ends_in_softmax: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nn.Sequential(given.request.model, nn.Softmax(1)).eval() if ends_in_softmax else given.request.model
    found = []

    def called(_: Any, model: nn.Module, x_batch: Any, softmax: bool, **__: Any) -> list[float]:
        found.append(PyTorchModel(model, channel_first=True, softmax=softmax, device="cpu").predict(x_batch))
        return [0.0]

    monkeypatch.setattr(quantus.Sparseness, "__call__", called)
    (metric,) = chosen_metrics(["quantus:Sparseness"]).values()
    request = replace(given.request, model=model, score=score)
    metric.compute(replace(given, request=request))
    expected = score_function(score)(model(request.inputs)).detach().numpy()
    assert found[0] == pytest.approx(expected, abs=1e-6)


def test_numbers_are_those_of_quantus(given: MetricInput) -> None:
    image, maps = given.request.inputs.numpy(), given.maps.numpy()
    arguments: dict[str, Any] = {"model": given.request.model, "x_batch": image, "y_batch": np.array([0])}
    arguments["a_batch"] = maps
    (sparseness,) = chosen_metrics(["quantus:Sparseness"]).values()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sparseness.compute(given).value == pytest.approx(quantus.Sparseness()(**arguments)[0])
        assert given.region is not None
        inside = quantus.RelevanceMassAccuracy()(**arguments, s_batch=given.region[None, None].numpy())[0]
    (mass,) = chosen_metrics(["quantus:RelevanceMassAccuracy"]).values()
    assert mass.compute(given).value == pytest.approx(inside)
    assert mass.needs == {"boxes"}
    assert mass.compute(replace(given, region=None)).value is None
    assert (sparseness.title, sparseness.higher_is_better) == ("Sparseness", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quantus:Sparsness", "to name a metric of Quantus, but got 'Sparsness'. Closest matches: Sparseness"),
        ("quantus", "to name a metric of Quantus, but got ''"),
        (
            "quantus:MaxSensitivity:nr_sample=3",
            "the option of MaxSensitivity .*'nr_sample'. Closest matches: nr_samples",
        ),
        ("quantus:Sparseness:disable_warnings=False", "the option of Sparseness to be one of"),
        ("deletion=quantus:Sparseness", "Expected a new name for quantus:Sparseness, but 'deletion' is the name of an"),
        ("deletion:steps=3", "Expected deletion without options or a name of its own, .* but got 'deletion:steps=3'"),
        ("quantus:Sparseness:x", "Expected options of the form NAME=VALUE,NAME=VALUE after quantus:Sparseness:, but"),
    ],
)
def test_a_text_that_names_no_metric_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen_metrics([text])


def test_an_option_that_is_true_or_false_is_neither_text_nor_another_number() -> None:
    for value in ("maybe", "2"):
        with pytest.raises(TypeError, match="Expected `abs` to be True or False"):
            chosen_metrics([f"quantus:Sparseness:abs={value}"])
    assert [*chosen_metrics(["quantus:Sparseness:abs=1"])] == ["Sparseness"]


def test_a_metric_twice_needs_a_name() -> None:
    twice = ["quantus:MaxSensitivity:nr_samples=2", "quantus:MaxSensitivity:nr_samples=3"]
    with pytest.raises(ValueError, match="Expected a name for each of several `metrics` MaxSensitivity"):
        chosen_metrics(twice)
    assert [*chosen_metrics([twice[0], f"three={twice[1]}"])] == ["MaxSensitivity", "three"]


def test_what_gives_no_number_for_an_image_is_refused_before_the_run(classifier: Classifier) -> None:
    with pytest.raises(ValueError, match="MPRT raised ValueError: Expected one number for each image"):
        plan_evaluation(classifier, Pictures(2), metrics=["quantus:MPRT"])


@other_default_dtypes
def test_trying_a_metric_does_not_depend_on_the_default_dtype(given: MetricInput, dtype: torch.dtype) -> None:
    with default_dtype(dtype):
        check_metrics_run(chosen_metrics(["quantus:Sparseness"]).values(), given.request)


def test_a_plan_with_another_metric_of_the_same_name_leaves_a_runs_direction(
    classifier: Classifier, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"methods": ["grad_cam", "rise"], "options": OPTIONS}
    lower = plan_evaluation(classifier, Pictures(1), metrics=["x=quantus:MaxSensitivity:nr_samples=2"], **options)
    plan_evaluation(classifier, Pictures(1), metrics=["x=quantus:Sparseness"], **options)
    assert METRICS["x"].higher_is_better
    run_evaluation(lower, tmp_path)
    assert METRICS["x"].higher_is_better is False


def test_a_run_records_resumes_and_reports(classifier: Classifier, tmp_path: Path) -> None:
    metrics = ["deletion", "robust=quantus:MaxSensitivity:nr_samples=2", "quantus:Sparseness"]
    for _ in range(2):
        summary = evaluate(classifier, Pictures(2), tmp_path, methods=["grad_cam"], metrics=metrics, options=OPTIONS)
    assert summary is not None
    assert summary.metrics == ("deletion", "robust", "Sparseness")
    assert read_configuration(tmp_path).versions["quantus"] == quantus.__version__
    settings = read_settings(tmp_path)
    assert settings.metric_options == {
        "robust": "quantus:MaxSensitivity:nr_samples=2",
        "Sparseness": "quantus:Sparseness",
    }
    assert [record.values.keys() for record in read_records(tmp_path)] == [{*settings.metrics}] * 2
    assert not METRICS["robust"].higher_is_better
    del METRICS["robust"], METRICS["Sparseness"]  # as in another process
    assert "robust" in write_report(tmp_path).read_text(encoding="utf-8")
    assert not METRICS["robust"].higher_is_better
    assert "| robust ↓ | Sparseness ↑ |" in export_run(tmp_path, "markdown").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="`metric_options`: "):
        evaluate(
            classifier,
            Pictures(2),
            tmp_path,
            methods=["grad_cam"],
            metrics=[*metrics[:2], "Sparseness=quantus:Complexity"],
        )
