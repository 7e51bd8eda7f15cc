"""What the sources of models share: weights that are downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn

from captum_scorecam._threads import SharedContext


def downloaded(name: str, load: Callable[[], nn.Module]) -> nn.Module:
    """Calls `load`, which downloads the weights of a model.

    Raises:
        OSError: If that fails. The message names the alternatives.
    """
    try:
        with WITHOUT_ATTEMPTS:
            return load()
    except OSError as error:  # urllib's and huggingface_hub's errors are OSErrors
        raise OSError(
            f"Could not download the weights of {name} ({' '.join(str(error).split())}). "
            "Set `weights` to a file with a state dict, or to none for random weights."
        ) from error


@contextmanager
def _without_attempts() -> Iterator[None]:
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


# Hides what huggingface_hub logs at each of its attempts to connect; its error says why the last one failed.
WITHOUT_ATTEMPTS = SharedContext(_without_attempts)
