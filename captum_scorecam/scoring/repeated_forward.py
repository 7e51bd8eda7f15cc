"""Runs a model again on other rows or in another format, and compares its raw outputs up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_scorecam._captum import Tensors
from captum_scorecam.masking.scaling import working_dtype
from captum_scorecam.model_state import compiled_code_run_eagerly
from captum_scorecam.scoring.float32_precision import float32_epsilon
from captum_scorecam.scoring.memory_order import in_memory_order, memory_order

RowScores: TypeAlias = Callable[[Any, int], Tensor]

LEAST_TOLERANCE = 1e-4
# On a GPU, outputs of nine architectures differed by up to 9 times the epsilon of TF32, float16 and bfloat16 between
# batch sizes and memory formats.
EPSILONS_OF_ROUNDING = 16


def noise(inputs: Tensors, n_rows: int) -> Tensors:
    """Returns rows of noise in the range of each input; every other row is darker.

    Unlike images and masks, noise has no two equal pixels, whose order a model could confuse without a difference.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for x in inputs:
        exact = x.cpu().double()  # MPS has no float64
        low, high = exact.amin().item(), exact.amax().item()
        uniform = torch.rand(n_rows, *x.shape[1:], generator=generator, dtype=torch.float64, device="cpu")
        uniform[1::2] **= 2
        values = low + (high - low if high > low else 1) * uniform
        drawn.append(in_memory_order(values.to(x), memory_order(x)))
    return tuple(drawn)


def raw_rows(output: Any, n_rows: int, scores: RowScores) -> Tensor:
    """Returns the output, or its ``logits``, of `n_rows` rows; if it has neither, the scores of all classes.

    Scores may be equal where outputs are not: saturated probabilities are.
    """
    for raw in (output, getattr(output, "logits", None)):
        if isinstance(raw, Tensor) and raw.is_floating_point() and raw.dim() > 0 and len(raw) == n_rows:
            return raw
    return scores(output, n_rows)


def agree(expected: Tensor, actual: Tensor, tolerance: float, scales: Tensor) -> bool:
    """Checks that two outputs R×classes differ by at most `tolerance` times the scale of each class.

    NaN and infinite values must be the same.
    """
    if expected.shape != actual.shape:
        return False
    finite = expected.isfinite() & actual.isfinite()
    same = (expected == actual) | (expected.isnan() & actual.isnan())
    close = (expected - actual).abs() <= tolerance * scales
    return bool(torch.where(finite, close, same).all())


def class_scales(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the magnitude and the spread over the rows of each class in outputs R×classes.

    A class near zero is the sum of larger terms, whose rounding shows: its magnitude is at least that which a quarter
    of the classes don't reach. A few large classes don't count in it.
    """
    finite = outputs.isfinite()
    largest = outputs.where(finite, -torch.inf).amax(0)
    smallest = outputs.where(finite, torch.inf).amin(0)
    known = finite.any(0)
    magnitude = torch.maximum(largest, -smallest).where(known, 0)
    others = magnitude[magnitude > 0]
    # Not `kthvalue`, which is refused on CUDA where algorithms must be deterministic.
    typical = others.sort().values[len(others) // 4] if len(others) else magnitude.new_zeros(())
    return magnitude.clamp(min=typical), (largest - smallest).where(known, 0)


def rounding_tolerance(inputs: Tensor, outputs: Tensor) -> float:
    """Returns the difference of outputs, as a share of their magnitude, that the order of summation may cause."""
    dtypes = {inputs.dtype, outputs.dtype} & {torch.float16, torch.bfloat16, torch.float32, torch.float64}
    if torch.is_autocast_enabled(inputs.device.type):
        dtypes.add(torch.get_autocast_dtype(inputs.device.type))
    epsilon = max(torch.finfo(dtype).eps for dtype in dtypes)
    if torch.float32 in dtypes:
        epsilon = max(epsilon, float32_epsilon(inputs.device))
    return max(LEAST_TOLERANCE, EPSILONS_OF_ROUNDING * epsilon)


def flat_rows(outputs: Tensor) -> Tensor:
    """Returns outputs of any shape as R×classes, in float32 or float64."""
    return outputs.detach().reshape(len(outputs), -1).to(working_dtype(outputs.dtype))


def is_reproducible(
    run: Callable[[Tensors, Tensor], Any], inputs: Tensors, output: Any, scores: RowScores, fixed_rows: bool = False
) -> bool | None:
    """Checks that the inputs get the same outputs again, in a batch with a darker row (noise if they are black).

    Args:
        run (callable): Runs the model; takes rows of the inputs and the example that each belongs to.
        inputs (tuple of Tensor): N examples.
        output: The model's output for them.
        scores (callable): Returns the scores of all classes from an output and its number of rows.
        fixed_rows (bool): Whether the model takes N rows only: half of them are then darker. Default: False.

    Returns:
        bool or None: None if the forward pass fails, or a single row leaves open whether others would matter.
    """
    n_examples = len(inputs[0])
    n_rows = n_examples if fixed_rows else n_examples + 1
    examples = torch.arange(n_rows, device=inputs[0].device) % n_examples
    kept = examples[: -(-n_examples // 2) if fixed_rows else n_examples]
    try:
        others = noise(inputs, n_rows - len(kept))
        if all(x.count_nonzero() for x in inputs):
            others = tuple((0.5 * x[examples[len(kept) :].to(x.device)]).to(x.dtype) for x in inputs)
        rows = tuple(
            in_memory_order(torch.cat([x[kept.to(x.device)], other]), memory_order(x))
            for x, other in zip(inputs, others, strict=True)
        )
        expected = flat_rows(raw_rows(output, n_examples, scores))[: len(kept)].clone()  # `run` may reuse its memory
        with compiled_code_run_eagerly():
            raw = raw_rows(run(rows, examples), n_rows, scores)
        actual = flat_rows(raw)
        tolerance = rounding_tolerance(rows[0], raw)
        scales, _ = class_scales(actual)
        agrees = agree(expected, actual[: len(kept)], tolerance, scales)
    except Exception:  # a model may refuse other rows with any error
        return None
    return agrees and (n_rows > 1 or None)
