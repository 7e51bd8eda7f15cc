"""Imports and error messages without the packages of an extra."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import captum_scorecam
from captum_scorecam._extras import import_extra
from captum_scorecam.command_line.demo import demo_image
from captum_scorecam.evaluation import export_run
from captum_scorecam.evaluation.metrics.quantus_metrics import quantus_classes
from tests.support.evaluation_run import write_run

PACKAGES_OF_EXTRAS = [
    *("filelock", "jinja2", "markupsafe", "rich", "scipy", "typer"),
    *("efficientnet_lite_pytorch", "skimage"),
]


@pytest.fixture
def not_imported_yet() -> Iterator[None]:
    """Makes the test import captum_scorecam again."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "captum_scorecam"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "captum_scorecam"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.usefixtures("not_imported_yet")
def test_methods_metrics_models_and_data_sets_need_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in PACKAGES_OF_EXTRAS:
        monkeypatch.setitem(sys.modules, package, None)
    anew = importlib.import_module("captum_scorecam")
    assert anew.ScoreCAM is not captum_scorecam.ScoreCAM
    for name, member in [
        ("metrics", "AverageDrop"),
        ("metrics.functional", "average_drop"),
        ("models", "load_classifier"),
        ("datasets", "open_data"),
    ]:
        assert callable(getattr(importlib.import_module(f"captum_scorecam.{name}"), member))
    assert [name for name in sys.modules if name.startswith("captum_scorecam.command_line.")] == []


@pytest.mark.parametrize("package", ["filelock", "jinja2", "markupsafe", "scipy"])
@pytest.mark.usefixtures("not_imported_yet")
def test_the_evaluation_names_the_missing_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf'captum_scorecam\.evaluation needs {package}: pip install "captum-scorecam\[cli\]"\.'
    with pytest.raises(ModuleNotFoundError, match=message):
        importlib.import_module("captum_scorecam.evaluation")


@pytest.mark.parametrize("missing", ["filelock", "jinja2", "markupsafe", "rich", "rich.text", "scipy", "typer"])
@pytest.mark.usefixtures("not_imported_yet")
def test_the_command_line_names_the_missing_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    package = missing.partition(".")[0]
    main = importlib.import_module("captum_scorecam.command_line").main
    with pytest.raises(SystemExit, match=rf'captum-scorecam needs {package}: pip install "captum-scorecam\[cli\]"\.'):
        main()


@pytest.mark.usefixtures("not_imported_yet")
def test_other_missing_packages_are_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    main = importlib.import_module("captum_scorecam.command_line").main
    with pytest.raises(ModuleNotFoundError, match="torchvision"):
        main()


def test_the_demo_names_the_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'The demo needs scikit-image: pip install "captum-scorecam\[demo\]"'
    ):
        demo_image()


def block(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a package missing."""
    for module in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    block("timm", monkeypatch)
    with pytest.raises(
        ModuleNotFoundError, match=r'The model needs timm: pip install "captum-scorecam\[models\]"'
    ) as error:
        import_extra("timm.data", "models", "The model")
    assert error.value.name == "timm"


def test_what_a_package_lacks_is_not_blamed_on_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'nowhere_at_all'$"):
        import_extra("needs_another", "models", "The model")


def test_a_module_that_a_package_no_longer_has_is_not_blamed_on_the_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'torch.no_such_module'$"):
        import_extra("torch.no_such_module", "quantus", "A metric of Quantus")


def test_parquet_and_quantus_name_the_missing_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    block("pyarrow", monkeypatch)
    block("quantus", monkeypatch)
    write_run(tmp_path / "run")
    with pytest.raises(
        ModuleNotFoundError, match=r'format parquet needs pyarrow: .*"captum-scorecam\[parquet\]"'
    ) as error:
        export_run(tmp_path / "run", "parquet")
    assert error.value.name == "pyarrow"
    assert not (tmp_path / "run" / "values.parquet").exists()
    with pytest.raises(ModuleNotFoundError, match=r'metric of Quantus needs quantus: .*"captum-scorecam\[quantus\]"'):
        quantus_classes.__wrapped__()
