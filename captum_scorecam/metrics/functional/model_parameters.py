"""Re-initialises a model's parameters, and restores its parameters and buffers bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from captum_scorecam._random_draws import draws_undone
from captum_scorecam.metrics.functional.seeded_draws import seeded_draws
from captum_scorecam.model_state import compiled_code_run_eagerly


class ModelTensors:
    """The tensors that are a model's parameters and buffers at construction.

    Args:
        model (nn.Module): The model.
    """

    def __init__(self, model: Module) -> None:
        stores: list[dict[str, Any]] = [
            store for module in model.modules() for store in (module._parameters, module._buffers)
        ]
        self._places = [
            (store, name, tensor) for store in stores for name, tensor in store.items() if tensor is not None
        ]

    def copies(self) -> list[Tensor]:
        """Returns copies of the current parameters and buffers."""
        return [_held(store[name]).detach().clone() for store, name, _ in self._places]

    def fill(self, contents: Sequence[Tensor]) -> None:
        """Puts the original tensors back into the model and copies `contents` into them."""
        with torch.no_grad():
            for (store, name, tensor), content in zip(self._places, contents, strict=True):
                tensor.copy_(content)
                store[name] = tensor

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restores the parameters and buffers after the body, and takes back the random numbers that it drew."""
        contents = self.copies()
        # Beside other threads, the operations of this one are watched, and compiled code hides them.
        watchable = compiled_code_run_eagerly() if threading.active_count() > 1 else nullcontext()
        with watchable, draws_undone([tensor for _, _, tensor in self._places]):
            try:
                yield
            finally:
                self.fill(contents)


def own_parameters(module: Module) -> list[Tensor]:
    """Returns a module's parameters, excluding those of its submodules."""
    return [parameter for parameter in module._parameters.values() if parameter is not None]


def reinitialize(modules: Sequence[Module], seed: int) -> None:
    """Re-initialises modules with ``reset_parameters`` or, if there is none, by shuffling each parameter's values.

    The CPU and GPU random states are left unchanged.

    Args:
        modules (sequence of nn.Module): The modules; their submodules are not touched.
        seed (int): Random seed.
    """
    devices = {
        parameter.device.index for module in modules for parameter in own_parameters(module) if parameter.is_cuda
    }
    with seeded_draws(seed, devices), torch.no_grad():
        for module in modules:
            _reinitialize(module)


def _reinitialize(module: Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in own_parameters(module):
        values = parameter.flatten()
        parameter.copy_(values[torch.randperm(len(values), device=values.device)].view_as(parameter))


def _held(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("Expected re-initialisation to keep a module's parameters and buffers, but one was removed.")
    return tensor
