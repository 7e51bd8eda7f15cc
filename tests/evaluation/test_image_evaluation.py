"""One image: the numbers of its records, and the failures that become records."""

from __future__ import annotations

import csv
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from captum_scorecam.datasets import Mosaics, Sample
from captum_scorecam.evaluation import (
    METHODS,
    METRICS,
    Curve,
    Failure,
    Method,
    Metric,
    MetricInput,
    MetricResult,
    Record,
    export_run,
    image_evaluation,
    read_records,
    register_method,
    register_metric,
    run_method,
)
from captum_scorecam.evaluation.record_files import read_times
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import NAMES, Pictures
from tests.support.tiny_evaluation import OPTIONS, QUICK, contents, evaluate, metric_input

SIX = ("average_drop", "average_increase", "insertion", "deletion", "mosaic_pointing_game", "energy_pointing_game")


def test_the_numbers_are_those_of_methods_and_metrics_called_directly(classifier: Classifier, tmp_path: Path) -> None:
    data, methods = Pictures(5), list(METHODS)
    evaluate(classifier, data, tmp_path, methods=methods, metrics=SIX, target="label", options=OPTIONS)
    records = read_records(tmp_path)
    assert [(r.index, r.method) for r in records] == [(i, m) for i in range(5) for m in methods]
    for record in records:
        index, label = record.index, record.index % 4
        probabilities = classifier.predict(classifier.inputs(data[index].image)).probabilities
        predicted = int(probabilities.argmax())
        assert record.method is not None
        image = metric_input(classifier, record.method, data[index], label)
        mosaic = metric_input(classifier, record.method, Mosaics(data, OPTIONS.seed)[index], label)
        results = {name: METRICS[name].compute(mosaic if name.startswith("mosaic") else image) for name in SIX}
        assert record == Record(
            image=f"picture {index}",
            index=index,
            method=record.method,
            error=None,
            target=label,
            target_name=NAMES[label],
            label=label,
            label_name=NAMES[label],
            predicted=predicted,
            correct=label == predicted,
            probability=float(probabilities[label]),
            forwards=run_method(record.method, image.request)[1].forwards,
            values={name: result.value for name, result in results.items()},
            curves={name: result.curve for name, result in results.items() if result.curve is not None},
            region=None if index == 2 else "boxes",  # the picture without a box
            chunk_rows=record.chunk_rows,
        )
        assert record.curves.keys() == {"insertion", "deletion"}
        assert 4 in record.chunk_rows["map"] if record.method == "rise" else max(record.chunk_rows["map"]) <= 4
        assert record.chunk_rows["map"] == (1,) or record.method in ("score_cam", "rise")
        assert record.chunk_rows.keys() == {"map", "average_drop", "insertion", "deletion"}  # the others ran no forward
        assert (record.values["energy_pointing_game"] is None) == (index == 2)


class Broken(Pictures):
    """One picture can't be read, one has a label that is no class, one breaks the preprocessing."""

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise OSError("truncated")
        sample = super().__getitem__(index)
        return replace(sample, image=sample.image.convert("L")) if index == 3 else sample


def test_a_failed_image_is_a_record_and_the_rest_is_done(classifier: Classifier, tmp_path: Path) -> None:
    data = Broken(5, ["red", "green", "violet", "white", "red"])
    with pytest.warns(UserWarning, match="1 of 5 images have no label that is a class .* picture 2: .*'violet'"):
        summary = evaluate(classifier, data, tmp_path, **(QUICK | {"target": "label"}))
    assert summary is not None
    failed = {record.index: record for record in read_records(tmp_path) if record.error is not None}
    assert failed.keys() == {1, 2, 3}
    assert failed[1] == Record("picture 1", 1, None, Failure("OSError", "truncated", "image"))
    described = [(r.method, r.error.type, r.error.stage) for r in failed.values() if r.error is not None]
    assert described == [(None, "OSError", "image"), (None, "ValueError", "label"), (None, "RuntimeError", "image")]
    assert len(summary.errors) == 3
    assert [record.index for record in read_records(tmp_path) if record.error is None] == [0, 0, 4, 4]


