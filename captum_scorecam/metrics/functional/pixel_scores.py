"""Scores inputs masked pixel by pixel, for all metrics that mask pixels."""

from __future__ import annotations

from torch import Tensor

from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring.chunk_size import ChunkSizes
from captum_scorecam.scoring.chunks import Masks, score_masked_inputs
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats


def score_pixel_masks(forward: MaskedForward, masks: Masks, perturbations_per_eval: int | None) -> Tensor:
    """Scores the inputs under all masks and leaves the model unchanged.

    Args:
        forward (MaskedForward): The forward pass to run, with one target.
        masks (Masks): M masks.
        perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.

    Returns:
        Tensor: The scores, shape M.

    Raises:
        TypeError, ValueError: If `perturbations_per_eval` is not an int of at least 1, or a score is not finite.
    """
    chunk_size = ChunkSizes().get(forward.forward_func, forward.inputs, perturbations_per_eval)
    with unchanged_model_state(forward.forward_func, forward.inputs) as state:
        n_masks = len(masks) // len(forward.inputs[0])
        state.first_forward(
            forward.unmasked_output,
            lambda output, changed: forward.is_reproducible(output, changed, n_masks, perturbations_per_eval),
        )
        forward = MemoryFormats().fastest(forward, len(masks), perturbations_per_eval)
        return score_masked_inputs(forward, masks, chunk_size)[:, 0]
