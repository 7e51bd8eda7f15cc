"""What the model returned → the scores f^c of the targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import TargetType
from captum_scorecam.masks import working_dtype

ScoreFunction: TypeAlias = Callable[[Any], Tensor]


def output_score(output: Any) -> Tensor:
    """The output itself.

    Raises:
        TypeError: If it is not a tensor.
    """
    if not isinstance(output, Tensor):
        raise TypeError(
            f"Expected `forward_func` to return a tensor, but got {type(output).__name__}. "
            "A callable `score` can take the scores out of it."
        )
    return output


def probability_score(output: Any) -> Tensor:
    """The softmax of the output over dim 1, in float32 (float64 for float64).

    Raises:
        TypeError: If the output is not a tensor.
        ValueError: If it has no dim 1.
    """
    scores = output_score(output)
    if scores.dim() < 2:
        raise ValueError(
            f"Expected an output of shape N×classes for the score 'probability', but got {tuple(scores.shape)}."
        )
    return scores.to(working_dtype(scores.dtype)).softmax(1)


SCORES: dict[str, ScoreFunction] = {"output": output_score, "probability": probability_score}


def score_function(score: str | ScoreFunction) -> ScoreFunction:
    """Returns f as a function of what the model returns.

    Args:
        score (str or callable): ``"output"``, ``"probability"``, or a callable that takes what the model returns and
            gives a tensor of scores with one row per input row, from which the target is then selected.

    Raises:
        ValueError: If `score` is neither.
    """
    if callable(score):
        return score
    if score not in SCORES:
        raise ValueError(f"Expected `score` to be {' or '.join(map(repr, SCORES))} or a callable, but got {score!r}.")
    return SCORES[score]


class ClassScores:
    """f^c for several targets c: takes one score per row and target out of what the model returned.

    Args:
        score (callable): f as a function of what the model returned.
        targets (sequence): T targets, each in any form that Captum accepts.
        n_examples (int): N, the number of examples that the targets are for.
        device (torch.device): Where the model's output will be.

    Raises:
        AssertionError: If a list or tensor of targets is not as long as the batch (Captum's error).
    """

    def __init__(
        self, score: ScoreFunction, targets: Sequence[TargetType], n_examples: int, device: torch.device
    ) -> None:
        for target in targets:
            _captum.validate_target(n_examples, target)
        self._score = score
        self._targets = [_shared_or_per_example(target, device) for target in targets]
        self._n_examples = n_examples

    @property
    def n_targets(self) -> int:
        """T."""
        return len(self._targets)

    def of_examples(self, output: Any) -> Tensor:
        """Scores N×T of a forward of the examples themselves.

        Raises:
            AssertionError: If a target is missing or of the wrong form (Captum's error).
            IndexError, RuntimeError: If a target is out of range (Captum's error).
            ValueError: If the output has not one row per example, or a score is not finite.
        """
        scores = self._select(output, self._targets, self._n_examples)
        if not scores.isfinite().all():
            raise ValueError("Expected finite scores of the inputs, but got NaN or Inf.")
        return scores

    def of_rows(self, output: Any, examples: Tensor) -> Tensor:
        """Scores R×T of a forward whose row r is a version of example ``examples[r]``."""
        return self._select(output, [_of_rows(target, examples) for target in self._targets], len(examples))

    def empty(self, inputs: Tensor) -> Tensor:
        """Scores of no rows, 0×T, on the inputs' device."""
        return inputs.new_empty(0, len(self._targets), dtype=working_dtype(inputs.dtype))

    def _select(self, output: Any, targets: Sequence[TargetType], n_rows: int) -> Tensor:
        scores = self._score(output)
        if scores.dim() == 0 or len(scores) != n_rows:
            raise ValueError(
                "Expected an output whose rows grow with the input's, "
                f"but got shape {tuple(scores.shape)} for {n_rows} input rows."
            )
        selected = [_captum.select_target(scores, target) for target in targets]
        if any(column.numel() != n_rows for column in selected):
            raise AssertionError(
                "Target not provided when necessary, cannot explain multiple outputs: "
                f"the output has shape {tuple(scores.shape)}."
            )
        return torch.stack([column.reshape(n_rows) for column in selected], 1).to(working_dtype(scores.dtype))


def _shared_or_per_example(target: TargetType, device: torch.device) -> TargetType:
    # One form per kind of target, so that selecting from a chunk of rows waits for no device.
    if isinstance(target, Tensor):
        return target.to(device) if target.numel() > 1 or target.is_floating_point() else int(target.item())
    if isinstance(target, list) and target and all(isinstance(index, int) for index in target):
        return torch.tensor(target, device=device)
    return target


def _of_rows(target: TargetType, examples: Tensor) -> TargetType:
    if isinstance(target, Tensor):
        return target[examples]
    if isinstance(target, list):
        return [target[example] for example in examples.tolist()]
    return target
