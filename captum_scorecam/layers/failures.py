"""Why a model fails on the first images that its layer is looked for with."""

from __future__ import annotations

from typing import NoReturn


def refuse_fixed_rows(n_rows: int, error: Exception) -> NoReturn:
    """Raises ValueError for a model that takes `n_rows` rows, but failed with two."""
    raise ValueError(
        "Expected `forward_func` to take any number of rows, since its layer is looked for with two, but it takes only "
        f"{n_rows}. Pass the layer itself, with its `activation_transform`; for TorchScript and exported programs, an "
        "`ActivationTap`."
    ) from error
