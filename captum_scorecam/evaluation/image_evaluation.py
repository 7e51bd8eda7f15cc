"""One image: its prediction, each method's map, and what the measures say of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from torch import Tensor

from captum_scorecam.evaluation.loading import Loaded, Preprocessed, failure_of
from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.metrics.metric import ON_IMAGE, ON_MOSAIC, Case, Measured
from captum_scorecam.evaluation.plan import PREDICTED, Plan
from captum_scorecam.evaluation.records import Record
from captum_scorecam.evaluation.request import MethodRun, Question
from captum_scorecam.models import Prediction, class_name, seen_pixels

_NO_IMAGE = Image.new("RGB", (1, 1))  # where the preprocessing is done already


@dataclass(frozen=True)
class Outcome:
    """What one method came to on one image.

    Attributes:
        record (dict): The line of the records.
        seconds (dict): What the parts took.
        pixels (Tensor, optional): What the model saw, H×W×3 in [0, 1]; None after a failure.
        map (Tensor, optional): The method's map, H×W; None after a failure.
    """

    record: Record
    seconds: dict[str, Any] = field(default_factory=dict)
    pixels: Tensor | None = None
    map: Tensor | None = None


class StageError(Exception):
    """An error that is told in a record; its cause is the error itself."""

    def __init__(self, error: Exception, stage: str) -> None:
        super().__init__(str(error))
        self.failure = failure_of(error, stage)


@contextmanager
def _stage(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the user's model, method or measure: anything
        raise StageError(error, name) from error


@dataclass(frozen=True)
class _Subject:
    """An image and its mosaic, what the model says of the image, and the class that is explained."""

    image: Preprocessed
    mosaic: Preprocessed | None
    pixels: Tensor
    prediction: Prediction
    label: int | None
    target: int

    @property
    def predicted(self) -> int:
        return int(self.prediction.scores.argmax())


def evaluate_image(plan: Plan, loaded: Loaded, methods: Sequence[str]) -> Iterator[Outcome]:
    """Evaluates methods on one image.

    Args:
        plan (Plan): What is evaluated.
        loaded (Loaded): The image.
        methods (sequence of str): The methods that are left to do.

    Yields:
        Outcome: One for each method; or a single one, where the image or its label is the reason that none can run.
    """
    head: Record = {"image": loaded.name, "index": loaded.index, "method": None}
    if loaded.image is None:
        yield Outcome({**head, "error": loaded.failure})
        return
    try:
        subject = _subject(plan, loaded, loaded.image)
    except StageError as error:
        yield Outcome({**head, "error": error.failure})
        return
    for method in methods:
        head["method"] = method
        try:
            outcome = _outcome(plan, subject, method)
        except StageError as error:
            yield Outcome({**head, "error": error.failure})
        else:
            yield replace(outcome, record={**head, **outcome.record, "error": None}, pixels=subject.pixels)


def _subject(plan: Plan, loaded: Loaded, image: Preprocessed) -> _Subject:
    """Classifies an image and finds the class to explain."""
    with _stage("label"):
        label = _label(plan, loaded)
    with _stage("image"):
        inputs = _inputs(plan, image)
        pixels = seen_pixels(inputs, plan.classifier.preprocess)
        prediction = plan.classifier.predict(inputs)
        if not prediction.scores.isfinite().all():
            raise ValueError("Expected finite scores, but the model gives NaN or Inf for this image.")
    target = int(prediction.scores.argmax()) if plan.target == PREDICTED or label is None else label
    return _Subject(image, loaded.mosaic, pixels, prediction, label, target)


def _label(plan: Plan, loaded: Loaded) -> int | None:
    """Returns the class of the image's label; None where it has none in the model, and none is needed."""
    try:
        return plan.class_of(loaded.label)
    except ValueError:
        if plan.needs_labels:
            raise
        return None


def _inputs(plan: Plan, image: Preprocessed) -> Tensor:
    """Returns the batch of one that the classifier makes of an image, which is preprocessed already."""
    return replace(plan.classifier, preprocess=lambda _image: image.values).inputs(_NO_IMAGE)


def _outcome(plan: Plan, subject: _Subject, method: str) -> Outcome:
    start = time.perf_counter()
    with _stage("method"):
        case, run = _explained(plan, subject, method, subject.image, subject.target)
        cases = {ON_IMAGE: case}
        if subject.mosaic is not None and subject.label is not None:
            cases[ON_MOSAIC], _ = _explained(plan, subject, method, subject.mosaic, subject.label)
    seconds: dict[str, Any] = {"attribution": time.perf_counter() - start, "measures": {}}
    measured: dict[str, Measured] = {}
    for measure in plan.chosen_measures():
        start = time.perf_counter()
        with _stage("measure"):
            measured[measure.name] = _checked(measure.measure(cases[measure.on]), measure.name)
        seconds["measures"][measure.name] = time.perf_counter() - start
    return Outcome({**_described(plan, subject, run), **_numbers(measured)}, seconds, map=case.maps[0, 0])


def _explained(plan: Plan, subject: _Subject, method: str, image: Preprocessed, target: int) -> tuple[Case, MethodRun]:
    inputs = _inputs(plan, image)
    question = Question(plan.classifier.model, plan.layer, inputs, [target], subject.prediction.score, plan.options)
    maps, run = run_method(method, question)
    if not maps.isfinite().all():
        raise ValueError("Expected a finite map, but got NaN or Inf.")
    return Case(method, question, maps.unsqueeze(1), image.region), run


def _described(plan: Plan, subject: _Subject, run: MethodRun) -> Record:
    return {
        "target": subject.target,
        "target_name": class_name(subject.target, plan.classifier.class_names),
        "label": subject.label,
        "predicted": subject.predicted,
        "correct": None if subject.label is None else subject.predicted == subject.label,
        "probability": float(subject.prediction.probabilities[subject.target]),
        "forwards": run.forwards,
    }


def _numbers(measured: Mapping[str, Measured]) -> Record:
    curves = {name: {"x": list(m.curve.x), "y": list(m.curve.y)} for name, m in measured.items() if m.curve is not None}
    return {"values": {name: m.value for name, m in measured.items()}, "curves": curves}


def _checked(measured: Measured, name: str) -> Measured:
    numbers = [] if measured.value is None else [measured.value]
    numbers += [] if measured.curve is None else measured.curve.y
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"Expected finite numbers of {name}, but got NaN or Inf.")
    return measured
