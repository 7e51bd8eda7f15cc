"""Options shared by several commands, and the classifier they select."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import torch
import typer

from captum_scorecam.models import Classifier, load_classifier

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DEFAULT_MODEL = "efficientnet_lite0"

OF_MODEL = "Model"  # help panels
OF_METHODS = "Methods"

ModelName = Annotated[
    str,
    typer.Option(
        help="A torchvision classifier, efficientnet_lite0 to efficientnet_lite2, or your own PACKAGE.MODULE:FACTORY.",
        metavar="NAME",
        rich_help_panel=OF_MODEL,
    ),
]
WeightsName = Annotated[
    str,
    typer.Option(
        help="DEFAULT (pretrained), none (random), or a file with a state dict.",
        metavar="FILE",
        rich_help_panel=OF_MODEL,
    ),
]
LayerName = Annotated[
    str,
    typer.Option(
        help="The layer to explain: its dotted path, NAME:input for its input, or auto for the last feature maps.",
        metavar="NAME",
        rich_help_panel=OF_MODEL,
    ),
]
ChosenDevice = Annotated[Device, typer.Option(help="The device to run the model on.", rich_help_panel=OF_MODEL)]
NMasks = Annotated[
    int,
    typer.Option(help="Random masks of rise.", min=1, metavar="N", rich_help_panel=OF_METHODS),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        help="A module that registers your own methods or metrics. Can be repeated.",
        metavar="PACKAGE.MODULE",
    ),
]
PictureOutput = Annotated[Path, typer.Option(help="The picture to write, a .png file.", metavar="FILE")]


def load_on_device(
    name: str, weights: str = "DEFAULT", device: Device = "auto", *, gpu: int = 0, seed: int = 0
) -> Classifier:
    """Loads a classifier onto a device.

    Args:
        name (str): The model, as accepted by `load_classifier`.
        weights (str): The weights, as accepted by `load_classifier`. Default: "DEFAULT".
        device (str): ``auto`` selects a GPU if there is one. Default: "auto".
        gpu (int): Index of the GPU. Default: 0.
        seed (int): Seed of random weights, so that all processes of a run, and resumed runs, use the same weights.
            Default: 0.

    Raises:
        ValueError: If there is no such model, weights or GPU.
        ModuleNotFoundError, OSError: Same as `load_classifier`.
    """
    chosen = _torch_device(device, gpu)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = load_classifier(name, weights)
    classifier.model.to(chosen)
    return classifier


def _torch_device(device: Device, gpu: int) -> torch.device:
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("Expected `device` to be cpu or auto, since PyTorch finds no CUDA device.")
    if device == "cpu" or not available:
        return torch.device("cpu")
    if gpu >= torch.cuda.device_count():
        raise ValueError(f"Expected one GPU per process, but process {gpu + 1} found only {torch.cuda.device_count()}.")
    return torch.device("cuda", gpu)
