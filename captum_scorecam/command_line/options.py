"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import torch
import typer


class Device(str, Enum):
    """Where the model runs."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Model = Annotated[
    str,
    typer.Option(help="A classifier of torchvision, efficientnet_lite0 to 2, or your package.module:factory."),
]
Weights = Annotated[
    str,
    typer.Option(help="DEFAULT, none (random), or a file with a state dict.", metavar="DEFAULT|none|FILE"),
]
Layer = Annotated[
    str,
    typer.Option(
        help="Dotted path of the layer to explain, NAME:input for its input; auto takes the last maps.",
        metavar="NAME|auto",
    ),
]
NMasks = Annotated[int, typer.Option(help="RISE's random masks.", min=1)]
ChosenDevice = Annotated[Device, typer.Option("--device", help="Where the model runs.")]


def torch_device(device: Device, gpu: int = 0) -> torch.device:
    """Returns the device that a user means.

    Args:
        device (Device): What was chosen.
        gpu (int): Which GPU, if it is one. Default: 0.

    Raises:
        ValueError: If there is no such GPU.
    """
    available = torch.cuda.is_available()
    if device is Device.cuda and not available:
        raise ValueError("Expected `--device` to be cpu or auto, since PyTorch finds no CUDA device here.")
    if not available or device is Device.cpu:
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise ValueError(f"Expected a GPU for each process, but there are {torch.cuda.device_count()} for GPU {gpu}.")
    return torch.device("cuda", gpu)
