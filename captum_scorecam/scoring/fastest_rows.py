"""Measures, before the work, how many masked inputs per forward pass are fastest."""

from __future__ import annotations

import torch

from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.model_state import unchanged_model_state
from captum_scorecam.scoring.chunk_size import ChunkSize, ChunkSizes
from captum_scorecam.scoring.chunks import Masks, run_chunk
from captum_scorecam.scoring.masked_forward import MaskedForward
from captum_scorecam.scoring.memory_format import MemoryFormats

LOOKS = 2  # a machine that is busy during one of them does not change the result
N_MASKS = 64


def fastest_rows(forward: MaskedForward, n_rows: int) -> int:
    """Returns the number of masked inputs per forward pass with the most rows per second.

    Runs Score-CAM's masks of random maps, as often as the sizes to try need, and leaves the model unchanged.

    Args:
        forward (MaskedForward): The forward pass, in the memory format of its inputs.
        n_rows (int): The number of masked inputs to be run later, at least; no larger size is tried.

    Raises:
        torch.OutOfMemoryError: If not even the smallest chunk fits into memory.
        Exception: Any error raised by the model.
    """
    with unchanged_model_state(forward.forward_func, forward.inputs) as state:
        state.first_forward(forward.unmasked_output, lambda _output, _changed: True)
        forward = MemoryFormats().fastest(forward, n_rows, None)
        masks = _masks_of_random_maps(forward)
        chunk_size = ChunkSizes().get(forward.forward_func, forward.inputs, None)
        _, rows = max(_rate_and_rows(forward, masks, chunk_size, n_rows) for _ in range(LOOKS))
    return rows


def _masks_of_random_maps(forward: MaskedForward) -> ChannelMasks:
    generator = torch.Generator("cpu").manual_seed(0)
    size = (1, N_MASKS, *(7 for _ in forward.sizes[0]))
    maps = torch.rand(size, generator=generator, dtype=torch.float32, device="cpu").to(forward.device)
    return ChannelMasks.from_activations(maps, forward.sizes)


def _rate_and_rows(forward: MaskedForward, masks: Masks, chunk_size: ChunkSize, n_rows: int) -> tuple[float, int]:
    chunk_size.measure_again()
    while True:
        rows = chunk_size.next_rows(0, max(n_rows, chunk_size.rows), forward.device)
        if not chunk_size.timing:
            return chunk_size.rows_per_second, chunk_size.rows
        run_chunk(forward, masks, rows % len(masks), chunk_size)
