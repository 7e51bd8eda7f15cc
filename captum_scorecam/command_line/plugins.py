"""User modules that register methods and metrics."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from captum_scorecam.models.factories import current_directory_on_path


def import_plugins(names: Sequence[str]) -> None:
    """Imports modules that call `register_method` or `register_metric`, also from the current directory.

    Raises:
        ValueError: If a module can't be imported.
    """
    with current_directory_on_path():
        for name in names:
            _import(name)


def _import(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"Expected `plugin` to be a module, as in package.module, but got {name!r}.")
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"Expected `plugin` to be a module, but there is none named {name!r}.") from error
        raise ValueError(
            f"Expected `plugin` {name} to be a module, but importing it raised {type(error).__name__}: {error}."
        ) from error
