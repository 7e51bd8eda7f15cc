"""timm's models, with timm's preprocessing."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from captum_scorecam._extras import import_extra
from captum_scorecam._messages import closest_matches
from captum_scorecam.models.class_names import imagenet_class_names
from captum_scorecam.models.classifier import Classifier
from captum_scorecam.models.sources import downloaded
from captum_scorecam.models.state_dicts import build_with_weights, read_state_dict

TIMM = "timm/"


def check_timm_name(name: str) -> None:
    """Checks that timm knows a model.

    Raises:
        ModuleNotFoundError: If timm is not installed.
        ValueError: If it doesn't. The message lists the closest names.
    """
    timm = _timm(name)
    architecture = name.removeprefix(TIMM)
    known = [*timm.list_models(), *timm.list_pretrained()]
    if architecture not in known:
        raise ValueError(
            f"Expected `name` to be timm/ and one of the names in timm.list_models(), but got {name!r}."
            f"{closest_matches(architecture, known)}"
        )


def timm_classifier(name: str, weights: str) -> Classifier:
    """Loads ``timm/NAME``; see `load_classifier`.

    Raises:
        ModuleNotFoundError: If timm is not installed.
        OSError: If the weights can't be downloaded.
        ValueError: If timm has no weights for the model, they have no classes, or a file does not match the model.
    """
    timm = _timm(name)
    build = partial(timm.create_model, name.removeprefix(TIMM))
    if weights.upper() == "DEFAULT":
        model = _pretrained(timm, name)
    elif weights.lower() == "none":
        model = build()
    else:
        head = _head(timm.get_pretrained_cfg(name.removeprefix(TIMM)))
        model = build_with_weights(build, read_state_dict(Path(weights)), name, head)
    if not model.num_classes:
        raise ValueError(f"Expected a classifier, but {name} has no classes: its outputs are features.")
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return Classifier(name, model, preprocess, _class_names(timm, model))


def _timm(name: str) -> Any:
    timm = import_extra("timm", "models", name)
    import_extra("timm.data", "models", name)
    return timm


def _pretrained(timm: Any, name: str) -> nn.Module:
    architecture = name.removeprefix(TIMM)
    if not timm.is_model_pretrained(architecture):
        raise ValueError(f"Expected `weights` to be none or a file for {name}, since timm has no weights for it.")
    return downloaded(name, partial(timm.create_model, architecture, pretrained=True))


def _head(config: Any) -> str | None:
    """Returns the name of the classifier's weight: timm names one layer, or that of each head."""
    layers = config.classifier
    first = layers if isinstance(layers, str) else layers[0] if layers else None
    return first and f"{first}.weight"


def _class_names(timm: Any, model: nn.Module) -> list[str] | None:
    """Returns the names of ImageNet's classes, also of its larger variants, known by their number."""
    subset = timm.data.infer_imagenet_subset(model)
    if subset in (None, "imagenet-1k"):
        return imagenet_class_names() if subset else None
    info = timm.data.ImageNetInfo(subset)
    names: list[str] = info.label_descriptions()
    return names
