"""What a call of Score-CAM ran, and what it could leave out."""

from __future__ import annotations

from dataclasses import dataclass

from captum_scorecam.masks import ChannelMasks


@dataclass(frozen=True)
class RunStatistics:
    """What the last call of :class:`ScoreCAM` ran.

    Attributes:
        channels (int): N·K, the channels of all examples.
        constant (int): Channels whose maps are constant, which have no mask.
        unselected (int): Channels left out by ``max_channels``.
        shared (int): Channels that shared another channel's mask.
        omitted (int): Masks left out by ``tolerance``.
        rows (int): Masked inputs run through the model, on all ranks: what is left.
    """

    channels: int = 0
    constant: int = 0
    unselected: int = 0
    shared: int = 0
    omitted: int = 0
    rows: int = 0

    def plus(self, masks: ChannelMasks, n_run: int) -> RunStatistics:
        """Adds the channels of one activation, `n_run` of whose masks were run."""
        channels = masks.index.numel()
        masked = int((masks.index >= 0).sum())
        return RunStatistics(
            self.channels + channels,
            self.constant + masks.n_constant,
            self.unselected + channels - masks.n_constant - masked,
            self.shared + masked - len(masks),
            self.omitted + len(masks) - n_run,
            self.rows + n_run,
        )
