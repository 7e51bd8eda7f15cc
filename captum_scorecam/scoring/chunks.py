"""Scores masked inputs in chunks, for every method and metric that runs a fixed set of masks."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from types import NoneType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from captum_scorecam import _captum
from captum_scorecam._captum import Tensors
from captum_scorecam._messages import add_note
from captum_scorecam.masking.channel_masks import ChannelMasks
from captum_scorecam.scoring.chunk_size import ChunkSize
from captum_scorecam.scoring.masked_forward import MaskedForward, has_rows
from captum_scorecam.scoring.process_group import gather_rows, rows_of_rank

PLAIN = (NoneType, bool, int, float, str, Tensor, np.ndarray)


class Masks(Protocol):
    """A sequence of masks, computed a few at a time."""

    @property
    def examples(self) -> Tensor:
        """The example that each mask is applied to, shape P."""

    def __len__(self) -> int:
        """Returns P, the number of masks."""

    def __getitem__(self, rows: Tensor) -> Tensors:
        """Returns the masks at the given rows: one tensor per input, len(rows)×1×spatial, in [0, 1]."""


@dataclass(frozen=True)
class MaskRows:
    """A selection of rows from a sequence of masks, in a given order."""

    masks: Masks
    rows: Tensor

    @property
    def examples(self) -> Tensor:
        """The example that each mask is applied to."""
        return self.masks.examples[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> Tensors:
        return self.masks[self.rows[rows]]


def score_masked_inputs(
    forward: MaskedForward,
    masks: Masks,
    chunk_size: ChunkSize,
    progress: str | None = None,
    process_group: ProcessGroup | None = None,
) -> Tensor:
    """Scores the inputs under all masks, chunk by chunk.

    Args:
        forward (MaskedForward): The forward pass to run.
        masks (Masks): P masks.
        chunk_size (ChunkSize): The number of rows per forward pass.
        progress (str, optional): Label of the progress bar. Default: None, no bar.
        process_group (ProcessGroup, optional): Ranks that share the work; all must have the same masks.
            Default: None, this process only.

    Returns:
        Tensor: P×T; 0×T if there are no masks.

    Raises:
        ValueError: If a score is NaN or infinite.
        torch.OutOfMemoryError: If a single row does not fit into memory.
    """
    empty = forward.class_scores.zeros(0, forward.inputs[0])

    def scores_of(part: Masks) -> Tensor:
        # `map` lets go of a chunk's masks before the next ones are made.
        return torch.cat([empty, *map(itemgetter(2), scored_chunks(forward, part, chunk_size, progress))])

    if process_group is None:
        return scores_of(masks)
    share = MaskRows(masks, rows_of_rank(len(masks), process_group, forward.device))
    return gather_rows(lambda: scores_of(share), len(masks), process_group, like=empty)


def score_baselines(forward: MaskedForward, chunk_size: ChunkSize) -> Tensor:
    """Returns f^c(B) for each example, N×T: the scores under an all-zero mask."""
    masks = ChannelMasks.from_baselines(len(forward.inputs[0]), forward.sizes, forward.inputs[0])
    return score_masked_inputs(forward, masks, chunk_size)


def scored_chunks(
    forward: MaskedForward, masks: Masks, chunk_size: ChunkSize, progress: str | None = None
) -> Iterator[tuple[Tensor, Tensors, Tensor]]:
    """Like :func:`score_masked_inputs`, but yields each chunk once it is scored, for methods that sum over masks.

    Only one chunk of masks and masked inputs is in memory at a time. If it does not fit, it is halved and retried.

    Yields:
        tuple: The chunk's row indices (R), masks (one tensor per input, R×1×spatial) and scores (R×T).
    """
    scores: list[Tensor] = []
    done = 0
    bar = _captum.progress(total=len(masks), desc=progress, disable=progress is None)
    with bar:
        while done < len(masks):
            rows = chunk_size.next_rows(done, len(masks), forward.device)
            chunk = run_chunk(forward, masks, rows, chunk_size)
            if chunk is None:
                continue
            n_rows = min(len(rows), len(masks) - done)
            scores.append(chunk[1][:n_rows])
            done += n_rows
            bar.update(n_rows)
            yield rows[:n_rows], tuple(mask[:n_rows] for mask in chunk[0]), scores[-1]
            del chunk
    if scores:
        _check_finite(torch.cat(scores), masks)


def run_chunk(
    forward: MaskedForward, masks: Masks, rows: Tensor, chunk_size: ChunkSize
) -> tuple[Tensors, Tensor] | None:
    """Returns the masks and scores of the rows, or None if they are to be run again in smaller chunks.

    That is so if memory ran out, or any error came with the first chunk of a larger size that the tuner tried, unless
    additional arguments may have a value for each example.
    """
    try:
        with chunk_size.timed(len(rows), forward.device):
            chunk = masks[rows]
            return chunk, forward(chunk, masks.examples[rows])
    except Exception as error:
        try:
            _make_smaller(chunk_size, len(rows), forward, error)
        except Exception:
            chunk_size.restart()
            raise
        failure = error.with_traceback(None)  # whose frames hold the chunk
    try:
        torch.cuda.empty_cache()
    except RuntimeError as unusable:
        raise failure from unusable
    return None


def _make_smaller(chunk_size: ChunkSize, n_rows: int, forward: MaskedForward, error: Exception) -> None:
    """Chooses a smaller size after an error of so many rows; raises one if there is none or it would not help."""
    proven = len(forward.inputs[0])  # rows, of the unmasked forward pass
    if is_out_of_memory(error) or (n_rows > proven and may_be_out_of_memory(error)):
        chunk_size.halve(n_rows, error)
    elif _may_have_unseen_rows(forward, chunk_size) or not chunk_size.retreat(n_rows):
        _advise(error, n_rows, forward)
        raise error


def _may_have_unseen_rows(forward: MaskedForward, chunk_size: ChunkSize) -> bool:
    """Whether additional arguments may have a value per example, as a list has: no more rows than these worked."""
    n_examples = len(forward.inputs[0])
    return chunk_size.largest_that_worked == n_examples > 1 and any(
        not has_rows(argument, n_examples) and not isinstance(argument, PLAIN)
        for argument in forward.additional_forward_args
    )


def is_out_of_memory(error: Exception) -> bool:
    """Checks whether the error is a failed allocation, on a GPU or the CPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    texts = (
        r"out.of.memory|_ALLOC(ATION)?_FAILED|(can't|can not|cannot|unable to|failed to|could not) allocate"
        "|not enough memory|bad.alloc(ation)?|RESOURCE_EXHAUSTED|available memory of .* is smaller than requested"
        "|could not create a (memory object|primitive)(?! descriptor)"  # oneDNN has no descriptor of what it can't do
    )
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _engine_says(texts, error)


