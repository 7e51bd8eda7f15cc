"""The types of a run's records and settings, and their conversion to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from re import sub
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from captum_scorecam.datasets import DataFormat

FORMAT_VERSION = 1

Stage: TypeAlias = Literal["image", "label", "method", "metric"]
Target: TypeAlias = Literal["predicted", "label"]

_LONGEST_MESSAGE = 1000
_JSON_SCALARS: dict[Any, set[type]] = {int: {int}, float: {int, float}, str: {str}, bool: {bool}, NoneType: {NoneType}}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why an image or a method has no result.

    Attributes:
        type (str): Class name of the exception.
        message (str): Message of the exception, one line of at most 1000 characters, without memory addresses.
        stage (str): What failed: reading or classifying the ``image``, finding the class of its ``label``, the
            ``method`` or a ``metric``.
    """

    type: str
    message: str
    stage: Stage

    @classmethod
    def from_exception(cls, error: Exception, stage: Stage) -> Failure:
        """Creates a failure from an exception; equal exceptions give equal failures."""
        message = sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
        return cls(type(error).__name__, message[:_LONGEST_MESSAGE], stage)


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve behind a metric's value.

    Attributes:
        x (sequence of float or str): Fractions of the pixels in [0, 1], or names of layers.
        y (sequence of float): One value per point: a score in [0, 1], or a rank correlation in [-1, 1].
    """

    x: Sequence[float | str]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Record:
    """The result of one method on one image. After a failure, the fields from `target` on have their defaults.

    Attributes:
        image (str): The image's name.
        index (int): Position of the image in the data set, from 0.
        method (str, optional): A name in `METHODS`; None if no method could run because the image or its label failed.
        error (Failure, optional): The failure, or None.
        target (int, optional): Index of the explained class.
        target_name (str, optional): Name of the explained class; ``class 3`` if the model has no names.
        label (int, optional): Class index of the image's label; None if the model has no such class.
        predicted (int, optional): Index of the class with the highest score.
        correct (bool, optional): Whether the label was predicted; None without a label.
        probability (float, optional): The target's probability, in [0, 1].
        forwards (int, optional): The work for the map: Score-CAM's distinct masks that ran, RISE's masks, Mask's
            optimisation steps, or a gradient method's forward passes. `measure_forwards` counts all rows instead.
        values (mapping of str to float): Values by metric name, in the metric's unit; None if undefined.
        curves (mapping of str to Curve): Curves by metric name, for metrics that have one.
    """

    image: str
    index: int
    method: str | None
    error: Failure | None
    target: int | None = None
    target_name: str | None = None
    label: int | None = None
    predicted: int | None = None
    correct: bool | None = None
    probability: float | None = None
    forwards: int | None = None
    values: Mapping[str, float | None] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Times:
    """Wall-clock times of one method on one image, a line of ``times/rank-000.jsonl``.

    Attributes:
        index (int): Position of the image in the data set, from 0.
        method (str, optional): A name in `METHODS`; None if no method could run.
        attribution (float, optional): Seconds for the map, and the mosaic's map if a metric needs one; None after a
            failure.
        metrics (mapping of str to float): Seconds by metric name; empty after a failure.
    """

    index: int
    method: str | None
    attribution: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All settings of a run. A run can only be resumed with the same settings.

    Attributes:
        model (str): The name under which the model was loaded.
        weights_digest (str): Digest of the model's parameters and buffers.
        layer (str): Path of the explained layer; ``none`` if no method uses a layer.
        dtype (str): Dtype of the inputs, such as ``float32``.
        device (str): Device type, such as ``cpu``.
        threads (int): PyTorch's number of CPU threads, which affects rounding.
        images (int): Number of images to evaluate.
        images_digest (str): Digest of the images' positions, labels and names.
        methods (tuple of str): Names in `METHODS`, in the order in which they run.
        metrics (tuple of str): Names in `METRICS`, in the order in which they run.
        target (str): The class to explain: the ``predicted`` class or that of the image's ``label``.
        gallery (int): Number of images, from the first on, whose pictures and maps are saved.
        n_masks (int): RISE's masks per image.
        mask_iterations (int): Mask's optimisation steps per image.
        perturbations_per_eval (int): Masked inputs per forward pass.
        seed (int): Seed for drawing images, mosaics, masks and noise.
        data (str, optional): Path of the data set; None if unknown.
        data_format (str, optional): Format of the data set, as accepted by `open_data`; None if unknown.
        weights (str, optional): Source of the weights, as accepted by `load_classifier`; None if unknown.
    """

    model: str
    weights_digest: str
    layer: str
    dtype: str
    device: str
    threads: int
    images: int
    images_digest: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    target: Target
    gallery: int
    n_masks: int
    mask_iterations: int
    perturbations_per_eval: int
    seed: int
    data: str | None = None
    data_format: DataFormat | None = None
    weights: str | None = None


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


