"""The models that visitors choose among, loaded once for all."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from captum_scorecam.app.layers import layers_by_depth
from captum_scorecam.engines.by_name import EngineName, check_engine, twin_by_name
from captum_scorecam.models import Classifier, ExplainedLayer
from captum_scorecam.models.hugging_face import HUGGING_FACE

DEMO_MODELS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
_ENGINES: tuple[EngineName, ...] = ("onnxruntime", "openvino")  # the fastest first
_MOST_OTHERS = 2  # models that are not offered
_MOST_SIZES = 2


@dataclass(frozen=True)
class Prepared:
    """What a model needs for images of one size.

    Attributes:
        layers (list of ExplainedLayer): The layers to choose among, the last one first.
        engine (str): What runs masked images.
        twin (nn.Module, optional): The model in that engine. Default: None, the model itself.
    """

    layers: list[ExplainedLayer]
    engine: EngineName = "eager"
    twin: nn.Module | None = None


@dataclass
class LoadedModel:
    """A model that is loaded, and what was prepared for the last sizes of images."""

    classifier: Classifier
    _prepared: OrderedDict[torch.Size, Prepared] = field(default_factory=OrderedDict)

    def prepared(self, inputs: Tensor) -> Prepared:
        """Finds the layers, and exports the model to the fastest engine that is installed and takes it."""
        size = inputs.shape
        if size not in self._prepared:
            layers = layers_by_depth(self.classifier, inputs)
            self._prepared[size] = Prepared(layers, *_fastest(self.classifier.model, inputs))
        self._prepared.move_to_end(size)
        while len(self._prepared) > _MOST_SIZES:
            self._prepared.popitem(last=False)
        return self._prepared[size]


def _fastest(model: nn.Module, inputs: Tensor) -> tuple[EngineName, nn.Module | None]:
    for engine in _ENGINES if inputs.device.type == "cpu" else ():
        try:
            check_engine(engine)
            return engine, twin_by_name(engine, model, inputs)
        except (ModuleNotFoundError, ValueError):  # it is not installed, or does not take the model
            continue
    return "eager", None


class Models:
    """Loads models by name and keeps those that are offered, and the last ones of others.

    Args:
        load (callable): Loads a classifier by name, with the arguments of `load_classifier`.
        offered (mapping of str to mapping): The models to choose among, the default first, and further arguments of
            `load_classifier` for each.
        any_name (bool): Whether visitors may name other models, too; a module and its factory must be offered.

    Attributes:
        running (Lock): Held by whoever runs a model.
        closing (Event): Set once the page closes; then runs stop.
    """

    def __init__(
        self, load: Callable[..., Classifier], offered: Mapping[str, Mapping[str, str]], any_name: bool = False
    ) -> None:
        self.offered, self.any_name = offered, any_name
        self.running, self.closing = threading.Lock(), threading.Event()
        self._load = load
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()

    def shown_arguments(self, name: str) -> dict[str, str]:
        """Returns the arguments of `load_classifier` for a model; others than the owner see no path of a file."""
        arguments = {**self.offered.get(name, {})}
        if "weights" in arguments and not self.any_name:
            arguments["weights"] = Path(arguments["weights"]).name
        return arguments

    def get(self, name: str) -> LoadedModel:
        """Returns a model.

        Raises:
            ValueError: If visitors may not choose it, or it does not exist.
            ModuleNotFoundError, OSError: If a package or weights are missing.
        """
        name = name.strip()
        is_module = ":" in name and not name.startswith(HUGGING_FACE)
        if name not in self.offered and (is_module or not self.any_name):
            others = ", a torchvision classifier, timm/NAME or hf/NAME" if self.any_name else ""
            raise ValueError(f"Expected one of the models {', '.join(self.offered)}{others}, but got {name!r}.")
        if name not in self._loaded:
            self._loaded[name] = LoadedModel(self._load(name, **self.offered.get(name, {})))
        self._loaded.move_to_end(name)
        not_offered = [each for each in self._loaded if each not in self.offered]
        for each in not_offered[:-_MOST_OTHERS]:
            del self._loaded[each]
        return self._loaded[name]
