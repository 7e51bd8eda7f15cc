"""What an evaluation does, checked before any of it is done."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from captum_scorecam.datasets import ImageDataset, Mosaics, label_table, resolve_label
from captum_scorecam.evaluation.methods import DEFAULT_METHODS, METHODS, check_methods, most_forwards
from captum_scorecam.evaluation.metrics.metric import BOXES, LABEL, ON_IMAGE, ON_MOSAIC, Measure
from captum_scorecam.evaluation.metrics.registered import DEFAULT_MEASURES, MEASURES, check_measures
from captum_scorecam.evaluation.request import DEFAULT_OPTIONS, MethodOptions, Question
from captum_scorecam.evaluation.settings import digest_of_lines, digest_of_weights
from captum_scorecam.models import Classifier, ExplainedLayer, find_layer
from captum_scorecam.scoring.chunk_size import FIXED_ROWS

PREDICTED, OF_LABEL = "predicted", "label"
TARGETS = (PREDICTED, OF_LABEL)


@dataclass(frozen=True)
class Plan:
    """An evaluation that is ready to run; `plan_evaluation` makes it.

    Attributes:
        classifier (Classifier): The model, on its device.
        data (ImageDataset): The images.
        indices (tuple of int): Which of them, ascending.
        methods (tuple of str): Names in `METHODS`.
        measures (tuple of str): Names in `MEASURES`.
        layer (ExplainedLayer): The layer that is explained.
        target (str): ``predicted`` or ``label``.
        options (MethodOptions): Of the methods, with a fixed ``perturbations_per_eval``.
        example (Tensor): A preprocessed image that is none of the data's, 1×C×H×W.
        n_classes (int): The model's classes.
        labels (mapping of str to int): Labels that go by no name of the model.
        mosaics (Mosaics, optional): The mosaics of the images, if a measure wants them.
        gallery (int): Of how many images pictures are kept.
        provenance (mapping): What else has to be the same to resume the run.
    """

    classifier: Classifier
    data: ImageDataset
    indices: tuple[int, ...]
    methods: tuple[str, ...]
    measures: tuple[str, ...]
    layer: ExplainedLayer
    target: str
    options: MethodOptions
    example: Tensor
    n_classes: int
    labels: Mapping[str, int]
    mosaics: Mosaics | None
    gallery: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.example.device

    @property
    def needs_labels(self) -> bool:
        """Whether an image without a label that the model knows can't be evaluated."""
        return self.target == OF_LABEL or any(LABEL in measure.needs for measure in self.chosen_measures())

    def chosen_measures(self, *on: str) -> list[Measure]:
        """Returns the measures, those on ``image`` or on ``mosaic`` only if asked."""
        chosen = [MEASURES[name] for name in self.measures]
        return [measure for measure in chosen if not on or measure.on in on]

    def class_of(self, label: str | int | None) -> int:
        """Returns the model's class of a label.

        Raises:
            ValueError: If there is none.
        """
        if label is None:
            raise ValueError("Expected a label, but the image has none.")
        return self._resolved(label)

    @cached_property
    def _resolved(self) -> Callable[[str | int], int]:
        """`resolve_label` for this model, each label looked up once: data sets have few, and many images."""

        @cache
        def resolved(label: str | int) -> int:
            return resolve_label(label, self.classifier.class_names, self.n_classes, self.labels)

        return resolved

    def _class_or_label(self, index: int) -> str | int | None:
        label = self.data.label(index)
        try:
            return self.class_of(label)
        except ValueError:
            return label

    def most_forwards(self, method: str) -> dict[str, int]:
        """Returns the most forwards that a method's ``map`` and each measure of it run for an image."""
        question = Question(self.classifier.model, self.layer, self.example, [0], options=self.options)
        per_map = most_forwards(method, question)
        return {"map": per_map} | {m.name: m.forwards(question, per_map) for m in self.chosen_measures()}

    def asked(self, threads: int) -> dict[str, Any]:
        """Returns what has to be the same to resume a run, as it stands in the configuration."""
        data = self.data
        return {
            **self.provenance,
            "model": self.classifier.name,
            "weights_digest": digest_of_weights(self.classifier.model),
            "layer": self.layer.name,
            "dtype": str(self.example.dtype).removeprefix("torch."),
            "device": self.device.type,
            "threads": threads,
            "images": len(self.indices),
            "images_digest": digest_of_lines(f"{i} {self._class_or_label(i)} {data.name(i)}" for i in self.indices),
            "methods": list(self.methods),
            "measures": list(self.measures),
            "target": self.target,
            "gallery": self.gallery,
            "n_masks": self.options.n_masks,
            "mask_iterations": self.options.mask_iterations,
            "perturbations_per_eval": self.options.perturbations_per_eval,
            "seed": self.options.seed,
        }