def test_a_label_that_is_no_class_is_not_needed_for_the_predicted_class(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no label that is a class"):
        evaluate(classifier, Pictures(2, ["violet", None]), tmp_path, **QUICK)
    assert [(r.label, r.correct, r.error) for r in read_records(tmp_path)] == [(None, None, None)] * 4


def test_scores_that_are_not_finite_are_a_failure_of_the_image(classifier: Classifier, tmp_path: Path) -> None:
    with torch.no_grad():
        classifier.model.get_parameter("score.bias")[2] = float("nan")
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    message = "Expected finite scores, but the model returned NaN or Inf for this image."
    assert read_records(tmp_path) == [Record("picture 0", 0, None, Failure("ValueError", message, "image"))]


def test_failures_are_done_again_on_request(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(4), tmp_path / "undisturbed", **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate(classifier, Broken(4), tmp_path / "run", **QUICK)
    before = contents(tmp_path / "run")
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == before
    summary = evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK, retry_errors=True)
    assert summary is not None
    assert summary.errors == ()
    assert read_records(tmp_path / "run") == read_records(tmp_path / "undisturbed")


def test_a_method_or_metric_that_raises_is_a_record(classifier: Classifier, tmp_path: Path) -> None:
    def raising(*_: Any) -> Any:
        raise RuntimeError(f"no map of {object()}")

    register_method("raising", Method(raising))
    register_method("infinite", Method(lambda r: (r.inputs[:, :1] / 0, run_method("grad_cam", r)[1])))
    register_metric(Metric("undefined", "Undefined", True, lambda _: MetricResult(float("nan"))))
    evaluate(classifier, Pictures(2), tmp_path / "a", **(QUICK | {"methods": ["raising", "infinite", "grad_cam"]}))
    raised = Failure("RuntimeError", "no map of <object object>", "method")
    infinite = Failure("ValueError", "Expected a finite map, but got NaN or Inf.", "method")
    found = [(record.method, record.error) for record in read_records(tmp_path / "a")]
    assert found == [("raising", raised), ("infinite", infinite), ("grad_cam", None)] * 2
    evaluate(classifier, Pictures(2), tmp_path / "b", **(QUICK | {"metrics": ["undefined", "average_drop"]}))
    undefined = Failure("ValueError", "Expected finite numbers from undefined, but got NaN or Inf.", "metric")
    for record in read_records(tmp_path / "b"):
        assert (record.error, record.failed_metrics) == (None, {"undefined": undefined})
        assert record.values["undefined"] is None
        assert record.values["average_drop"] is not None


def test_a_failed_metric_leaves_the_others_their_values_and_is_done_again_on_request(
    classifier: Classifier, tmp_path: Path
) -> None:
    fails = [True]

    def failing(found: MetricInput) -> MetricResult:
        found.request.model(found.request.inputs)
        name = found.method if isinstance(found.method, str) else found.method.name
        if fails[0] and name == "rise":
            raise RuntimeError("no result")
        return MetricResult(0.5, Curve([0.0, 1.0], [0.5, 0.5]))

    register_metric(Metric("failing", "Failing", True, failing))
    metrics = ["failing", "insertion", "average_drop"]
    arguments = QUICK | {"metrics": metrics, "methods": ["grad_cam", "rise"]}
    whole = evaluate(classifier, Pictures(3), tmp_path / "whole", **(arguments | {"metrics": metrics[1:]}))
    summary = evaluate(classifier, Pictures(3), tmp_path / "run", **arguments)
    assert summary is not None
    assert whole is not None
    means = {method: {m: of[m] for m in metrics[1:]} for method, of in summary.overall.means.items()}
    assert means == whole.overall.means
    assert [summary.overall.means[method]["failing"].n for method in arguments["methods"]] == [3, 0]
    failure = Failure("RuntimeError", "no result", "metric")
    failures = [(record.index, record.method, metric, found) for record, metric, found in summary.failures]
    assert failures == [(index, "rise", "failing", failure) for index in range(3)]
    parts = {r.method: {*r.chunk_rows} for r in read_records(tmp_path / "run")}
    assert parts["grad_cam"] - parts["rise"] == {"failing"}
    with export_run(tmp_path / "run", "csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["error"] for row in rows] == ["", "failing: RuntimeError: no result"] * 3
    before = contents(tmp_path / "run")
    evaluate(classifier, Pictures(3), tmp_path / "run", **arguments)
    assert contents(tmp_path / "run") == before
    fails[0] = False
    summary = evaluate(classifier, Pictures(3), tmp_path / "run", **arguments, retry_errors=True)
    assert summary is not None
    assert summary.failures == []
    assert summary.overall.means["rise"]["failing"].n == 3
    times = [(of.index, of.method, {*of.metrics} == {*metrics}) for of in read_times(tmp_path / "run")]
    assert sorted(times) == [(index, method, True) for index in range(3) for method in ("grad_cam", "rise")]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_chunks_that_memory_halved_are_in_the_records_of_maps_and_metrics(
    error: type[Exception], classifier: Classifier, tmp_path: Path
) -> None:
    def run_out(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(inputs[0]) > 2:
            raise error("out of memory")

    arguments = QUICK | {"methods": ["rise"], "metrics": ["insertion", "deletion"], "layer": "auto"}
    evaluate(classifier, Pictures(2), tmp_path / "whole", **arguments)
    with warnings.catch_warnings(), classifier.model.register_forward_pre_hook(run_out):
        warnings.simplefilter("ignore")
        evaluate(classifier, Pictures(2), tmp_path / "halved", **arguments)
    for folder, rows in (("whole", {1, 4}), ("halved", {1, 2})):
        for record in read_records(tmp_path / folder):
            found = {part: {*of_part} for part, of_part in record.chunk_rows.items()}
            assert found == {"map": rows, "insertion": rows, "deletion": rows}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (MetricResult(1.5), "the value of own is 1.5, not in [0, 1]"),
        (MetricResult(0.5, Curve([0.0, 1.0], [0.5, -0.5])), "the value of own is -0.5, not in [0, 1]"),
        (MetricResult(0.5, Curve([0.0, 1.0], [0.5])), "the curve of own has 2 x and 1 y"),
        (MetricResult(0.5, Curve([0.0, 224.0], [0.5, 0.5])), "the curve of own has 224.0 among its x, not in [0, 1]"),
        (MetricResult(0.5, Curve([], [])), "the curve of own has 0 x and 0 y"),
        (MetricResult(0.5, Curve([0.0, "stem"], [0.5, 0.5])), "the x of the curve of own are both numbers and names"),
    ],
)
def test_a_result_that_could_not_be_read_back_is_a_failure_of_the_metric(
    result: MetricResult, message: str, classifier: Classifier, tmp_path: Path
) -> None:
    register_metric(Metric("own", "Own", True, lambda _: result, range=(0, 1)))
    evaluate(classifier, Pictures(1), tmp_path, **(QUICK | {"metrics": ["own"], "methods": ["grad_cam"]}))
    (record,) = read_records(tmp_path)
    failure = Failure("ValueError", f"Expected a result of own that fits its metric, but {message}.", "metric")
    assert record.failures == [("own", failure)]


def test_outputs_that_are_no_probabilities_have_no_range(classifier: Classifier, tmp_path: Path) -> None:
    with torch.no_grad():
        classifier.model.get_parameter("score.bias").add_(100)
    arguments = QUICK | {"metrics": ["insertion", "average_drop"], "methods": ["grad_cam"]}
    evaluate(replace(classifier, score="output"), Pictures(1), tmp_path, **arguments)
    (record,) = read_records(tmp_path)
    assert (record.error, record.probability) == (None, None)
    assert (record.values["insertion"] or 0) > 90
    changes = '`read_as`: "output" -> "probability"; `score`: "output" -> null; `unbounded`: true -> false'
    with pytest.raises(ValueError, match=f"different settings: {changes}"):
        evaluate(classifier, Pictures(1), tmp_path, **arguments)


def test_an_image_for_whose_output_a_metric_is_undefined_fails_before_it_is_explained(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs are negative for some of the pictures only."""
    model = classifier.model
    tops = [float(model(classifier.inputs(Pictures(5)[index].image)).detach().max()) for index in range(5)]
    with torch.no_grad():
        model.get_parameter("score.bias").sub_(sorted(tops)[2] - 1e-3)  # two tops become negative
    explained: list[int] = []

    def counted(name: str, request: Any) -> Any:
        explained.append(1)
        return run_method(name, request)

    monkeypatch.setattr(image_evaluation, "run_method", counted)
    arguments = QUICK | {"metrics": ["average_drop"], "methods": ["grad_cam"]}
    evaluate(replace(classifier, score="output"), Pictures(5), tmp_path, **arguments)
    errors = [record.error for record in read_records(tmp_path)]
    assert [error is not None for error in errors] == [top < sorted(tops)[2] for top in tops]
    assert len(explained) == 3
    message = next(error.message for error in errors if error is not None)
    assert message.startswith("Expected a score at least 0 for average_drop, but the output of the explained class is")
    assert message.endswith("set `score` to 'probability' or 'sigmoid'; otherwise choose other `metrics`.")


def test_a_metric_that_is_undefined_for_the_output_of_an_image_leaves_the_others_theirs(
    classifier: Classifier, tmp_path: Path
) -> None:
    model = classifier.model
    tops = [float(model(classifier.inputs(Pictures(5)[index].image)).detach().max()) for index in range(5)]
    with torch.no_grad():
        model.get_parameter("score.bias").sub_(sorted(tops)[2] - 1e-3)  # two tops become negative
    arguments = QUICK | {"metrics": ["sparseness", "average_drop"], "methods": ["grad_cam"]}
    evaluate(replace(classifier, score="output"), Pictures(5), tmp_path, **arguments)
    for record, top in zip(read_records(tmp_path), tops, strict=True):
        assert record.error is None
        assert record.values["sparseness"] is not None
        assert (record.values["average_drop"] is None) == (top < sorted(tops)[2])
        assert {*record.failed_metrics} == ({"average_drop"} if top < sorted(tops)[2] else set())


def test_workers_change_nothing(classifier: Classifier, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        for workers in (0, 2):
            evaluate(classifier, Broken(6), tmp_path / f"{workers}", **(QUICK | {"metrics": SIX[:5]}), workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_a_metric_may_return_tensors_and_numpy_numbers(classifier: Classifier, tmp_path: Path) -> None:
    as_tensor: Any = torch.tensor(0.5)
    as_array: Any = np.array([0.25, 1.0], dtype=np.float32)
    register_metric(Metric("own", "Own", True, lambda _: MetricResult(as_tensor, Curve(["a", "b"], as_array))))
    register_metric(Metric("x_too", "X", True, lambda _: MetricResult(as_tensor, Curve(as_array, as_array))))
    evaluate(classifier, Pictures(1), tmp_path, **(QUICK | {"metrics": ["own", "x_too"]}))
    record = read_records(tmp_path)[0]
    assert record.values == {"own": 0.5, "x_too": 0.5}
    assert record.curves == {"own": Curve(["a", "b"], [0.25, 1.0]), "x_too": Curve([0.25, 1.0], [0.25, 1.0])}


METRIC_RESULTS = {
    "a number": (3.0, "Expected own to return a MetricResult, but got float."),
    "a text": (MetricResult("a"), "Expected the value of own to be a number, but got 'a'."),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", METRIC_RESULTS)
def test_a_metric_that_returns_something_else_is_named(name: str, classifier: Classifier, tmp_path: Path) -> None:
    result, message = METRIC_RESULTS[name]
    register_metric(Metric("own", "Own", True, lambda _: result))  # type: ignore[arg-type, return-value]
    evaluate(classifier, Pictures(1), tmp_path, **(QUICK | {"metrics": ["own"], "methods": ["grad_cam"]}))
    (record,) = read_records(tmp_path)
    assert record.failures == [("own", Failure("TypeError", message, "metric"))]


METHOD_RESULTS: dict[str, tuple[Any, str]] = {
    "no run": (lambda r: r.inputs[:, :1], "TypeError: Expected own to return maps and a MethodRun, but got Tensor."),
    "three": (
        lambda r: (r.inputs[:, :1], None, run_method("grad_cam", r)[1]),
        "TypeError: Expected own to return maps and a MethodRun, but got tuple.",
    ),
    "flat map": (
        lambda r: (r.inputs[0, 0], run_method("grad_cam", r)[1]),
        "ValueError: Expected own to return maps 1×1×h×w or 1×1×h×w, but got (21, 21).",
    ),
    "all channels": (
        lambda r: (r.inputs, run_method("grad_cam", r)[1]),
        "ValueError: Expected own to return maps 1×1×h×w or 1×1×h×w, but got (1, 3, 21, 21).",
    ),
}


@pytest.mark.parametrize("name", METHOD_RESULTS)
def test_a_method_that_returns_something_else_is_named(name: str, classifier: Classifier, tmp_path: Path) -> None:
    explain, message = METHOD_RESULTS[name]
    register_method("own", Method(explain))
    evaluate(classifier, Pictures(1), tmp_path, **(QUICK | {"methods": ["own"]}))
    (record,) = read_records(tmp_path)
    assert record.error is not None
    assert f"{record.error.type}: {record.error.message}" == message
