"""Evaluates one image: its prediction, the map of each method and the metrics of each map."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from captum_scorecam._messages import type_of
from captum_scorecam.evaluation.forward_rows import forward_rows
from captum_scorecam.evaluation.loading import Loaded, Preprocessed
from captum_scorecam.evaluation.method_choice import explains_more_classes_for_free, scores_to_share
from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.metrics.metric import MetricInput, MetricResult, On, other_class
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.record_checks import problem_of_result
from captum_scorecam.evaluation.records import Curve, Failure, Record, RegionKind, Stage, Times
from captum_scorecam.evaluation.registry import MAP
from captum_scorecam.evaluation.request import ExplanationRequest, MethodRun
from captum_scorecam.evaluation.shared_scores import SharedScores
from captum_scorecam.evaluation.typed_json import Between
from captum_scorecam.models import ExplainedLayer, Prediction, class_name, seen_pixels
from captum_scorecam.scoring.class_scores import NamedScore

_ROUNDING = 1e-3  # as `are_probabilities` allows


@dataclass(frozen=True)
class Outcome:
    """The outcome of one method on one image.

    Attributes:
        record (Record): The record to write.
        times (Times): The wall-clock times to write.
        pixels (Tensor, optional): The image as seen by the model, H×W×3 in [0, 1]; None after a failure.
        map (Tensor, optional): The method's map, H×W; None after a failure.
    """

    record: Record
    times: Times
    pixels: Tensor | None = None
    map: Tensor | None = None


class StageError(Exception):
    """A failure that becomes part of a record."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@contextmanager
def _stage(name: Stage) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the user's model, method or metric may raise anything
        raise StageError(Failure.from_exception(error, name)) from error


class View(NamedTuple):
    """An input of the model, the classes to explain in it (another one if a metric needs it), and the layer."""

    image: Preprocessed
    classes: list[int]
    layer: ExplainedLayer

    @property
    def target(self) -> int:
        """The class that the metrics are about."""
        return self.classes[0]


@dataclass(frozen=True)
class Subject:
    """A classified image.

    Attributes:
        views (mapping): The image, and its mosaic if there is one, by `Metric.on`.
        pixels (Tensor): The image as seen by the model, H×W×3 in [0, 1].
        prediction (Prediction): The model's prediction for the image.
        label (int, optional): The class index of the image's label.
        shared (mapping): For each view, the scores that several methods read. Default: none.
    """

    views: Mapping[On, View]
    pixels: Tensor
    prediction: Prediction
    label: int | None
    shared: Mapping[On, SharedScores] = field(default_factory=dict)


def evaluate_image(plan: Plan, loaded: Loaded, methods: Sequence[str]) -> Iterator[Outcome]:
    """Evaluates methods on one image.

    Args:
        plan (Plan): The evaluation.
        loaded (Loaded): The image.
        methods (sequence of str): The methods to run.

    Yields:
        Outcome: One per method, or a single one if the image or its label failed, so that no method could run.
    """
    try:
        subject = classify(plan, loaded)
    except StageError as error:
        yield Outcome(Record(loaded.name, loaded.index, None, error.failure), Times(loaded.index, None))
        return
    for method in methods:
        try:
            yield _evaluate_method(plan, loaded, subject, method)
        except StageError as error:
            yield Outcome(Record(loaded.name, loaded.index, method, error.failure), Times(loaded.index, method))


