"""Captum's infidelity and sensitivity in one call, for any attribution, including layer attributions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from captum.attr import Attribution, LayerAttribution
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max as captum_sensitivity_max
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import TargetType, Tensors, as_tensors
from captum_scorecam._messages import (
    MOST,
    add_note,
    check_callable,
    check_finite,
    check_flags,
    check_no_constructor_options,
    check_positive,
    check_whole_number,
    type_of,
)
from captum_scorecam.attr.input_space import InputSpaceAttribution
from captum_scorecam.masking.scaling import working_dtype
from captum_scorecam.metrics.functional.arguments import check_tensor
from captum_scorecam.metrics.functional.perturbations import (
    PerturbFunction,
    checked_results,
    normal_noise,
    uniform_noise,
)
from captum_scorecam.model_state import own_generator, unchanged_model_state
from captum_scorecam.scoring.class_scores import output_score, row_scores
from captum_scorecam.scoring.masked_forward import forward_of_rows, rows_of
from captum_scorecam.scoring.memory_order import in_memory_order, memory_order
from captum_scorecam.scoring.output_parts import tensor_or_logits
from captum_scorecam.scoring.repeated_forward import is_reproducible

_OF_EXAMPLES = {"baselines", "feature_mask"}  # options that may have a row per example


def infidelity(
    attribution: Attribution,
    inputs: Tensor | Tensors,
    target: TargetType = None,
    additional_forward_args: object | None = None,
    *,
    perturb_func: PerturbFunction | None = None,
    noise_std: float = 0.1,
    n_perturb_samples: int = 10,
    max_examples_per_batch: int | None = None,
    normalize: bool = True,
    generator: torch.Generator | None = None,
    **attribute_options: Any,
) -> Tensor:
    """Computes Captum's ``infidelity`` (arXiv 1901.09392); layer maps are resized to the inputs.

    Infidelity is the mean square of Iᵀ Φ(X) − (f(X) − f(X − I)) over perturbations I; lower is better.

    Args:
        attribution (Attribution): The configured method, from this package or Captum; its ``forward_func`` is f.
        inputs (Tensor or tuple of Tensor): N examples.
        target: The class, in any form that Captum accepts.
        additional_forward_args (optional): Arguments of ``forward_func`` after the inputs. Tensors and NumPy arrays
            with N rows, also in lists, tuples and dictionaries, follow their examples.
        perturb_func (callable, optional): As in Captum, takes the inputs and returns I and X − I. Default: None, normal
            noise.
        noise_std (float): Standard deviation of the noise, in the units of the inputs. Default: 0.1.
        n_perturb_samples (int): Number of perturbations per example. Default: 10.
        max_examples_per_batch (int, optional): Maximum number of rows per forward pass, at least N. Default: None, all.
        normalize (bool): Whether to rescale Φ to the best fit first, since class activation maps have no unit. Default:
            True (Captum: False).
        generator (torch.Generator, optional): Draws the noise. Default: None, a copy of PyTorch's global generator,
            whose state is left unchanged.
        **attribute_options: Further arguments of ``attribution.attribute``.

    Returns:
        Tensor: Shape N, in float32 if the inputs are in half precision.

    Raises:
        TypeError, ValueError: If an option is invalid (before any forward pass); also the errors of
            ``attribution.attribute``.
    """
    check_positive("noise_std", noise_std)
    check_flags(normalize=normalize)
    draws = own_generator(generator)
    if perturb_func is None:
        perturb_func = normal_noise(noise_std, draws)
    check_callable("perturb_func", perturb_func)
    tensors, rows = _checked_rows(inputs, n_perturb_samples, max_examples_per_batch)
    arguments, target = _captum.format_forward_args(additional_forward_args), _captum.format_target(target)
    explain = _explanation_function(attribution, attribute_options, tensors, arguments)
    with _unchanged_model(attribution, tensors, arguments):
        values: Tensor = captum_infidelity(
            _scoring_function(attribution, tensors, arguments),
            checked_results(perturb_func),
            inputs,
            explain(inputs, target),
            target=target,
            n_perturb_samples=n_perturb_samples,
            max_examples_per_batch=rows,
            normalize=normalize,
        )
    if not values.isfinite().all():
        raise ValueError("Expected finite scores of the perturbed inputs, but got NaN or Inf.")
    return values


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
    """Computes Captum's ``sensitivity_max`` (arXiv 1901.09392); layer maps are resized to the inputs.

    Sensitivity is the largest ‖Φ(X + ε) − Φ(X)‖ / ‖Φ(X)‖ over uniform noise ε; lower is better. Each sample costs one
    attribution. The noise does not advance the global random state, so RISE and Mask draw the same masks and jitter for
    each sample.

    Args:
        perturb_radius (float): Largest change of an input value, in the units of the inputs. Default: 0.02.
        max_examples_per_batch (int, optional): Maximum number of examples explained at once, at least N. Default: None,
            all.
        attribution, inputs, target, additional_forward_args, n_perturb_samples, generator, attribute_options: Same as
            for :func:`infidelity`, including the errors.

    Returns:
        Tensor: Shape N, as for :func:`infidelity`. For a zero map, the largest ‖Φ(X + ε)‖, as in Captum.
    """
    check_positive("perturb_radius", perturb_radius)
    draws = own_generator(generator)
    tensors, rows = _checked_rows(inputs, n_perturb_samples, max_examples_per_batch)
    arguments, target = _captum.format_forward_args(additional_forward_args), _captum.format_target(target)
    explain = _explanation_function(attribution, attribute_options, tensors, arguments)
    with _unchanged_model(attribution, tensors, arguments):
        values: Tensor = captum_sensitivity_max(
            explain,
            inputs,
            perturb_func=uniform_noise(perturb_radius, draws),
            n_perturb_samples=n_perturb_samples,
            max_examples_per_batch=rows,
            target=target,
        )
    return values


def _checked_rows(
    inputs: Tensor | Tensors, n_perturb_samples: int, max_examples_per_batch: int | None
) -> tuple[Tensors, int | None]:
    """Checks the inputs and the numbers of samples and rows; returns the inputs, and the rows, at most their total.

    With more rows than that, Captum would warn.
    """
    tensors = as_tensors("inputs", inputs)
    for x in tensors:
        check_tensor("inputs", x, "of N examples")
        if x.dim() == 0 or len(x) == 0 or len(x) != len(tensors[0]):
            shapes = [tuple(t.shape) for t in tensors]
            raise ValueError(f"Expected `inputs` with the same non-zero number of examples, but got shapes {shapes}.")
        check_finite("inputs", x)
    n_perturb_samples = check_whole_number("n_perturb_samples", n_perturb_samples, least=1, most=MOST)
    if max_examples_per_batch is None:
        return tensors, None
    n_examples = len(tensors[0])
    most_rows = check_whole_number("max_examples_per_batch", max_examples_per_batch, least=n_examples)
    return tensors, min(most_rows, n_examples * n_perturb_samples)


def _scoring_function(attribution: Attribution, inputs: Tensors, arguments: tuple[Any, ...]) -> Callable[..., Tensor]:
    """Returns ``attribution.forward_func`` for perturbed inputs, whose output is the tensor of scores or its logits."""

    def scores(*perturbed: Tensor) -> Tensor:
        rows = tuple(row.clone() for row in _arranged(perturbed, inputs))  # which the model may modify
        examples = _examples(rows, inputs)
        with _advice_on_rows(len(rows[0]), len(inputs[0])):
            output = forward_of_rows(attribution.forward_func, arguments, len(inputs[0]), rows, examples)
        found = tensor_or_logits(output)
        if found is None:
            raise TypeError(
                "Expected `attribution.forward_func` to return a tensor or an object with `logits`, "
                f"but got {type_of(output)}."
            )
        return found.to(working_dtype(found.dtype))  # in which sums of squares neither overflow nor cancel

    return scores


def _arranged(rows: Tensors, inputs: Tensors) -> Tensors:
    """Returns rows of perturbed inputs in the memory format of the inputs, which Captum makes contiguous."""
    return tuple(in_memory_order(row, memory_order(x)) for row, x in zip(rows, inputs, strict=True))


def _examples(rows: Tensors, inputs: Tensors) -> Tensor:
    """Returns the example of each row of perturbed inputs, which Captum repeats as ``repeat_interleave`` does."""
    n_examples = len(inputs[0])
    return torch.arange(n_examples).repeat_interleave(len(rows[0]) // n_examples)


@contextmanager
def _advice_on_rows(n_rows: int, n_examples: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if n_rows != n_examples:
            add_note(
                error,
                f"The forward pass of {n_rows} perturbed inputs failed, that of the {n_examples} inputs did not. If "
                f"the model has a fixed batch size, pass max_examples_per_batch={n_examples}.",
            )
        raise


def _explanation_function(
    attribution: Attribution, options: dict[str, Any], inputs: Tensors, arguments: tuple[Any, ...]
) -> Callable[..., Tensor | Tensors]:
    """Returns ``attribution.attribute`` with options bound, maps resized to the inputs and checked to be finite.

    Perturbed inputs get the rows of their examples of additional arguments and baselines. Maps are contiguous, and in
    float32 if they are in half precision, as Captum flattens and squares them.

    Raises:
        TypeError: If `attribution` is not an Attribution, or an option is not an argument of its ``attribute``.
    """
    name = type(attribution).__name__
    if not isinstance(attribution, Attribution):
        raise TypeError(f"Expected `attribution` to be an Attribution, but got {name}.")
    check_callable("attribution.forward_func", attribution.forward_func)
    parameters = signature(attribution.attribute).parameters
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        check_no_constructor_options(attribution, attribution.attribute, options)
        unknown = [option for option in options if option not in parameters]
        if unknown:
            raise TypeError(
                f"Expected `attribute_options` to be arguments of {name}.attribute, but got `{unknown[0]}`."
            )
    shaped = InputSpaceAttribution(attribution) if isinstance(attribution, LayerAttribution) else attribution

    def explain(values: Tensor | Tensors, target: TargetType) -> Tensors:
        rows = _arranged(_captum.format_inputs(values), inputs)
        examples, n_examples = _examples(rows, inputs), len(inputs[0])
        of_examples = dict(options)
        if arguments:
            of_examples["additional_forward_args"] = rows_of(arguments, examples, n_examples)
        for name_of_option in _OF_EXAMPLES & options.keys():
            if n_examples > 1:  # a single row is broadcast
                of_examples[name_of_option] = rows_of(options[name_of_option], examples, n_examples)
        with _advice_on_rows(len(rows[0]), len(inputs[0])):
            maps = shaped.attribute(rows if isinstance(values, tuple) else rows[0], target=target, **of_examples)
        parts = as_tensors(f"{name}.attribute(...)", maps)
        for part in parts:
            check_finite(f"{name}.attribute(...)", part)
        return tuple(part.to(working_dtype(part.dtype)).contiguous() for part in parts)

    return explain


@contextmanager
def _unchanged_model(attribution: Attribution, inputs: Tensors, arguments: tuple[Any, ...]) -> Iterator[None]:
    """Leaves the model unchanged. Runs a forward pass before the body, to see what it changes."""
    run = partial(forward_of_rows, attribution.forward_func, arguments, len(inputs[0]))
    with unchanged_model_state(attribution.forward_func, inputs) as state:
        state.first_forward(
            lambda: _captum.run_forward(attribution.forward_func, tuple(x.clone() for x in inputs), arguments),
            lambda output, changed: (
                not changed or is_reproducible(run, inputs, output, partial(row_scores, output_score))
            ),
        )
        yield
