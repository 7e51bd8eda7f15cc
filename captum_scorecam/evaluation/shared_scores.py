"""The scores of the channels of one image, which Score-CAM's weightings, scores and budgets share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_scorecam import ChannelScores, ScoreCAM
from captum_scorecam.evaluation.forward_rows import forward_rows
from captum_scorecam.scoring.class_scores import NamedScore, score_function

if TYPE_CHECKING:
    from captum_scorecam.evaluation.request import ExplanationRequest


def score_cam_of(request: ExplanationRequest, **options: Any) -> ScoreCAM:
    """Returns Score-CAM of a request's model and layer, with further options of its constructor."""
    return ScoreCAM(
        request.model,
        request.layer.module,
        activation_transform=request.layer.activation_transform,
        masked_forward_func=request.masked_forward_func,
        **options,
    )


def channel_scores_of(request: ExplanationRequest, score_cam: ScoreCAM) -> ChannelScores:
    """Scores the channels for the classes of a request.

    Raises:
        ValueError: If the layer returns several tensors.
    """
    found: ChannelScores | tuple[ChannelScores, ...] = score_cam.channel_scores(
        request.inputs,
        request.targets,
        attribute_to_layer_input=request.layer.of_input,
        perturbations_per_eval=request.options.perturbations_per_eval,
        show_progress=request.options.show_progress,
    )
    if isinstance(found, tuple):
        raise ValueError(f"Expected {request.layer.name} to return one tensor, but it returns {len(found)}.")
    return found


class SharedScores:
    """The scores of all masks of one image, run when a method first asks for them.

    Args:
        scores (sequence of str): The scores that methods ask for; all are read from the same forward passes.
        targets (sequence of int): The classes that they ask for.
        n_classes (int): The model's number of classes.

    Attributes:
        chunk_rows (tuple of int): The rows of each forward pass; empty before the first request.
    """

    def __init__(self, scores: Sequence[NamedScore], targets: Sequence[int], n_classes: int) -> None:
        self.chunk_rows: tuple[int, ...] = ()
        self._n_classes = n_classes
        self._columns = list(itertools.product(scores, targets))
        self._found: ChannelScores | None = None

    def has(self, target: int) -> bool:
        """Whether there are scores of a class."""
        return any(known == target for _, known in self._columns)

    def of(self, request: ExplanationRequest, score: NamedScore) -> ChannelScores:
        """Returns the scores of the request's targets.

        Raises:
            ValueError: If the layer returns several tensors.
        """
        if self._found is None:
            with forward_rows(request.model, request.masked_forward_func) as rows:
                self._found = self._run(request)
            self.chunk_rows = tuple(rows)
        return _of_columns(self._found, [self._columns.index((score, target)) for target in request.targets])

    def _run(self, request: ExplanationRequest) -> ChannelScores:
        scores = list(dict.fromkeys(score for score, _ in self._columns))
        together = scores[0] if len(scores) == 1 else _side_by_side(scores)
        # The softmax would look at scores that it may not be meant for.
        score_cam = score_cam_of(request, score=together, channel_weighting="score")
        targets = [target + scores.index(score) * self._n_classes for score, target in self._columns]
        return channel_scores_of(replace(request, targets=targets), score_cam)


def _side_by_side(scores: Sequence[NamedScore]) -> Callable[[Any], Tensor]:
    functions = [score_function(score) for score in scores]
    return lambda output: torch.cat([function(output) for function in functions], dim=1)


def _of_columns(scores: ChannelScores, columns: list[int]) -> ChannelScores:
    of_baselines = scores.baseline_scores
    return replace(
        scores,
        mask_scores=scores.mask_scores[:, columns],
        unmasked_scores=scores.unmasked_scores[:, columns],
        baseline_scores=None if of_baselines is None else of_baselines[:, columns],
    )
