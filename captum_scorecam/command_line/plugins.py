"""Modules of the user's that add methods and measures."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence


def import_plugins(names: Sequence[str]) -> None:
    """Imports modules, searching the current directory too; they call `register_method` and `register_measure`.

    Raises:
        ValueError: If one can't be imported.
    """
    before = list(sys.path)
    sys.path.insert(0, os.getcwd())
    try:
        for name in names:
            _import(name)
    finally:
        sys.path[:] = before


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:  # the user's code may raise anything
        raise ValueError(
            f"Expected `--plugin` {name} to be a module, but importing it raised {type(error).__name__}: {error}."
        ) from error