def may_be_out_of_memory(error: Exception) -> bool:
    """Checks for errors of CUDA's libraries that stand for missing memory if fewer rows worked.

    For want of memory, cuDNN finds no algorithm, and neither it nor cuBLAS can set itself up. Some kernels take no
    tensor with as many elements.
    """
    texts = (
        "(GET|FIND) was unable to find an engine|unable to find a valid cuDNN algorithm|no valid execution plans"
        "|(CUBLAS|CUDNN)_STATUS_NOT_INITIALIZED|CUDNN_STATUS_INTERNAL_ERROR"
        "|less than INT_MAX elements"
    )
    return _engine_says(texts, error)


def _engine_says(texts: str, error: Exception) -> bool:
    # The errors of ONNX Runtime are no RuntimeErrors.
    of_engine = isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime")
    return of_engine and re.search(texts, str(error), re.IGNORECASE) is not None


def _advise(error: Exception, n_rows: int, forward: MaskedForward) -> None:
    """Adds to a model's error, from Python 3.11 on, that it may not take as many rows as were passed."""
    n_examples = len(forward.inputs[0])
    if n_rows == n_examples:
        return
    advice = (
        f"The forward pass of {n_rows} masked inputs failed, that of the {n_examples} inputs did not. If the model "
        "has a fixed batch size, pass perturbations_per_eval=1."
    )
    if has_rows(forward.additional_forward_args, n_examples):
        advice += (
            f" An additional argument with {n_examples} {'row' if n_examples == 1 else 'rows'} gets one for each "
            "masked input; bind one that belongs to no example to `forward_func` with functools.partial."
        )
    elif forward.additional_forward_args:
        advice += (
            " Additional arguments other than tensors and arrays (in lists and dictionaries, too) are passed as they "
            "are, so they can't have a value for each example."
        )
    add_note(error, advice)


def _check_finite(scores: Tensor, masks: Masks) -> None:
    bad = ~scores.isfinite().all(1)
    if bad.any():
        example = int(masks.examples[bad.nonzero()[0]])
        raise ValueError(
            f"Expected finite scores, but got NaN or Inf for {int(bad.sum())} of {len(masks)} masked inputs, "
            f"the first for example {example}."
        )