def plan_evaluation(
    classifier: Classifier,
    data: ImageDataset,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    measures: Sequence[str] = DEFAULT_MEASURES,
    layer: str = "auto",
    target: str = PREDICTED,
    images: int | None = None,
    options: MethodOptions = DEFAULT_OPTIONS,
    labels: Mapping[str, int] | None = None,
    gallery: int = 100,
    provenance: Mapping[str, Any] | None = None,
) -> Plan:
    """Checks what is asked, finds the layer and the labels' classes. The arguments are those of `evaluate`.

    Raises:
        ValueError: If something asked is unknown, does not fit the model, or needs what the data don't have.
    """
    check_methods(methods)
    example = classifier.inputs(Image.linear_gradient("L").resize((512, 512)).convert("RGB"))
    n_classes = len(classifier.predict(example).scores)
    if labels is None:
        labels = label_table(getattr(data, "classes", None), classifier.class_names, n_classes)
    plan = Plan(
        classifier=classifier,
        data=data,
        indices=_drawn(len(data), images, options.seed),
        methods=check_methods(methods),
        measures=check_measures(measures),
        layer=_layer(classifier, methods, example, layer),
        target=target,
        options=_with_fixed_rows(options, example.device),
        example=example,
        n_classes=n_classes,
        labels=labels,
        mosaics=None,
        gallery=gallery,
        provenance=provenance or {},
    )
    _check(plan)
    return replace(plan, mosaics=Mosaics(data, options.seed)) if plan.chosen_measures(ON_MOSAIC) else plan


def _drawn(available: int, wanted: int | None, seed: int) -> tuple[int, ...]:
    """Returns which images are evaluated: all, or some drawn from the seed, since data sets are sorted by class."""
    if wanted is None or wanted >= available:
        return tuple(range(available))
    if wanted < 1:
        raise ValueError(f"Expected `--images` to be at least 1, but got {wanted}.")
    drawn = torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:wanted]
    return tuple(sorted(drawn.tolist()))


def _layer(classifier: Classifier, methods: Sequence[str], example: Tensor, name: str) -> ExplainedLayer:
    """Finds the layer; where no method looks at one, the model need not have any with maps."""
    if any(METHODS[method].of_layer for method in methods):
        return find_layer(classifier.model, example, classifier.layer if name == "auto" else name)
    return ExplainedLayer("none", classifier.model)


def _with_fixed_rows(options: MethodOptions, device: torch.device) -> MethodOptions:
    """Fixes the rows of a forward: tuned by time, they, and with them roundings, would differ from run to run."""
    rows = options.perturbations_per_eval or FIXED_ROWS.get(device.type, FIXED_ROWS["cuda"])
    return replace(options, perturbations_per_eval=rows, show_progress=False)


def _check(plan: Plan) -> None:
    if not plan.indices:
        raise ValueError("Expected at least one image, but the data have none.")
    if not plan.methods or not plan.measures:
        raise ValueError("Expected at least one method and one measure.")
    if plan.target not in TARGETS:
        raise ValueError(f"Expected `--target` to be predicted or label, but got {plan.target!r}.")
    for measure in plan.chosen_measures(ON_IMAGE):
        if BOXES in measure.needs and not plan.data.has_boxes:
            raise ValueError(f"Expected data with boxes for {measure.name}, but these have none.")
    if plan.needs_labels and not plan.data.has_labels:
        raise ValueError("Expected data with labels for the target or a measure that needs them, but these have none.")
    if plan.data.has_labels:
        _check_labels(plan)


def _check_labels(plan: Plan) -> None:
    """Checks that labels are classes of the model; where they are needed, a few that are not become error records."""
    unknown = list(_unknown_labels(plan))
    if plan.needs_labels and len(unknown) == len(plan.indices):
        raise ValueError(f"Expected labels that are classes of the model, but none is. The first: {unknown[0]}")
    if unknown:
        warnings.warn(
            f"{len(unknown)} of {len(plan.indices)} images have no label that is a class of the model. "
            f"The first: {unknown[0]}",
            stacklevel=2,
        )


def _unknown_labels(plan: Plan) -> Iterator[str]:
    for index in plan.indices:
        try:
            plan.class_of(plan.data.label(index))
        except (ValueError, OSError) as error:
            yield f"{plan.data.name(index)}: {error}"
