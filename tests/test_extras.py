"""What happens where the packages of an extra are missing."""

from __future__ import annotations

import importlib
import sys

import pytest

import captum_scorecam
import captum_scorecam.command_line.app
from captum_scorecam import cli, demo

IMPORTERS = {  # of each package, up to the commands
    "filelock": ["command_line.evaluate", "evaluation.api", "evaluation.runner"],
    "jinja2": ["command_line.report", "evaluation.report"],
    "rich": ["command_line.tables"],
    "typer": [],
}


@pytest.mark.parametrize(("package", "importers"), IMPORTERS.items(), ids=IMPORTERS)
def test_the_command_line_without_its_packages_names_the_extra(
    package: str, importers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("command_line.commands", *importers):
        monkeypatch.delitem(sys.modules, f"captum_scorecam.{module}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf'needs {package}: pip install "captum-scorecam\[cli\]"'):
        cli.app()


def test_the_demo_without_its_image_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "captum-scorecam\[demo\]"'):
        demo.demo_image()


def test_the_package_needs_none_of_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "captum_scorecam"]:
        monkeypatch.delitem(sys.modules, name)
    for extra in ("typer", "rich", "skimage", "efficientnet_lite_pytorch"):
        monkeypatch.setitem(sys.modules, extra, None)
    package = importlib.import_module("captum_scorecam")
    assert package.ScoreCAM is not captum_scorecam.ScoreCAM  # it was imported anew, without them
    assert importlib.import_module("captum_scorecam.metrics").AverageDrop.higher_is_better is False
    assert [name for name in sys.modules if name.startswith("captum_scorecam.command_line")] == []
    for name in [name for name in sys.modules if name.split(".")[0] == "captum_scorecam"]:
        del sys.modules[name]
