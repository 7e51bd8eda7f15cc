"""Why a model fails on the first images that its layer is looked for with."""

from __future__ import annotations

import inspect
from typing import Any, NoReturn


def check_positional(model: Any, error: Exception) -> None:
    """Raises TypeError for a model that failed since it takes its inputs by keyword only."""
    parameters = inspect.signature(getattr(model, "forward", model)).parameters.values()
    if isinstance(error, TypeError) and all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters):
        names = ", ".join(f"`{parameter.name}`" for parameter in parameters)
        raise TypeError(
            f"Expected `forward_func` to take its inputs by position, but {type(model).__name__} takes {names} by "
            "keyword only. Wrap it in a module whose `forward` passes them on."
        ) from error


def refuse_fixed_rows(n_rows: int, error: Exception) -> NoReturn:
    """Raises ValueError for a model that takes `n_rows` rows, but failed with two."""
    raise ValueError(
        "Expected `forward_func` to take any number of rows, since its layer is looked for with two, but it takes only "
        f"{n_rows}. Pass the layer itself, with its `activation_transform`; for TorchScript and exported programs, an "
        "`ActivationTap`."
    ) from error
