"""The structure that the project promises: who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import captum_scorecam

PACKAGE = Path(captum_scorecam.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the models' outputs up to the command line; a file imports only from files that stand before it.
LAYERS = [
    ["eager"],
    ["_captum"],
    ["masks", "activation_maps", "model_state", "weighting", "input_space", "class_scores", "chunk_size"],
    ["baselines", "freed_memory", "grid_masks", "masked_forward", "process_group"],
    ["scoring"],
    ["attr", "metrics"],
    ["__init__"],
    ["classification"],
    ["evaluation"],
    ["demo"],
    ["command_line"],
    ["cli", "__main__"],
]


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def layer_of(path: Path) -> int:
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if not (PACKAGE / part).is_dir() and not (PACKAGE / f"{part}.py").is_file():
        part = "__init__"  # a name that the package exports
    return next((i for i, names in enumerate(LAYERS) if part in names), len(LAYERS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_one_file_imports_captums_private_helpers(path: Path) -> None:
    private = [name for name in imports(path) if name.startswith("captum.") and "._" in name]
    assert path.name == "_captum.py" or private == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    own = [name.split(".")[1] for name in imports(path) if name.startswith("captum_scorecam.")]
    backwards = [name for name in own if layer_of(PACKAGE / name) > layer_of(path)]
    assert backwards == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_at_most_250_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250


def test_the_one_file_does_import_them() -> None:
    assert any(name.startswith("captum._utils") for name in imports(PACKAGE / "_captum.py"))
