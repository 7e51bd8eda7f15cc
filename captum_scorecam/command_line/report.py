"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.plugins import import_plugins
from captum_scorecam.evaluation.report.page import write_report


def report(
    run: Annotated[Path, typer.Argument(help="The folder that evaluate wrote.", show_default=False)],
    reference: Annotated[
        str | None,
        typer.Option(
            help="The method that the others are compared to; score_cam, or the first, unless given.",
            metavar="METHOD",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The page; report.html in the run's folder unless given.", show_default=False)
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(help="Your module that registers metrics, for their titles.", metavar="PACKAGE.MODULE"),
    ] = None,
) -> None:
    """Write the report of a run, finished or not: one HTML page with tables, curves and pictures."""
    with plain_messages():
        import_plugins(plugin or [])
        typer.echo(f"Report: {write_report(run, output, reference)}")
