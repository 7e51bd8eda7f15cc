"""What a record must hold besides the types and ranges of its fields: agreement with itself and with the settings."""

from __future__ import annotations

from collections.abc import Collection

from captum_scorecam.evaluation.methods import OWN_METHODS, SCORE_CAM
from captum_scorecam.evaluation.metrics.metric import FRACTION
from captum_scorecam.evaluation.metrics.registry import OWN_METRICS, range_of
from captum_scorecam.evaluation.options_text import PACKAGES, base_and_options
from captum_scorecam.evaluation.records import LARGEST, Curve, Record, RunSettings
from captum_scorecam.evaluation.registry import MAP
from captum_scorecam.evaluation.request import merged_options
from captum_scorecam.evaluation.typed_json import Between, members
from captum_scorecam.scoring.class_scores import NamedScore

_ROUNDING = 1e-3  # the sum of a model's probabilities may be off by as much
_OF_EVERY_RECORD = ("image", "index", "method", "error")
_OF_EVERY_RESULT = ("method", "target", "target_name", "predicted", "forwards")


def check_record(record: Record, settings: RunSettings) -> None:
    """Checks that a record can be one of a run.

    Raises:
        ValueError: If it can't. The message continues "Expected a record in …, but ".
    """
    if record.method is not None and record.method not in settings.methods:
        raise ValueError(f"the run has no method {record.method!r}")
    if record.index >= settings.images_available:
        raise ValueError(f"`index` is {record.index}, and the data set has {settings.images_available} images")
    if record.error is not None:
        _check_failure(record)
    else:
        _check_result(record, settings)


class KnownImages:
    """The images of the records read so far; the records of an image agree on its name and label.

    Args:
        most (int): The number of images of the run.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: dict[int, str] = {}
        self._labels: dict[int, int | None] = {}

    def check(self, record: Record) -> None:
        """Adds a record.

        Raises:
            ValueError: If it contradicts an earlier one, or is of one image too many. The message continues "Expected a
                record in …, but ".
        """
        if (name := self._names.setdefault(record.index, record.image)) != record.image:
            raise ValueError(f"`image` is {record.image!r}, and {name!r} in another record of image {record.index}")
        if len(self._names) > self._most:
            raise ValueError(f"it is of another image than the {self._most} of the run")
        if record.error is None and (label := self._labels.setdefault(record.index, record.label)) != record.label:
            raise ValueError(f"`label` is {record.label}, and {label} in another record of image {record.index}")


def _check_failure(record: Record) -> None:
    for name, value in members(record).items():
        if name not in _OF_EVERY_RECORD and value not in (None, {}):
            raise ValueError(f"it has both an error and `{name}`")


def _check_result(record: Record, settings: RunSettings) -> None:
    for name in _OF_EVERY_RESULT:
        if getattr(record, name) is None:
            raise ValueError(f"it has neither an error nor `{name}`")
    if record.probability is None and (settings.read_as or settings.score) != "output":
        raise ValueError("`probability` is None")
    for name in ("target", "label", "predicted"):
        if (getattr(record, name) or 0) >= settings.classes:
            raise ValueError(f"`{name}` is {getattr(record, name)}, and the model has {settings.classes} classes")
    explained = "predicted" if settings.target == "predicted" else "label"
    if record.target != getattr(record, explained):
        raise ValueError(f"`target` is {record.target} and `{explained}` is {getattr(record, explained)}")
    if record.correct != (None if record.label is None else record.label == record.predicted):
        raise ValueError(
            f"`correct` is {record.correct}, `label` is {record.label} and `predicted` is {record.predicted}"
        )
    _check_numbers(record, settings)


def _check_numbers(record: Record, settings: RunSettings) -> None:
    metrics = {*settings.metrics}
    _check_keys("values", record.values, metrics)
    _check_keys("curves", record.curves, metrics)
    _check_keys("chunk_rows", record.chunk_rows, metrics | {MAP})
    _check_chunk_rows(record)
    _check_budget(record, settings)
    _check_keys("failed_metrics", record.failed_metrics, metrics)
    for metric in record.failed_metrics:
        if record.values.get(metric) is not None or metric in record.curves:
            raise ValueError(f"{metric} has both a result and a failure")
    if missing := metrics - record.values.keys():
        raise ValueError(f"`values` lacks {min(missing)!r}")
    for metric, value in record.values.items():
        curve = record.curves.get(metric)
        if problem := problem_of_result(metric, value, curve, settings.score):
            raise ValueError(problem)


def _check_keys(name: str, keys: Collection[str], known: set[str]) -> None:
    if unknown := {*keys} - known:
        raise ValueError(f"`{name}` has {min(unknown)!r}, which is not a metric of the run")


def _check_chunk_rows(record: Record) -> None:
    for part, rows in record.chunk_rows.items():
        if not 0 < len({*rows}) == len(rows):
            raise ValueError(f"`chunk_rows` of {part!r} is {[*rows]}, not distinct numbers")
    # A plugin's method may call a part of the model, whose rows are not recorded.
    if record.forwards and record.method in OWN_METHODS and MAP not in record.chunk_rows:
        raise ValueError(f"`forwards` is {record.forwards} and `chunk_rows` lacks {MAP!r}")


def _check_budget(record: Record, settings: RunSettings) -> None:
    assert record.method is not None  # of every result
    base, options = base_and_options(settings.method_options.get(record.method, record.method), *PACKAGES)
    if base not in OWN_METHODS:
        return
    budget = merged_options(base, options, settings) if base == SCORE_CAM else {}
    max_forwards = budget.get("max_forwards")
    has_budget = max_forwards is not None or budget.get("error") is not None
    if record.map_error is not None and not has_budget:
        raise ValueError(f"`map_error` is {record.map_error}, and the map has no budget")
    if (record.forwards or 0) > (max_forwards or LARGEST):
        raise ValueError(f"`forwards` is {record.forwards}, and the run's `max_forwards` is {max_forwards}")


def problem_of_result(metric: str, value: float | None, curve: Curve | None, score: NamedScore | None) -> str | None:
    """Returns what is wrong with the numbers of a metric, or None."""
    limits = Between(*range_of(metric, score), rounding=_ROUNDING)
    numbers = [*([] if value is None else [value]), *([] if curve is None else curve.y)]
    for number in numbers:
        if number not in limits:
            return f"the value of {metric} is {number!r}, not {limits}"
    if curve is None:
        return None
    if not 0 < len(curve.x) == len(curve.y):
        return f"the curve of {metric} has {len(curve.x)} x and {len(curve.y)} y"
    if len({isinstance(x, str) for x in curve.x}) > 1:
        return f"the x of the curve of {metric} are both numbers and names"
    fractions = Between(*FRACTION, rounding=_ROUNDING)
    numbers = [x for x in curve.x if not isinstance(x, str)]
    if outside := [x for x in numbers if x not in fractions]:
        return f"the curve of {metric} has {outside[0]!r} among its x, not {fractions}"
    if metric in OWN_METRICS and numbers != sorted({*numbers}):
        return f"the x of the curve of {metric} do not ascend"
    return None
