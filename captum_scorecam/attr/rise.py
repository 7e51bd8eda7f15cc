"""RISE: the average of random masks, weighted by the class scores of the masked inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Generator, Tensor

from captum_scorecam import _captum
from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam._messages import (
    MOST,
    check_callable,
    check_flags,
    check_fraction,
    check_whole_number,
    without_constructor_options,
)
from captum_scorecam.attr.input_space import converted, over_channels
from captum_scorecam.masking.random_grids import check_grid_size, draw_grids
from captum_scorecam.masking.scaling import precise
from captum_scorecam.model_state import own_generator, unchanged_model_state
from captum_scorecam.scoring.chunk_size import ChunkSizes
from captum_scorecam.scoring.chunks import scored_chunks
from captum_scorecam.scoring.class_scores import Score, score_function
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats
from captum_scorecam.scoring.twin import Twins


class RISE(PerturbationAttribution):
    r"""RISE (`arXiv 1806.07421 <https://arxiv.org/abs/1806.07421>`_): the mean of random masks, weighted by score.

    Random masks :math:`M_m` (coarse binary grids, upsampled and shifted) hide parts of the input; each is weighted by
    the class score of the input it masks:

    .. math::

        S = \frac{1}{p M} \sum_m f^c(B + M_m \circ (X - B)) \, M_m

    RISE needs neither a layer nor gradients and runs one forward pass per mask. The map is an estimate of E[f M] / p;
    its standard error falls with the square root of the number of masks (see :meth:`attribute_with_error`).

    Args:
        forward_func (callable): The model, or any function of its inputs.
        n_masks (int): M, the number of masks; all examples share them. Default: 4000.
        grid_size (int or sequence of int): Number of grid cells along each spatial dimension. Default: 7.
        keep_probability (float): p, the probability that a cell is kept, in (0, 1). Default: 0.5.
        score (str or callable): f, as for :class:`ScoreCAM`. Default: ``"probability"``.
        masked_forward_func (callable, optional): A faster function that gives the output of `forward_func`, as for
            :class:`ScoreCAM`. Default: None.

    Raises:
        TypeError, ValueError: If an option has the wrong type or is out of range.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import RISE
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> generator = torch.Generator().manual_seed(0)
        >>> RISE(model, n_masks=50).attribute(torch.rand(2, 3, 32, 32), target=3, generator=generator).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        forward_func: ForwardFunction,
        *,
        n_masks: int = 4000,
        grid_size: int | Sequence[int] = 7,
        keep_probability: float = 0.5,
        score: Score = "probability",
        masked_forward_func: ForwardFunction | None = None,
    ) -> None:
        super().__init__(forward_func)
        check_callable("forward_func", forward_func)
        check_fraction("keep_probability", keep_probability)
        score_function(score)
        if masked_forward_func is not None:
            check_callable("masked_forward_func", masked_forward_func)
        self.n_masks = check_whole_number("n_masks", n_masks, least=1, most=MOST)
        self.grid_size = check_grid_size(grid_size)
        self.keep_probability = keep_probability
        self.score = score
        self.masked_forward_func = masked_forward_func
        self._chunk_sizes = ChunkSizes()
        self._memory_formats = MemoryFormats()
        self._twins = Twins()

    @classmethod
    def get_name(cls) -> str:
        """Returns the method's name."""
        return "RISE"

    @log_usage()
    @without_constructor_options
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        generator: Generator | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the map of one target for each example.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All inputs are
                masked by the same grids, upsampled to each input's size.
            generator (torch.Generator, optional): Draws the masks, which depend on its state only, not on the chunk
                size. Default: None, PyTorch's global generator, whose state is left unchanged: ``torch.manual_seed``
                controls the masks, and consecutive calls share them. The other arguments are those of
                :meth:`ScoreCAM.attribute`.

        Returns:
            Tensor or tuple of Tensor: One attribution per input, with its shape and dtype, contiguous, the same for
            all channels; a tuple if `inputs` is a tuple.

        Raises:
            Same as :meth:`ScoreCAM.attribute`.
        """
        scored = self._scored(
            inputs, [target], additional_forward_args, baselines, generator, perturbations_per_eval, show_progress
        )
        return over_channels(scored.maps(), inputs)

    @log_usage()
    @without_constructor_options
    def attribute_with_error(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        generator: Generator | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> tuple[Tensor | Tensors, Tensor | Tensors]:
        """Computes the map and its standard error from the same forward passes; arguments as for :meth:`attribute`.

        All pixels share the masks, so their errors are correlated. The difference of two maps computed with the same
        masks has a smaller error than their two errors suggest.

        Returns:
            tuple: The result of :meth:`attribute`, and the standard error of each value, in the same shape.

        Raises:
            Same as :meth:`attribute`, and ValueError if `n_masks` is 1, since the error is then undefined.
        """
        if self.n_masks < 2:
            raise ValueError(f"Expected `n_masks` to be at least 2 for a standard error, but got {self.n_masks}.")
        scored = self._scored(
            inputs, [target], additional_forward_args, baselines, generator, perturbations_per_eval, show_progress,
            with_squares=True,
        )  # fmt: skip
        return over_channels(scored.maps(), inputs), over_channels(scored.standard_errors(), inputs)

    @log_usage()
    @without_constructor_options
    def attribute_targets(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        generator: Generator | None = None,
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the maps of T targets from the same masks, as :meth:`ScoreCAM.attribute_targets` does.

        Args:
            targets (sequence or Tensor): Same as for :meth:`ScoreCAM.attribute_targets`. The other arguments are those
                of :meth:`attribute`.

        Returns:
            Tensor or tuple of Tensor: For each input N×T×spatial, of its spatial size and dtype; a tuple if `inputs` is
            a tuple.

        Raises:
            Same as :meth:`ScoreCAM.attribute_targets`.
        """
        scored = self._scored(
            inputs, targets, additional_forward_args, baselines, generator, perturbations_per_eval, show_progress
        )
        maps = tuple(
            converted(m, x.dtype).to(x) for m, x in zip(scored.maps(), _captum.format_inputs(inputs), strict=True)
        )
        return maps if isinstance(inputs, tuple) else maps[0]

    def _scored(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None,
        baselines: BaselineType,
        generator: Generator | None,
        perturbations_per_eval: int | None,
        show_progress: bool,
        with_squares: bool = False,
    ) -> ScoredMasks:
        """Runs the masked forward passes and sums the masks, weighted by their scores."""
        check_flags(show_progress=show_progress)
        forward = MaskedForward.from_call(
            self.forward_func, inputs, targets, additional_forward_args, baselines, self.score
        )
        twin = self.masked_forward_func
        of_masked = self.forward_func if twin is None else twin
        chunk_size = self._chunk_sizes.get(of_masked, forward.inputs, perturbations_per_eval)
        progress = f"{self.get_name()} attribution" if show_progress else None
        scored = ScoredMasks(self.n_masks, self.keep_probability, with_squares)
        grids = own_generator(generator)
        masks = draw_grids(forward.inputs, self.n_masks, self.grid_size, self.keep_probability, grids)
        with (
            unchanged_model_state(self.forward_func, forward.inputs, draws_only_in_forwards=True) as state,
            unchanged_model_state(of_masked, forward.inputs, draws_only_in_forwards=True) as state_of_twin,
        ):
            output = state.first_forward(
                forward.unmasked_output,
                lambda output, changed: forward.is_reproducible(output, changed, self.n_masks, perturbations_per_eval),
            )
            forward = self._twins.faster(forward, twin, output, state_of_twin, perturbations_per_eval)
            forward = self._memory_formats.fastest(forward, len(masks), perturbations_per_eval)
            for rows, chunk, scores in scored_chunks(forward, masks, chunk_size, progress):
                scored.add(chunk, scores, masks.examples[rows], len(forward.inputs[0]))
        return scored


