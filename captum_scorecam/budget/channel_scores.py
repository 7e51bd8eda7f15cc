"""The scores of a layer's channels, and the maps that they give with each weighting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_scorecam._messages import check_choice, check_flags, check_whole_number
from captum_scorecam.budget.gaussian_process import Kernel, MaskSpace, Posterior, precise
from captum_scorecam.budget.score_scale import softmax_changes
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.weighting import ChannelWeighting, channel_weights, weighted_maps

WIDENING = 2.0  # of standard errors; see the method page
MOST_LOG_VARIANCE = 2.0  # of a score in an exponent; the lognormal mean of a wider one would decide the map


@dataclass(frozen=True)
class Prediction:
    """Which masks were run, and how uncertain the scores predicted for the others are.

    Attributes:
        run (Tensor): Shape P, bool; True for the masks that were run.
        deviations (Tensor): P×T, the standard deviation of each score; 0 for the masks that were run.
        kernels (Tensor): N×3, the `Kernel` of each example's scores.
    """

    run: Tensor
    deviations: Tensor
    kernels: Tensor


@dataclass(frozen=True)
class ChannelScores:
    """The class scores of the inputs masked by each channel of a layer (:meth:`ScoreCAM.channel_scores`).

    One set of forward passes gives the maps of all weightings.

    Attributes:
        activations (Tensor): A, N×K×spatial.
        masks (ChannelMasks): The P distinct masks of the channels; ``masks.index`` is N×K, −1 for channels without one.
        mask_scores (Tensor): The score of each mask, P×T.
        unmasked_scores (Tensor): f(X), N×T.
        baseline_scores (Tensor or None): f(B), N×T; None if they were not needed.
        prediction (Prediction or None): Set if some of the scores are predicted; None if all masks were run.
    """

    activations: Tensor
    masks: ChannelMasks
    mask_scores: Tensor
    unmasked_scores: Tensor
    baseline_scores: Tensor | None = None
    prediction: Prediction | None = None

    @property
    def scores(self) -> Tensor:
        """The scores of the inputs masked by each channel, N×K×T, run or predicted; 0 for channels without a mask."""
        return self.masks.by_channel(self.mask_scores)

    @property
    def has_mask(self) -> Tensor:
        """Which channels mask the input, N×K. Constant ones and those outside ``max_channels`` don't."""
        return self.masks.index >= 0

    @property
    def was_run(self) -> Tensor:
        """Which channels have scores from a forward pass, N×K. Those of the others with a mask are predicted."""
        if self.prediction is None:
            return self.has_mask
        return self.masks.by_channel(self.prediction.run.unsqueeze(1))[:, :, 0]

    @property
    def n_forwards(self) -> int:
        """The number of masks that were run."""
        return len(self.masks) if self.prediction is None else int(self.prediction.run.sum())

    def weights(self, channel_weighting: ChannelWeighting = "softmax") -> Tensor:
        """Computes α, N×K×T.

        The softmax of a predicted score uses the expectation of its exponential, S + variance / 2.

        Args:
            channel_weighting (str): As for :class:`ScoreCAM`. Default: ``"softmax"``.

        Raises:
            ValueError: If it is unknown, or is ``"increase"`` and there are no `baseline_scores`.
        """
        scores = self.mask_scores
        if channel_weighting == "softmax" and self.prediction is not None:
            scores = scores + self.prediction.deviations.square().clamp(max=MOST_LOG_VARIANCE) / 2
        by_channel = self.masks.by_channel(scores)
        return channel_weights(by_channel, self.has_mask, channel_weighting, self.baseline_scores)

    def strongest_channels(
        self, n_channels: int = 10, channel_weighting: ChannelWeighting = "softmax"
    ) -> tuple[Tensor, Tensor]:
        """Sorts channels by weight: which of them made the map.

        Args:
            n_channels (int): How many, at most K. Default: 10.
            channel_weighting (str): As for :meth:`weights`.

        Returns:
            tuple: The indices of the channels with the largest weights and the weights, each N×n×T, largest first.
        """
        check_whole_number("n_channels", n_channels, least=1)
        weights = self.weights(channel_weighting).masked_fill(~self.has_mask.unsqueeze(2), -torch.inf)
        largest = weights.topk(min(n_channels, weights.shape[1]), dim=1)
        return largest.indices, largest.values.masked_fill(largest.values.isinf(), 0.0)

    def maps(
        self,
        channel_weighting: ChannelWeighting = "softmax",
        relu_attributions: bool = True,
        attr_dim_summation: bool = True,
    ) -> Tensor:
        """Computes the maps of one weighting. No forward pass is run.

        Args:
            channel_weighting (str): As for :class:`ScoreCAM`. Default: ``"softmax"``.
            relu_attributions (bool): Keep only positive values. Default: True.
            attr_dim_summation (bool): Sum over the channels. Default: True.

        Returns:
            Tensor: N×T×spatial, or N×T×K×spatial if not summed, in the activations' dtype.
        """
        check_flags(relu_attributions=relu_attributions, attr_dim_summation=attr_dim_summation)
        maps = weighted_maps(self.activations, self.weights(channel_weighting), attr_dim_summation)
        return maps.relu() if relu_attributions else maps

    def standard_errors(self, channel_weighting: ChannelWeighting = "softmax") -> Tensor:
        r"""Computes the standard error of each value of the maps; 0 where they are exact.

        An error ε of the predicted scores changes the map by Σ_p J_p ε_p. The Gaussian process gives the correlations R
        of these errors, so the variance of the map is J' R J, with J_p scaled by the standard deviation of score p. The
        errors of neighbouring positions are correlated. If the scores of all masks that were run are equal, the others
        are taken to equal them too, without error.

        Args:
            channel_weighting (str): As for :class:`ScoreCAM`. Default: ``"softmax"``.

        Returns:
            Tensor: N×T×spatial, in the activations' dtype.
        """
        check_choice("channel_weighting", channel_weighting, ChannelWeighting)
        n_examples, n_targets = self.unmasked_scores.shape
        errors = self.mask_scores.new_zeros(n_examples, n_targets, *self.activations.shape[2:])
        if self.prediction is None:
            return errors.to(self.activations.dtype)
        sums = precise(self.masks.sums(self.activations.flatten(2)))
        n_sharing = precise(self.masks.sums(torch.ones_like(self.activations.flatten(2)[:, :, :1])))
        for example in range(n_examples):
            rows = self.masks.rows_of(example)
            run = self.prediction.run[rows]
            if run.all():
                continue
            posterior = self._posterior(rows, example)
            predicted = (~run).nonzero()[:, 0]
            correlation = posterior.correlation(predicted)
            for target in range(n_targets):
                deviations = precise(self.prediction.deviations[rows, target])
                if channel_weighting == "softmax":
                    scores = precise(self.mask_scores[rows, target])
                    change = _softmax_changes(scores, deviations, sums[rows], n_sharing[rows])[predicted]
                else:
                    change = deviations[predicted].unsqueeze(1) * sums[rows[predicted]]
                variance = (change * (correlation @ change)).sum(0).clamp_min(0)
                error = widening(int(run.sum())) * variance.sqrt()
                errors[example, target] = error.view_as(errors[example, target])
        return errors.to(self.activations.dtype)

    def save(self, path: str | Path) -> None:
        """Writes everything to a safetensors file, from which :meth:`load` reads it.

        Args:
            path (str or Path): The file.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items() if tensor is not None}
        sizes = ";".join(",".join(map(str, size)) for size in self.masks.sizes)
        Path(path).write_bytes(save(tensors, {"sizes": sizes, "n_constant": str(self.masks.n_constant)}))

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> ChannelScores:
        """Reads the channel scores that :meth:`save` wrote.

        Args:
            path (str or Path): The file.
            device (str or torch.device): Where to put the tensors. Default: the CPU.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file holds something else.
        """
        Path(path).open("rb").close()  # raises the usual errors, of which safetensors says less
        try:
            with safe_open(path, "pt", str(device)) as file:
                # Copies, since tensors on the CPU would stay bound to the file.
                read = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
                metadata = file.metadata() or {}
            sizes = tuple(tuple(map(int, size.split(","))) for size in metadata["sizes"].split(";"))
            n_constant = int(metadata["n_constant"])
            masks = ChannelMasks(read["mask_maps"], read["examples"], read["index"], sizes, n_constant)
            prediction = Prediction(read["run"], read["deviations"], read["kernels"]) if "run" in read else None
            known = [read[name] for name in ("activations", "mask_scores", "unmasked_scores")]
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(
                f"Expected `path` to be a file written by ChannelScores.save, but {str(path)!r} is not."
            ) from error
        return cls(known[0], masks, known[1], known[2], read.get("baseline_scores"), prediction)

    def _tensors(self) -> dict[str, Tensor | None]:
        predicted: dict[str, Any] = {} if self.prediction is None else vars(self.prediction)
        return {
            "activations": self.activations,
            "mask_maps": self.masks.maps,
            "examples": self.masks.examples,
            "index": self.masks.index,
            "mask_scores": self.mask_scores,
            "unmasked_scores": self.unmasked_scores,
            "baseline_scores": self.baseline_scores,
            **predicted,
        }

    def _posterior(self, rows: Tensor, example: int) -> Posterior:
        assert self.prediction is not None
        run = self.prediction.run[rows].nonzero()[:, 0]
        kernel = Kernel(*self.prediction.kernels[example].tolist())
        return Posterior.given(MaskSpace(self.masks.maps[rows].flatten(1)), run, kernel)


def widening(n_run: int) -> float:
    """Returns the factor of standard errors, given the number of masks of an example that were run.

    A variance that is estimated from few scores is uncertain, so errors follow Student's t distribution. Two of them
    make the 95 % interval, by the quantile's expansion in powers of the degrees of freedom.
    """
    freedom = n_run - 1 + 1 / n_run
    return WIDENING * (1 + 1.21 / freedom + 1.44 / freedom**2 + 1.304 / freedom**3 + 0.811 / freedom**4)


def _softmax_changes(scores: Tensor, deviations: Tensor, sums: Tensor, n_sharing: Tensor) -> Tensor:
    """Computes the standard deviation of the softmax-weighted map that each mask's score causes, P×D."""
    variances = deviations.square()
    rise = variances.clamp(max=MOST_LOG_VARIANCE) / 2
    logits, averages = scores + rise + n_sharing[:, 0].log(), sums / n_sharing
    shares = logits.softmax(0)
    lognormal = shares * variances.clamp(max=MOST_LOG_VARIANCE).expm1().sqrt()
    change = lognormal.unsqueeze(1) * (averages - shares @ averages)
    wide = variances > MOST_LOG_VARIANCE
    if wide.any():
        change[wide] = softmax_changes(logits, rise, deviations, averages)[wide]
    return change
