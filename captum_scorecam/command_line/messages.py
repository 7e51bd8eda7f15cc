"""Prints errors and warnings as single lines on stderr, in terms of command-line options."""

from __future__ import annotations

import re
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

BAD_INPUT = (ValueError, TypeError, OSError, ImportError)

# Options of library parameters that are named differently, for commands that have the option.
_OPTIONS_OF = {
    "dataset": "data",
    "folder": "output",
    "labels": "classes",
    "masked_forward_func": "engine",
    "methods": "method",
    "metrics": "metric",
    "name": "model",
    "path": "data",
}


# What library messages advise in Python, and what to do on the command line instead.
_ADVICE = (
    (r" \(see `last_run\.[^)]*\)| For probabilities and other bounded scores, use channel_weighting=.*", ""),
    (r"use an `ActivationTap`", "use rise"),
    (r"an `ActivationTap` can read them", "rise explains the model without a layer"),
    (r"(what|as) `forward_func` (gives|does)", r"\1 the model \2"),
    (r"pass perturbations_per_eval=1", "set `perturbations_per_eval` to 1"),
)
_LONGEST_WORD = 300


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a command in the same way as Ctrl-C."""


@contextmanager
def plain_messages(
    context: typer.Context, if_stopped: str = "No partial file is left; run the same command again."
) -> Iterator[None]:
    """Prints errors and warnings as single lines on stderr, repeated warnings only once.

    The library's errors name parameters in backticks, as in `layer`; these are converted to the command's options, as
    in `--layer`. The exit status is 2 for bad input, 1 for any other error, including a call of ``sys.exit`` in the
    user's code, 130 after Ctrl-C and 143 after SIGTERM.

    Args:
        context (typer.Context): The running command.
        if_stopped (str): What is kept after Ctrl-C or SIGTERM, and how to resume. Default: nothing is kept.
    """
    options = _options_of(context)
    try:
        with _sigterm_as_interrupt(), _warnings_as_lines(options):
            yield
    except KeyboardInterrupt as error:
        terminated = isinstance(error, _Terminated)
        typer.echo(f"{'Terminated' if terminated else 'Interrupted'}. {if_stopped}", err=True)
        raise typer.Exit(128 + (signal.SIGTERM if terminated else signal.SIGINT)) from error
    except SystemExit as error:
        typer.echo(f"Error: Code that the command ran called sys.exit({error.code!r}).", err=True)
        raise typer.Exit(1) from error
    except Exception as error:
        name = "" if isinstance(error, BAD_INPUT) else f"{type(error).__name__}: "
        typer.echo(f"Error: {name}{_line(_text(error), options)}", err=True)
        raise typer.Exit(2 if isinstance(error, BAD_INPUT) else 1) from error


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raises `_Terminated` on SIGTERM, unless it is ignored or handled by the program that runs the command."""

    def stop(*_: object) -> NoReturn:
        raise _Terminated

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _warnings_as_lines(options: dict[str, str]) -> Iterator[None]:
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        line = _line(message, options)
        if issubclass(category, UserWarning) and line not in shown:
            shown.add(line)
            typer.echo(f"Warning: {line}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]  # `warnings` passes more arguments than it needs
        yield


def _options_of(context: typer.Context) -> dict[str, str]:
    """Returns the command-line name of each parameter: an option's long name or an argument's metavar."""
    options = {}
    for parameter in context.command.params:
        is_option = parameter.param_type_name == "option"
        options[str(parameter.name)] = max(parameter.opts, key=len) if is_option else str(parameter.metavar)
    return options | {
        name: options[option] for name, option in _OPTIONS_OF.items() if option in options and name not in options
    }


def _text(error: Exception) -> str:
    """Returns an error's message and its notes; the system's errors without their number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{'' if error.filename is None else f': {str(error.filename)!r}'}."
    return " ".join([str(error), *getattr(error, "__notes__", ())])


def one_line(message: object) -> str:
    """Returns a message on one line, without the middle of values so long that they would bury it."""
    half = _LONGEST_WORD // 2
    return " ".join(
        word if len(word) <= _LONGEST_WORD else f"{word[:half]}…{word[-half:]}" for word in str(message).split()
    )


def _line(message: object, options: dict[str, str]) -> str:
    text = one_line(message)
    for in_python, instead in _ADVICE:
        text = re.sub(in_python, instead, text)
    return re.sub(r"`(\w+)`", lambda match: f"`{options.get(match[1], match[1])}`", text)
