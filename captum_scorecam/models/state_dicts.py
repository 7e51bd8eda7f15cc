"""Reads weights from a file: a plain state dict or a training checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

StateDict = dict[str, Tensor]
_CHECKPOINT_KEYS = ("state_dict", "model")
_DATA_PARALLEL_PREFIX = "module."


def read_state_dict(path: Path) -> StateDict:
    """Reads a state dict with ``weights_only=True``, so that the file can't run code.

    A checkpoint that contains the state dict under ``state_dict`` or ``model`` is unwrapped, and DataParallel's prefix
    ``module.`` is removed.

    Args:
        path (Path): A file written by ``torch.save``.

    Returns:
        dict[str, Tensor]: The state dict, on the CPU.

    Raises:
        ValueError: If the file does not exist or does not contain a state dict.
    """
    if not path.is_file():
        raise ValueError(f"Expected `weights` to be DEFAULT, none or a file, but there is no file {str(path)!r}.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load passes on the unpickler's and the zip reader's errors
        raise ValueError(
            f"Expected `weights` to be a state dict written by torch.save, but {str(path)!r} can't be "
            f"read as one: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    if not isinstance(saved, dict) or not saved or not all(isinstance(value, Tensor) for value in saved.values()):
        raise ValueError(f"Expected `weights` to contain a state dict of tensors, but {str(path)!r} does not.")
    if all(name.startswith(_DATA_PARALLEL_PREFIX) for name in saved):
        return {name.removeprefix(_DATA_PARALLEL_PREFIX): value for name, value in saved.items()}
    return dict(saved)


def class_count(state: StateDict) -> int:
    """Returns a classifier's number of classes: the length of the last tensor, the last layer's bias.

    Raises:
        ValueError: If the last tensor is a single number.
    """
    name, last = list(state.items())[-1]
    if last.dim() == 0:
        raise ValueError(f"Expected `weights` to end with the last layer's bias, but it ends with {name!r}.")
    return last.shape[0]


def load_state_dict(model: nn.Module, state: StateDict, model_name: str) -> None:
    """Loads a state dict into a model; either may lack the auxiliary heads, which only run in training.

    Raises:
        ValueError: If a tensor is missing, unexpected, or of a different shape.
    """
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    wrong = [
        name
        for name in shapes.keys() | state.keys()
        if name not in shapes or name not in state or shapes[name] != state[name].shape
    ]
    wrong = sorted(name for name in wrong if not name.lower().startswith("aux"))
    if wrong:
        raise ValueError(
            f"Expected `weights` to match {model_name}, but {len(wrong)} tensors are missing, unexpected "
            f"or of a different shape: {', '.join(wrong[:3])}{', …' if len(wrong) > 3 else ''}."
        )
    model.load_state_dict(
        {name: value for name, value in state.items() if shapes.get(name) == value.shape}, strict=False
    )
