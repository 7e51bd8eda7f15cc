"""Reads the metrics of an evaluation from text: a name, or ``[NAME=]quantus:CLASS[:OPTION=VALUE,…]``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import torch

from captum_scorecam.evaluation.method import ChosenMethod, Method
from captum_scorecam.evaluation.metrics.metric import Metric, MetricInput
from captum_scorecam.evaluation.metrics.quantus_metrics import QUANTUS, quantus_class, quantus_classes, quantus_metric
from captum_scorecam.evaluation.metrics.registry import METRICS
from captum_scorecam.evaluation.options_text import base_and_text, name_and_text, options_of, text_of
from captum_scorecam.evaluation.registry import by_name, unknown_base
from captum_scorecam.evaluation.request import ExplanationRequest, MethodRun

_NOISE = ChosenMethod("noise", "noise", Method(lambda request: (torch.rand_like(request.inputs[:, :1]), MethodRun(0))))


def chosen_metrics(texts: Sequence[str]) -> dict[str, Metric]:
    """Reads metrics from text; those of Quantus are added to `METRICS`, for tables.

    Args:
        texts (sequence of str): Names in `METRICS`, or ``[NAME=]quantus:CLASS[:OPTION=VALUE,…]``. NAME is by default
            that of the class.

    Returns:
        dict: The metrics by name, without duplicates.

    Raises:
        ValueError: If a metric or option is unknown, a value is wrong, or a name is used twice or belongs to another
            metric.
        ModuleNotFoundError: If Quantus is needed and not installed.
    """
    chosen = by_name(map(_chosen, texts), "metrics")
    for name, metric in chosen.items():
        if metric.text is not None:
            METRICS[name] = metric
    return chosen


def _chosen(text: str) -> Metric:
    name, rest = name_and_text(text, "metric")
    base, given = base_and_text(rest, QUANTUS)
    kind, _, class_name = base.partition(":")
    if kind != QUANTUS:
        known = [each for each, metric in METRICS.items() if metric.text is None]
        if base not in known:
            raise unknown_base(rest, known, QUANTUS, _classes(), "metrics")
        if text != base:
            raise ValueError(
                f"Expected {base} without options or a name of its own, as metrics of Quantus take, but got {text!r}."
            )
        return METRICS[base]
    name = class_name if name is None else name
    if name in METRICS and METRICS[name].text is None:
        raise ValueError(f"Expected a new name for {base}, but {name!r} is the name of another metric.")
    quantus_class(class_name)  # checked before its options
    options = options_of(base, given)
    return quantus_metric(name, class_name, options, text_of(base, options))


def _classes() -> Collection[str]:
    try:
        return quantus_classes()
    except ImportError:
        return ()


def add_known_metrics(texts: Mapping[str, str]) -> None:
    """Adds the metrics of a run to `METRICS`, for their titles and directions, as far as their packages are there.

    Args:
        texts (mapping of str): How they were chosen, by name.
    """
    for name, text in texts.items():
        with suppress(ModuleNotFoundError, ValueError):
            chosen_metrics([f"{name}={text}"])


def check_metrics_run(metrics: Iterable[Metric], request: ExplanationRequest) -> None:
    """Tries the metrics of Quantus on one image with a map of noise, since some return no number for one image.

    Raises:
        ValueError: If one raises an error or gives no number.
    """
    size = request.inputs.shape[2:]
    draws = torch.Generator("cpu").manual_seed(0)
    maps = torch.rand(1, 1, *size, generator=draws, dtype=torch.float32, device="cpu")
    region = torch.zeros(size, dtype=torch.bool, device="cpu")
    region[: size[0] // 2] = True
    for metric in metrics:
        if metric.text is None:
            continue
        try:
            result = metric.compute(MetricInput(_NOISE, request, maps, region, None))
        except Exception as error:  # whatever Quantus raises
            raise ValueError(
                f"Expected `metrics` that fit this model, but {metric.name} raised {type(error).__name__}: {error}"
            ) from error
        if result.value is None:
            raise ValueError(
                f"Expected `metrics` that fit this model, but {metric.name} gives no finite number for a map of noise."
            )
