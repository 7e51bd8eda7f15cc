"""Measures, on one image, how many forward passes an evaluation runs per image."""

from __future__ import annotations

from captum_scorecam.evaluation.forward_rows import forward_rows
from captum_scorecam.evaluation.image_evaluation import StageError, Subject, classify, explain, problems_of_score
from captum_scorecam.evaluation.loading import LoadedImages, load_images
from captum_scorecam.evaluation.metrics.metric import MetricInput, On
from captum_scorecam.evaluation.plan import Plan
from captum_scorecam.evaluation.registry import MAP

_MOST_TRIED = 4


def measure_forwards(plan: Plan) -> dict[str, dict[str, int]]:
    """Runs each method and metric once, on an image that can be classified, and counts the rows run.

    It is the first of four such images for whose score all metrics are defined, if there is one.

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
    failure, found = None, []
    for loaded in load_images(images):
        try:
            found.append(classify(plan, loaded))
        except StageError as error:
            failure = failure or error.failure.message
            continue
        if not problems_of_score(plan, found[-1]):
            return found[-1]
        if len(found) == _MOST_TRIED:
            break
    if found:
        return found[0]
    raise ValueError(f"Expected at least one image that can be evaluated, but all failed. The first error: {failure}")


def _forwards_of(plan: Plan, subject: Subject, method: str) -> dict[str, int]:
    forwards: dict[str, int] = {}
    metric_inputs: dict[On, MetricInput] = {}
    with forward_rows(plan.classifier.model, plan.twin) as rows:
        metric_inputs["image"] = explain(plan, subject, method, "image")[0]
    forwards[MAP] = sum(rows)
    for metric in plan.chosen_metrics():
        with forward_rows(plan.classifier.model, plan.twin) as rows:
            if metric.on not in metric_inputs:
                metric_inputs[metric.on] = explain(plan, subject, method, metric.on)[0]
            metric.compute(metric_inputs[metric.on])
        forwards[metric.name] = sum(rows)
    return forwards
