"""Errors and warnings: one line each, which names options."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner, Result

from captum_scorecam.attr import score_cam
from captum_scorecam.command_line.messages import plain_messages
from tests.support import colour_classifier
from tests.support.command_line import COLOURS, invoke
from tests.support.evaluation_run import write_run
from tests.support.tiny_classifier import write_folder

TINY = ("--output", "run", "--model", "tests.support.tiny_classifier:tiny")


def run(body: Callable[[], None], if_stopped: str = "Start again.") -> Result:
    """Runs a command with an argument and options of several kinds."""
    app = typer.Typer()

    @app.command()
    def command(
        context: typer.Context,
        data: Annotated[str, typer.Argument(metavar="DATA")],  # noqa: ARG001 (the command's parameters matter)
        method: str = "",  # noqa: ARG001
        n_masks: Annotated[int, typer.Option("--n-masks", "-n")] = 1,  # noqa: ARG001
    ) -> None:
        with plain_messages(context, if_stopped):
            body()

    return CliRunner().invoke(app, ["here"])


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Expected `n_masks` to be positive.", "Expected `--n-masks` to be positive."),
        ("Expected `data` to be a folder.", "Expected `DATA` to be a folder."),
        ("Expected `path` to be a folder.", "Expected `DATA` to be a folder."),
        ("Expected each of `methods` to be one of a, b.", "Expected each of `--method` to be one of a, b."),
        ("`metrics` and `activation_transform` stay.", "`metrics` and `activation_transform` stay."),
        ("two\n  lines, and n_masks", "two lines, and n_masks"),
    ],
)
def test_parameters_become_options_in_errors_and_warnings(text: str, line: str) -> None:
    result = run(raising(ValueError(text)))
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {line}\n")
    result = run(lambda: warnings.warn(text, stacklevel=1))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"Warning: {line}\n")


def test_a_long_value_is_shortened_in_the_middle() -> None:
    number, path = "9" * 5000, f"/{'folder/' * 40}"
    assert run(raising(ValueError(f"but got {number}."))).stderr == f"Error: but got {number[:150]}…{number[:149]}.\n"
    assert run(raising(ValueError(f"no folder {path}"))).stderr == f"Error: no folder {path}\n"


def test_parameters_that_no_command_has_are_left_out() -> None:
    def body() -> None:
        examples = torch.zeros(2, dtype=torch.long)
        scores = torch.tensor([[0.25], [0.5]])
        scored = Mock(mask_scores=scores, masks=Mock(examples=examples), activations=[None], prediction=None)
        score_cam.warn_of_narrow_scores(scored, "softmax", "output")

    line = "Warning: The scores of the masked inputs differ by less than 1, so their softmax is nearly uniform"
    assert run(body).stderr == f"{line} and the map is close to the plain sum of the channels.\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (TypeError("bad"), 2, "Error: bad"),
        (FileNotFoundError(2, "No such file", "a.png"), 2, "Error: No such file: 'a.png'."),
        (OSError(28, "No space left on device"), 2, "Error: No space left on device."),
        (OSError("cannot download"), 2, "Error: cannot download"),
        (ModuleNotFoundError("no module"), 2, "Error: no module"),
        (RuntimeError("broken"), 1, "Error: RuntimeError: broken"),
        (KeyError("two\nlines"), 1, "Error: KeyError: 'two\\nlines'"),
        (SystemExit(3), 1, "Error: Code that the command ran called sys.exit(3)."),
        (SystemExit(), 1, "Error: Code that the command ran called sys.exit(None)."),
        (KeyboardInterrupt(), 130, "Interrupted. Start again."),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_exit_status_tells_bad_input_from_other_errors(error: BaseException, status: int, line: str) -> None:
    result = run(raising(error))
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"{line}\n")


def test_sigterm_stops_the_command_in_the_same_way() -> None:
    before = signal.getsignal(signal.SIGTERM)
    result = run(lambda: signal.raise_signal(signal.SIGTERM))
    assert (result.exit_code, result.stdout, result.stderr) == (143, "", "Terminated. Start again.\n")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_image_that_fails_does_not_swallow_sigterm() -> None:
    """An evaluation records any `Exception` of an image and goes on."""

    def body() -> None:
        with contextlib.suppress(Exception):
            signal.raise_signal(signal.SIGTERM)

    assert run(body).exit_code == 143


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "handled"])
def test_sigterm_stays_with_a_program_that_handles_or_ignores_it(handler: Any) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert run(lambda: signal.raise_signal(signal.SIGTERM)).exit_code == 0
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_messages_work_in_other_threads() -> None:
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(run, raising(ValueError("bad"))).result()
    assert (result.exit_code, result.stderr) == (2, "Error: bad\n")


def test_a_repeated_warning_is_printed_once() -> None:
    def body() -> None:
        for text in ("one", "two", "one"):
            warnings.warn(text, stacklevel=1)
        warnings.warn("not for users", DeprecationWarning, stacklevel=1)

    assert run(body).stderr == "Warning: one\nWarning: two\n"


def test_filters_and_showwarning_are_restored() -> None:
    filters, show = list(warnings.filters), warnings.showwarning
    run(raising(ValueError("bad")))
    assert (list(warnings.filters), warnings.showwarning) == (filters, show)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            ["explain", "colours.png", *COLOURS, "--layer", "feature"],
            "Expected `--layer` to name a module",
        ),
        (["explain", "colours.png", "--model", "resnet81"], "Expected `--model` to be a torchvision classifier"),
        (
            ["explain", "colours.png", *COLOURS, "--weights", "x.pt"],
            "Expected `--weights` to be DEFAULT",
        ),
        (["demo", "--output", "picture.pdf"], "Expected `--output` to end in .png"),
        (["evaluate", "nowhere", *TINY], "Expected `DATA` to be a folder or file, but 'nowhere' does not exist"),
        (["evaluate", "data", *TINY, "--metric", "magic"], "Expected each of `--metric` to be one of average_drop"),
        (
            ["evaluate", "data", *TINY, "--output", "data"],
            "Expected `--output` to be new, empty",
        ),
        (
            ["evaluate", "mixed", *TINY],
            "Expected images either in 'mixed' or in its subfolders, but found both. Set `--data-format` to folder",
        ),
        (["report", "run", "--output", "page.txt"], "Expected `--output` to end in .html"),
        (["report", "run", "--reference", "magic"], "Expected `--reference` to be one of grad_cam"),
    ],
)
def test_errors_of_the_library_name_options(command: list[str], line: str, folder: Path) -> None:
    write_folder(folder / "data", 4)
    write_folder(folder / "mixed", 4)
    (folder / "mixed" / "red" / "000.png").rename(folder / "mixed" / "000.png")
    write_run(folder / "run")
    result = invoke(*command)
    assert result.exit_code == 2
    assert re.fullmatch(rf"Error: {re.escape(line)}[^\n]*\n", result.stderr)


def traced() -> object:
    net = colour_classifier.ColourClassifier().eval()
    return torch.jit.trace(net, torch.zeros(1, 3, 32, 32))  # type: ignore[no-untyped-call]


class OneRow(colour_classifier.ColourClassifier):
    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 1:
            raise RuntimeError("Got 2 rows.")
        return super().forward(inputs)


ONE_ROW = ("explain", "colours.png", "--model", f"{__name__}:OneRow", "--method", "rise", "--n-masks", "8")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("layer", ["auto", "features"])
def test_a_model_without_hooks_is_explained_by_rise(layer: str) -> None:
    command = ("explain", "colours.png", "--model", f"{__name__}:traced", "--layer", layer)
    result = invoke(*command)
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "; rise explains the model without a layer.\n" if layer == "auto" else ", use rise.\n"
    )
    assert invoke(*command, "--method", "rise", "--n-masks", "4").exit_code == 0


@pytest.mark.skipif(sys.version_info < (3, 11), reason="errors have notes from Python 3.11 on")
@pytest.mark.usefixtures("folder")
def test_a_fixed_batch_size_names_the_option() -> None:
    result = invoke(*ONE_ROW)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: RuntimeError: Got 2 rows. The forward pass of ")
    assert "If the model has a fixed batch size, set `--perturbations-per-eval` to 1." in result.stderr
    assert invoke(*ONE_ROW, "--perturbations-per-eval", "1").exit_code == 0


def test_changed_settings_name_options(folder: Path) -> None:
    write_folder(folder / "data", 4)
    command = ("evaluate", "data", *TINY, "--method", "grad_cam", "--metric", "average_drop")
    assert invoke(*command).exit_code == 0
    result = invoke(*command, "--n-masks", "7", "--method", "rise", "--seed", "1")
    assert result.exit_code == 2
    for change in ("`--n-masks`: 2000 -> 7", '`--method`: ["grad_cam"] -> ["grad_cam", "rise"]', "`--seed`: 0 -> 1"):
        assert change in result.stderr
    assert "Choose another `--output`" in result.stderr
