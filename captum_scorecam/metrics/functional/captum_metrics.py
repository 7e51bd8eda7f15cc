"""Captum's own measures, infidelity and sensitivity, for layer attributions in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import Attribution, LayerAttribution
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import TargetType, Tensors
from captum_scorecam.attr.input_space import InputSpaceAttribution
from captum_scorecam.model_state import unchanged_model_state

Perturbation = Callable[[Tensor | Tensors], tuple[Tensor | Tensors, Tensor | Tensors]]


def infidelity(
    attribution: Attribution,
    inputs: Tensor | Tensors,
    target: TargetType = None,
    additional_forward_args: object | None = None,
    *,
    perturb_func: Perturbation | None = None,
    noise_std: float = 0.1,
    n_perturb_samples: int = 10,
    max_examples_per_batch: int | None = None,
    normalize: bool = True,
    generator: torch.Generator | None = None,
    **attribute_options: Any,
) -> Tensor:
    """Captum's ``infidelity`` (arXiv 1901.09392) of a layer attribution, its maps brought to the inputs' shape.

    It is the mean square of Iᵀ Φ(X) − (f(X) − f(X − I)) over perturbations I; lower is better.

    Args:
        attribution (Attribution): ScoreCAM, LayerGradCam, or any other of Captum; its ``forward_func`` is f.
        inputs (Tensor or tuple of Tensor): N examples.
        target: The class, in any form that Captum accepts.
        additional_forward_args (optional): What ``forward_func`` takes after the inputs.
        perturb_func (callable, optional): As in Captum: takes inputs, returns I and X − I. Default: None, normal noise.
        noise_std (float): The noise's standard deviation, in the inputs' unit. Default: 0.1.
        n_perturb_samples (int): Perturbations for each example. Default: 10.
        max_examples_per_batch (int, optional): The most rows of a forward. Default: None, all at once.
        normalize (bool): Scale Φ to the best fit first, as a class activation map has no unit. Default: True (Captum:
            False).
        generator (torch.Generator, optional): For the noise. Default: None, the global random state, which stays as
            it was.
        **attribute_options: What ``attribution.attribute`` takes besides.

    Returns:
        Tensor: Shape N.

    Raises:
        ValueError: If `noise_std` is not positive, or as the attribution does.
    """
    _check_positive("noise_std", noise_std)
    explainer = _of_input_shape(attribution)
    options = _with_forward_args(attribute_options, additional_forward_args)
    with _unchanged_model(attribution, inputs, additional_forward_args):
        measured: Tensor = captum_infidelity(
            attribution.forward_func,
            perturb_func or _normal_noise(noise_std, generator),
            inputs,
            explainer.attribute(inputs, target=target, **options),
            additional_forward_args=additional_forward_args,
            target=target,
            n_perturb_samples=n_perturb_samples,
            max_examples_per_batch=max_examples_per_batch,
            normalize=normalize,
        )
    return measured


def sensitivity_max(
    attribution: Attribution,
    inputs: Tensor | Tensors,
    target: TargetType = None,
    additional_forward_args: object | None = None,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
    max_examples_per_batch: int | None = None,
    generator: torch.Generator | None = None,
    **attribute_options: Any,
) -> Tensor:
    """Captum's ``sensitivity_max`` (arXiv 1901.09392) of a layer attribution, its maps brought to the inputs' shape.

    It is the largest ‖Φ(X + ε) − Φ(X)‖ / ‖Φ(X)‖ over uniform noise ε; lower is better. A sample costs an attribution.

    Args:
        attribution, inputs, target, additional_forward_args: As for :func:`infidelity`.
        perturb_radius (float): The largest change of a value, in the inputs' unit. Default: 0.02.
        n_perturb_samples (int): Samples for each example. Default: 10.
        max_examples_per_batch (int, optional): The most examples that are explained at once, at least N. Default: None,
            all samples at once.
        generator (torch.Generator, optional): For the noise. Default: None, the global random state, which stays as
            it was.
        **attribute_options: What ``attribution.attribute`` takes besides.

    Returns:
        Tensor: Shape N. For a zero map it is the largest ‖Φ(X + ε)‖, as in Captum.

    Raises:
        ValueError: If `perturb_radius` is not positive, or as the attribution does.
    """
    _check_positive("perturb_radius", perturb_radius)
    explainer = _of_input_shape(attribution)
    options = _with_forward_args(attribute_options, additional_forward_args)

    with _unchanged_model(attribution, inputs, additional_forward_args):
        measured: Tensor = captum_sensitivity_max(
            explainer.attribute,
            inputs,
            perturb_func=_uniform_noise(perturb_radius, generator),
            n_perturb_samples=n_perturb_samples,
            max_examples_per_batch=max_examples_per_batch,
            target=target,
            **options,
        )
    return measured


@contextmanager
def _unchanged_model(
    attribution: Attribution, inputs: Tensor | Tensors, additional_forward_args: object | None
) -> Iterator[None]:
    """Leaves the model as it was; one forward shows which of its modules are in training mode."""
    tensors = _captum.format_inputs(inputs)
    arguments = _captum.format_forward_args(additional_forward_args)
    with unchanged_model_state(tensors) as state:
        with state.recorded():
            _captum.run_forward(attribution.forward_func, tuple(x.clone() for x in tensors), arguments)
        yield


def _of_input_shape(attribution: Attribution) -> Attribution:
    if not isinstance(attribution, Attribution):
        raise TypeError(f"Expected `attribution` to be an Attribution, but got {type(attribution).__name__}.")
    return InputSpaceAttribution(attribution) if isinstance(attribution, LayerAttribution) else attribution


def _with_forward_args(options: dict[str, Any], additional_forward_args: object | None) -> dict[str, Any]:
    if additional_forward_args is None:
        return options
    return {**options, "additional_forward_args": additional_forward_args}


def _normal_noise(std: float, generator: torch.Generator | None) -> Perturbation:
    def perturb(values: Tensor | Tensors) -> tuple[Tensor | Tensors, Tensor | Tensors]:
        inputs = _captum.format_inputs(values)
        noise = tuple(std * _draw(torch.randn, x, generator) for x in inputs)
        perturbed = tuple(x - e for x, e in zip(inputs, noise, strict=True))
        return (noise, perturbed) if isinstance(values, tuple) else (noise[0], perturbed[0])

    return perturb


def _uniform_noise(radius: float, generator: torch.Generator | None) -> Callable[[Tensor | Tensors], Tensors]:
    def perturb(values: Tensor | Tensors) -> Tensors:
        return tuple(x + radius * (2 * _draw(torch.rand, x, generator) - 1) for x in _captum.format_inputs(values))

    return perturb


def _draw(distribution: Callable[..., Tensor], like: Tensor, generator: torch.Generator | None) -> Tensor:
    # On the generator's device, so that one seed means the same noise wherever the inputs are.
    device = generator.device if generator is not None else torch.device("cpu")
    return distribution(like.shape, generator=generator, device=device).to(like)


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"Expected `{name}` to be positive, but got {value}.")
