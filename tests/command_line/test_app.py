"""The command line as a whole: its help, its version, wrong usage."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import captum_scorecam
from tests.support.command_line import help_of, invoke


def test_the_help_lists_the_commands() -> None:
    text = help_of()
    assert "Score-CAM: which parts of an image drive a class score?" in text
    for command, help_text in [
        ("demo", "Explain a photograph of a cat."),
        ("explain", "Show which parts of an image drive a class score."),
        ("evaluate", "Evaluate methods on a data set."),
        ("report", "Write a report of an evaluation."),
    ]:
        assert re.search(rf"{command} +{help_text}", text)


@pytest.mark.parametrize("command", ["demo", "explain", "evaluate", "report"])
def test_no_option_is_shortened_at_80_columns(command: str) -> None:
    assert "…" not in help_of(command)


def test_the_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"captum-scorecam {captum_scorecam.__version__}\n")


def test_the_package_runs_as_a_module(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["captum-scorecam", "explain", str(folder / "colours.png"), "--model", "resnet81"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_module("captum_scorecam", run_name="__main__")
    printed = capsys.readouterr()
    assert (exit_.value.code, printed.out) == (2, "")
    assert re.fullmatch(
        r"Error: Expected `--model` .* but got 'resnet81'\. Closest matches: resnet18.*\.\n", printed.err
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain"],
        ["explain", "colours.png", "--perturbations-per-eval", "0"],
        ["explain", "colours.png", "--n-masks", "0"],
        ["explain", "colours.png", "--seed", "-1"],
        ["explain", "colours.png", "--device", "tpu"],
        ["evaluate", "data"],
        ["evaluate", "data", "--output", "run", "--target", "red"],
        ["evaluate", "data", "--output", "run", "--data-format", "zip"],
        ["report"],
        ["explode"],
        ["demo", "x"],
    ],
)
def test_wrong_usage_ends_with_status_2(arguments: list[str]) -> None:
    assert invoke(*arguments).exit_code == 2
