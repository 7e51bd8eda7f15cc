"""Scores f^c of the targets from the model's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from captum_scorecam import _captum
from captum_scorecam._captum import TargetType
from captum_scorecam._messages import check_choice, type_of
from captum_scorecam.masking.scaling import working_dtype
from captum_scorecam.scoring.output_parts import output_type, parts_of_output, tensor_or_logits

ScoreFunction: TypeAlias = Callable[[Any], Tensor]
NamedScore: TypeAlias = Literal["output", "probability", "sigmoid"]
Score: TypeAlias = NamedScore | ScoreFunction

BOUNDED_SCORES = ("probability", "sigmoid")


def output_score(output: Any) -> Tensor:
    """Returns the output itself, or its ``logits`` if it is an object that has them (Hugging Face).

    Raises:
        TypeError: If it is neither, or complex. The message shows the output's tensors and arrays.
    """
    scores = tensor_or_logits(output)
    if scores is not None and scores.is_complex():
        raise TypeError(f"Expected `forward_func` to return real numbers, but got {scores.dtype}; set `score`.")
    if scores is not None:
        return scores
    readable = "".join(f"\n  {part}: score={read}" for part, read in parts_of_output(output))
    if readable:
        raise TypeError(
            f"Expected `forward_func` to return a tensor or an object with `logits`, but got {output_type(output)}. "
            f"Set `score` to read one of its tensors:{readable}"
        )
    raise TypeError(
        f"Expected `forward_func` to return a tensor or an object with `logits`, but got {output_type(output)}. "
        "A callable `score` can extract the scores."
    )


def probability_score(output: Any) -> Tensor:
    """Returns the softmax of the output over dim 1, in float32 (float64 for float64).

    Raises:
        TypeError: If the output is not a tensor.
        ValueError: If it has no dim 1, or a single class.
    """
    scores = output_score(output)
    if scores.dim() < 2:
        raise ValueError(
            f"Expected an output of shape N×classes for the score 'probability', but got {tuple(scores.shape)}."
        )
    if scores.shape[1] == 1:
        raise ValueError(
            "Expected two or more classes for the score 'probability', since the softmax of a single output is always "
            f"1, but got an output of shape {tuple(scores.shape)}. Use score='sigmoid' if the output is a logit, else "
            "score='output'."
        )
    return scores.to(working_dtype(scores.dtype)).softmax(1)


def sigmoid_score(output: Any) -> Tensor:
    """Returns the sigmoid of the output, in float32 (float64 for float64), for one logit or several labels.

    Raises:
        TypeError: If the output is not a tensor.
    """
    scores = output_score(output)
    return scores.to(working_dtype(scores.dtype)).sigmoid()


def are_probabilities(scores: Tensor) -> bool:
    """Checks whether scores are non-negative and sum to 1 over the last dimension, of two or more classes."""
    if scores.dim() == 0 or scores.shape[-1] < 2:
        return False
    return bool((scores >= 0).all() and ((scores.sum(-1, dtype=torch.float32) - 1).abs() < 1e-3).all())


def score_function(score: Score) -> ScoreFunction:
    """Returns f, a function of the model's output.

    Args:
        score (str or callable): ``"output"``, ``"probability"`` (softmax over dim 1), ``"sigmoid"``, or a callable
            that takes the model's output and returns a tensor of scores, one row per input row, from which the target
            is selected.

    Raises:
        ValueError: If `score` is none of these.
    """
    if callable(score):
        return score
    check_choice("score", score, NamedScore, otherwise="a callable")
    return _NAMED[score]


_NAMED: dict[str, ScoreFunction] = {
    "output": output_score,
    "probability": probability_score,
    "sigmoid": sigmoid_score,
}


def row_scores(score: ScoreFunction, output: Any, n_rows: int) -> Tensor:
    """Returns the scores of a forward pass with `n_rows` rows.

    Raises:
        TypeError: If the score is not a dense tensor of real numbers.
        ValueError: If the output does not have one row per input row.
    """
    scores = score(output)
    if not isinstance(scores, Tensor):
        raise TypeError(f"Expected `score` to return a dense tensor of real numbers, but got {type_of(scores)}.")
    if scores.is_complex() or scores.layout != torch.strided:
        got = scores.dtype if scores.is_complex() else scores.layout
        raise TypeError(f"Expected `score` to return a dense tensor of real numbers, but got {got}.")
    if scores.dim() == 0 or len(scores) != n_rows:
        raise ValueError(
            "Expected an output with one row per input row, "
            f"but got shape {tuple(scores.shape)} for {n_rows} input rows."
        )
    return scores


class ClassScores:
    """Selects f^c, one score per row and target c, from the model's output.

    Args:
        score (callable): f, a function of the model's output.
        targets (sequence): T targets, each in any form that Captum accepts.
        n_examples (int): N, the number of examples.
        device (torch.device): The device of the inputs, which scores are moved to.

    Raises:
        TypeError: If a target is of another type, or a class index is not a whole number.
        AssertionError: If a list or tensor of targets does not match the batch size (Captum's error).
    """

    def __init__(
        self, score: ScoreFunction, targets: Sequence[TargetType], n_examples: int, device: torch.device
    ) -> None:
        formatted = [_captum.format_target(target) for target in targets]
        for target in formatted:
            _captum.validate_target(n_examples, target)
        self._score, self._device = score, device
        self._targets = [_on_device(target, device) for target in formatted]
        self._positions = [_positions(target, device) for target in self._targets]
        self._n_examples = n_examples
        self._dtype: torch.dtype | None = None

    @property
    def by_callable(self) -> bool:
        """Whether the user's function computes the scores, which may read any part of the output."""
        return self._score not in _NAMED.values()

    def select_examples(self, output: Any) -> Tensor:
        """Returns the scores N×T of a forward pass of the unmasked examples.

        Raises:
            AssertionError: If a target is missing or malformed (Captum's error).
            IndexError, RuntimeError: If a target is out of range (Captum's error).
            ValueError: If the output does not have one row per example, or a score is not finite.
        """
        scores = self.all_of_rows(output, self._n_examples)
        selected = _side_by_side([_captum.select_target(scores, target) for target in self._targets], scores)
        if not selected.isfinite().all():
            raise ValueError("Expected finite scores of the inputs, but got NaN or Inf.")
        self._dtype = selected.dtype
        return selected

    def all_of_rows(self, output: Any, n_rows: int) -> Tensor:
        """Returns the scores of all classes in a forward pass of `n_rows` rows, whose output may be read again."""
        copied = tree_map_only(Tensor, Tensor.clone, output) if self.by_callable else output
        return self._scores(copied, n_rows)

    def _scores(self, output: Any, n_rows: int) -> Tensor:
        return row_scores(self._score, output, n_rows).to(self._device)

    def select_rows(self, output: Any, examples: Tensor) -> Tensor:
        """Returns the scores R×T of a forward pass in which row r is a masked copy of example ``examples[r]``."""
        scores = self._scores(output, len(examples))
        rows = torch.arange(len(examples), device=scores.device)
        columns = [
            # Captum's selection of one target per example would synchronise with the device.
            _captum.select_target(scores, target) if positions is None else scores[(rows, *positions[examples].T)]
            for target, positions in zip(self._targets, self._positions, strict=True)
        ]
        return _side_by_side(columns, scores)

    def zeros(self, n_rows: int, inputs: Tensor) -> Tensor:
        """Returns zeros of shape n_rows×T on the device and with the dtype of the scores of `inputs`."""
        dtype = working_dtype(inputs.dtype)
        dtype = dtype if self._dtype is None else torch.promote_types(dtype, self._dtype)
        return inputs.new_zeros(n_rows, len(self._targets), dtype=dtype)


def _side_by_side(columns: Sequence[Tensor], scores: Tensor) -> Tensor:
    """Stacks one column per target to R×T; each column must hold one score per row of `scores`."""
    if any(column.numel() != len(scores) for column in columns):
        raise AssertionError(
            "Target not provided when necessary, cannot explain multiple outputs: "
            f"the output has shape {tuple(scores.shape)}."
        )
    return torch.stack([column.reshape(len(scores)) for column in columns], 1).to(working_dtype(scores.dtype))


def _on_device(target: TargetType, device: torch.device) -> TargetType:
    if isinstance(target, Tensor):
        with torch.inference_mode(False):  # autograd does not save tensors made in it
            return target.to(device).clone() if target.numel() > 1 else int(target.item())
    return target


def _positions(target: TargetType, device: torch.device) -> Tensor | None:
    """Returns the index of each example's target in the output, N×D, or None if the target is shared or missing."""
    if isinstance(target, Tensor):
        return target.unsqueeze(1) if target.dim() == 1 else None
    if not isinstance(target, list):
        return None
    indices = [index if isinstance(index, tuple) else (index,) for index in target]
    whole = all(isinstance(number, int) for index in indices for number in index)
    return torch.tensor(indices, device=device) if whole and len({len(index) for index in indices}) == 1 else None