@dataclass
class ScoredMasks:
    """Accumulates masks weighted by their scores, and computes the map and its standard error.

    Attributes:
        n_masks (int): M.
        keep_probability (float): p.
        with_squares (bool): Whether to accumulate `squares`, needed for the standard error. Default: False.
        sums (list of Tensor): Σ_m f_m M_m for each input tensor, N×T×spatial.
        squares (list of Tensor): Σ_m f_m² M_m² of the same shape; empty unless `with_squares`.
    """

    n_masks: int
    keep_probability: float
    with_squares: bool = False
    sums: list[Tensor] = field(default_factory=list)
    squares: list[Tensor] = field(default_factory=list)

    def add(self, masks: Tensors, scores: Tensor, examples: Tensor, n_examples: int) -> None:
        """Adds a chunk of R masks (R×1×spatial), their scores (R×T) and the examples they mask (R)."""
        of_example = examples[:, None] == torch.arange(n_examples, device=examples.device)
        weights = of_example.unsqueeze(2) * scores.unsqueeze(1).to(masks[0].dtype)
        _add_each(self.sums, [_weighted_sum(weights, mask) for mask in masks])
        if self.with_squares:
            _add_each(self.squares, [_weighted_sum(precise(weights) ** 2, precise(mask) ** 2) for mask in masks])

    def maps(self) -> Tensors:
        """Returns S = Σ_m f_m M_m / (p M), N×T×spatial for each input tensor."""
        return tuple(total / (self.keep_probability * self.n_masks) for total in self.sums)

    def standard_errors(self) -> Tensors:
        """Returns the standard deviation of f_m M_m / p over the masks, divided by √M."""
        n, p = self.n_masks, self.keep_probability
        variances = (
            (square - precise(total) ** 2 / n) / ((n - 1) * p**2)
            for total, square in zip(self.sums, self.squares, strict=True)
        )
        return tuple((variance.clamp(min=0) / n).sqrt() for variance in variances)


def _weighted_sum(weights: Tensor, masks: Tensor) -> Tensor:
    # Autocast would run this matrix product in half precision.
    with torch.autocast(masks.device.type, enabled=False):
        return torch.einsum("rnt,r...->nt...", weights, masks.squeeze(1))


def _add_each(totals: list[Tensor], terms: list[Tensor]) -> None:
    totals[:] = [a + b for a, b in zip(totals, terms, strict=True)] if totals else terms
