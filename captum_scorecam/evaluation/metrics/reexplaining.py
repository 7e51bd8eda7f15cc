"""The measures that need more than a map: they take the method itself, and mostly explain again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.metrics.metric import Case, Curve, Measured, as_floats
from captum_scorecam.evaluation.request import Question
from captum_scorecam.masking.scaling import varies
from captum_scorecam.metrics.functional import cascading_parameter_randomization, infidelity, sensitivity_max

NOISE_SAMPLES = 10  # Captum's number


class _MethodAttribution(Attribution):
    """A method of the evaluation as Captum's measures take it."""

    def __init__(self, case: Case, fixed: bool) -> None:
        super().__init__(case.question.model)
        self.case, self.fixed = case, fixed

    def attribute(self, inputs: Any, target: Any = None) -> Any:  # noqa: ARG002 (the case has it)
        """Explains an image, or, where `fixed`, gives the case's map; of the inputs' shape, a tuple for a tuple."""
        image = inputs[0] if isinstance(inputs, tuple) else inputs
        maps = self.case.maps if self.fixed else _maps(self.case, image)
        repeated = maps.to(image).expand_as(image).contiguous()
        return (repeated,) if isinstance(inputs, tuple) else repeated


def _maps(case: Case, inputs: Tensor) -> Tensor:
    """Explains another image, or the same one by a changed model, as the case's map was made: 1×1×H×W."""
    return run_method(case.method, replace(case.question, inputs=inputs))[0].unsqueeze(1)


def measure_infidelity(case: Case) -> Measured:
    """Measures Captum's infidelity of the case's map."""
    measured = infidelity(
        _MethodAttribution(case, fixed=True),
        case.question.inputs,
        case.target,
        n_perturb_samples=NOISE_SAMPLES,
        max_examples_per_batch=case.rows,
        generator=case.question.options.generator(),
    )
    return Measured(float(measured))


def measure_sensitivity_max(case: Case) -> Measured:
    """Measures Captum's sensitivity of the case's method, which explains each noisy image."""
    measured = sensitivity_max(
        _MethodAttribution(case, fixed=False),
        case.question.inputs,
        case.target,
        n_perturb_samples=NOISE_SAMPLES,
        max_examples_per_batch=1,  # a question is about one image
        generator=case.question.options.generator(),
    )
    return Measured(float(measured))


def measure_sanity_check(case: Case) -> Measured:
    """Measures rank correlation with the map while the model's children are randomised, from the last to the first."""
    if not varies(case.maps).all():
        return Measured(None)  # nothing can be similar to a constant map
    records = list(
        cascading_parameter_randomization(
            case.question.model,
            lambda inputs: _maps(case, inputs if isinstance(inputs, Tensor) else inputs[0]),
            case.question.inputs,
            generator=case.question.options.generator(),
            layers=_children(case.question),
        )
    )
    similarities = torch.cat([record.spearman for record in records])
    return Measured(
        float(similarities.double().mean()), Curve([record.layer for record in records], as_floats(similarities))
    )


def _children(question: Question) -> list[str] | None:
    """Returns the names of the model's own children that have parameters; None where it has no such children."""
    names = [name for name, child in question.model.named_children() if next(child.parameters(), None) is not None]
    return names or None


def infidelity_forwards(question: Question, _per_map: int) -> int:
    """Returns the forwards of `measure_infidelity`: one, each noisy image, and the image beside each chunk of them."""
    return 1 + NOISE_SAMPLES + math.ceil(NOISE_SAMPLES / (question.options.perturbations_per_eval or NOISE_SAMPLES))


def sensitivity_forwards(_question: Question, per_map: int) -> int:
    """Returns the most forwards of `measure_sensitivity_max`: one, then a map of the image and of each noisy one."""
    return 1 + (1 + NOISE_SAMPLES) * per_map


def sanity_forwards(question: Question, per_map: int) -> int:
    """Returns the most forwards of `measure_sanity_check`: a map of each model."""
    return (1 + len(_children(question) or [*question.model.modules()])) * per_map
