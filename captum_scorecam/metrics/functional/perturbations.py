"""Perturbations of inputs, for Captum's infidelity and sensitivity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors, as_tensors
from captum_scorecam._messages import type_of

PerturbFunction: TypeAlias = Callable[[Any], tuple[Any, Any]]


def checked_results(perturb_func: PerturbFunction) -> PerturbFunction:
    """Checks what a function returns: Captum would broadcast other shapes to plausible values."""

    def perturb(values: Tensor | Tensors) -> tuple[Any, Any]:
        results = perturb_func(values)
        if not isinstance(results, (tuple, list)) or len(results) != 2:
            got = f"{len(results)} values" if isinstance(results, (tuple, list)) else type_of(results)
            raise ValueError(f"Expected `perturb_func` to return perturbations and perturbed inputs, but got {got}.")
        wanted = [tuple(x.shape) for x in _captum.format_inputs(values)]
        for result in results:
            shapes = [tuple(part.shape) for part in as_tensors("perturb_func(inputs)", result)]
            if shapes != wanted:
                raise ValueError(f"Expected `perturb_func` to return tensors of shapes {wanted}, but got {shapes}.")
        perturbations, perturbed = results
        return perturbations, perturbed

    return perturb


def normal_noise(std: float, generator: torch.Generator) -> PerturbFunction:
    """Returns a function that draws normal noise of the given standard deviation and subtracts it."""

    def perturb(values: Tensor | Tensors) -> tuple[Tensor | Tensors, Tensor | Tensors]:
        inputs = _captum.format_inputs(values)
        noise = tuple(std * _draw(torch.randn, x, generator) for x in inputs)
        perturbed = tuple(x - e for x, e in zip(inputs, noise, strict=True))
        return (noise, perturbed) if isinstance(values, tuple) else (noise[0], perturbed[0])

    return perturb


def uniform_noise(radius: float, generator: torch.Generator) -> Callable[[Tensor | Tensors], Tensors]:
    """Returns a function that adds uniform noise from −radius to radius."""

    def perturb(values: Tensor | Tensors) -> Tensors:
        return tuple(x + radius * (2 * _draw(torch.rand, x, generator) - 1) for x in _captum.format_inputs(values))

    return perturb


def _draw(distribution: Callable[..., Tensor], like: Tensor, generator: torch.Generator) -> Tensor:
    # A seed gives the same noise whatever the device and dtype of the inputs and the default dtype.
    return distribution(like.shape, generator=generator, dtype=torch.float32, device=generator.device).to(like)
