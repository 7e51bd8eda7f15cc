"""Measures, on one image, how many forward passes an evaluation runs per image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from captum_scorecam.evaluation.image_evaluation import StageError, Subject, classify, explain
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.evaluation.metrics.metric import MetricInput, On
from captum_scorecam.evaluation.plan import Plan


def measure_forwards(plan: Plan) -> dict[str, dict[str, int]]:
    """Runs each method and metric once, on the first image that can be classified, and counts the rows run.

    Forward passes shared by several metrics, such as those of a mosaic's map, count for the first metric only. The
    number can differ between images, since Score-CAM skips constant and duplicate masks.

    Args:
        plan (Plan): The evaluation.

    Returns:
        dict: For each method, the rows run through the model for its ``map`` and for each metric by name.

    Raises:
        ValueError: If no image can be classified.
        Exception: Any error raised by a method or metric.
    """
    subject = _first_subject(plan)
    return {method: _forwards_of(plan, subject, method) for method in plan.methods}


def _first_subject(plan: Plan) -> Subject:
    images = LoadedImages(plan.dataset, plan.indices, plan.mosaics, plan.classifier.preprocess)
    failure = None
    for loaded in load_images(images):
        try:
            return classify(plan, loaded)
        except StageError as error:
            failure = failure or error.failure.message
    raise ValueError(f"Expected at least one image that can be evaluated, but all failed. The first error: {failure}")


def _forwards_of(plan: Plan, subject: Subject, method: str) -> dict[str, int]:
    forwards = dict.fromkeys(("map", *plan.metrics), 0)
    metric_inputs: dict[On, MetricInput] = {}
    with _counted(plan.classifier.model, forwards, "map"):
        metric_inputs["image"] = explain(plan, subject, method, "image")[0]
    for metric in plan.chosen_metrics():
        with _counted(plan.classifier.model, forwards, metric.name):
            if metric.on not in metric_inputs:
                metric_inputs[metric.on] = explain(plan, subject, method, metric.on)[0]
            metric.compute(metric_inputs[metric.on])
    return forwards


@contextmanager
def _counted(model: nn.Module, counts: dict[str, int], part: str) -> Iterator[None]:
    """Adds the rows run through the model to the count of a part."""

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counts[part] += len(inputs[0])

    hook = model.register_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()
