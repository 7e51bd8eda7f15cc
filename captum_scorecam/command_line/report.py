"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import Plugins, check_writable
from captum_scorecam.command_line.plugins import import_plugins
from captum_scorecam.evaluation import write_report


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="The folder that evaluate wrote.", metavar="RUN", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The page to write, a .html file. Default: report.html in RUN.", metavar="FILE", show_default=False
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="The method that the others are compared with. Default: score_cam, or the first method of the run.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Write a report of an evaluation.

    The report is a single HTML page with tables, curves and pictures. The
    evaluation need not be finished.
    """
    with plain_messages(context):
        if not run.is_dir():
            problem = f"{str(run)!r} is a file" if run.exists() else f"there is no folder {str(run)!r}"
            raise ValueError(f"Expected `run` to be the folder of a run, but {problem}.")
        check_writable(run / "report.html" if output is None else output, ".html", ".htm")
        import_plugins(plugin or [])
        typer.echo(f"Report: {write_report(run, output, reference)}")