def classify(plan: Plan, loaded: Loaded) -> Subject:
    """Classifies an image and chooses the class to explain.

    Raises:
        StageError: If the image can't be read or classified, or the model does not have the class of its label.
    """
    if isinstance(loaded.image, Failure):
        raise StageError(loaded.image)
    model = plan.classifier.model
    with _stage("label"):
        label = _label(plan, loaded)
    with _stage("image"):
        inputs = plan.classifier.batch(loaded.image.values)
        pixels = seen_pixels(inputs, plan.classifier.preprocess)
        prediction = replace(plan.classifier.predict(inputs), score=plan.read_as)
        if not prediction.scores.isfinite().all():
            raise ValueError("Expected finite scores, but the model returned NaN or Inf for this image.")
    target = label if plan.target == "label" and label is not None else int(prediction.scores.argmax())
    classes = [target]
    if plan.n_classes > 1 and any(metric.of_other_class for metric in plan.chosen_metrics("image")):
        classes.append(other_class(inputs, target, plan.n_classes, plan.options.seed))
    with _stage("image"):
        views: dict[On, View] = {"image": View(loaded.image, classes, plan.layer.for_inputs(model, inputs))}
        if loaded.mosaic is not None and label is not None:
            of_mosaic = plan.classifier.batch(loaded.mosaic.values)
            views["mosaic"] = View(loaded.mosaic, [label], plan.layer.for_inputs(model, of_mosaic))
    scores = scores_to_share(plan.methods, plan.options)
    shared = {on: SharedScores(scores, view.classes, plan.n_classes) for on, view in views.items()} if scores else {}
    return Subject(views, pixels, prediction, label, shared)


def _label(plan: Plan, loaded: Loaded) -> int | None:
    """Returns the class of the image's label; None if the model does not have it and it is not needed."""
    try:
        return plan.class_of(loaded.label)
    except ValueError:
        if plan.needs_labels:
            raise
        return None


def problems_of_score(plan: Plan, subject: Subject) -> dict[str, str]:
    """Returns the metrics that are undefined for the score of a classified image, and why."""
    score = float(subject.prediction.probabilities[subject.views["image"].target])
    logits = "'sigmoid'" if plan.n_classes == 1 else "'probability' or 'sigmoid'"
    return {
        metric.name: (
            f"Expected a score {needed} for {metric.name}, but the output of the explained class is {score:.4g}. "
            f"If the outputs are logits, set `score` to {logits}; otherwise choose other `metrics`."
        )
        for metric in plan.chosen_metrics("image")
        if score not in (needed := Between(*metric.scores, rounding=_ROUNDING))
    }


def explain(plan: Plan, subject: Subject, method: str, on: On) -> tuple[MetricInput, MethodRun]:
    """Runs a method on an image or its mosaic.

    Raises:
        ValueError: If the map is not finite.
    """
    view, chosen = subject.views[on], plan.methods[method]
    request = ExplanationRequest(
        plan.classifier.model,
        view.layer,
        plan.classifier.batch(view.image.values),
        [view.target],
        subject.prediction.score,
        plan.options,
        unbounded=plan.unbounded,
        masked_forward_func=plan.twin,
        shared=subject.shared.get(on),
    )
    together = explains_more_classes_for_free(chosen, plan.options)
    maps, run = run_method(chosen, replace(request, targets=view.classes) if together else request)
    if not maps.isfinite().all():
        raise ValueError("Expected a finite map, but got NaN or Inf.")
    found = MetricInput(
        chosen,
        request,
        maps[:1].unsqueeze(1),
        view.image.region,
        plan.n_classes,
        view.image.mask,
        view.image.boxes,
        maps[1:].unsqueeze(1) if len(maps) > 1 else None,
    )
    return found, run


