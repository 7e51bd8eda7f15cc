"""The number of masked inputs per forward pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam._captum import ForwardFunction, Tensors
from captum_scorecam._held_modules import held_modules
from captum_scorecam._messages import check_whole_number
from captum_scorecam.scoring.tuner import Tuner

SIZES = {"cpu": (2, 4, 8, 16, 32), "cuda": (64, 128, 256, 512, 1024, 2048)}
COMPILED_SIZES = {"cpu": (8, 16, 32), "cuda": (128, 256, 512)}
COMPILATION_SECONDS = 10.0  # at least, as of a size that another object compiled for, whose first chunk is fast
MOST_PADDING = 1 / 40  # of the rows of a call


class ChunkSize:
    """The number of rows per masked forward pass, fixed, or tuned by a `Tuner` if there are several sizes.

    A short last chunk is filled with copies of the last row if this adds at most `MOST_PADDING` to the rows of the
    call: each new number of rows takes time to select kernels for and memory to keep them. Where cuDNN times all of its
    algorithms for each (``torch.backends.cudnn.benchmark``), it is filled up to the next power of two.

    Args:
        sizes (int): The number of rows, or several to choose from, in ascending order.
        pad (bool): Whether to fill every short chunk, up to a size that has already run if there is one, so that no
            other shape is ever run. Default: False.
        least (int): The smallest chunk; a shorter last one is padded. Default: 1.
        setup_seconds (float): What trying another size costs at least. Default: 0.
    """

    def __init__(self, *sizes: int, pad: bool = False, least: int = 1, setup_seconds: float = 0.0) -> None:
        self._sizes, self._setup_seconds = sizes, setup_seconds
        self._tuner = Tuner(*sizes, setup_seconds=setup_seconds)
        self._pad = pad
        self._least = least
        self._lock = Lock()
        self._largest = sizes[0]
        self._reduced_in_vain = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=Lock())

    @property
    def rows(self) -> int:
        """The size to use."""
        return self._tuner.rows

    @property
    def timing(self) -> bool:
        """Whether the next chunks are timed."""
        return self._tuner.timing

    @property
    def largest_that_worked(self) -> int:
        """The most rows of a timed chunk; 0 before any."""
        return self._tuner.largest_that_worked

    @property
    def rows_per_second(self) -> float:
        """The last rate measured at the size to use; 0 before it is known."""
        return self._tuner.rows_per_second

    def next_rows(self, done: int, total: int, device: torch.device) -> Tensor:
        """Returns the row indices of the next chunk, after `done` of `total` rows."""
        left = total - done
        with self._lock:
            rows = self._tuner.next_chunk(left)
            n_rows = rows if left >= rows else self._rows_of_last_chunk(left, total, device)
        return torch.arange(done, done + n_rows, device=device).clamp_(max=total - 1)

    def _rows_of_last_chunk(self, left: int, total: int, device: torch.device) -> int:
        if self._pad:
            return min(rows for rows in self._tuner.tried if left <= rows)
        if self.rows - left <= MOST_PADDING * total:
            return self.rows
        rows = max(left, self._least)
        return min(self.rows, 1 << (rows - 1).bit_length()) if _times_algorithms(device) else rows

    @contextmanager
    def timed(self, rows: int, device: torch.device) -> Iterator[None]:
        """Times the body, a forward pass of `rows` rows, if the size is being timed."""
        if not self.timing:
            yield
            with self._lock:
                self._reduced_in_vain &= rows > self.rows  # as a larger chunk that another thread began before
            return
        _synchronize(device)
        start = perf_counter()
        yield
        _synchronize(device)
        with self._lock:
            self._tuner.add(rows, perf_counter() - start)

    def measure_again(self) -> None:
        """Forgets the measured rates, so that all sizes that were worth setting up are measured again."""
        with self._lock:
            self._tuner.measure_again()

    def halve(self, rows: int, error: Exception) -> None:
        """Halves the size after a forward pass of `rows` rows ran out of memory.

        Raises:
            torch.OutOfMemoryError: If the size is already the smallest.
        """
        with self._lock:
            if rows <= self._least:
                inputs = "a single masked input" if rows == 1 else f"{rows} masked inputs"
                raise torch.OutOfMemoryError(
                    f"Out of memory with {inputs} per forward pass, "
                    f"after halving the chunk size from {self._largest} rows."
                ) from error
            self._largest = max(self._largest, rows)
            self._reduced_in_vain = True
            self._tuner.stop(max(min(self.rows, rows // 2), self._least))

    def restart(self) -> None:
        """Forgets what was measured if the size was reduced and no forward pass has worked since: it did not help."""
        with self._lock:
            if self._reduced_in_vain:
                self._tuner = Tuner(*self._sizes, setup_seconds=self._setup_seconds)
                self._largest, self._reduced_in_vain = self._sizes[0], False

    def retreat(self, rows: int) -> bool:
        """Keeps a smaller size after a forward pass failed that had more rows only in the hope of a gain.

        Returns:
            bool: False if the forward pass had to have as many rows, or some of its size have worked.
        """
        with self._lock:
            retreats = self._tuner.retreat(rows)
            self._reduced_in_vain |= retreats
            return retreats


class ChunkSizes:
    """The chunk sizes of an attribution method, cached by shapes, dtypes, device and autocast, for what runs them.

    A size that did not fit into memory is not tried again in the next call, even if it was given, unless none worked.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[ForwardFunction, ChunkSize]] = {}

    def get(self, forward_func: ForwardFunction, inputs: Tensors, perturbations_per_eval: int | None) -> ChunkSize:
        """Returns the chunk size for masked forward passes of `inputs`.

        Args:
            forward_func (callable): What runs the masked inputs: the model, or a twin.
            inputs (tuple of Tensor): N examples.
            perturbations_per_eval (int, optional): At most this many × N rows per forward pass. Default: None, tuned.

        Raises:
            TypeError: If `perturbations_per_eval` is not an integer.
            ValueError: If it is less than 1.
        """
        compiled, n_examples = is_compiled(forward_func), len(inputs[0])
        least = min(2, n_examples)  # some models take several rows, but not one
        if perturbations_per_eval is not None:
            perturbations_per_eval = check_whole_number("perturbations_per_eval", perturbations_per_eval, least=1)
        given = None if perturbations_per_eval is None else (perturbations_per_eval, n_examples)
        key = (given, compiled, least, *kind_of_inputs(inputs))
        if key not in self._known or self._known[key][0] is not forward_func:
            self._known[key] = forward_func, _chunk_size(forward_func, given, compiled, least, inputs[0].device)
        return self._known[key][1]


