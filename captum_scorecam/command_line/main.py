"""The console script ``captum-scorecam``."""

from __future__ import annotations


def app() -> None:
    """Runs the command line, whose commands are in `commands`.

    Raises:
        SystemExit: At the end, with status 0, or 2 where the usage or the input was wrong. Where the packages of the
            command line are missing, with a line that says which extra to install.
    """
    try:
        from captum_scorecam.command_line.app import commands
    except ModuleNotFoundError as error:
        if error.name not in ("filelock", "jinja2", "rich", "typer"):
            raise
        raise SystemExit(f'The command line needs {error.name}: pip install "captum-scorecam[cli]".') from error
    commands()