def _evaluate_method(plan: Plan, loaded: Loaded, subject: Subject, method: str) -> Outcome:
    rows: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    results: dict[str, MetricResult] = {}
    problems = problems_of_score(plan, subject)
    if len(problems) == len(plan.metrics):  # no need for a map
        with _stage("metric"):
            raise ValueError(next(iter(problems.values())))
    with _stage("method"), _measured(plan, MAP, rows, seconds):
        explained = {on: explain(plan, subject, method, on) for on in subject.views}
        if shared := [rows_of for _, run in explained.values() for rows_of in run.chunk_rows or ()]:
            rows[MAP] = shared  # whichever method ran them
    failed: dict[str, Failure] = {}
    for metric in plan.chosen_metrics():
        name = metric.name
        try:
            with _stage("metric"), _measured(plan, name, rows, seconds):
                if name in problems:
                    raise ValueError(problems[name])
                results[name] = _checked(metric.compute(explained[metric.on][0]), name, plan.classifier.score)
        except StageError as error:
            failed[name] = error.failure
            results[name] = MetricResult(None)
            del rows[name]
    metric_input, run = explained["image"]
    chunk_rows = {part: tuple(dict.fromkeys(of_part)) for part, of_part in rows.items() if of_part}
    record = _record(plan, loaded, subject, method, run, results, failed, chunk_rows)
    times = Times(loaded.index, method, seconds.pop(MAP), seconds)
    return Outcome(record, times, subject.pixels, metric_input.maps[0, 0])


@contextmanager
def _measured(plan: Plan, part: str, rows: dict[str, list[int]], seconds: dict[str, float]) -> Iterator[None]:
    """Adds the rows of each forward pass of a part, and its wall-clock time."""
    start = time.perf_counter()
    with forward_rows(plan.classifier.model, plan.twin) as rows[part]:
        yield
    seconds[part] = time.perf_counter() - start


def _record(
    plan: Plan,
    loaded: Loaded,
    subject: Subject,
    method: str,
    run: MethodRun,
    results: Mapping[str, MetricResult],
    failed: Mapping[str, Failure],
    chunk_rows: Mapping[str, tuple[int, ...]],
) -> Record:
    target, predicted = subject.views["image"].target, int(subject.prediction.scores.argmax())
    without_probabilities = plan.read_as == "output" and not subject.prediction.has_probabilities
    return Record(
        image=loaded.name,
        index=loaded.index,
        method=method,
        error=None,
        target=target,
        target_name=class_name(target, plan.classifier.class_names),
        label=subject.label,
        label_name=None if subject.label is None else class_name(subject.label, plan.classifier.class_names),
        predicted=predicted,
        correct=None if subject.label is None else predicted == subject.label,
        probability=None if without_probabilities else float(subject.prediction.probabilities[target]),
        forwards=run.forwards,
        map_error=_map_error(run),
        region=_kind_of_region(subject.views["image"].image),
        values={name: result.value for name, result in results.items()},
        curves={name: result.curve for name, result in results.items() if result.curve is not None},
        chunk_rows=chunk_rows,
        failed_metrics=failed,
    )


def _map_error(run: MethodRun) -> float | None:
    errors = () if run.channels is None else run.channels.errors
    return errors[0] if errors and math.isfinite(errors[0]) else None  # the only target's; infinite for a zero map


def _kind_of_region(image: Preprocessed) -> RegionKind | None:
    if image.mask is not None:
        return "mask"
    return None if image.region is None else "boxes"


def _plain_numbers(values: Iterable[Any]) -> list[Any]:
    return [value if isinstance(value, str) else float(value) for value in values]


def _checked(result: MetricResult, name: str, score: NamedScore | None) -> MetricResult:
    """Checks the numbers and the curve; converts tensors and NumPy numbers of custom metrics to floats for JSON."""
    if not isinstance(result, MetricResult):
        raise TypeError(f"Expected {name} to return a MetricResult, but got {type_of(result)}.")
    try:
        value = None if result.value is None else float(result.value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"Expected the value of {name} to be a number, but got {result.value!r:.80}.") from error
    curve = None if result.curve is None else Curve(_plain_numbers(result.curve.x), _plain_numbers(result.curve.y))
    if not all(math.isfinite(number) for number in (value or 0.0, *(curve.y if curve else ()))):
        raise ValueError(f"Expected finite numbers from {name}, but got NaN or Inf.")
    if problem := problem_of_result(name, value, curve, score):
        raise ValueError(f"Expected a result of {name} that fits its metric, but {problem}.")
    return MetricResult(value, curve)
