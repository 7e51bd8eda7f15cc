"""Runs some of the masks and predicts the scores of the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from captum_scorecam.budget.channel_scores import ChannelScores, Prediction
from captum_scorecam.budget.gaussian_process import PRIOR, MaskSpace, Posterior, fit
from captum_scorecam.budget.map_errors import in_dtype, map_errors
from captum_scorecam.budget.mask_choice import most_informative, random_rows
from captum_scorecam.budget.score_scale import TINY_PROBABILITY, from_latent, to_latent
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.masking.scaling import precise
from captum_scorecam.scoring.chunks import MaskRows, Masks
from captum_scorecam.scoring.process_group import from_first_rank
from captum_scorecam.weighting import ChannelWeighting, weighted_maps

# Of the masks after the first stage, how many are drawn at random. They show where predictions are biased for the masks
# that would never be chosen, and their scores matter most where weights are linear in scores.
RANDOM_SHARE = 0.3
RANDOM_SHARE_OF_LINEAR = 0.4
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
    masks = unscored.masks
    sums = masks.sums(unscored.activations.flatten(2))
    examples = [_Example(unscored, sums, number, weighting, bounded) for number in range(len(limits))]
    for stage in itertools.count():
        errors = [math.inf] * len(examples)
        if error is not None and stage > 0:
            errors = remaining_errors(_joined(unscored, examples, weighting), weighting).amax(1).tolist()
        rows = torch.cat(
            [
                example.next_rows(_n_wanted(limit, stage, example, error, error_now), stage)
                for example, limit, error_now in zip(examples, limits.tolist(), errors, strict=True)
            ]
        )
        if process_group is not None:
            chosen = torch.zeros_like(masks.examples, dtype=torch.bool).index_fill(0, rows, True)
            rows = from_first_rank((chosen,), process_group)[0].nonzero()[:, 0]
        if len(rows) == 0:
            break
        scores = score(MaskRows(masks, rows))
        for number in torch.unique(masks.examples[rows]).tolist():
            mine = masks.examples[rows] == number
            examples[number].add(rows[mine], scores[mine])
    return _joined(unscored, examples, weighting, process_group)


def replayed_within_budget(
    exact: ChannelScores,
    max_forwards: int | None,
    error: float | None,
    weighting: ChannelWeighting,
    bounded: bool,
) -> ChannelScores:
    """Returns what `score_within_budget` gives where the scores of all masks are known, without running any.

    Args:
        exact (ChannelScores): The scores of a layer that returns one tensor.
        max_forwards (int, optional): The masks of each example, at most. None takes all.
        error (float, optional): As for `score_within_budget`.
        weighting (str): The weighting of the maps.
        bounded (bool): Whether scores are probabilities.
    """
    (limits,) = forwards_per_tensor([exact.masks], len(exact.activations), max_forwards)
    if error is None and int(limits.sum()) == len(exact.masks):
        return exact

    def known(masks: Masks) -> Tensor:
        assert isinstance(masks, MaskRows)
        return exact.mask_scores[masks.rows]

    unscored = replace(exact, mask_scores=torch.zeros_like(exact.mask_scores))
    return score_within_budget(unscored, known, limits, weighting, bounded, error)


def _n_wanted(limit: int, stage: int, example: _Example, error: float | None, error_now: float) -> int:
    """Returns the number of masks of an example to have run after the next stage."""
    n_masks, n_run = len(example.rows), int(example.run.sum())
    limit = min(limit, n_masks)
    if error is None or limit <= LEAST_MASKS:
        n_stages = 1 if limit == n_masks else 3 if limit >= MASKS_OF_THREE_STAGES else 2
        return math.ceil(limit * min(1, (stage + 1) / n_stages))
    if stage == 0:
        return min(limit, max(LEAST_MASKS, round(FIRST_SHARE * n_masks)))
    return n_run if error_now <= error else min(limit, round(GROWTH * n_run))


class _Example:
    """The masks of one example, and their scores so far.

    Attributes:
        rows (Tensor): Shape P, the rows of its masks among those of all examples.
        run (Tensor): Shape P, bool; True for those that were run.
        scores (Tensor): P×T, run or predicted.
        deviations (Tensor): P×T, their standard deviations.
        kernel (Kernel): The covariance of the scores.
    """

    def __init__(
        self, unscored: ChannelScores, sums: Tensor, number: int, weighting: ChannelWeighting, bounded: bool
    ) -> None:
        self.rows = unscored.masks.rows_of(number)
        self.run = torch.zeros_like(self.rows, dtype=torch.bool)
        self.scores = unscored.unmasked_scores.new_zeros(len(self.rows), unscored.unmasked_scores.shape[1])
        self.deviations = torch.zeros_like(self.scores)
        self.kernel = PRIOR
        self._masks, self._unmasked = unscored.masks, unscored.unmasked_scores[number]
        self._sums, self._weighting, self._bounded = precise(sums[self.rows]), weighting, bounded
        self._errors: Tensor | None = None

    @cached_property
    def _posterior(self) -> Posterior:
        """What the masks that were run say of all; none at first."""
        return Posterior.given(MaskSpace(self._masks.maps[self.rows].flatten(1)), self.rows[:0], PRIOR)

    def errors(self) -> Tensor:
        """Computes the standard error of each value of the maps, T×D."""
        if self._errors is None:
            self._errors = self._sums.new_zeros(self.scores.shape[1], self._sums.shape[1])
            if not self.run.all():
                n_sharing = self._masks.n_sharing[self.rows]
                self._errors = map_errors(
                    self._posterior, self.scores, self.deviations, self._sums, n_sharing, self._weighting
                )
        return self._errors

    def next_rows(self, n_wanted: int, stage: int) -> Tensor:
        """Chooses the masks to run next, so many that `n_wanted` were."""
        n_new = n_wanted - int(self.run.sum())
        if n_new <= 0:
            return self.rows[:0]
        if n_wanted == len(self.rows):
            return self.rows[~self.run]
        importance = self._importance()
        is_linear = self._weighting != "softmax" and not self._bounded
        share = RANDOM_SHARE_OF_LINEAR if is_linear else RANDOM_SHARE
        n_random = int(share * n_new) if stage > 0 else 0
        chosen = most_informative(self._posterior, importance, n_new - n_random)
        known = torch.cat([self._posterior.rows, chosen])
        likely = self._ranges
        if is_linear and n_random:
            likely = likely * Posterior.given(self._posterior.space, known, self.kernel).variance().sqrt()
        return self.rows[torch.cat([chosen, random_rows(likely, known, n_random, seed=stage)])]

    @property
    def _ranges(self) -> Tensor:
        return self._sums.amax(1) - self._sums.amin(1)

    @property
    def _on_logits(self) -> Tensor:
        """Whether scores are predicted as logits, shape T: of probabilities, unless all that were run are tiny."""
        return (self.scores[self.run] > TINY_PROBABILITY).any(0) & self._bounded

    def _importance(self) -> Tensor:
        """Computes what an error of each mask's latent score does to the map, averaged over targets."""
        importance = self._ranges.unsqueeze(1)
        if self.run.any():
            scores = precise(self.scores)
            if self._weighting == "softmax":
                importance = importance * (scores - scores.amax(0)).exp()
            importance = importance * torch.where(self._on_logits, (scores * (1 - scores)).clamp_min(0), 1.0)
        return (importance / importance.sum(0).clamp_min(torch.finfo(importance.dtype).tiny)).square().mean(1).sqrt()

    def add(self, rows: Tensor, scores: Tensor) -> None:
        """Adds the scores of masks that were run, and predicts those of all others."""
        new = rows - self.rows[0]
        self.run[new], self.scores[new], self._errors = True, scores.to(self.scores.dtype), None
        self.deviations.zero_()
        if self.run.all():
            return
        known, unknown = self.run.nonzero()[:, 0], ~self.run
        on_logits = self._on_logits
        latent = to_latent(self.scores[known], on_logits)
        # A kernel that is chosen from so many scores would hardly change with more, and the time grows with n³.
        n_fitted = min(len(known), MOST_FITTED)
        fitted = torch.linspace(0, len(known) - 1, n_fitted, dtype=torch.float32, device=known.device).long()
        space, unmasked = self._posterior.space, to_latent(self._unmasked, on_logits)
        self.kernel, scale = fit(space, known[fitted], latent[fitted], unmasked)
        self._posterior = Posterior.given(space, known, self.kernel)
        mean, variance = from_latent(
            self._posterior.mean(latent), self._posterior.variance().unsqueeze(1) * scale, on_logits
        )
        self.scores[unknown] = mean[unknown].to(self.scores.dtype)
        self.deviations[unknown] = variance[unknown].sqrt().to(self.scores.dtype)


