"""Evaluations of the tiny classifier, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_scorecam.datasets import ImageDataset, Sample
from captum_scorecam.evaluation import (
    ExplanationRequest,
    MethodOptions,
    MetricInput,
    Summary,
    plan_evaluation,
    run_evaluation,
    run_method,
)
from captum_scorecam.models import Classifier, find_layer, seen_region

OPTIONS = MethodOptions(n_masks=20, seed=3, mask_iterations=3, perturbations_per_eval=4)  # tuned, runs would differ
QUICK: dict[str, Any] = {
    "methods": ["grad_cam", "score_cam"],
    "metrics": ["average_drop"],
    "layer": "features",
    "options": OPTIONS,
}
_OF_THE_RUN = ("workers", "threads", "retry_errors", "on_image")


def evaluate(classifier: Classifier, dataset: ImageDataset, folder: Path | str, **arguments: Any) -> Summary | None:
    """Plans an evaluation and runs it."""
    of_the_run = {name: arguments.pop(name) for name in _OF_THE_RUN if name in arguments}
    return run_evaluation(plan_evaluation(classifier, dataset, **arguments), folder, **of_the_run)


def metric_input(classifier: Classifier, method: str, sample: Sample, target: int) -> MetricInput:
    """The map of one sample, computed without an evaluation."""
    inputs = classifier.inputs(sample.image)
    layer = find_layer(classifier.model, inputs)
    request = ExplanationRequest(classifier.model, layer, inputs, [target], options=OPTIONS)
    region = None if sample.region is None else seen_region(sample.region, classifier.preprocess)
    return MetricInput(method, request, run_method(method, request)[0].unsqueeze(1), region)


def contents(folder: Path, without: Sequence[str] = ("times",)) -> dict[str, bytes]:
    """Files of a run, except locks and timings."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in named.items() if name.split("/")[0] not in without}
