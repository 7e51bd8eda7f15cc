"""The plan of an evaluation: what runs on which images, and the settings that describe it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor, nn

from captum_scorecam.datasets import DataFormat, ImageDataset, Mosaics, resolve_label
from captum_scorecam.engines.by_name import EngineName, twin_by_name
from captum_scorecam.evaluation.method import ChosenMethod
from captum_scorecam.evaluation.metrics.metric import Metric, On
from captum_scorecam.evaluation.records import RunSettings, Target
from captum_scorecam.evaluation.request import MethodOptions
from captum_scorecam.evaluation.settings import digest_of_lines, digest_of_weights, inputs_text
from captum_scorecam.evaluation.sources import digests_of_sources
from captum_scorecam.models import Classifier, ExplainedLayer
from captum_scorecam.scoring.class_scores import NamedScore


class Provenance(TypedDict, total=False):
    """The source of a run's data, weights and code, which only the caller knows. All keys are optional.

    Attributes:
        data (str or Path): Path of the data set.
        data_format (str): Format of the data set, as accepted by `open_data`.
        weights (str or Path): Source of the weights, as accepted by `load_classifier`.
        plugins (sequence of str): Imported modules that the results depend on. Modules that define the methods and
            metrics or the model's factory need not be listed.
        command (str): The command that runs the evaluation.
    """

    data: str | Path
    data_format: DataFormat
    weights: str | Path
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
        methods (mapping of str to ChosenMethod): The methods by name.
        metrics (mapping of str to Metric): The metrics by name.
        layer (ExplainedLayer): The layer to explain.
        target (str): ``predicted`` or ``label``.
        options (MethodOptions): Options of the methods. A ``perturbations_per_eval`` of None is tuned by the run.
        example (Tensor): A preprocessed synthetic image, 1×C×H×W.
        n_classes (int): The model's number of classes.
        labels (mapping of str to int): Class indices of labels that are not class names of the model; None for numbers
            that are ambiguous.
        mosaics (Mosaics, optional): Mosaics of the images, if a metric needs them.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved.
        provenance (Provenance): The source of data and weights.
        engine (str): What runs masked inputs. Default: "eager".
        read_as (str): How the outputs of all images become probabilities: the classifier's ``score`` or, if it has
            none, the one that fits the outputs of `example`. Default: "probability".
        unbounded (bool): Whether the score ``output`` may leave [0, 1], as that of an image on which the plan was tried
            does, so that Score-CAM weights channels by its softmax. Default: False.
        twin (nn.Module, optional): The engine's twin of the model, which a run makes. Default: None.
    """

    classifier: Classifier
    dataset: ImageDataset
    indices: tuple[int, ...]
    methods: Mapping[str, ChosenMethod]
    metrics: Mapping[str, Metric]
    layer: ExplainedLayer
    target: Target
    options: MethodOptions
    example: Tensor
    n_classes: int
    labels: Mapping[str, int | None]
    mosaics: Mosaics | None
    gallery: int
    provenance: Provenance = field(default_factory=Provenance)
    engine: EngineName = "eager"
    read_as: NamedScore = "probability"
    unbounded: bool = False
    twin: nn.Module | None = None

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
        return [metric for metric in self.metrics.values() if on is None or metric.on == on]

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

    def digest_of_files(self) -> str | None:
        """Returns a digest of the content of the images' files, None if the data set has none."""
        of_file = getattr(self.dataset, "file_digest", None)
        return None if of_file is None else digest_of_lines(f"{index} {of_file(index)}" for index in self.indices)

    @property
    def _read(self) -> Sequence[int]:
        """Positions of the images that are read: any of the data set can be a tile of a mosaic."""
        return range(len(self.dataset)) if self.chosen_metrics("mosaic") else self.indices

    def _line(self, index: int) -> str:
        """What the results of an image depend on, besides its file."""
        line = f"{index} {self._class_or_label(index)} {self.dataset.name(index)}"
        boxes = getattr(self.dataset, "boxes_text", None)
        needed = any("boxes" in metric.needs for metric in self.metrics.values())
        return line if boxes is None or not needed else f"{line} {boxes(index)}"

    def _class_or_label(self, index: int) -> str | int | None:
        try:
            label = self.dataset.label(index)
        except (ValueError, OSError):  # which becomes a record
            return None
        try:
            return self.class_of(label)
        except ValueError:
            return label

    def with_twin(self) -> Plan:
        """Returns the plan with its engine's twin, which uses PyTorch's current number of threads.

        Raises:
            ValueError, ModuleNotFoundError: Same as `twin_by_name`.
        """
        return replace(self, twin=twin_by_name(self.engine, self.classifier.model, self.example))

    def with_rows(self, rows: int) -> Plan:
        """Returns the plan with a number of masked inputs per forward pass, unless its options give one."""
        given = self.options.perturbations_per_eval
        return replace(self, options=replace(self.options, perturbations_per_eval=given or rows))

    def settings(self, threads: int) -> RunSettings:
        """Returns the settings of a run of this plan, whose options must have a `perturbations_per_eval`.

        Args:
            threads (int): PyTorch's number of CPU threads.
        """
        assert self.options.perturbations_per_eval is not None  # chosen before a run starts
        return RunSettings(
            data=_text_or_none(self.provenance.get("data")),
            data_format=self.provenance.get("data_format"),
            weights=_text_or_none(self.provenance.get("weights")),
            score=self.classifier.score,
            sources=self._digests_of_sources(),
            command=self.provenance.get("command"),
            model=self.classifier.name,
            weights_digest=digest_of_weights(self.classifier.model),
            layer=self.layer.name,
            dtype=str(self.example.dtype).removeprefix("torch."),
            inputs=inputs_text(self.example),
            device=self.device.type,
            threads=threads,
            classes=self.n_classes,
            images=len(self.indices),
            images_digest=digest_of_lines(map(self._line, self._read)),
            images_available=len(self.dataset),
            methods=tuple(self.methods),
            method_options={name: each.text for name, each in self.methods.items() if each.text != name},
            metrics=tuple(self.metrics),
            metric_options={name: each.text for name, each in self.metrics.items() if each.text is not None},
            target=self.target,
            gallery=self.gallery,
            n_masks=self.options.n_masks,
            mask_iterations=self.options.mask_iterations,
            perturbations_per_eval=self.options.perturbations_per_eval,
            max_forwards=self.options.max_forwards,
            error=None if self.options.error is None else float(self.options.error),
            seed=self.options.seed,
            engine=self.engine,
            unbounded=self.unbounded,
            read_as=self.read_as,
        )

    def _digests_of_sources(self) -> dict[str, str]:
        of_factory, colon, _ = self.classifier.name.partition(":")
        return digests_of_sources(
            [*self.provenance.get("plugins", ()), *([of_factory] if colon and of_factory in sys.modules else [])],
            [each.method.explain for each in self.methods.values()]
            + [metric.compute for metric in self.chosen_metrics()],
        )


def _text_or_none(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
