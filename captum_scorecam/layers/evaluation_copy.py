"""A copy in evaluation mode of a model in training mode, whose mode all threads see."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.jit import ScriptModule
from torch.nn.parameter import is_lazy

from captum_scorecam._kept_buffers import is_training
from captum_scorecam._threads import CallingThread, hooks
from captum_scorecam.model_state import TRAINING_MODE_LOCK


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Yields a model in evaluation mode: the model, or a copy if any of its modules is in training mode.

    The copy shares the model's parameters and has buffers of its own. Threads take turns while they use one.

    Raises:
        ValueError: If the model cannot be copied, or its copy calls modules of the model itself.
    """
    in_training = [module for module in model.modules() if is_training(module)]
    if not in_training:
        yield model
        return
    thread = CallingThread()

    def refuse_own(module: nn.Module, _args: Any) -> None:
        if thread.makes_call_of(module):
            _refuse()

    with TRAINING_MODE_LOCK:
        copied = _copied(model)
        for module in set(copied.modules()).difference(in_training):
            module.training = False
        hooked = [module for module in in_training if not isinstance(module, ScriptModule)]
        with hooks(*(partial(module.register_forward_pre_hook, refuse_own) for module in hooked)):
            yield copied


def _copied(model: nn.Module) -> nn.Module:
    attributes = [value for module in model.modules() for value in vars(module).values()]
    shared = [value for value in (*model.parameters(), *attributes) if isinstance(value, Tensor) and not is_lazy(value)]
    try:
        with torch.inference_mode(False):
            return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    except Exception as error:  # attributes of a model may refuse with any error
        _refuse(error)


def _refuse(error: Exception | None = None) -> NoReturn:
    raise ValueError(
        "Expected a model in evaluation mode, or one that `copy.deepcopy` copies, to look for its layer in. Call "
        "`model.eval()`, or pass the layer itself."
    ) from error
