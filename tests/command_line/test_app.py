"""The command line as a whole: its help, its version, wrong usage."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import captum_scorecam
from captum_scorecam.command_line import main
from captum_scorecam.command_line.app import commands
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


@pytest.mark.parametrize("columns", [10, 20, 40, 66, 79, 80, 100])
@pytest.mark.parametrize("command", [[], ["demo"], ["explain"], ["evaluate"], ["report"]], ids=" ".join)
def test_no_help_is_shortened_at_any_width(command: list[str], columns: int) -> None:
    narrow, wide = help_of(*command, columns=columns), help_of(*command, columns=300)
    assert "…" not in narrow
    options = set(re.findall(r"--[\w-]+", wide))
    assert set(re.findall(r"--[\w-]+", narrow)) >= options
    for description in re.findall(r"\b[A-Z][a-z]+ [a-z][^│.]+\.", wide):
        assert "".join(description.split()) in re.sub(r"[\s│]", "", narrow)


@pytest.mark.parametrize("columns", ["20", "100"])
def test_without_arguments_the_help_is_printed_once(columns: str) -> None:
    result = CliRunner().invoke(commands, [], env={"COLUMNS": columns, "TERM": "dumb"})
    assert (result.exit_code, result.stderr) == (2, "")
    assert result.stdout.count("Evaluate methods on a data set.") == 1
    assert result.stdout.endswith("\n")


def test_the_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"captum-scorecam {captum_scorecam.__version__}\n")


def test_help_has_a_short_form() -> None:
    assert "Write a report of an evaluation." in invoke("report", "-h").output
    assert invoke("-h").output == invoke("--help").output


def test_without_arguments_the_help_is_printed() -> None:
    result = invoke()
    assert "Explain a photograph of a cat." in result.output
    assert "Error" not in result.output


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


@pytest.mark.parametrize("value", ["x", "", "0.5"])
def test_a_local_rank_that_is_no_number_is_found_before_torchmetrics_reads_it(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOCAL_RANK", value)
    monkeypatch.setattr(sys, "argv", ["captum-scorecam", "--version"])
    monkeypatch.delitem(sys.modules, "captum_scorecam.command_line.app")
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    expected = "Error: Expected the environment variable LOCAL_RANK to be a number at least 0, but got "
    assert capsys.readouterr() == ("", f"{expected}{value!r}.\n")
    assert "captum_scorecam.command_line.app" not in sys.modules


HUGE = "9" * 23


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("explain", "Missing argument 'IMAGE'."),
        ("explain x.png --perturbations-per-eval 0", "Expected `--perturbations-per-eval` in 1..1000000, but got 0."),
        (f"explain x.png --perturbations-per-eval {HUGE}", f"in 1..1000000, but got {HUGE}."),
        ("explain x.png --n-masks 0", "Expected `--n-masks` in 1..1000000, but got 0."),
        (f"explain x.png --n-masks {HUGE}", f"Expected `--n-masks` in 1..1000000, but got {HUGE}."),
        ("explain x.png --n-masks nan", "Expected `--n-masks` to be a whole number."),
        (f"explain x.png --mask-iterations {HUGE}", "Expected `--mask-iterations` in 1..1000000, but got "),
        ("explain x.png --max-forwards 0", "Expected `--max-forwards` in 1..1000000, but got 0."),
        ("demo --max-forwards 2.5", "Expected `--max-forwards` to be a whole number."),
        ("explain x.png --error 1", "Expected `--error` in (0, 1), but got 1.0."),
        ("demo --error nan", "Expected `--error` in (0, 1), but got nan."),
        ("evaluate data --output run --error 5%", "Expected `--error` to be a number."),
        ("explain x.png --seed -1", "Expected `--seed` in 0..9223372036854775807, but got -1."),
        (f"explain x.png --seed {HUGE}", f"Expected `--seed` in 0..9223372036854775807, but got {HUGE}."),
        (f"explain x.png --seed {'9' * 5000}", "Expected `--seed` to be a whole number."),
        ("explain x.png --seed ½", "Expected `--seed` to be a whole number."),
        ("explain x.png --device tpu", "Expected `--device` to be one of auto, cpu, cuda, but got 'tpu'."),
        ("explain x.png --device '", """to be one of auto, cpu, cuda, but got "'"."""),
        ("explain x.png --methd rise", "No such option: --methd. Closest matches: --method"),
        ("explain x.png --weights", "Option `--weights` requires an argument."),
        ("explain x.png --weights=", "Expected no empty values, but got one after `--weights`."),
        ("evaluate data", "Missing option `--output`."),
        (f"evaluate data --output run --threads {10**6}", "Expected `--threads` in 1..1024, but got 1000000."),
        (f"evaluate data --output run --workers {10**6}", "Expected `--workers` in 0..256, but got 1000000."),
        (f"evaluate data --output run --gallery {10**30}", f"Expected `--gallery` in 0..10000000, but got {10**30}."),
        ("evaluate data --output run --images 0", "Expected `--images` to be at least 1."),
        ("evaluate data --output run --images 1.5", "Expected `--images` to be a whole number."),
        (
            "evaluate data --output run --target lable",
            "Expected `--target` to be one of predicted, label, but got 'lable'. Closest matches: label.",
        ),
        ("evaluate data --output run --data-format fodler", "but got 'fodler'. Closest matches: folder."),
        ("report", "Missing argument 'RUN'."),
        ("explian", "No such command 'explian'. Did you mean 'explain'?"),
        ("demo x", "Got unexpected extra argument(s) (x). See captum-scorecam demo --help."),
        ("--method rise", "No such option: --method. See captum-scorecam --help."),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: str, message: str) -> None:
    result = invoke(*arguments.split())
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("Error: ")
    assert message in result.stderr


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["explain", ""], "explain"),
        (["explain", "x.png", "--weights", ""], "--weights"),
        (["evaluate", "", "--output", "run"], "evaluate"),
        (["evaluate", "data", "--output", ""], "--output"),
        (["report", ""], "report"),
        (["demo", "--output", ""], "--output"),
    ],
)
def test_empty_values_are_wrong_usage(arguments: list[str], place: str) -> None:
    """An empty path would be the current directory."""
    result = invoke(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: Expected no empty values, but got one after `{place}`.")


def test_the_largest_values_are_accepted() -> None:
    options = ("--seed", str(2**63 - 1), "--n-masks", "1000000", "--perturbations-per-eval", "1000000")
    assert "there is no file 'nowhere.png'" in invoke("explain", "nowhere.png", *options).stderr
    of_run = ("--threads", "1024", "--workers", "256", "--images", HUGE, "--gallery", "10000000")
    result = invoke("evaluate", "nowhere", "--output", "run", *of_run)
    assert "'nowhere' does not exist" in result.stderr
