"""The scores of a layer's channels, and the maps that they give with each weighting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from captum_scorecam._messages import check_choice, check_flags, check_whole_number
from captum_scorecam.budget.channel_plot import plot_channels
from captum_scorecam.budget.gaussian_process import Kernel, MaskSpace, Posterior
from captum_scorecam.budget.map_errors import expected_rise, in_dtype, map_errors
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.weighting import ChannelWeighting, channel_weights, weighted_maps

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


@dataclass(frozen=True)
class Prediction:
    """Which masks were run, and how uncertain the scores predicted for the others are.

    Attributes:
        run (Tensor): Shape P, bool; True for the masks that were run.
        deviations (Tensor): P×T, the standard deviation of each score as the Gaussian process gives it, which is too
            narrow: :meth:`ChannelScores.plot` and the errors of maps widen it. 0 for the masks that were run.
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
        known_errors (dict): The :meth:`standard_errors` that were computed, by weighting.
    """

    activations: Tensor
    masks: ChannelMasks
    mask_scores: Tensor
    unmasked_scores: Tensor
    baseline_scores: Tensor | None = None
    prediction: Prediction | None = None
    known_errors: dict[ChannelWeighting, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

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

        The softmax of a predicted score uses the expectation of its exponential, S + variance / 2, with a variance of
        at most 2.

        Args:
            channel_weighting (str): As for :class:`ScoreCAM`. Default: ``"softmax"``.

        Raises:
            ValueError: If it is unknown, or is ``"increase"`` and there are no `baseline_scores`.
        """
        scores = self.mask_scores
        if channel_weighting == "softmax" and self.prediction is not None:
            scores = scores + expected_rise(self.prediction.deviations)
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
        return weighted_maps(self.activations, self.weights(channel_weighting), attr_dim_summation, relu_attributions)

    def standard_errors(self, channel_weighting: ChannelWeighting = "softmax") -> Tensor:
        """Computes the standard error of each value of the maps; 0 where they are exact.

        The errors of neighbouring positions are correlated. If the scores of all masks that were run equal that of the
        unmasked input, the others are taken to equal them too, without error.

        Args:
            channel_weighting (str): As for :class:`ScoreCAM`. Default: ``"softmax"``.

        Returns:
            Tensor: N×T×spatial, in the activations' dtype.
        """
        check_choice("channel_weighting", channel_weighting, ChannelWeighting)
        if channel_weighting not in self.known_errors:
            self.known_errors[channel_weighting] = self._standard_errors(channel_weighting)
        return self.known_errors[channel_weighting].clone()

    def _standard_errors(self, weighting: ChannelWeighting) -> Tensor:
        n_examples, n_targets = self.unmasked_scores.shape
        errors = self.activations.new_zeros(n_examples, n_targets, *self.activations.shape[2:])
        if self.prediction is None:
            return errors
        sums = self.masks.sums(self.activations.flatten(2))
        for example in range(n_examples):
            rows = self.masks.rows_of(example)
            run = self.prediction.run[rows]
            if not run.all():
                kernel = Kernel(*self.prediction.kernels[example].tolist())
                space = MaskSpace(self.masks.maps[rows].flatten(1))
                of_example = map_errors(
                    Posterior.given(space, run.nonzero()[:, 0], kernel),
                    self.mask_scores[rows],
                    self.prediction.deviations[rows],
                    sums[rows],
                    self.masks.n_sharing[rows],
                    weighting,
                )
                errors[example] = in_dtype(of_example.view_as(errors[example]), errors.dtype)
        return errors

    def plot(
        self,
        image: Any = None,
        n_channels: int = 5,
        channel_weighting: ChannelWeighting = "softmax",
        *,
        example: int = 0,
        target: int = 0,
        figure: Figure | SubFigure | None = None,
    ) -> Figure | SubFigure:
        """Draws a map and its strongest channels: what each mask leaves of the image, its score and its weight.

        A score that is predicted has its standard error beside it. For a layer with 1-D maps, masks are areas behind
        the signal.

        Args:
            image (array, optional): What the model saw: H×W, H×W×1 or H×W×3, with values in [0, 1] or uint8, such as a
                PIL image; for a 1-D layer a signal, L or L×C. Of several inputs, the first. Default: None, the masks.
            n_channels (int): How many channels, fewer if fewer have masks. Default: 5.
            channel_weighting (str): As for :meth:`weights`.
            example (int): Which of the N examples. Default: 0.
            target (int): Which of the T targets. Default: 0.
            figure (Figure or SubFigure, optional): Where to draw. Default: None, a new figure, unknown to pyplot.

        Returns:
            Figure or SubFigure: The figure.

        Raises:
            ValueError: If the layer's maps are 3-D, `image` is no image, or there is no such example or target.
        """
        return plot_channels(self, image, n_channels, channel_weighting, example, target, figure)

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
            ValueError: If the file holds something else, or there is no such device.
        """
        Path(path).open("rb").close()  # raises the usual errors, of which safetensors says less
        _check_device(device)
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
            found = cls(known[0], masks, known[1], known[2], read.get("baseline_scores"), prediction)
            found._check_shapes()
        except (SafetensorError, IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"Expected `path` to be a file written by ChannelScores.save, but {str(path)!r} is not."
            ) from error
        return found

    def _check_shapes(self) -> None:
        """Raises ValueError if the tensors do not fit each other."""
        (n_masks, n_targets), (n_examples, n_channels) = self.mask_scores.shape, self.masks.index.shape
        spatial = self.activations.shape[2:]
        expected = {
            "activations": (n_examples, n_channels, *spatial),
            "mask_maps": (n_masks, 1, *spatial),
            "examples": (n_masks,),
            "unmasked_scores": (n_examples, n_targets),
            "baseline_scores": (n_examples, n_targets),
            "run": (n_masks,),
            "deviations": (n_masks, n_targets),
            "kernels": (n_examples, 3),
        }
        found = {name: tensor.shape for name, tensor in self._tensors().items() if tensor is not None}
        if any(found.get(name, shape) != shape for name, shape in expected.items()):
            raise ValueError
        for indices, least, most in ((self.masks.index, -1, n_masks), (self.masks.examples, 0, n_examples)):
            if ((indices < least) | (indices >= most)).any():
                raise ValueError

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


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:  # a build without CUDA asserts
        raise ValueError(
            f"Expected `device` to be a device that PyTorch can use here, but got {str(device)!r}."
        ) from error