def kind_of_inputs(inputs: Tensors) -> tuple[Hashable, ...]:
    """Returns what forward passes depend on besides values and the number of rows: device, autocast, shapes, dtypes."""
    device = inputs[0].device
    autocast = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type)
    return (device, autocast, *((x.shape[1:], x.dtype) for x in inputs))


def is_compiled(forward_func: ForwardFunction) -> bool:
    """Checks whether a function, a model or one of its submodules was compiled with ``torch.compile``."""
    parts = forward_func.modules() if isinstance(forward_func, Module) else [forward_func]
    return any(
        hasattr(part, "_torchdynamo_orig_callable") or getattr(part, "_compiled_call_impl", None) is not None
        for part in parts
    )


def runs_on_all_ranks(forward_func: ForwardFunction) -> bool:
    """Checks for models whose parameters are shared among ranks, by FSDP or as DTensors, and so are forward passes.

    Ranks that measured different chunk sizes would wait for each other forever.
    """
    return any(
        {"FullyShardedDataParallel", "FSDPModule", "DTensor"} & {base.__name__ for base in type(part).__mro__}
        for module in held_modules(forward_func)
        for part in (module, *module._parameters.values())
    )


def _chunk_size(
    forward_func: ForwardFunction, given: tuple[int, int] | None, compiled: bool, least: int, device: torch.device
) -> ChunkSize:
    if given is not None:
        perturbations_per_eval, n_examples = given
        # With 1, every forward pass has as many rows as the inputs, which suits a model of a fixed batch size.
        return ChunkSize(perturbations_per_eval * n_examples, pad=compiled or perturbations_per_eval == 1, least=least)
    tuned = not runs_on_all_ranks(forward_func)
    return _compiled(device, least, tuned) if compiled else _eager(device, least, tuned)


def _eager(device: torch.device, least: int, tuned: bool) -> ChunkSize:
    sizes = SIZES.get(device.type, SIZES["cuda"])
    return ChunkSize(*(sizes if tuned else sizes[:1]), least=least)


def _compiled(device: torch.device, least: int, tuned: bool) -> ChunkSize:
    """Returns a size for a compiled model: of few, since each may be compiled, with a row for each thread on a CPU."""
    sizes: tuple[int, ...] = COMPILED_SIZES.get(device.type, COMPILED_SIZES["cuda"])
    factor = -(-torch.get_num_threads() // sizes[0]) if device.type == "cpu" else 1
    sizes = tuple(factor * rows for rows in (sizes if tuned else sizes[:1]))
    return ChunkSize(*sizes, pad=True, least=least, setup_seconds=COMPILATION_SECONDS)


def _times_algorithms(device: torch.device) -> bool:
    return device.type == "cuda" and torch.backends.cudnn.benchmark


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
