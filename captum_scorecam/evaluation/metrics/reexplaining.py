"""Metrics that rerun the method, on noisy images or a randomised model, and Captum's infidelity."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.metrics.metric import (
    AT_LEAST_0,
    CORRELATION,
    Metric,
    MetricInput,
    MetricResult,
    as_floats,
)
from captum_scorecam.evaluation.records import Curve
from captum_scorecam.masking.scaling import varies
from captum_scorecam.metrics.functional import cascading_parameter_randomization, infidelity, sensitivity_max

NOISE_SAMPLES = 10  # Captum's default


class _MethodAttribution(Attribution):
    """Wraps a method of the evaluation for Captum's metrics."""

    def __init__(self, metric_input: MetricInput, fixed: bool) -> None:
        super().__init__(metric_input.request.model)
        self.metric_input, self.fixed = metric_input, fixed

    def attribute(self, inputs: Any, target: Any = None) -> Any:  # noqa: ARG002 (the request has it)
        """Explains an image, or returns the given map if `fixed`; the result has the structure of `inputs`."""
        image = inputs[0] if isinstance(inputs, tuple) else inputs
        maps = self.metric_input.maps if self.fixed else _explain_again(self.metric_input, image)
        repeated = maps.to(image).expand_as(image).contiguous()
        return (repeated,) if isinstance(inputs, tuple) else repeated


def _explain_again(metric_input: MetricInput, inputs: Tensor) -> Tensor:
    """Explains another image, or the same one after the model has changed; returns 1×1×H×W."""
    return run_method(metric_input.method, replace(metric_input.request, inputs=inputs))[0].unsqueeze(1)


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
    records = list(
        cascading_parameter_randomization(
            metric_input.request.model,
            lambda inputs: _explain_again(metric_input, inputs if isinstance(inputs, Tensor) else inputs[0]),
            metric_input.request.inputs,
            generator=metric_input.request.options.generator(),
            layers=_children_with_parameters(metric_input.request.model),
        )
    )
    similarities = torch.cat([record.spearman for record in records])
    curve = Curve([record.layer for record in records], as_floats(similarities))
    return MetricResult(float(similarities.double().mean()), curve)


def _children_with_parameters(model: nn.Module) -> list[str] | None:
    """Returns the names of the model's direct children with parameters, or None if there are none."""
    names = [name for name, child in model.named_children() if next(child.parameters(), None) is not None]
    return names or None


METRICS_OF_METHODS = (
    Metric("infidelity", "Infidelity", False, _infidelity, range=AT_LEAST_0),
    Metric("sensitivity_max", "Sensitivity", False, _sensitivity_max, range=AT_LEAST_0),
    Metric("sanity_check", "Similarity after randomisation", False, _sanity_check, range=CORRELATION),
)
