"""Hugging Face's image classifiers, from a folder or the hub."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from captum_scorecam._extras import import_extra
from captum_scorecam._threads import SharedContext
from captum_scorecam.models.class_names import listed_class_names
from captum_scorecam.models.classifier import Classifier
from captum_scorecam.models.sources import WITHOUT_ATTEMPTS
from captum_scorecam.models.state_dicts import StateDict, listed_names, load_state_dict, read_state_dict
from captum_scorecam.scoring.class_scores import NamedScore

HUGGING_FACE = "hf/"
_SCORES: dict[str | None, NamedScore] = {"multi_label_classification": "sigmoid", "regression": "output"}


class ImageProcessorPreprocess:
    """Converts an RGB image to a C×H×W input with a Hugging Face image processor.

    Attributes:
        mean, std (list of float): What the processor subtracts from values in [0, 1] and divides them by, measured on a
            black and a white image. `seen_pixels` undoes it.

    Args:
        processor (callable): The image processor.
    """

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        black, white = (
            self(Image.new("RGB", (64, 64), colour)).flatten(1).median(1)[0] for colour in ("black", "white")
        )
        scale = 1 / (white - black)
        self.mean, self.std = (-black * scale).tolist(), scale.tolist()

    def __call__(self, image: Image.Image) -> Tensor:
        """Returns the C×H×W input."""
        values: Tensor = self._processor(images=image, return_tensors="pt")["pixel_values"][0]
        return values


def check_hugging_face_name(name: str) -> None:
    """Checks that a folder contains a model, or that the name may be one on the hub.

    Raises:
        ModuleNotFoundError: If transformers is not installed.
        ValueError: If the folder lacks files, or there is no such folder and no model can have that name.
    """
    import_extra("transformers", "models", name)
    source = name.removeprefix(HUGGING_FACE)
    if not source or not Path(source).is_dir():
        if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", source):
            raise ValueError(f"Expected `name` to be hf/FOLDER or hf/OWNER/NAME, but there is no folder {source!r}.")
        return
    for file, saved_by in (("config.json", "model"), ("preprocessor_config.json", "image_processor")):
        if not (Path(source) / file).is_file() and not _is_of_timm(Path(source)):
            raise ValueError(
                f"Expected the folder {source!r} to contain {file}: {saved_by}.save_pretrained({source!r}) writes it."
            )


def _is_of_timm(folder: Path) -> bool:
    """Whether a folder's config.json holds the preprocessing too, as that of a timm model does."""
    config = folder / "config.json"
    return config.is_file() and '"pretrained_cfg"' in config.read_text(encoding="utf-8", errors="replace")


def hugging_face_classifier(name: str, weights: str) -> Classifier:
    """Loads ``hf/FOLDER`` or ``hf/OWNER/NAME``; see `load_classifier`.

    Raises:
        ModuleNotFoundError: If transformers is not installed.
        OSError: If the files can't be downloaded.
        ValueError: If the model is not an image classifier, its files lack weights, or a file does not match it.
    """
    transformers = import_extra("transformers", "models", name)
    source = name.removeprefix(HUGGING_FACE)
    options = {"trust_remote_code": False, "local_files_only": Path(source).is_dir()}
    with _QUIET:
        config = _loaded(name, partial(transformers.AutoConfig.from_pretrained, source, **options))
        if type(config) not in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
            raise ValueError(f"Expected an image classifier, but {name} is a model of type {config.model_type}.")
        processor = _loaded(name, partial(transformers.AutoImageProcessor.from_pretrained, source, **options))
        auto = transformers.AutoModelForImageClassification
        if weights.upper() == "DEFAULT":
            model = _pretrained(name, partial(auto.from_pretrained, source, output_loading_info=True, **options))
        else:
            model = auto.from_config(config)
            if weights.lower() != "none":
                model = _with_weights(model, read_state_dict(Path(weights)), name)
    preprocess = ImageProcessorPreprocess(processor)
    return Classifier(name, model, preprocess, _class_names(config), score=_SCORES.get(config.problem_type))


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    source = name.removeprefix(HUGGING_FACE)
    try:
        return load()
    except Exception as error:  # errors of transformers, safetensors and huggingface_hub
        cause = " ".join(str(error).split())
        if Path(source).is_dir():
            raise ValueError(
                f"Expected {name} to be a folder written by save_pretrained, but loading it fails: {cause}"
            ) from error
        raise OSError(
            f"There is no folder {source!r}, and downloading a model of that name from Hugging Face fails: {cause}"
        ) from error


def _pretrained(name: str, load: Callable[[], Any]) -> nn.Module:
    model: nn.Module
    model, info = _loaded(name, load)
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"Expected a trained image classifier, but {name} has no weights for {len(missing)} tensors: "
            f"{listed_names(missing)}."
        )
    return model


def _with_weights(model: nn.Module, state: StateDict, name: str) -> nn.Module:
    """Loads a state dict with the model's names, or with those of its checkpoints, which transformers converts."""
    try:
        load_state_dict(model, state, name)
    except ValueError:
        architecture: Any = type(model)
        converted: nn.Module
        converted, info = architecture.from_pretrained(
            None, config=model.config, state_dict=state, output_loading_info=True, ignore_mismatched_sizes=True
        )
        if any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            raise
        load_state_dict(model, converted.state_dict(), name)
    return model


def _class_names(config: Any) -> list[str] | None:
    """Returns the names of classes, or None for those that Hugging Face makes up: LABEL_0, LABEL_1 and so on."""
    names = listed_class_names(config.id2label)
    made_up = [f"LABEL_{index}" for index in range(len(config.id2label))]
    return None if names == made_up else names


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides attempts to connect, the report of missing weights and, unless in a terminal, progress bars."""
    logging = importlib.import_module("transformers.utils.logging")
    verbosity, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with WITHOUT_ATTEMPTS:
            yield
    finally:
        logging.set_verbosity(verbosity)
        if shows_bars:
            logging.enable_progress_bar()


_QUIET = SharedContext(_quiet)
