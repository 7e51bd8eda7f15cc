"""A layer for models whose modules take no hooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class ActivationTap(nn.Module):
    """A layer to explain in a function: the function calls it with the activation.

    Attributions read a layer through hooks. TorchScript modules, exported programs and ONNX sessions have none, and a
    functional ``relu`` is not a module. If the activation is among their outputs, or at hand in Python, pass it to a
    tap, and pass the tap as ``layer``. The tap returns the activation as tensors and has no parameters, so a model may
    also contain one: ``z = self.tap(F.relu(z))``.

    Call the tap once in each forward pass, in the thread that runs it, with an activation on the inputs' device.
    Gradient methods such as :class:`LayerGradCamPlusPlus` need an activation that requires a gradient, or scores that
    are computed from what the tap returns. TorchScript and exported programs give the first, unless their parameters
    are frozen. Arrays of a session give neither, which raises an error; :class:`ScoreCAM` needs no gradients.

    Example:
        >>> import torch
        >>> from captum_scorecam import ActivationTap, ScoreCAM
        >>> def session(x):  # returns NumPy arrays, as an ONNX session does
        ...     maps = x.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5))
        ...     return maps.numpy(), 50 * maps.amax((2, 3)).numpy()
        >>> tap = ActivationTap()
        >>> def forward(x):
        ...     maps, logits = session(x)
        ...     tap(maps)
        ...     return torch.from_numpy(logits)
        >>> ScoreCAM(forward, tap).attribute(torch.rand(2, 3, 32, 32), target=1).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, activation: Any) -> Any:
        """Returns the activation, with NumPy arrays as tensors.

        Args:
            activation (Tensor, numpy.ndarray, or a tuple or list of these): The activation, N×K×spatial unless the
                attribution's ``activation_transform`` converts it. Of a tuple, each part gets a map.

        Raises:
            TypeError: If `activation` is anything else.
        """
        if isinstance(activation, (tuple, list)):
            return tuple(_tensor(part) for part in activation)
        return _tensor(activation)


def _tensor(activation: Any) -> Tensor:
    if isinstance(activation, Tensor):
        return activation
    if isinstance(activation, np.ndarray):
        return torch.from_numpy(np.require(activation, requirements=["C", "W"]))  # copies only what PyTorch can't share
    raise TypeError(
        "Expected `activation` to be a tensor, a NumPy array, or a tuple or list of these, "
        f"but got {type(activation).__name__}."
    )
