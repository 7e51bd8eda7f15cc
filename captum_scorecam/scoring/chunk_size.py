"""The number of masked inputs per forward pass."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam._captum import ForwardFunction, Tensors
from captum_scorecam._messages import check_whole_number

FIRST_ROWS = {"cpu": 3, "cuda": 32}
MOST_ROWS = {"cpu": 48, "cuda": 2048}
FIXED_ROWS = {"cpu": 4, "cuda": 128}
COMPILED_ROWS = {"cpu": 8, "cuda": 128}
TIMED_CHUNKS = 4
WORTHWHILE_GAIN = 1.08


class ChunkSize:
    """The number of rows per masked forward pass, fixed or tuned on the fly.

    A tuned size starts small and doubles until throughput rises by a factor of less than `WORTHWHILE_GAIN`, since
    memory use doubles too; the fastest size is then kept. At each size, the first chunk is not counted (it selects
    kernels and allocates memory), and the fastest of the next four is used.

    Args:
        rows (int): Initial size.
        most (int, optional): Largest size that tuning may try. Default: None, no tuning.
        pad (bool): Whether to pad the last chunk with copies of the last row, so that all chunks have the same shape.
            Default: False.
        least (int): The smallest chunk; a shorter last one is padded. Default: 1.
    """

    def __init__(self, rows: int, most: int | None = None, pad: bool = False, least: int = 1) -> None:
        self.rows = rows
        self.tuning = most is not None
        self._most = most or rows
        self._pad = pad
        self._least = least
        self._lock = Lock()
        self._best = (0.0, rows)
        self._timed: list[float] = []
        self._largest = rows

    @classmethod
    def tuned(cls, device: torch.device, least: int = 1) -> ChunkSize:
        """Returns a size to be tuned on the given device."""
        return cls(FIRST_ROWS.get(device.type, 32), MOST_ROWS.get(device.type, 2048), least=least)

    @classmethod
    def compiled(cls, device: torch.device, least: int = 1) -> ChunkSize:
        """Returns a fixed size for a compiled model, which would be recompiled for any other size."""
        rows = max(COMPILED_ROWS["cpu"], torch.get_num_threads()) if device.type == "cpu" else COMPILED_ROWS["cuda"]
        return cls(rows, pad=True, least=least)

    def next_rows(self, done: int, total: int, device: torch.device) -> Tensor:
        """Returns the row indices of the next chunk, after `done` of `total` rows."""
        rows = self.rows
        n_rows = rows if self._pad else max(min(rows, total - done), self._least)
        return torch.arange(done, done + n_rows, device=device).clamp_(max=total - 1)

    @contextmanager
    def timed(self, rows: int, device: torch.device) -> Iterator[None]:
        """Times the body, a forward pass of `rows` rows, if the size is still being tuned."""
        if not self.tuning:
            yield
            return
        _synchronize(device)
        start = perf_counter()
        yield
        _synchronize(device)
        with self._lock:
            if self.tuning and rows == self.rows:
                self._timed.append(perf_counter() - start)
                if len(self._timed) > TIMED_CHUNKS:
                    self._compare(rows / min(self._timed[1:]))

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
            self.tuning = False
            self.rows = max(min(self.rows, rows // 2), self._least)

    def _compare(self, rows_per_second: float) -> None:
        worthwhile = rows_per_second >= WORTHWHILE_GAIN * self._best[0]
        self._best = max(self._best, (rows_per_second, self.rows))
        self._timed = []
        self.tuning = worthwhile and self.rows < self._most
        self.rows = min(2 * self.rows, self._most) if self.tuning else self._best[1]


class ChunkSizes:
    """The chunk sizes of an attribution method, cached by compilation, shapes, dtypes, device and autocast."""

    def __init__(self) -> None:
        self._tuned: dict[Hashable, ChunkSize] = {}

    def get(self, forward_func: ForwardFunction, inputs: Tensors, perturbations_per_eval: int | None) -> ChunkSize:
        """Returns the chunk size for masked forward passes of `inputs`.

        Args:
            forward_func (callable): The model.
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
            # With 1, every forward pass has as many rows as the inputs, which suits a model of a fixed batch size.
            return ChunkSize(
                perturbations_per_eval * n_examples, pad=compiled or perturbations_per_eval == 1, least=least
            )
        device = inputs[0].device
        key = (compiled, least, *kind_of_inputs(inputs))
        if key not in self._tuned:
            create = ChunkSize.compiled if compiled else ChunkSize.tuned
            self._tuned[key] = create(device, least)
        return self._tuned[key]


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


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
