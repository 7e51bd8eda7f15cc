"""Plans an evaluation, and checks all arguments before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from captum_scorecam._messages import check_choice, check_whole_number, warn_caller
from captum_scorecam.datasets import ImageDataset, Label, Mosaics, label_table
from captum_scorecam.datasets.sample import check_name
from captum_scorecam.engines.by_name import EngineName, check_engine
from captum_scorecam.evaluation.image_evaluation import StageError, Subject, classify, problems_of_score
from captum_scorecam.evaluation.loading import load_some
from captum_scorecam.evaluation.method_choice import (
    check_methods_run,
    check_options_of_run,
    chosen_methods,
    layer_to_explain,
)
from captum_scorecam.evaluation.methods import DEFAULT_METHODS
from captum_scorecam.evaluation.metric_choice import check_metrics_run, chosen_metrics
from captum_scorecam.evaluation.metrics.registry import DEFAULT_METRICS
from captum_scorecam.evaluation.plan import DEFAULT_GALLERY, NO_PROVENANCE, Plan, Provenance
from captum_scorecam.evaluation.records import LARGEST, SEEDS, Target
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS, ExplanationRequest, MethodOptions
from captum_scorecam.models import Classifier


def plan_evaluation(
    classifier: Classifier,
    dataset: ImageDataset,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    metrics: Sequence[str] = DEFAULT_METRICS,
    layer: str = "auto",
    target: Target = "predicted",
    images: int | None = None,
    options: MethodOptions = DEFAULT_OPTIONS,
    labels: Mapping[str, int] | None = None,
    gallery: int = DEFAULT_GALLERY,
    provenance: Provenance = NO_PROVENANCE,
    engine: EngineName = "eager",
) -> Plan:
    """Plans an evaluation: checks the arguments and finds the layer and the classes of the labels.

    Args:
        classifier (Classifier): The model, in evaluation mode, on the device to use.
        dataset (ImageDataset): The images, from `open_data` or a custom object.
        methods (sequence of str): ``[NAME=]METHOD[:OPTION=VALUE,…]`` with a name in `METHODS` or ``captum:CLASS`` of
            ``captum.attr``, such as ``fast=score_cam:max_forwards=64``. Default: grad_cam and score_cam.
        metrics (sequence of str): Names in `METRICS`, or ``[NAME=]quantus:CLASS[:OPTION=VALUE,…]``. Default:
            average_drop, average_increase, insertion and deletion.
        layer (str): The layer to explain, as accepted by `find_layer`. Default: "auto".
        target (str): The class to explain: ``predicted``, or ``label`` for the class of the image's label,
            which metrics of boxes should use. Default: "predicted".
        images (int, optional): Number of images to draw at random, with ``options.seed``. Default: None, all.
        options (MethodOptions): Options of the methods. If `perturbations_per_eval` is None, `run_evaluation` tunes it
            once, before the first image, and keeps it in the run's settings, since it affects rounding.
        labels (mapping of str to int, optional): Class indices of labels that are not class names of the model.
            Default: None, `label_table` of the data set's classes.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved. Default: 100.
        provenance (Provenance): The source of data and weights. Default: unknown.
        engine (str): What runs masked inputs: ``eager``, ``compile``, ``onnxruntime`` or ``openvino``, as for
            `masked_forward_func` of `ScoreCAM`. Default: "eager".

    Returns:
        Plan: The plan for `run_evaluation`.

    Raises:
        TypeError: If an argument or a name of an image is of another type.
        ValueError: If an argument is invalid, does not match the model (Captum's methods are tried on a synthetic
            image), or needs labels or boxes that the data set does not have, or a metric is undefined for the outputs
            of the model, tried on four images.
        ModuleNotFoundError: If a package of the engine is missing.
    """
    chosen, of_maps = chosen_methods(methods), chosen_metrics(metrics)
    check_choice("target", target, Target)
    check_engine(engine)
    images, gallery, options = _whole_numbers(images, gallery, options)
    check_options_of_run(chosen, options)
    example = classifier.inputs(Image.linear_gradient("L").resize((512, 512)).convert("RGB"))
    prediction = classifier.predict(example)
    n_classes = len(prediction.scores)
    classes = getattr(dataset, "classes", None)
    plan = Plan(
        classifier=classifier,
        dataset=dataset,
        indices=_drawn(len(dataset), images, options.seed),
        methods=chosen,
        metrics=of_maps,
        layer=layer_to_explain(chosen, classifier, example, layer),
        target=target,
        options=replace(options, with_errors=False, show_progress=False),
        example=example,
        n_classes=n_classes,
        labels=label_table(classes, classifier.class_names, n_classes) if labels is None else labels,
        mosaics=None,
        gallery=gallery,
        provenance=provenance,
        engine=engine,
        read_as=prediction.score,
    )
    _check(plan)
    check_methods_run(chosen, classifier.model, plan.layer, example, n_classes)
    request = ExplanationRequest(classifier.model, plan.layer, example, [0], prediction.score, options)
    check_metrics_run(of_maps.values(), request)
    tried = _tried(plan) if classifier.score == "output" else []
    _check_scores(plan, tried)
    predictions = [subject.prediction for subject in tried] or [prediction]
    return replace(
        plan,
        unbounded=not all(each.has_probabilities for each in predictions),
        mosaics=Mosaics(dataset, options.seed, classes=_classes(plan)) if plan.chosen_metrics("mosaic") else None,
    )


def _whole_numbers(images: int | None, gallery: int, options: MethodOptions) -> tuple[int | None, int, MethodOptions]:
    """Returns numbers as int, in the ranges in which the run's configuration can be read back.

    Raises:
        TypeError: If one is not a whole number.
        ValueError: If one is out of its range.
    """
    of_masks: dict[str, Any] = {
        name: value if value is None else check_whole_number(name, value, 1, LARGEST)
        for name in ("n_masks", "mask_iterations", "perturbations_per_eval", "max_forwards")
        for value in [getattr(options, name)]
    }
    return (
        None if images is None else check_whole_number("images", images, 1, None),
        check_whole_number("gallery", gallery, 0, LARGEST),
        replace(options, seed=check_whole_number("seed", options.seed, *SEEDS), **of_masks),
    )


def _drawn(available: int, wanted: int | None, seed: int) -> tuple[int, ...]:
    """Returns the positions of all images, or of a random sample, since data sets are sorted by class."""
    if wanted is None or wanted >= available:
        return tuple(range(available))
    drawn = torch.randperm(available, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:wanted]
    return tuple(sorted(drawn.tolist()))


def _check(plan: Plan) -> None:
    if not plan.indices:
        raise ValueError("Expected a data set with at least one image, but it has none.")
    if not plan.methods or not plan.metrics:
        raise ValueError("Expected at least one method and one metric.")
    for index in plan.indices:
        check_name(plan.dataset.name(index))
    for metric in plan.chosen_metrics("image"):
        if "boxes" in metric.needs and not plan.dataset.has_boxes:
            raise ValueError(f"Expected a data set with boxes for {metric.name}, but it has none.")
    for metric in plan.chosen_metrics():
        if "classes" in metric.needs and plan.n_classes < 2:
            raise ValueError(f"Expected a model with two or more classes for {metric.name}, but it has one.")
    if plan.needing_labels and not plan.dataset.has_labels:
        raise ValueError(f"Expected a data set with labels for {plan.needing_labels[0]}, but it has none.")
    if plan.dataset.has_labels:
        _check_labels(plan)
        _check_boxes_are_of_target(plan)


def _tried(plan: Plan) -> list[Subject]:
    """Classifies a few images."""
    found = []
    for loaded in load_some(plan):
        with suppress(StageError):  # recorded when the image is evaluated
            found.append(classify(plan, loaded))
    return found


def _check_scores(plan: Plan, tried: Sequence[Subject]) -> None:
    """Checks that the metrics are defined for outputs that are explained as they are."""
    problems = [problems_of_score(plan, subject) for subject in tried]
    for metric, problem in (problems[0] if problems else {}).items():
        if all(metric in of_image for of_image in problems):
            raise ValueError(problem)


def _classes(plan: Plan) -> dict[Label, int]:
    """Returns the classes of labels."""
    found = {}
    for index in range(len(plan.dataset)):
        with suppress(ValueError, OSError):
            label = plan.dataset.label(index)
            if label is not None:
                found[label] = plan.class_of(label)
    return found


def _check_labels(plan: Plan) -> None:
    """Checks that labels are classes of the model. If needed, a few unknown ones are recorded as errors later."""
    unknown = list(_unknown_labels(plan))
    if plan.needs_labels and len(unknown) == len(plan.indices):
        raise ValueError(f"Expected labels that name classes of the model, but none does. The first: {unknown[0]}")
    if unknown:
        warn_caller(
            f"{len(unknown)} of {len(plan.indices)} images have no label that is a class of the model. "
            f"The first: {unknown[0]}"
        )


def _check_boxes_are_of_target(plan: Plan) -> None:
    """Warns if the class of the boxes may be another than the explained one."""
    names = [metric.name for metric in plan.chosen_metrics("image") if "boxes" in metric.needs]
    if names and plan.target == "predicted":
        warn_caller(
            f"Boxes and masks are those of the label, but the predicted class is explained: where it is another, "
            f"{', '.join(names)} compare its map with the wrong object. Set `target` to 'label'."
        )


def _unknown_labels(plan: Plan) -> Iterator[str]:
    for index in plan.indices:
        try:
            plan.class_of(plan.dataset.label(index))
        except (ValueError, OSError) as error:
            yield f"{plan.dataset.name(index)}: {error}"
