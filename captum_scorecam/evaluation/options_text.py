"""Reads ``[NAME=]BASE[:OPTION=VALUE,…]``, the form in which methods and metrics are chosen."""

from __future__ import annotations

import ast
from typing import Any

from captum_scorecam.evaluation.registry import NAME

PACKAGES = ("captum", "quantus")  # whose classes are named after a colon


def name_and_text(text: str) -> tuple[str | None, str]:
    """Splits ``[NAME=]TEXT``; the name is None if there is none."""
    name, equals, rest = text.partition("=")
    return (name, rest) if equals and NAME.fullmatch(name) else (None, text)


def base_and_options(text: str, *packages: str) -> tuple[str, dict[str, Any]]:
    """Reads ``BASE[:OPTION=VALUE,…]`` as Python reads keywords, true, false and none in any case, other words as text.

    Args:
        text (str): The text.
        packages (str): Names after which the base has a second part, as in ``captum:Occlusion``.

    Raises:
        ValueError: If the options are not of that form.
    """
    base, _, options = text.partition(":")
    if base in packages:
        class_name, _, options = options.partition(":")
        base = f"{base}:{class_name}"
    return base, _options(base, options)


def text_of(base: str, options: dict[str, Any]) -> str:
    """Returns the base and the options as text, in one order."""
    listed = ",".join(f"{name}={value!r}" for name, value in sorted(options.items()))
    return f"{base}:{listed}" if listed else base


def _options(base: str, options: str) -> dict[str, Any]:
    wrong = ValueError(f"Expected options of the form NAME=VALUE,NAME=VALUE after {base}:, but got {options!r}.")
    try:
        call = ast.parse(f"options({options})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise wrong from error
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name):
        raise wrong
    found: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise wrong
        try:
            value = keyword.value
            found[keyword.arg] = _word(value.id) if isinstance(value, ast.Name) else ast.literal_eval(value)
        except (TypeError, ValueError) as error:  # a TypeError for a set or dict of lists
            raise wrong from error
    return found


def _word(word: str) -> Any:
    return {"true": True, "false": False, "none": None}.get(word.lower(), word)