def to_json(value: Record | Times | Configuration, indent: int | None = None) -> str:
    """Returns a record, its times or a configuration as JSON with sorted keys, on one line unless `indent` is given.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    separators = (",", ":") if indent is None else None
    return json.dumps(value, default=members, sort_keys=True, allow_nan=False, indent=indent, separators=separators)


def members(value: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass by name; unlike `asdict`, without copying their values."""
    return {member.name: getattr(value, member.name) for member in fields(value)}


def from_json(kind: type[T], text: str | bytes, place: str) -> T:
    """Parses the JSON written by `to_json`.

    Args:
        kind (type): `Record`, `Times` or `Configuration`.
        text (str or bytes): The JSON.
        place (str): Source of the JSON, for error messages.

    Raises:
        ValueError: If `text` is not JSON, a key is missing or unknown, a value has the wrong type, or a number is NaN
            or infinite. The message names the place and the key.
    """
    try:
        parsed: T = _parsed(json.loads(text, parse_constant=_refuse_constant), kind, "it")
    except json.JSONDecodeError as error:
        raise ValueError(f"Expected a {kind.__name__.lower()} in {place}, but it is not JSON: {error}.") from error
    except ValueError as error:
        raise ValueError(f"Expected a {kind.__name__.lower()} in {place}, but {error}.") from error
    return parsed


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"it contains {constant}")


def _parsed(value: Any, kind: Any, name: str) -> Any:
    """Checks a JSON value against a type used by the dataclasses above, and builds nested dataclasses."""
    options = _options(kind)
    if value is None and NoneType in options:
        return None
    kind = next(option for option in options if option is not NoneType)
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(value, kind, name)
    if origin is Mapping and isinstance(value, dict):
        return {key: _parsed(item, arguments[1], f"{name}[{key!r}]") for key, item in value.items()}
    if origin in (Sequence, tuple) and isinstance(value, list) and {*map(type, value)} <= _scalars(arguments[0]):
        return tuple(value) if origin is tuple else value
    if type(value) in _scalars(kind) and (origin is not Literal or value in arguments):
        return value
    raise ValueError(f"{name} is {value!r:.80}")


def _options(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _scalars(kind: Any) -> set[type]:
    """Returns the Python types of the JSON scalars that match a type."""
    kinds = (str,) if get_origin(kind) is Literal else _options(kind)
    return {scalar for option in kinds for scalar in _JSON_SCALARS.get(option, set())}


def _dataclass(value: Mapping[str, Any], kind: Any, name: str) -> Any:
    types = _types(kind)
    for wrong, keys in (("lacks the", types.keys() - value.keys()), ("has the unknown", value.keys() - types.keys())):
        if keys:
            raise ValueError(f"{name} {wrong} key {min(keys)!r}")
    return kind(**{key: _parsed(item, types[key], f"`{key}`") for key, item in value.items()})


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
