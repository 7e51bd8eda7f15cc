"""The API reference lists every public name, and every docstring documents the whole signature."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, is_typeddict

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "api").glob("*.rst"))
PUBLIC_MODULES = (
    "captum_scorecam",
    "captum_scorecam.metrics",
    "captum_scorecam.metrics.functional",
    "captum_scorecam.models",
    "captum_scorecam.datasets",
    "captum_scorecam.engines",
    "captum_scorecam.evaluation",
)
TEMPLATES = ROOT / "docs" / "_templates"
LINE = re.compile(r"\.\. (?P<kind>currentmodule|auto\w+|py:\w+):: (?P<name>[\w.]+)|   :members:(?P<members>.*)")
TABLE = re.compile(
    r"\.\. autosummary::\n(?:   :.+\n)*?   :template: (?P<template>.+)\n(?:   :.+\n)*\n(?P<names>(?:   \w+\n)+)"
)
ALL = ["*"]


def spelled_out(page: str) -> str:
    """A page of the reference with what its tables' templates write on the pages of classes."""

    def pages(table: re.Match[str]) -> str:
        text = (TEMPLATES / table["template"]).read_text(encoding="utf-8")
        template = text.partition("{{ objname }}")[2].removeprefix("()")
        return "".join(f".. autoclass:: {name}{template}" for name in table["names"].split())

    return TABLE.sub(pages, page)


def reference() -> dict[str, list[str]]:
    """The full names that the pages of the reference document, each with the members listed for it."""
    documented: dict[str, list[str]] = {}
    for page in PAGES:
        module = name = ""
        for match in filter(None, map(LINE.match, spelled_out(page.read_text(encoding="utf-8")).splitlines())):
            if match["kind"] == "currentmodule":
                module = match["name"]
            elif match["members"] is not None:
                documented[name] = match["members"].replace(",", " ").split() or ALL
            elif match["kind"] != "automodule":
                name = f"{module}.{match['name']}"
                documented[name] = []
    return documented


REFERENCE = reference()


def named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute, None) if module in PUBLIC_MODULES else None


def names_in_the_source() -> set[str]:
    """Every name that the package's code uses, among them the type aliases in its annotations."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "captum_scorecam").rglob("*.py")]
    return {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}


def documented_callables() -> dict[str, Callable[..., Any]]:
    """The documented functions, classes and methods."""
    found: dict[str, Callable[..., Any]] = {}
    for name, members in REFERENCE.items():
        thing = named(name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            found[name] = thing
            shown = [key for key in vars(thing) if not key.startswith("_")] if members == ALL else members
            methods = {f"{name}.{key}": getattr(thing, key) for key in shown}
            found |= {key: method for key, method in methods.items() if callable(method)}
    return found


CALLABLES = documented_callables()


def section(text: str, title: str) -> list[str]:
    """The names in a Google-style section such as Args, in order."""
    match = re.search(rf"^{title}:\n((?:    .*\n?|\n)+)", inspect.cleandoc(text), re.MULTILINE)
    heads = re.findall(r"^    ([\w*][\w*, ]*?)(?: \(.*?\))?:", match[1], re.MULTILINE) if match else []
    return [name.strip("* ") for head in heads for name in head.split(",")]


def expected_arguments(thing: Callable[..., Any]) -> list[str]:
    if getattr(thing, "_is_protocol", False):
        return []
    function = thing.__init__ if inspect.isclass(thing) else inspect.unwrap(thing)
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def fields(thing: Callable[..., Any]) -> list[str] | None:
    if is_typeddict(thing):
        return list(thing.__annotations__)
    if dataclasses.is_dataclass(thing):
        return [field.name for field in dataclasses.fields(thing)]
    return list(getattr(thing, "_fields", ())) or None


def explained_arguments(text: str, name: str) -> list[str]:
    """The arguments documented in a docstring and in those that it refers to, directly or through another."""
    texts = {name: text}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        for target in references(texts[current], current) - texts.keys():
            texts[target] = CALLABLES[target].__doc__ or ""
            waiting.append(target)
    return [argument for docstring in texts.values() for argument in section(docstring, "Args")]


def references(text: str, name: str) -> set[str]:
    """The functions and methods that a docstring links to, found from its class, from its module, or by full name."""
    parts = name.split(".")
    places = ["", *(".".join(parts[:length]) + "." for length in range(1, len(parts)))]
    targets = re.findall(r":(?:func|meth):`~?\.?([\w.]+)`", text)
    return {place + target for target in targets for place in places} & CALLABLES.keys()


@pytest.mark.parametrize("module", PUBLIC_MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    public = {f"{module}.{name}" for name in importlib.import_module(module).__all__ if not name.startswith("__")}
    assert public - set(REFERENCE) == set()


def test_the_reference_uses_public_import_paths_only() -> None:
    assert {name.rpartition(".")[0] for name in REFERENCE} - set(PUBLIC_MODULES) == set()


def test_the_reference_documents_nothing_that_is_gone() -> None:
    assert {name for name in REFERENCE if named(name) is None} == set()


@pytest.mark.parametrize("name", sorted(CALLABLES))
def test_docstring_is_complete(name: str) -> None:
    thing = CALLABLES[name]
    text = inspect.cleandoc(thing.__doc__ or "")
    assert text, "no docstring"
    if (expected := fields(thing)) is not None:
        assert section(text, "Attributes") == expected
    elif len(expected := expected_arguments(thing)) > 1:  # the first sentence describes a single argument
        assert [argument for argument in expected if argument not in explained_arguments(text, name)] == []


PYTHON_BLOCK = re.compile(
    r"^(?:```python|\.\. code-block:: python)\n((?:(?! *```)(?:.+\n|\n))+?)(?=```|^\S)", re.MULTILINE
)


@pytest.mark.parametrize("page", ["README.md", "docs/index.rst"])
def test_imports_of_the_first_examples_exist(page: str) -> None:
    """They need images and weights that are not available here, so only their imports are checked."""
    blocks = PYTHON_BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    assert blocks
    for node in ast.walk(ast.parse("".join(map(textwrap.dedent, blocks)))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
