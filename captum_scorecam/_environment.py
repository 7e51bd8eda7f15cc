"""The environment variables of ``torchrun``, checked without importing packages that read them themselves."""

from __future__ import annotations

import os
import re


def local_rank() -> int:
    """Returns this process's rank on its machine, which is also the index of its GPU.

    Raises:
        ValueError: If LOCAL_RANK is not a whole number.
    """
    return whole_number("LOCAL_RANK", 0) if "LOCAL_RANK" in os.environ else 0


def whole_number(name: str, least: int, most: int | None = None) -> int:
    """Returns the value of an environment variable.

    Raises:
        ValueError: If it is not a whole number of at most nine digits, or out of its range.
    """
    text = os.environ[name]
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"in {least}..{most}"
        raise ValueError(f"Expected the environment variable {name} to be a number {allowed}, but got {text!r}.")
    return value
