"""Runs some of the masks and predicts the scores of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from captum_scorecam.budget.channel_scores import ChannelScores, Prediction
from captum_scorecam.budget.gaussian_process import PRIOR, Kernel, MaskSpace, Posterior, fit, precise
from captum_scorecam.budget.mask_choice import most_informative, random_rows
from captum_scorecam.budget.score_scale import from_latent, to_latent
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.chunks import MaskRows, Masks
from captum_scorecam.scoring.process_group import from_first_rank
from captum_scorecam.weighting import ChannelWeighting

RANDOM_SHARE = 0.4  # of the masks after the first stage, where weights are linear in scores
MASKS_OF_THREE_STAGES = 48  # from which on there are three stages instead of two
MOST_FITTED = 256
FIRST_SHARE = 0.05  # of the masks, before the error is estimated for the first time
LEAST_MASKS = 8
GROWTH = 1.5


def forwards_per_tensor(masks: Sequence[ChannelMasks], n_examples: int, max_forwards: int | None) -> list[Tensor]:
    """Divides the forward passes of each example between the tensors of a layer, in proportion to their masks.

    Args:
        masks (sequence of ChannelMasks): The masks of each tensor.
        n_examples (int): N.
        max_forwards (int, optional): Per example. None runs all masks.

    Returns:
        list of Tensor: For each tensor, the number of masks to run for each example, shape N.

    Raises:
        ValueError: If there are fewer forward passes than tensors that have masks.
    """
    counts = torch.stack([of_tensor.examples.bincount(minlength=n_examples) for of_tensor in masks])
    if max_forwards is None:
        return list(counts)
    needed = int((counts > 0).sum(0).max())
    if max_forwards < needed:
        raise ValueError(
            f"Expected `max_forwards` to be at least {needed}, one for each tensor that the layer returns, "
            f"but got {max_forwards}."
        )
    # Each tensor gets its share of what is left and leaves one forward pass to each of those that wait.
    shares, unserved, waiting = [], counts.sum(0), (counts > 0).sum(0)
    spare = torch.full_like(unserved, min(max_forwards, int(unserved.max())))
    for count in counts:
        waiting = waiting - (count > 0).long()
        share = (spare * count / unserved.clamp_min(1)).round().long()
        shares.append(share.clamp_min(1).minimum(spare - waiting).minimum(count))
        spare, unserved = spare - shares[-1], unserved - count
    return shares


def score_within_budget(
    unscored: ChannelScores,
    score: Callable[[Masks], Tensor],
    limits: Tensor,
    weighting: ChannelWeighting,
    bounded: bool,
    error: float | None = None,
    process_group: ProcessGroup | None = None,
) -> ChannelScores:
    """Runs at most a given number of masks, in stages, and predicts the scores of the others.

    The masks of the first stage are chosen for what they say of the others; those of later stages also with the
    predictions so far. With `error`, growing stages follow each other until the maps are as exact.

    Args:
        unscored (ChannelScores): The activations, their masks and the scores of the unmasked inputs.
        score (callable): Returns the scores of a selection of masks, R×T.
        limits (Tensor): Shape N, the number of masks to run for each example.
        weighting (str): The weighting of the maps that are to be exact.
        bounded (bool): Whether scores are probabilities.
        error (float, optional): Stop once the largest standard error of an example's maps is at most this share of the
            map's largest value. Default: None, run as many masks as `limits` says.
        process_group (ProcessGroup, optional): Ranks that all make this call. Default: None.
    """
    return _Stages(unscored.masks, unscored.activations, limits, weighting, bounded, error).run(
        unscored, score, process_group
    )


class _Stages:
    def __init__(
        self,
        masks: ChannelMasks,
        activations: Tensor,
        limits: Tensor,
        weighting: ChannelWeighting,
        bounded: bool,
        error: float | None,
    ) -> None:
        self._masks = masks
        self._limits: list[int] = limits.tolist()
        self._weighting, self._bounded, self._error = weighting, bounded, error
        self._sums = masks.sums(activations.flatten(2))
        self._latest_space: tuple[int, MaskSpace] | None = None  # of one example, since it has 2·P² values

    def run(
        self, found: ChannelScores, score: Callable[[Masks], Tensor], process_group: ProcessGroup | None
    ) -> ChannelScores:
        scores = found.unmasked_scores.new_zeros(len(self._masks), found.unmasked_scores.shape[1])
        run = torch.zeros(len(self._masks), dtype=torch.bool, device=scores.device)
        kernels = precise(scores).new_tensor(PRIOR).repeat(len(self._limits), 1)
        found = replace(found, mask_scores=scores, prediction=Prediction(run, torch.zeros_like(scores), kernels))
        for stage in itertools.count():
            errors = None
            if self._error is not None and stage > 0:
                errors = remaining_errors(found, self._weighting).amax(1).tolist()
            rows = torch.cat([self._next_rows(found, i, stage, errors) for i in range(len(self._limits))])
            if process_group is not None:
                chosen = torch.zeros_like(run).index_fill(0, rows, True)
                rows = from_first_rank((chosen,), process_group)[0].nonzero()[:, 0]
            if len(rows) == 0:
                break
            found = self._predicted(found, rows, score(MaskRows(self._masks, rows)))
        return found if process_group is None else _of_first_rank(found, process_group)

    def _next_rows(self, found: ChannelScores, example: int, stage: int, errors: list[float] | None) -> Tensor:
        """Chooses the masks that are run next for an example, none if it is done."""
        assert found.prediction is not None
        rows = self._masks.rows_of(example)
        run = found.prediction.run[rows].nonzero()[:, 0]
        n_wanted = self._wanted(example, stage, len(rows), len(run), errors)
        if n_wanted <= len(run):
            return rows[:0]
        if n_wanted >= len(rows):
            return rows[~found.prediction.run[rows]]
        space = self._space(example, rows)
        kernel = Kernel(*found.prediction.kernels[example].tolist())
        importance = self._importance(found, rows, len(run))
        n_new = n_wanted - len(run)
        is_linear = self._weighting != "softmax" and not self._bounded
        n_random = int(RANDOM_SHARE * n_new) if is_linear and stage > 0 else 0
        chosen = most_informative(space, kernel, importance, run, n_new - n_random)
        known = torch.cat([run, chosen])
        deviation = Posterior.given(space, known, kernel).variance().sqrt() if n_random else importance
        return rows[torch.cat([chosen, random_rows(importance * deviation, known, n_random, seed=stage)])]

    def _space(self, example: int, rows: Tensor) -> MaskSpace:
        if self._latest_space is None or self._latest_space[0] != example:
            self._latest_space = example, MaskSpace(self._masks.maps[rows].flatten(1))
        return self._latest_space[1]

    def _wanted(self, example: int, stage: int, n_masks: int, n_run: int, errors: list[float] | None) -> int:
        """Returns the number of masks to have run after the next stage."""
        limit = min(self._limits[example], n_masks)
        if self._error is None or limit <= LEAST_MASKS:
            n_stages = 1 if limit == n_masks else 3 if limit >= MASKS_OF_THREE_STAGES else 2
            return math.ceil(limit * min(1, (stage + 1) / n_stages))
        if stage == 0:
            return min(limit, max(LEAST_MASKS, round(FIRST_SHARE * n_masks)))
        if errors is not None and errors[example] <= self._error:
            return n_run
        return min(limit, round(GROWTH * n_run))

    def _importance(self, found: ChannelScores, rows: Tensor, n_run: int) -> Tensor:
        """Computes what an error of each mask's latent score does to the map, averaged over targets."""
        sums = precise(self._sums[rows])
        importance = (sums.amax(1) - sums.amin(1)).unsqueeze(1)
        if n_run > 0:
            scores = precise(found.mask_scores[rows])
            if self._weighting == "softmax":
                importance = importance * (scores - scores.amax(0)).exp()
            if self._bounded:
                importance = importance * (scores * (1 - scores)).clamp_min(0)
        return (importance / importance.sum(0).clamp_min(torch.finfo(importance.dtype).tiny)).square().mean(1).sqrt()

    def _predicted(self, found: ChannelScores, rows: Tensor, new_scores: Tensor) -> ChannelScores:
        """Adds the scores of masks that were run, and predicts those of all others."""
        assert found.prediction is not None
        run, deviations = found.prediction.run.clone(), found.prediction.deviations.clone()
        scores, kernels = found.mask_scores.clone(), found.prediction.kernels.clone()
        run[rows] = True
        scores[rows] = new_scores
        for example in torch.unique(self._masks.examples[rows]).tolist():
            of_example = self._masks.rows_of(example)
            known = run[of_example].nonzero()[:, 0]
            if len(known) == len(of_example):
                deviations[of_example] = 0
                continue
            space = self._space(example, of_example)
            latent = to_latent(scores[of_example[known]], self._bounded)
            # A kernel that is chosen from so many scores would hardly change with more, and the time grows with n³.
            fitted = torch.linspace(0, len(known) - 1, min(len(known), MOST_FITTED), device=known.device).long()
            unmasked = to_latent(found.unmasked_scores[example], self._bounded)
            kernel, scale = fit(space, known[fitted], latent[fitted], unmasked)
            posterior = Posterior.given(space, known, kernel)
            mean, variance = from_latent(
                posterior.mean(latent), posterior.variance().unsqueeze(1) * scale, self._bounded
            )
            unknown = ~run[of_example]
            scores[of_example[unknown]] = mean[unknown].to(scores.dtype)
            deviations[of_example] = torch.where(unknown.unsqueeze(1), variance.sqrt(), 0.0).to(scores.dtype)
            kernels[example] = kernels.new_tensor(kernel)
        return replace(found, mask_scores=scores, prediction=Prediction(run, deviations, kernels))


def _of_first_rank(found: ChannelScores, process_group: ProcessGroup) -> ChannelScores:
    """Broadcasts the predictions, which ranks of different hardware may round differently."""
    assert found.prediction is not None
    scores, deviations, kernels = from_first_rank(
        (found.mask_scores, found.prediction.deviations, found.prediction.kernels), process_group
    )
    return replace(found, mask_scores=scores, prediction=Prediction(found.prediction.run, deviations, kernels))


def remaining_errors(scores: ChannelScores, weighting: ChannelWeighting) -> Tensor:
    """Computes the largest standard error of each map as a share of the map's largest value: N×T; 0 if exact."""
    largest = scores.maps(weighting).flatten(2).amax(2)
    errors = scores.standard_errors(weighting).flatten(2).amax(2)
    return torch.where(errors == 0, 0.0, errors / largest)
