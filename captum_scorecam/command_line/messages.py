"""Warnings and errors as people read them: one line each on stderr, and an exit status."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

BAD_INPUT = (ValueError, TypeError, OSError, ImportError)
INTERRUPTED = 130  # as a shell has it


@contextmanager
def plain_messages(if_interrupted: str = "Interrupted.") -> Iterator[None]:
    """Makes warnings and errors one line on stderr, each warning once, as soon as it is given.

    After an error, the exit status is 2 for bad input, else 1; after Ctrl-C it is 130.

    Args:
        if_interrupted (str): What is said after Ctrl-C. Default: "Interrupted."
    """
    try:
        with _warnings_as_lines():
            yield
    except KeyboardInterrupt as error:
        typer.echo(if_interrupted, err=True)
        raise typer.Exit(INTERRUPTED) from error
    except Exception as error:
        name = "" if isinstance(error, BAD_INPUT) else f"{type(error).__name__}: "
        typer.echo(f"Error: {name}{_line(error)}", err=True)
        raise typer.Exit(2 if isinstance(error, BAD_INPUT) else 1) from error


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    shown = set()

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        line = _line(message)
        if issubclass(category, UserWarning) and line not in shown:
            shown.add(line)
            typer.echo(f"Warning: {line}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]  # it takes what is passed, and ignores most
        yield


def _line(message: object) -> str:
    return " ".join(str(message).split())