def _joined(
    unscored: ChannelScores,
    examples: Sequence[_Example],
    weighting: ChannelWeighting,
    process_group: ProcessGroup | None = None,
) -> ChannelScores:
    """Joins the scores of all examples, on all ranks those of the first: different hardware may round differently."""
    errors = torch.stack([example.errors() for example in examples])
    of_masks = [torch.cat([getattr(each, name) for each in examples]) for name in ("scores", "deviations")]
    shared = (*of_masks, errors.new_tensor([example.kernel for example in examples]), errors)
    if process_group is not None:
        shared = from_first_rank(shared, process_group)
    scores, deviations, kernels, errors = shared
    prediction = Prediction(torch.cat([example.run for example in examples]), deviations, kernels)
    found = replace(unscored, mask_scores=scores, prediction=prediction)
    shape = (*unscored.unmasked_scores.shape, *unscored.activations.shape[2:])
    found.known_errors[weighting] = in_dtype(errors.view(shape), unscored.activations.dtype)
    return found


def remaining_errors(scores: ChannelScores, weighting: ChannelWeighting) -> Tensor:
    """Computes the largest standard error of each map as a share of the map's largest value: N×T; 0 if exact.

    Where no value is positive, the map after the ReLU is zero. If all values are below 0 by two standard errors, it
    will stay so, and the error is a share of the largest absolute value; else its largest value is unknown, and the
    share infinite.
    """
    maps = weighted_maps(precise(scores.activations), scores.weights(weighting)).flatten(2)
    errors = scores.standard_errors(weighting).flatten(2)
    stays_zero = (maps + 2 * errors <= 0).all(2)
    largest = torch.where(stays_zero, maps.abs().amax(2), maps.amax(2).clamp_min(0).abs())  # abs: −0 is 0
    return torch.where(errors.amax(2) == 0, 0.0, errors.amax(2) / largest)
