"""The project's structure: imports point one way, and users import from packages."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import captum_scorecam

PACKAGE = Path(captum_scorecam.__file__).parent
FILES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]

# Lowest first. A file imports from its own part and from lower layers; `captum_scorecam` is the package's own exports.
LAYERS = [
    {
        "_environment",
        "_extras",
        "_held_modules",
        "_kept_buffers",
        "_messages",
        "_nested",
        "_palette",
        "_random_draws",
        "_threads",
    },
    {"model_state"},
    {"_captum"},
    {"layer_evaluation", "masking", "weighting"},
    {"overlay", "scoring"},
    {"budget", "layers"},
    {"attr", "engines", "metrics", "models", "datasets"},
    {"captum_scorecam"},
    {"evaluation"},
    {"app"},
    {"command_line"},
    {"__main__"},
]
SIBLINGS_THAT_MAY = {("metrics", "attr")}

ROOT = Path(__file__).parents[1]
SUBPACKAGES = ["metrics", "functional", "models", "datasets", "engines", "evaluation"]
PUBLIC = {"captum_scorecam", *(f"captum_scorecam.{x}" for x in (*SUBPACKAGES, "metrics.functional"))}
PAGES = [
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst")), *sorted(ROOT.glob("tutorials/*.py"))]
    if not path.is_relative_to(ROOT / "docs" / "tutorials")  # made from tutorials/ by sphinx-gallery
]
IMPORT = re.compile(r"from (captum_scorecam[\w.]*) import (?:\(([^)]*)\)|([^\n(#]*))")


def part_of(path: Path) -> str:
    part = path.parts[0].removesuffix(".py")
    return "captum_scorecam" if part == "__init__" else part


def layer_of(part: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


def imports(path: Path) -> Iterator[str]:
    """The full name of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports from; its own exports count as `captum_scorecam`."""
    names = [name.split(".") for name in imports(path)]
    seconds = [([*name, ""])[1] for name in names if name[0] == "captum_scorecam"]
    return {part if any(part in parts for parts in LAYERS) else "captum_scorecam" for part in seconds}


def upward_imports(path: Path) -> set[str]:
    """The parts that a file must not import from, but does."""
    own = part_of(path)
    lower = set().union(*LAYERS[: layer_of(own)])
    siblings = {there for here, there in SIBLINGS_THAT_MAY if here == own}
    return own_parts(path) - lower - siblings - {own}


def test_imports_point_one_way() -> None:
    assert {path: upward for path in FILES if (upward := upward_imports(path))} == {}


def test_every_layer_exists_and_is_imported_from() -> None:
    parts = {part_of(path) for path in FILES}
    assert parts == set().union(*LAYERS)
    imported = set().union(*(own_parts(path) - {part_of(path)} for path in FILES))
    assert imported == parts - {"__main__"}


def test_only_one_file_imports_captums_private_helpers() -> None:
    private = {path for path in FILES for name in imports(path) if name.startswith("captum.") and "._" in name}
    assert private == {Path("_captum.py")}


def test_docs_import_what_packages_export() -> None:
    not_exported = [
        f"{page}: {module}.{name}"
        for page in PAGES
        for module, several, one_line in IMPORT.findall((ROOT / page).read_text(encoding="utf-8"))
        for name in re.findall(r"(\w+)(?: as \w+)?", several or one_line)
        if module not in PUBLIC or name not in {*importlib.import_module(module).__all__, *SUBPACKAGES}
    ]
    assert not_exported == []
