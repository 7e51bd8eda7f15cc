"""Metrics that rerun the method: on masked or noisy images, for another class, with a randomised model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_scorecam.evaluation.metrics.metric import (
    AT_LEAST_0,
    CORRELATION,
    FRACTION,
    Metric,
    MetricInput,
    MetricResult,
    as_floats,
    other_class,
)
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.masking.scaling import varies
from captum_scorecam.metrics.functional import (
    adcc,
    average_drop,
    cascading_parameter_randomization,
    coherency,
    infidelity,
    l1_complexity,
    random_logit,
    sensitivity_max,
)

NOISE_SAMPLES = 10  # Captum's default


class _MethodAttribution(Attribution):
    """Wraps a method of the evaluation for Captum's metrics."""

    def __init__(self, metric_input: MetricInput, fixed: bool) -> None:
        super().__init__(metric_input.request.model)
        self.metric_input, self.fixed = metric_input, fixed

    def attribute(self, inputs: Any, target: Any = None) -> Any:  # noqa: ARG002 (the request has it)
        """Explains an image, or returns the given map if `fixed`; the result has the structure of `inputs`."""
        image = inputs[0] if isinstance(inputs, tuple) else inputs
        maps = self.metric_input.maps if self.fixed else self.metric_input.explain_again(image)
        repeated = maps.to(image.device).expand_as(image).contiguous()
        return (repeated,) if isinstance(inputs, tuple) else repeated


def _infidelity(metric_input: MetricInput) -> MetricResult:
    value = infidelity(
        _MethodAttribution(metric_input, fixed=True),
        metric_input.request.inputs,
        metric_input.target,
        n_perturb_samples=NOISE_SAMPLES,
        max_examples_per_batch=metric_input.perturbations_per_eval,
        generator=metric_input.request.options.generator(),
    )
    return MetricResult(float(value))


def _sensitivity_max(metric_input: MetricInput) -> MetricResult:
    value = sensitivity_max(
        _MethodAttribution(metric_input, fixed=False),
        metric_input.request.inputs,
        metric_input.target,
        n_perturb_samples=NOISE_SAMPLES,
        max_examples_per_batch=1,  # a request has one image
        generator=metric_input.request.options.generator(),
    )
    return MetricResult(float(value))


def _sanity_check(metric_input: MetricInput) -> MetricResult:
    """Computes rank correlations with the map as the model's children are randomised, from last to first."""
    if not varies(metric_input.maps).all():
        return MetricResult(None)  # rank correlation with a constant map is undefined
    request = replace(metric_input.request, masked_forward_func=None)  # a twin keeps the trained weights
    randomized = replace(metric_input, request=request)
    records = list(
        cascading_parameter_randomization(
            request.model,
            lambda inputs: randomized.explain_again(inputs if isinstance(inputs, Tensor) else inputs[0]),
            request.inputs,
            generator=request.options.generator(),
            layers=_children_with_parameters(request.model),
        )
    )
    similarities = torch.cat([record.spearman for record in records])
    curve = Curve([record.layer for record in records], as_floats(similarities))
    return MetricResult(float(similarities.double().mean()), curve)


def _coherency(metric_input: MetricInput) -> MetricResult:
    return MetricResult(float(coherency(metric_input.maps, metric_input.map_of_masked)))


def _adcc(metric_input: MetricInput) -> MetricResult:
    drop = average_drop(*metric_input.scores_of_map, reduction="none").cpu()
    of_masked = coherency(metric_input.maps, metric_input.map_of_masked, reduction="none")
    return MetricResult(float(adcc(drop, of_masked, l1_complexity(metric_input.maps, reduction="none"))))


def _random_logit(metric_input: MetricInput) -> MetricResult:
    if metric_input.n_classes is None or metric_input.n_classes < 2:
        return MetricResult(None)
    request, other_map = metric_input.request, metric_input.other_map
    if other_map is None:
        seed = request.options.seed
        other_map = metric_input.map_of(other_class(request.inputs, metric_input.target, metric_input.n_classes, seed))
    return MetricResult(float(random_logit(metric_input.maps, other_map)))


def _children_with_parameters(model: nn.Module) -> list[str] | None:
    """Returns the names of the model's direct children with parameters, or None if there are none."""
    names = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    return names or None


METRICS_OF_METHODS = (
    Metric("coherency", "Coherency", True, _coherency, range=FRACTION),
    Metric("adcc", "ADCC", True, _adcc, range=FRACTION, scores=FRACTION),
    Metric(
        "random_logit",
        "Similarity to another class",
        False,
        _random_logit,
        needs=frozenset({"classes"}),
        range=CORRELATION,
        of_other_class=True,
    ),
    Metric("infidelity", "Infidelity", False, _infidelity, range=AT_LEAST_0),
    Metric("sensitivity_max", "Sensitivity", False, _sensitivity_max, range=AT_LEAST_0),
    Metric(
        "sanity_check",
        "Similarity after randomisation",
        False,
        _sanity_check,
        range=CORRELATION,
        axes=("Randomised layers, from the last to the first", "Rank correlation"),
    ),
)
