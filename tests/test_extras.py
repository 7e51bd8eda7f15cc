"""What happens where the packages of an extra are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from captum_scorecam import cli, commands, demo, tables


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_the_command_line_without_its_packages_names_the_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (commands, tables):
        monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf'needs {package}: pip install "captum-scorecam\[cli\]"'):
        cli.app()


def test_the_demo_without_its_image_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "captum-scorecam\[demo\]"'):
        demo.demo_image()


def test_the_package_needs_none_of_the_extras() -> None:
    extras = "typer", "rich", "skimage", "efficientnet_lite_pytorch"
    code = f"import sys; sys.modules.update(dict.fromkeys({extras})); import captum_scorecam; print('imported')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(cli.__file__).parent.parent, check=False
    )
    assert (done.stdout, done.stderr) == ("imported\n", "")
