"""Errors and warnings as a visitor reads them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Library messages name parameters, advise in Python, offer what the page refuses, and quote those of the system.
_WORDS = {"name": "model", "masked_forward_func": "engine"}
_ADVICE = r" Set `weights` to .*| \(see `last_run\.[^)]*\)| For probabilities and other bounded scores, use .*"
_NOT_HERE = {
    r", hf/FOLDER or package\.module:factory": " or hf/NAME",
    r"; package\.module:factory loads that": "",
    r"<urlopen error (.*?)>": r"\1",
    r"\[Errno -?\d+\] ": "",
}
_OF_INPUT = (ValueError, TypeError, OSError, ImportError)


def plain_text(message: object) -> str:
    """Returns a library's message on one line, without its advice on parameters."""
    text = re.sub(_ADVICE, "", " ".join(str(message).split()))
    for pattern, replacement in _NOT_HERE.items():
        text = re.sub(pattern, replacement, text)
    return re.sub(r"`(\w+)`", lambda match: _WORDS.get(match[1], match[1]), text)


def text_of(error: BaseException) -> str:
    """Returns what an error says; errors that are not about the input come with their kind."""
    text = plain_text(error) or "no message"
    return text if isinstance(error, _OF_INPUT) else f"{type(error).__name__}: {text}"


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collects warnings meant for users.

    Yields:
        list of str: The warnings, once the block has ended.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    notes += dict.fromkeys(plain_text(each.message) for each in caught if issubclass(each.category, UserWarning))
