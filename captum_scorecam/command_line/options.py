"""Options shared by several commands, and the classifier they select."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Literal, TypeAlias

import torch
import typer

from captum_scorecam.engines.by_name import EngineName
from captum_scorecam.evaluation import METHODS
from captum_scorecam.models import Classifier, load_classifier
from captum_scorecam.scoring.class_scores import NamedScore

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
DEFAULT_MODEL = "efficientnet_lite0"

OF_MODEL = "Model"  # help panels
OF_METHODS = "Methods"
OF_RUN = "Run"

_MILLION = 1_000_000
_LARGEST_SEED = 2**63 - 1  # of PyTorch's generators


def in_range(least: int, most: int) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """Returns a callback that checks an option's value; unlike Typer's ``min`` and ``max``, it does not widen the help.

    Args:
        least (int): The least value.
        most (int): The largest value.
    """

    def check(parameter: typer.CallbackParam, value: int | None) -> int | None:
        if value is not None and not least <= value <= most:
            raise typer.BadParameter(f"Expected `{parameter.opts[0]}` in {least}..{most}, but got {value}.")
        return value

    return check


def fraction(parameter: typer.CallbackParam, value: float | None) -> float | None:
    """Checks, as a callback, that an option's value is in (0, 1)."""
    if value is not None and not 0 < value < 1:
        raise typer.BadParameter(f"Expected `{parameter.opts[0]}` in (0, 1), but got {value}.")
    return value


ModelName = Annotated[
    str,
    typer.Option(
        help="A torchvision classifier, efficientnet_lite0 to efficientnet_lite2, timm/NAME, hf/FOLDER, or your own "
        "PACKAGE.MODULE:FACTORY.",
        metavar="NAME",
        rich_help_panel=OF_MODEL,
    ),
]
WeightsName = Annotated[
    str,
    typer.Option(
        help="DEFAULT (pretrained), none (random), or a file with a state dict or checkpoint.",
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
ScoreName = Annotated[
    NamedScore | None,
    typer.Option(
        help="How outputs become probabilities: probability (softmax), sigmoid (several labels, or one logit), or "
        "output (they are explained as they are). Default: chosen by the model and its outputs.",
        show_default=False,
        rich_help_panel=OF_MODEL,
    ),
]
ChosenDevice = Annotated[Device, typer.Option(help="The device to run the model on.", rich_help_panel=OF_MODEL)]
ChosenEngine = Annotated[
    EngineName,
    typer.Option(
        help="What runs masked images: eager (PyTorch), compile (torch.compile), onnxruntime or openvino. All but "
        "eager start slowly, with an export or a compilation.",
        metavar="NAME",
        rich_help_panel=OF_MODEL,
    ),
]
MethodNames = Annotated[
    list[str],
    typer.Option(
        help=f"One of {', '.join(METHODS)}, or captum:CLASS; with options and a name of your own: "
        "fast=score_cam:max_forwards=64. Can be repeated; pictures and tables follow the order.",
        metavar="METHOD",
        rich_help_panel=OF_METHODS,
    ),
]
NMasks = Annotated[
    int,
    typer.Option(help="Random masks of rise.", callback=in_range(1, _MILLION), metavar="N", rich_help_panel=OF_METHODS),
]
MaskIterations = Annotated[
    int,
    typer.Option(
        help="Number of optimisation steps of mask.",
        callback=in_range(1, _MILLION),
        metavar="N",
        rich_help_panel=OF_METHODS,
    ),
]
PerturbationsPerEval = Annotated[
    int | None,
    typer.Option(
        help="Masked images per forward pass, which affects rounding. Default: tuned; a resumed run keeps its number.",
        callback=in_range(1, _MILLION),
        metavar="N",
        show_default=False,
        rich_help_panel=OF_METHODS,
    ),
]
MaxForwards = Annotated[
    int | None,
    typer.Option(
        help="Masks that score_cam runs, at most; the scores of the others are predicted. Default: all.",
        callback=in_range(1, _MILLION),
        metavar="N",
        show_default=False,
        rich_help_panel=OF_METHODS,
    ),
]
MaxError = Annotated[
    float | None,
    typer.Option(
        help="Run masks of score_cam until the standard error is at most this share of the map's maximum, such as "
        "0.05, or --max-forwards ran.",
        callback=fraction,
        metavar="E",
        show_default=False,
        rich_help_panel=OF_METHODS,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Random seed of everything: masks, noise, random weights, drawn images, mosaics.",
        callback=in_range(0, _LARGEST_SEED),
        metavar="N",
        rich_help_panel=OF_METHODS,
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        help="A module that registers your own methods or metrics. Can be repeated.",
        metavar="PACKAGE.MODULE",
    ),
]
PictureOutput = Annotated[Path, typer.Option(help="The picture to write, a .png file.", metavar="FILE")]


def check_writable(path: Path, *suffixes: str) -> None:
    """Checks, before any work, that the file of `output` can be written.

    Args:
        path (Path): The file.
        suffixes (str): Its suffix, or suffixes to choose from, in lower case.

    Raises:
        ValueError: If the path ends otherwise, its folder is missing or not writable, or it is something other than a
            writable file.
    """
    path = path.resolve()
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"Expected `output` to end in {suffixes[0]}, but got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ValueError(f"Expected `output` to be in a folder that exists, but there is no {str(path.parent)!r}.")
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:  # permissions alone say little, as of /proc
        raise ValueError(f"Expected `output` to be in a writable folder, but {str(path.parent)!r} is not.") from error
    if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
        raise ValueError(f"Expected `output` to be a new or a writable file, but {str(path)!r} is not.")


def load_on_device(
    name: str,
    weights: str = "DEFAULT",
    device: Device = "auto",
    *,
    score: NamedScore | None = None,
    gpu: int = 0,
    seed: int = 0,
) -> Classifier:
    """Loads a classifier onto a device.

    Args:
        name (str): The model, as accepted by `load_classifier`.
        weights (str): The weights, as accepted by `load_classifier`. Default: "DEFAULT".
        device (str): ``auto`` selects a GPU if there is one. Default: "auto".
        score (str, optional): How outputs become probabilities, as for `load_classifier`. Default: None.
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
        classifier = load_classifier(name, weights, score=score)
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
