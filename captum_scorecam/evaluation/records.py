"""The types of a run's records and settings, with the range of each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from re import sub
from typing import Annotated, Literal, TypeAlias

from captum_scorecam.datasets import DataFormat
from captum_scorecam.engines.by_name import EngineName
from captum_scorecam.evaluation.typed_json import MAY_BE_MISSING, Between
from captum_scorecam.scoring.class_scores import NamedScore

FORMAT_VERSION = 3

Stage: TypeAlias = Literal["image", "label", "method", "metric"]
RegionKind: TypeAlias = Literal["boxes", "mask"]
Target: TypeAlias = Literal["predicted", "label"]

LARGEST = 2**63 - 1
SEEDS = (-(2**63), 2**64 - 1)  # of PyTorch's generators
Count: TypeAlias = Annotated[int, Between(0, LARGEST)]
Positive: TypeAlias = Annotated[int, Between(1, LARGEST)]
Probability: TypeAlias = Annotated[float, Between(0, 1, rounding=1e-3)]  # as `are_probabilities` allows
Fraction: TypeAlias = Annotated[float, Between(0, 1)]
Seconds: TypeAlias = Annotated[float, Between(0)]

MOST_THREADS = 4096  # many more exhaust the system
_LONGEST_MESSAGE = 1000


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an image, a method or a metric has no result.

    Attributes:
        type (str): Class name of the exception.
        message (str): Message of the exception and its notes, one line of at most 1000 characters, without memory
            addresses.
        stage (str): What failed: reading or classifying the ``image``, finding the class of its ``label``, the
            ``method`` or a ``metric``.
    """

    type: str
    message: str
    stage: Stage

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"

    @classmethod
    def from_exception(cls, error: Exception, stage: Stage) -> Failure:
        """Creates a failure from an exception and its notes; equal exceptions give equal failures."""
        text = " ".join([str(error), *getattr(error, "__notes__", ())])
        message = sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))
        return cls(type(error).__name__, message[:_LONGEST_MESSAGE], stage)


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve behind a metric's value.

    Attributes:
        x (sequence of float or str): Fractions of the pixels or thresholds in [0, 1], or names of layers.
        y (sequence of float): One value per point: a score or a hit in [0, 1], or a rank correlation in [-1, 1].
    """

    x: Sequence[float | str]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one method on one image. After a failure, the fields from `target` on have their defaults.

    Attributes:
        image (str): The image's name.
        index (int): Position of the image in the data set, from 0.
        method (str, optional): A name in `RunSettings.methods`; None if no method could run because the image or its
            label failed.
        error (Failure, optional): The failure, or None.
        target (int, optional): Index of the explained class.
        target_name (str, optional): Name of the explained class; ``class 3`` if the model has no names.
        label (int, optional): Class index of the image's label; None if the model has no such class.
        label_name (str, optional): Name of the label's class, as of `target_name`. Missing in older records.
        predicted (int, optional): Index of the class with the highest score.
        correct (bool, optional): Whether the label was predicted; None without a label.
        probability (float, optional): The target's probability, in [0, 1]; None if the model's outputs are explained as
            they are and are no probabilities.
        forwards (int, optional): The work for the map: Score-CAM's distinct masks that ran, RISE's masks, Mask's
            optimisation steps, a gradient method's forward passes, or the rows run by a method of Captum.
            `measure_forwards` counts all rows instead.
        map_error (float, optional): With the settings `max_forwards` or `error`, the largest standard error of
            Score-CAM's map as a share of its largest value; 0 if the map is exact. None without these settings, for
            other methods, and if it is unknown, since the map is zero but may not stay so.
        region (str, optional): How the object of the label is known: by its ``boxes`` or by a ``mask``, which metrics
            that compare the map with its pixels use instead; None if it is not. Missing in older records.
        values (mapping of str to float): Values by metric name, in the metric's unit; None if undefined, if the metric
            failed, or if it is the best point of the mean curve over all images.
        curves (mapping of str to Curve): Curves by metric name, for metrics that have one.
        chunk_rows (mapping of str to tuple of int): The distinct numbers of rows per forward pass, in the order
            first run, for the ``map`` (with the mosaic's) and by metric name; parts that ran none are omitted. A chunk
            that did not fit in memory was halved, which shows here and changes rounding.
        failed_metrics (mapping of str to Failure): Failures by metric name, of a map that was computed. Missing in
            older records.
    """

    image: str
    index: Count
    method: str | None
    error: Failure | None
    target: Count | None = None
    target_name: str | None = None
    label: Count | None = None
    label_name: str | None = field(default=None, metadata=MAY_BE_MISSING)
    predicted: Count | None = None
    correct: bool | None = None
    probability: Probability | None = None
    forwards: Count | None = None
    map_error: Annotated[float, Between(0)] | None = None
    region: RegionKind | None = field(default=None, metadata=MAY_BE_MISSING)
    values: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    chunk_rows: Mapping[str, tuple[Positive, ...]] = field(default_factory=dict)
    failed_metrics: Mapping[str, Failure] = field(default_factory=dict, metadata=MAY_BE_MISSING)

    @property
    def failures(self) -> list[tuple[str | None, Failure]]:
        """Each failure with the name of its metric, or with None if the image or the method failed."""
        return [(None, self.error)] if self.error is not None else [*self.failed_metrics.items()]


