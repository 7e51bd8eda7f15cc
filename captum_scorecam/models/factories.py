"""Models made by functions in the user's modules."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn
from torchvision.transforms._presets import ImageClassification

from captum_scorecam._messages import closest_matches
from captum_scorecam.models.classifier import Classifier
from captum_scorecam.models.state_dicts import load_state_dict, read_state_dict


def check_factory_name(name: str) -> None:
    """Raises ValueError if the name is not of the form ``package.module:factory``."""
    is_dotted = re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", name)
    if not is_dotted or Path(name.partition(":")[0]).is_file():
        raise ValueError(
            "Expected `name` to be package.module:factory, without slashes and .py, as in my_models:make_model, "
            f"but got {name!r}."
        )


def classifier_from_factory(name: str, weights: str) -> Classifier:
    """Loads a classifier from ``package.module:factory``; see `load_classifier`.

    Raises:
        ValueError: If there is no such factory, it fails or returns no model, or the weights don't match.
    """
    with current_directory_on_path():
        made = _call_factory(name)
    model, *rest = made if isinstance(made, tuple) else (made,)
    if not isinstance(model, nn.Module) or len(rest) > 2:
        raise ValueError(
            f"Expected `name` {name} to return a model, (model, preprocess) or (model, preprocess, class_names), "
            f"but got {_described(made)}."
        )
    preprocess = rest[0] if rest and rest[0] is not None else ImageClassification(crop_size=224)
    if weights.upper() not in ("DEFAULT", "NONE"):
        load_state_dict(model, read_state_dict(Path(weights)), name)
    return Classifier(name, model, preprocess, rest[1] if len(rest) == 2 else None)


def _described(made: object) -> str:
    if isinstance(made, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in made)}"
    return type(made).__name__


def _call_factory(name: str) -> Any:
    module_name, _, factory_name = name.partition(":")
    module = _import(module_name)
    if not hasattr(module, factory_name):
        functions = [known for known, value in vars(module).items() if callable(value)]
        raise ValueError(
            f"Expected `name` to be package.module:factory, but {module_name} has no {factory_name!r}."
            f"{closest_matches(factory_name, functions)}"
        )
    factory = getattr(module, factory_name)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise ValueError(
            f"Expected `name` to be package.module:factory, where factory() returns a model, but {name} is an object "
            f"of class {type(factory).__name__}."
        )
    try:
        return factory()
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise ValueError(f"Expected the factory {name} to create a model, but it raised {_cause(error)}.") from error


def _import(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        if f"{module_name}.".startswith(f"{missing}."):
            raise ValueError(
                f"Expected `name` to be package.module:factory, but there is no module named {missing!r}, neither "
                "installed nor in the current directory."
            ) from error
        raise ValueError(
            f"Expected the module {module_name} to be importable, but it raised {_cause(error)}."
        ) from error


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@contextmanager
def current_directory_on_path() -> Iterator[None]:
    """Makes modules in the current directory importable."""
    directory = os.getcwd()
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        if directory in sys.path:  # unless the user's module has removed it
            sys.path.remove(directory)
