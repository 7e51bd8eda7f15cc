"""RISE: random masks, averaged with the class scores of the inputs that they mask."""

from __future__ import annotations

from collections.abc import Sequence

from captum.attr import PerturbationAttribution
from captum.log import log_usage
from torch import Generator, Tensor

from captum_scorecam._captum import BaselineType, ForwardFunction, TargetType, Tensors
from captum_scorecam.chunk_size import ChunkSizes
from captum_scorecam.class_scores import ScoreFunction
from captum_scorecam.grid_masks import RandomGrids, ScoredMasks
from captum_scorecam.input_space import over_channels
from captum_scorecam.masked_forward import MaskedForward
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring import scored_chunks


class RISE(PerturbationAttribution):
    r"""RISE (`arXiv 1806.07421 <https://arxiv.org/abs/1806.07421>`_): what was kept when the class score was high.

    Random masks :math:`M_m` (coarse binary grids, upsampled and shifted) leave parts of the input; the map is their
    mean, weighted by the class scores of the masked inputs:

    .. math::

        S = \frac{1}{p M} \sum_m f^c(B + M_m \circ (X - B)) \, M_m

    It needs no layer and no gradients, and one forward pass for each mask. It estimates E[f M] / p, so it has a
    standard error, which falls with the square root of the number of masks: see :meth:`attribute_with_error`.

    Args:
        forward_func (callable): The model, or any function of its inputs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from captum_scorecam import RISE
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 30 * 30, 10))
        >>> generator = torch.Generator().manual_seed(0)
        >>> RISE(model).attribute(torch.rand(2, 3, 32, 32), target=3, n_masks=50, generator=generator).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, forward_func: ForwardFunction) -> None:
        super().__init__(forward_func)
        self._chunk_sizes = ChunkSizes()

    @classmethod
    def get_name(cls) -> str:
        """The method's name as it is written."""
        return "RISE"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        n_masks: int = 4000,
        mask_cells: int | Sequence[int] = 7,
        keep_probability: float = 0.5,
        generator: Generator | None = None,
        score: str | ScoreFunction = "probability",
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the map of one target for each example.

        Args:
            inputs (Tensor or tuple of Tensor): N examples, each tensor N×C×spatial (1-D to 3-D). All are masked, each
                at its own size by the same grids.
            target: The class to explain, in any form that Captum accepts. Default: None, for one output per example.
            additional_forward_args (optional): What `forward_func` takes after the inputs; not masked.
            baselines: What is left where a mask is 0, as in Captum. Default: None, zeros.
            n_masks (int): M; all examples share the masks. Default: 4000.
            mask_cells (int or sequence of int): Cells of a grid along each spatial dimension. Default: 7.
            keep_probability (float): p, with which a cell is kept, in (0, 1). Default: 0.5.
            generator (torch.Generator, optional): Draws the masks; its state fixes the map, whatever the chunk size.
                Default: None, PyTorch's global generator, whose state is left as it was: ``torch.manual_seed``
                governs the masks, and calls with nothing random between them share theirs.
            score (str or callable): f: ``"probability"`` (softmax over dim 1, default), ``"output"``, or a callable
                that takes what `forward_func` returns and gives scores, one row per input row.
            perturbations_per_eval (int, optional): A forward takes at most this many × N rows. Default: None, tuned.
            show_progress (bool): Show Captum's progress bar. Default: False.

        Returns:
            Tensor or tuple of Tensor: For each input an attribution of its shape and dtype, contiguous, the same for
            all channels; a tuple for a tuple.

        Raises:
            ValueError, TypeError: If an option or an input does not fit, a score is not finite, or output rows do not
                grow with input rows. The message says what was expected.
            AssertionError, IndexError, RuntimeError: Captum's errors for a target that is missing or out of range.
        """
        grids = RandomGrids(n_masks, mask_cells, keep_probability, generator)
        forward = MaskedForward.of(self.forward_func, inputs, [target], additional_forward_args, baselines, score)
        scored = self._score(forward, grids, perturbations_per_eval, show_progress)
        return over_channels(scored.maps(), inputs)

    @log_usage()
    def attribute_with_error(
        self,
        inputs: Tensor | Tensors,
        target: TargetType = None,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        n_masks: int = 4000,
        mask_cells: int | Sequence[int] = 7,
        keep_probability: float = 0.5,
        generator: Generator | None = None,
        score: str | ScoreFunction = "probability",
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> tuple[Tensor | Tensors, Tensor | Tensors]:
        """Computes the map and its standard error, from the same forwards; the arguments are :meth:`attribute`'s.

        Neighbouring cells share masks, so their errors are correlated. That of a difference of two maps made with the
        same masks is smaller than the two errors suggest.

        Returns:
            tuple: What :meth:`attribute` returns, and the standard error of each of its cells, alike in shape.

        Raises:
            As :meth:`attribute` does, and ValueError if `n_masks` is 1, which leaves the error unknown.
        """
        grids = RandomGrids(n_masks, mask_cells, keep_probability, generator)
        if n_masks < 2:
            raise ValueError(f"Expected `n_masks` to be at least 2 for a standard error, but got {n_masks}.")
        forward = MaskedForward.of(self.forward_func, inputs, [target], additional_forward_args, baselines, score)
        scored = self._score(forward, grids, perturbations_per_eval, show_progress, with_squares=True)
        return over_channels(scored.maps(), inputs), over_channels(scored.standard_errors(), inputs)

    @log_usage()
    def attribute_targets(
        self,
        inputs: Tensor | Tensors,
        targets: Sequence[TargetType] | Tensor,
        additional_forward_args: object | None = None,
        *,
        baselines: BaselineType = None,
        n_masks: int = 4000,
        mask_cells: int | Sequence[int] = 7,
        keep_probability: float = 0.5,
        generator: Generator | None = None,
        score: str | ScoreFunction = "probability",
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | Tensors:
        """Computes the maps of T targets for each example, from the forwards that one target costs.

        Args:
            inputs (Tensor or tuple of Tensor): As for :meth:`attribute`, and so is all that is not named here.
            targets (sequence or Tensor): T targets, each in any form that Captum accepts, or an integer tensor N×T
                (such as ``output.topk(5).indices``).

        Returns:
            Tensor or tuple of Tensor: For each input N×T×spatial, of its spatial size and dtype; a tuple for a tuple.

        Raises:
            As :meth:`attribute` does, and ValueError if there is no target.
        """
        grids = RandomGrids(n_masks, mask_cells, keep_probability, generator)
        forward = MaskedForward.of(self.forward_func, inputs, targets, additional_forward_args, baselines, score)
        scored = self._score(forward, grids, perturbations_per_eval, show_progress)
        maps = tuple(m.to(x.dtype) for m, x in zip(scored.maps(), forward.inputs, strict=True))
        return maps if isinstance(inputs, tuple) else maps[0]

    def _score(
        self,
        forward: MaskedForward,
        grids: RandomGrids,
        perturbations_per_eval: int | None,
        show_progress: bool,
        with_squares: bool = False,
    ) -> ScoredMasks:
        chunk_size = self._chunk_sizes.of(self.forward_func, forward.inputs, perturbations_per_eval)
        progress = f"{self.get_name()} attribution" if show_progress else None
        scored = ScoredMasks(grids.n_masks, grids.keep_probability, with_squares)
        with unchanged_model_state(forward.inputs) as state:
            masks = grids.draw(forward.inputs)
            with state.recorded():
                forward.unmasked_scores()
            for rows, chunk, scores in scored_chunks(forward, masks, chunk_size, progress):
                scored.add(chunk, scores, masks.examples[rows], len(forward.inputs[0]))
        return scored
