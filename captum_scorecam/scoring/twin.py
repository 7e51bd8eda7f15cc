"""A faster function in the model's place for masked inputs, once it has given the model's output."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from captum_scorecam import _captum
from captum_scorecam._captum import ForwardFunction, Tensors
from captum_scorecam._messages import add_note, type_of
from captum_scorecam.masking.baselines import blend
from captum_scorecam.model_state import ModelState
from captum_scorecam.scoring.chunk_size import is_compiled, kind_of_inputs
from captum_scorecam.scoring.chunks import is_out_of_memory
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.process_group import failing_together
from captum_scorecam.scoring.repeated_forward import (
    EPSILONS_OF_ROUNDING,
    LEAST_TOLERANCE,
    agree,
    class_scales,
    flat_rows,
    noise,
    raw_rows,
    rounding_tolerance,
)

_Range: TypeAlias = tuple[float, float]

TF32_TOLERANCE = EPSILONS_OF_ROUNDING * 2**-10  # engines on GPUs may use TF32 where PyTorch does not
SCORES_OF_CALLABLES = 4  # times the tolerance of outputs, whose rounding an exponential enlarges
BATCH = 4  # rows: an input, the same half masked, a baseline, noise


class Twins:
    """Puts a twin, a function that gives the model's output, in the model's place once it has shown that it does.

    Both run on the unmasked inputs in every call, which shows a twin of other weights. What follows from a twin's
    structure, such as rows in another order, shows in a batch of another size, once for each kind of inputs, and
    again for baselines beyond the range of those before. Compiled code runs eagerly while they are compared.
    """

    def __init__(self) -> None:
        self._compared: dict[Hashable, tuple[ForwardFunction, list[_Range]]] = {}

    def faster(
        self,
        forward: MaskedForward,
        twin: ForwardFunction | None,
        output: Any,
        state: ModelState,
        perturbations_per_eval: int | None,
        process_group: ProcessGroup | None = None,
    ) -> MaskedForward:
        """Returns the forward pass through the twin; that of the model if there is no twin.

        Args:
            forward (MaskedForward): A forward pass through the model.
            twin (callable, optional): The function that takes the model's place.
            output: The model's output for the unmasked inputs.
            state (ModelState): That of the twin.
            perturbations_per_eval (int, optional): How many rows per example a forward pass of the twin has at most.
                With 1, each has as many rows as the inputs.
            process_group (ProcessGroup, optional): Ranks that all make this call. Default: None.

        Raises:
            TypeError: If the model returns a tensor and the twin does not.
            ValueError: If outputs differ by more than rounding explains, or the twin does not take batches.
            RuntimeError: If another rank failed.
        """
        if twin is None:
            return forward
        other = through(forward, twin)
        with failing_together(process_group, forward.device):
            most_rows = perturbations_per_eval and perturbations_per_eval * len(forward.inputs[0])
            state.first_forward(lambda: self._compare(forward, other, output, most_rows), lambda *_: True)
        return other

    def _compare(self, forward: MaskedForward, other: MaskedForward, output: Any, most_rows: int | None) -> None:
        _compare_unmasked(forward, other, output)
        kind = (most_rows, len(forward.inputs[0]), *kind_of_inputs(forward.inputs))
        twin, before = self._compared.get(kind, (None, []))
        ranges = [(float(baseline.min()), float(baseline.max())) for baseline in forward.baselines]
        if twin is other.forward_func:
            ranges = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(before, ranges, strict=True)]
        if twin is not other.forward_func or ranges != before:
            _compare_batch(forward, other, most_rows)
            self._compared[kind] = other.forward_func, ranges


def through(forward: MaskedForward, twin: ForwardFunction) -> MaskedForward:
    """Returns the forward pass through a twin, with contiguous inputs unless PyTorch runs it and chooses the format."""
    if is_compiled(twin):
        return replace(forward, forward_func=twin)
    contiguous = tuple(tuple(range(x.dim())) for x in forward.inputs)
    return replace(forward, forward_func=twin, memory_orders=contiguous, keeps_format=True)


def _compare_unmasked(forward: MaskedForward, other: MaskedForward, expected: Any) -> None:
    n_rows, scores = len(forward.inputs[0]), forward.class_scores.all_of_rows
    inputs = tuple(x.clone(memory_format=torch.contiguous_format) for x in forward.inputs)
    try:
        with other.copied_arguments() as arguments:  # which the twin may modify though the model does not
            actual = _captum.run_forward(other.forward_func, inputs, arguments, copy=False)
    except Exception as error:
        add_note(error, "`masked_forward_func` failed for the unmasked inputs, `forward_func` did not.")
        raise
    if isinstance(expected, Tensor):
        if not isinstance(actual, Tensor):
            raise TypeError(
                f"Expected `masked_forward_func` to return a tensor, as `forward_func` does, but got {type_of(actual)}."
            )
        _check_shape(expected, actual)
    what = "the unmasked inputs"
    _check_same(forward, raw_rows(expected, n_rows, scores), raw_rows(actual, n_rows, scores), what)
    if forward.class_scores.by_callable:
        own, others = scores(expected, n_rows), scores(actual, n_rows)
        _check_same(forward, own, others, f"the scores of {what}", SCORES_OF_CALLABLES)


def _compare_batch(forward: MaskedForward, other: MaskedForward, most_rows: int | None) -> None:
    """Compares outputs for an example, the same half masked, its baseline and noise.

    The model runs batches of the inputs' size, which it takes; the twin runs up to `most_rows` rows at once.
    """
    n_examples, scores = len(forward.inputs[0]), forward.class_scores.all_of_rows
    fixed_rows = most_rows == n_examples
    n_rows = -(-BATCH // n_examples) * n_examples if fixed_rows else BATCH + (n_examples == BATCH)
    at_once = min(most_rows or n_rows, n_rows)
    others = noise(forward.inputs, n_rows - 3)
    inputs = tuple(
        torch.cat([_from_input_to_baseline(x[:1], baseline[:1] if baseline.dim() else baseline), drawn])
        for x, baseline, drawn in zip(forward.inputs, forward.baselines, others, strict=True)
    )
    rows = torch.arange(n_rows, device=forward.device)
    padded = torch.arange(-(-n_rows // n_examples) * n_examples, device=forward.device) % n_rows

    def run(each: MaskedForward, chunk: Tensor) -> Tensor:
        output = each.run(tuple(x[chunk.to(x.device)] for x in inputs), chunk % n_examples)
        return raw_rows(output, len(chunk), scores).clone()  # a twin may reuse the memory of its output

    expected = torch.cat([run(forward, chunk) for chunk in torch.split(padded, n_examples)])[:n_rows]
    try:
        actual = torch.cat([run(other, chunk) for chunk in torch.split(rows, at_once)])
    except Exception as error:
        if fixed_rows or is_out_of_memory(error):
            raise
        raise ValueError(
            f"Expected `masked_forward_func` to take batches of any size, but it took {n_examples} and failed for "
            f"{at_once}. If its batch size is fixed, pass perturbations_per_eval=1."
        ) from error
    # Where the model gives no finite output for a baseline, a twin need not do the same.
    blended = ((rows == 1) | (rows == 2)).to(expected.device)
    kept = ~blended | flat_rows(expected).isfinite().all(1)
    what = f"a batch of {n_rows} (an input, the input half masked and fully masked, and noise)"
    _check_same(forward, expected[kept], actual[kept], what)


def _from_input_to_baseline(x: Tensor, baseline: Tensor) -> Tensor:
    masks = torch.tensor([1.0, 0.5, 0.0], device=x.device).view(-1, *[1] * (x.dim() - 1))
    return blend(x.expand(3, *x.shape[1:]), masks, baseline)


def _check_shape(expected: Tensor, actual: Tensor) -> None:
    if actual.shape != expected.shape or actual.device != expected.device:
        raise ValueError(
            f"Expected `masked_forward_func` to return shape {tuple(expected.shape)} on {expected.device}, as "
            f"`forward_func` does, but got {tuple(actual.shape)} on {actual.device}."
        )


def _check_same(forward: MaskedForward, expected: Tensor, actual: Tensor, of: str, leeway: float = 1.0) -> None:
    """Raises ValueError if outputs, or scores, differ by more than the rounding of their precision explains."""
    _check_shape(expected, actual)
    tolerance = leeway * _tolerance(forward.inputs, expected, actual)
    own, others = flat_rows(expected), flat_rows(actual)
    scales, _ = class_scales(own)
    if tolerance > LEAST_TOLERANCE:
        # Coarse rounding of large classes shows in small ones.
        scales = scales.amax().expand_as(scales)
    if agree(own, others, tolerance, scales):
        return
    if not torch.equal(own.isfinite(), others.isfinite()):
        raise ValueError(
            f"Expected `masked_forward_func` to give what `forward_func` gives, but for {of} only one of them gives "
            "NaN or Inf."
        )
    difference = (own - others).abs().nan_to_num().amax(0)
    worst = int((difference - tolerance * scales).argmax())
    raise ValueError(
        f"Expected `masked_forward_func` to give what `forward_func` gives, but for {of} they differ by "
        f"{float(difference[worst]):.3g}, of which rounding explains {tolerance * float(scales[worst]):.2g}."
    )


def _tolerance(inputs: Tensors, expected: Tensor, actual: Tensor) -> float:
    """Returns the difference of outputs, as a share of their magnitude, that the precision explains."""
    tolerance = max(rounding_tolerance(x, output) for x in inputs for output in (expected, actual))
    single = torch.float32 in {x.dtype for x in (*inputs, expected, actual)}
    return max(tolerance, TF32_TOLERANCE) if single and expected.device.type == "cuda" else tolerance
