"""The commands of the command line, and ``--version``."""

from __future__ import annotations

from typing import Annotated

import typer

from captum_scorecam import __version__, freed_memory_kept
from captum_scorecam.command_line.app_command import app
from captum_scorecam.command_line.demo import demo
from captum_scorecam.command_line.evaluate import evaluate
from captum_scorecam.command_line.explain import explain
from captum_scorecam.command_line.report import report
from captum_scorecam.command_line.usage import Command, Commands

commands = typer.Typer(
    name="captum-scorecam",
    cls=Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"captum-scorecam {__version__}")
        raise typer.Exit


@commands.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Score-CAM: which parts of an image drive a class score?

    Start with the demo, then explain your own images with your own model, or
    compare methods on a data set with evaluate and report. The app does the
    first two in a browser.
    """
    context.with_resource(freed_memory_kept())


for _command in (demo, explain, evaluate, report, app):
    commands.command(cls=Command)(_command)
