"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from captum_scorecam.command_line.messages import plain_messages
from captum_scorecam.command_line.options import Plugins, check_writable
from captum_scorecam.command_line.plugins import import_plugins
from captum_scorecam.evaluation import export_run, write_report
from captum_scorecam.evaluation.report.exports import DEFAULT_FILES

ReportFormat: TypeAlias = Literal["html", "latex", "markdown", "csv", "parquet", "svg", "pdf"]

_DEFAULT_FILES = {"html": "report.html", **DEFAULT_FILES}
_SUFFIXES = {name: (Path(file).suffix,) for name, file in DEFAULT_FILES.items()} | {"html": (".html", ".htm")}


def report(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="The folder that evaluate wrote.", metavar="RUN", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The file to write. Default: report.html, table, values or curves in RUN.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        ReportFormat,
        typer.Option(
            "--format",
            help="html, the report; latex or markdown, the table of means for a paper; csv or parquet, the values of "
            "each image; svg or pdf, the mean curves.",
            metavar="NAME",
        ),
    ] = "html",
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

    The report is a single HTML page with tables, curves and pictures; --format
    writes parts of it for papers and other programs. The evaluation need not
    be finished.
    """
    with plain_messages(context):
        if not run.is_dir():
            problem = f"{str(run)!r} is a file" if run.exists() else f"there is no folder {str(run)!r}"
            raise ValueError(f"Expected `run` to be the folder of a run, but {problem}.")
        path = run / _DEFAULT_FILES[file_format] if output is None else output
        check_writable(path, *_SUFFIXES[file_format])
        import_plugins(plugin or [])
        if file_format == "html":
            typer.echo(f"Report: {write_report(run, path, reference)}")
            return
        if reference is not None:
            raise ValueError("Expected no `reference` with this format, which compares all pairs of methods or none.")
        typer.echo(f"File: {export_run(run, file_format, path)}")
