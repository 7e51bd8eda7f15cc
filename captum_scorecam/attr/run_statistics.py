"""What a call of Score-CAM ran and skipped."""

from __future__ import annotations

from dataclasses import dataclass

from captum_scorecam.budget.channel_scores import ChannelScores
from captum_scorecam.budget.within_budget import remaining_errors
from captum_scorecam.weighting import ChannelWeighting, effective_channels


@dataclass(frozen=True)
class RunStatistics:
    """Statistics of the last call of :class:`ScoreCAM`.

    Attributes:
        channels (int): N·K, the number of channels over all examples.
        constant (int): Channels with constant maps, which have no mask.
        unselected (int): Channels excluded by ``max_channels``.
        shared (int): Channels that reused another channel's mask.
        omitted (int): Masks not run because of ``tolerance``, ``max_forwards`` or ``error``.
        rows (int): Masked inputs run through the model, over all ranks.
        rows_per_forward (int): Masked inputs per full forward pass, tuned or given; 0 before the first pass.
        effective_channels (tuple of float): For each map, 1 / Σ α² of the softmax: the number of channels if their
            weights are equal, 1 if one channel has all the weight. Empty for other weightings.
        errors (tuple of float): With ``max_forwards`` or ``error``, for each map, its largest standard error as a share
            of its largest value; 0 if exact. Else empty.
    """

    channels: int = 0
    constant: int = 0
    unselected: int = 0
    shared: int = 0
    omitted: int = 0
    rows: int = 0
    rows_per_forward: int = 0
    effective_channels: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()

    def plus(
        self,
        scored: ChannelScores,
        rows: int,
        rows_per_forward: int,
        weighting: ChannelWeighting,
        has_budget: bool,
    ) -> RunStatistics:
        """Adds the maps of one activation and the `rows` masks that were run for them."""
        masks, channels, masked = scored.masks, scored.has_mask.numel(), int(scored.has_mask.sum())
        effective = effective_channels(scored.weights()).flatten().tolist() if weighting == "softmax" else []
        errors = remaining_errors(scored, weighting).flatten().tolist() if has_budget else []
        return RunStatistics(
            self.channels + channels,
            self.constant + masks.n_constant,
            self.unselected + channels - masks.n_constant - masked,
            self.shared + masked - len(masks),
            self.omitted + len(masks) - rows,
            self.rows + rows,
            rows_per_forward if rows else self.rows_per_forward,
            (*self.effective_channels, *effective),
            (*self.errors, *errors),
        )