@dataclass(frozen=True, slots=True)
class Times:
    """Wall-clock times of one method on one image, a line of ``times/rank-000.jsonl``.

    Attributes:
        index (int): Position of the image in the data set, from 0.
        method (str, optional): A name in `RunSettings.methods`; None if no method could run.
        attribution (float, optional): Seconds for the map, and the mosaic's map if a metric needs one; None after a
            failure.
        metrics (mapping of str to float): Seconds by metric name, of those that did not fail.
    """

    index: Count
    method: str | None
    attribution: Seconds | None = None
    metrics: Mapping[str, Seconds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All settings of a run, which must be the same to resume it, apart from `command` and the name of the weights.

    Attributes:
        model (str): The name under which the model was loaded.
        weights_digest (str): Digest of the model's parameters and buffers.
        layer (str): Path of the explained layer; ``none`` if no method uses a layer.
        dtype (str): Dtype of the inputs, such as ``float32``.
        device (str): Device type, such as ``cpu``.
        threads (int): PyTorch's number of CPU threads, which affects rounding.
        classes (int): The model's number of classes.
        images (int): Number of images to evaluate.
        images_digest (str): Digest of the images' positions, labels and names, and of boxes if a metric needs them.
        images_available (int): Number of images in the data set.
        methods (tuple of str): Names of the methods, in the order in which they run.
        metrics (tuple of str): Names of the metrics, in the order in which they run.
        target (str): The class to explain: the ``predicted`` class or that of the image's ``label``.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved.
        n_masks (int): RISE's masks per image.
        mask_iterations (int): Mask's optimisation steps per image.
        perturbations_per_eval (int): Masked inputs per forward pass, given or tuned at the start; affects rounding.
        seed (int): Seed for drawing images, mosaics, masks and noise.
        data (str, optional): Path of the data set; None if unknown.
        data_format (str, optional): Format of the data set, as accepted by `open_data`; None if unknown.
        weights (str, optional): Source of the weights, as accepted by `load_classifier`; None if unknown.
        score (str, optional): How outputs become probabilities, as in `Classifier`; None if it was not given.
        sources (mapping of str to str): Digests of the source code of plugins, registered methods and metrics, and the
            model's factory, by module; ``unknown`` for a module without a file.
        method_options (mapping of str to str): For methods with options or another name, the name in `METHODS`, or
            ``captum:`` and the class, and the options: ``score_cam:max_forwards=64``.
        metric_options (mapping of str to str): The same for metrics with options: ``quantus:MaxSensitivity``.
        max_forwards (int, optional): Score-CAM's masks per image, at most; None if all run.
        error (float, optional): Score-CAM's standard error at which it stops, as a share of the map's largest value;
            None if it does not.
        engine (str): What runs masked inputs: ``eager`` PyTorch, ``compile``, ``onnxruntime`` or ``openvino``; affects
            rounding.
        inputs (str, optional): What the preprocessing makes of a synthetic image: its shape, and the mean and the
            standard deviation of each channel. Default: None, unknown.
        unbounded (bool, optional): Whether outputs that are explained as they are may leave [0, 1], so that Score-CAM
            weights channels by their softmax instead of the outputs themselves. Default: None, unknown.
        read_as (str, optional): How outputs became probabilities: `score` or, if that is None, ``probability`` or
            ``output``, chosen by the outputs of a synthetic image. Default: None, unknown.
        command (str, optional): The command that started the run, for information; None if there was none.
    """

    model: str
    weights_digest: str
    layer: str
    dtype: str
    device: str
    threads: Annotated[int, Between(1, MOST_THREADS)]
    classes: Positive
    images: Positive
    images_digest: str
    images_available: Positive
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    target: Target
    gallery: Count
    n_masks: Positive
    mask_iterations: Positive
    perturbations_per_eval: Positive
    seed: Annotated[int, Between(*SEEDS)]
    data: str | None = None
    data_format: DataFormat | None = None
    weights: str | None = None
    score: NamedScore | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    method_options: Mapping[str, str] = field(default_factory=dict)
    metric_options: Mapping[str, str] = field(default_factory=dict)
    max_forwards: Positive | None = None
    error: Fraction | None = None
    engine: EngineName = "eager"
    inputs: str | None = field(default=None, metadata=MAY_BE_MISSING)
    unbounded: bool | None = field(default=None, metadata=MAY_BE_MISSING)
    read_as: NamedScore | None = field(default=None, metadata=MAY_BE_MISSING)
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """The content of ``configuration.json``.

    Attributes:
        format_version (int): `FORMAT_VERSION` of the package that wrote the run.
        settings (RunSettings): The run's settings.
        versions (mapping of str to str): Versions of packages, Python and CUDA, the device's name and the git revision
            of the working directory; None if not available.
    """

    format_version: int
    settings: RunSettings
    versions: Mapping[str, str | None]
