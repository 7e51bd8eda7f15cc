"""Imports of optional packages."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(module: str, extra: str, needed_by: str) -> Any:
    """Imports a module of an optional package.

    Args:
        module (str): The module.
        extra (str): The extra of this package that installs it.
        needed_by (str): What needs it, for the error message.

    Raises:
        ModuleNotFoundError: If the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:  # something that the package needs
            raise
        raise ModuleNotFoundError(
            f'{needed_by} needs {package}: pip install "captum-scorecam[{extra}]".', name=package
        ) from error
    return importlib.import_module(module)
