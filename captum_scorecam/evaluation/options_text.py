"""Reads ``[NAME=]BASE[:OPTION=VALUE,…]``, the form in which methods and metrics are chosen."""

from __future__ import annotations

import ast
from typing import Any

from captum_scorecam.evaluation.registry import Kind, check_name

PACKAGES = ("captum", "quantus")  # whose classes are named after a colon


def name_and_text(text: str, kind: Kind) -> tuple[str | None, str]:
    """Splits ``[NAME=]TEXT``; the name is None if there is none.

    Raises:
        ValueError: If the name can't be that of a method or metric.
    """
    name, equals, rest = text.partition("=")
    if not equals or ":" in name:  # of an option
        return None, text
    check_name(name, kind)
    return name, rest


def base_and_text(text: str, *packages: str) -> tuple[str, str]:
    """Splits ``BASE[:OPTION=VALUE,…]`` into the base and the text of the options.

    Args:
        text (str): The text.
        packages (str): Names after which the base has a second part, as in ``captum:Occlusion``.
    """
    base, _, options = text.partition(":")
    if base in packages:
        class_name, _, options = options.partition(":")
        base = f"{base}:{class_name}"
    return base, options


def base_and_options(text: str, *packages: str) -> tuple[str, dict[str, Any]]:
    """Reads ``BASE[:OPTION=VALUE,…]``, as `base_and_text` and `options_of` do."""
    base, options = base_and_text(text, *packages)
    return base, options_of(base, options)


def text_of(base: str, options: dict[str, Any]) -> str:
    """Returns the base and the options as text, in one order."""
    listed = ",".join(f"{name}={value!r}" for name, value in sorted(options.items()))
    return f"{base}:{listed}" if listed else base


def options_of(base: str, options: str) -> dict[str, Any]:
    """Reads ``OPTION=VALUE,…`` as Python reads keywords, true, false and none in any case, other words as text.

    Raises:
        ValueError: If the text has another form or an option twice.
    """
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
        if keyword.arg in found:
            raise ValueError(f"Expected each option of {base} once, but got {keyword.arg} twice in {options!r}.")
        try:
            value = keyword.value
            found[keyword.arg] = _word(value.id) if isinstance(value, ast.Name) else ast.literal_eval(value)
        except (TypeError, ValueError) as error:  # a TypeError for a set or dict of lists
            raise wrong from error
    return found


def _word(word: str) -> Any:
    return {"true": True, "false": False, "none": None}.get(word.lower(), word)
