"""The command ``report``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import invoke
from tests.support.evaluation_run import write_run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a run in `run`."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    return tmp_path


def test_the_report_is_in_the_folder_of_the_run(folder: Path) -> None:
    result = invoke("report", "run")
    assert (result.exit_code, result.output) == (0, "Report: run/report.html\n")
    assert (folder / "run" / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_output_and_reference_are_used(folder: Path) -> None:
    result = invoke("report", "run", "--output", "page.html", "--reference", "grad_cam")
    assert (result.exit_code, result.output) == (0, "Report: page.html\n")
    assert "Grad-CAM" in (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["../nowhere"], "Expected `RUN` to be the folder of a run, but there is no folder '../nowhere'"),
        (["file"], "Expected `RUN` to be the folder of a run, but 'file' is a file"),
        (["."], "Expected the folder of a run, but '.' contains no configuration.json"),
        (["run", "--output", "folder.html"], "Expected `--output` to be a new or a writable file"),
        (
            ["run", "--reference", "magic"],
            "Expected `--reference` to be one of grad_cam, score_cam, rise, but",
        ),
        (["run", "--output", "page.txt"], "Expected `--output` to end in .html, but got "),
        (
            ["run", "--plugin", "nowhere.else"],
            "Expected `--plugin` to be a module, but there is none named 'nowhere.else'",
        ),
        (["run", "--plugin", "empty.py"], "Expected `--plugin` to be a module, but there is none named 'empty.py'"),
        (
            ["run", "--plugin", "../failing"],
            "Expected `--plugin` to be a module, as in package.module, but got '../failing'",
        ),
        (
            ["run", "--plugin", "failing"],
            "Expected `--plugin` failing to be a module, but importing it raised ZeroDivisionErr",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: list[str], message: str, folder: Path) -> None:
    (folder / "file").touch()
    (folder / "folder.html").mkdir()
    (folder / "empty.py").touch()
    (folder / "failing.py").write_text("1 / 0")
    result = invoke("report", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
