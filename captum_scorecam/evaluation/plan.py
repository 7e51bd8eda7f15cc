"""The plan of an evaluation, which checks all arguments before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TypedDict

import torch
from PIL import Image
from torch import Tensor

from captum_scorecam._messages import check_choice, check_whole_number, warn_caller
from captum_scorecam.datasets import DataFormat, ImageDataset, Mosaics, label_table, resolve_label
from captum_scorecam.evaluation.methods import DEFAULT_METHODS, METHODS, check_methods, layer_to_explain
from captum_scorecam.evaluation.metrics.metric import Metric, On
from captum_scorecam.evaluation.metrics.registry import DEFAULT_METRICS, METRICS, check_metrics
from captum_scorecam.evaluation.records import RunSettings, Target
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS, MethodOptions
from captum_scorecam.evaluation.settings import digest_of_lines, digest_of_weights
from captum_scorecam.evaluation.sources import digests_of_sources
from captum_scorecam.models import Classifier, ExplainedLayer
from captum_scorecam.scoring.chunk_size import FIXED_ROWS


class Provenance(TypedDict, total=False):
    """The source of a run's data, weights and code, which only the caller knows. All keys are optional.

    Attributes:
        data (str): Path of the data set.
        data_format (str): Format of the data set, as accepted by `open_data`.
        weights (str): Source of the weights, as accepted by `load_classifier`.
        plugins (sequence of str): Imported modules that the results depend on. Modules that define the methods and
            metrics or the model's factory need not be listed.
        command (str): The command that runs the evaluation.
    """

    data: str
    data_format: DataFormat
    weights: str
    plugins: Sequence[str]
    command: str


DEFAULT_GALLERY = 100
NO_PROVENANCE = Provenance()


@dataclass(frozen=True)
class Plan:
    """An evaluation ready to run, as returned by `plan_evaluation`.

    Attributes:
        classifier (Classifier): The model, on its device.
        dataset (ImageDataset): The images.
        indices (tuple of int): Positions of the images to evaluate, in ascending order.
        methods (tuple of str): Names in `METHODS`.
        metrics (tuple of str): Names in `METRICS`.
        layer (ExplainedLayer): The layer to explain.
        target (str): ``predicted`` or ``label``.
        options (MethodOptions): Options of the methods, with a fixed ``perturbations_per_eval``.
        example (Tensor): A preprocessed synthetic image, 1×C×H×W.
        n_classes (int): The model's number of classes.
        labels (mapping of str to int): Class indices of labels that are not class names of the model.
        mosaics (Mosaics, optional): Mosaics of the images, if a metric needs them.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved.
        provenance (Provenance): The source of data and weights.
    """

    classifier: Classifier
    dataset: ImageDataset
    indices: tuple[int, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    layer: ExplainedLayer
    target: Target
    options: MethodOptions
    example: Tensor
    n_classes: int
    labels: Mapping[str, int]
    mosaics: Mosaics | None
    gallery: int
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return self.example.device

    @property
    def needing_labels(self) -> list[str]:
        """The target and metrics for which each image needs a label that is a class of the model."""
        metrics = [metric.name for metric in self.chosen_metrics() if "label" in metric.needs or metric.on == "mosaic"]
        return ["`target` 'label'"] * (self.target == "label") + metrics

    @property
    def needs_labels(self) -> bool:
        """Whether each image needs a label that is a class of the model."""
        return bool(self.needing_labels)

    def chosen_metrics(self, on: On | None = None) -> list[Metric]:
        """Returns the metrics, or only those computed on the ``image`` or on the ``mosaic``."""
        chosen = [METRICS[name] for name in self.metrics]
        return [metric for metric in chosen if on is None or metric.on == on]

    def class_of(self, label: str | int | None) -> int:
        """Returns the model's class index for a label.

        Raises:
            ValueError: If there is no such class.
        """
        if label is None:
            raise ValueError("Expected a label, but the image has none.")
        return self._resolved(label)

    @cached_property
    def _resolved(self) -> Callable[[str | int], int]:
        """`resolve_label` for this model, cached since data sets have many images and few labels."""

        @cache
        def resolved(label: str | int) -> int:
            return resolve_label(label, self.classifier.class_names, self.n_classes, self.labels)

        return resolved

    def _class_or_label(self, index: int) -> str | int | None:
        label = self.dataset.label(index)
        try:
            return self.class_of(label)
        except ValueError:
            return label

    def settings(self, threads: int) -> RunSettings:
        """Returns the settings of a run of this plan.

        Args:
            threads (int): PyTorch's number of CPU threads.
        """
        lines = (f"{index} {self._class_or_label(index)} {self.dataset.name(index)}" for index in self.indices)
        return RunSettings(
            data=self.provenance.get("data"),
            data_format=self.provenance.get("data_format"),
            weights=self.provenance.get("weights"),
            score=self.classifier.score,
            sources=self._digests_of_sources(),
            command=self.provenance.get("command"),
            model=self.classifier.name,
            weights_digest=digest_of_weights(self.classifier.model),
            layer=self.layer.name,
            dtype=str(self.example.dtype).removeprefix("torch."),
            device=self.device.type,
            threads=threads,
            classes=self.n_classes,
            images=len(self.indices),
            images_digest=digest_of_lines(lines),
            images_available=len(self.dataset),
            methods=self.methods,
            metrics=self.metrics,
            target=self.target,
            gallery=self.gallery,
            n_masks=self.options.n_masks,
            mask_iterations=self.options.mask_iterations,
            perturbations_per_eval=_fixed_rows(self.options, self.device),
            seed=self.options.seed,
        )

    def _digests_of_sources(self) -> dict[str, str]:
        factory, has_factory, _ = self.classifier.name.partition(":")
        return digests_of_sources(
            [*self.provenance.get("plugins", ()), *([factory] if has_factory else [])],
            [METHODS[name].explain for name in self.methods] + [metric.compute for metric in self.chosen_metrics()],
        )


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
) -> Plan:
    """Plans an evaluation: checks the arguments and finds the layer and the classes of the labels.

    Args:
        classifier (Classifier): The model, in evaluation mode, on the device to use.
        dataset (ImageDataset): The images, from `open_data` or a custom object.
        methods (sequence of str): Names in `METHODS`. Default: grad_cam and score_cam.
        metrics (sequence of str): Names in `METRICS`. Default: average_drop, average_increase, insertion and
            deletion.
        layer (str): The layer to explain, as accepted by `find_layer`. Default: "auto".
        target (str): The class to explain: ``predicted``, or ``label`` for the class of the image's label.
            Default: "predicted".
        images (int, optional): Number of images to draw at random, with ``options.seed``. Default: None, all.
        options (MethodOptions): Options of the methods. If `perturbations_per_eval` is None, it is set to 4 on a CPU
            and 128 on a GPU, since a tuned value would make rounding differ between runs.
        labels (mapping of str to int, optional): Class indices of labels that are not class names of the model.
            Default: None, `label_table` of the data set's classes.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved. Default: 100.
        provenance (Provenance): The source of data and weights. Default: unknown.

    Returns:
        Plan: The plan for `run_evaluation`.

    Raises:
        ValueError: If an argument is invalid, does not match the model, or needs labels or boxes that the data set does
            not have.
    """
    methods, metrics = check_methods(methods), check_metrics(metrics)
    check_choice("target", target, Target)
    _check_numbers(images, options, gallery)
    example = classifier.inputs(Image.linear_gradient("L").resize((512, 512)).convert("RGB"))
    n_classes = len(classifier.predict(example).scores)
    if labels is None:
        labels = label_table(getattr(dataset, "classes", None), classifier.class_names, n_classes)
    plan = Plan(
        classifier=classifier,
        dataset=dataset,
        indices=_drawn(len(dataset), images, options.seed),
        methods=methods,
        metrics=metrics,
        layer=layer_to_explain(methods, classifier, example, layer),
        target=target,
        options=replace(options, perturbations_per_eval=_fixed_rows(options, example.device), show_progress=False),
        example=example,
        n_classes=n_classes,
        labels=labels,
        mosaics=None,
        gallery=gallery,
        provenance=provenance,
    )
    _check(plan)
    return replace(plan, mosaics=Mosaics(dataset, options.seed)) if plan.chosen_metrics("mosaic") else plan


def _check_numbers(images: int | None, options: MethodOptions, gallery: int) -> None:
    for name in ("n_masks", "mask_iterations"):
        check_whole_number(name, getattr(options, name), 1)
    for name, value in (("perturbations_per_eval", options.perturbations_per_eval), ("images", images)):
        if value is not None:
            check_whole_number(name, value, 1)
    check_whole_number("gallery", gallery, 0)


def _drawn(available: int, wanted: int | None, seed: int) -> tuple[int, ...]:
    """Returns the positions of all images, or of a random sample, since data sets are sorted by class."""
    if wanted is None or wanted >= available:
        return tuple(range(available))
    drawn = torch.randperm(available, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")[:wanted]
    return tuple(sorted(drawn.tolist()))


def _fixed_rows(options: MethodOptions, device: torch.device) -> int:
    return options.perturbations_per_eval or FIXED_ROWS.get(device.type, FIXED_ROWS["cuda"])


def _check(plan: Plan) -> None:
    if not plan.indices:
        raise ValueError("Expected a data set with at least one image, but it has none.")
    if not plan.methods or not plan.metrics:
        raise ValueError("Expected at least one method and one metric.")
    for metric in plan.chosen_metrics("image"):
        if "boxes" in metric.needs and not plan.dataset.has_boxes:
            raise ValueError(f"Expected a data set with boxes for {metric.name}, but it has none.")
    if plan.needing_labels and not plan.dataset.has_labels:
        raise ValueError(f"Expected a data set with labels for {plan.needing_labels[0]}, but it has none.")
    if plan.dataset.has_labels:
        _check_labels(plan)


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


def _unknown_labels(plan: Plan) -> Iterator[str]:
    for index in plan.indices:
        try:
            plan.class_of(plan.dataset.label(index))
        except (ValueError, OSError) as error:
            yield f"{plan.dataset.name(index)}: {error}"
