"""The command line ``captum-scorecam``, one file per command."""

from __future__ import annotations

from captum_scorecam.command_line.streams import make_streams_tolerant

_PACKAGES_OF_EXTRA = ("filelock", "jinja2", "markupsafe", "matplotlib", "rich", "typer")


def main() -> None:
    """Runs the command line.

    Raises:
        SystemExit: When the command ends; with a message if a package of the extra ``cli`` is missing.
    """
    make_streams_tolerant()
    try:
        from captum_scorecam.command_line.app import commands
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES_OF_EXTRA:
            raise
        raise SystemExit(f'captum-scorecam needs {package}: pip install "captum-scorecam[cli]".') from error
    commands()
