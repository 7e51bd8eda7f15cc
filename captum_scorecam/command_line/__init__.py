"""The command line ``captum-scorecam``, one file per command."""

from __future__ import annotations

import sys

from captum_scorecam._environment import local_rank
from captum_scorecam.command_line.streams import make_streams_tolerant

_PACKAGES_OF_EXTRA = ("filelock", "jinja2", "markupsafe", "matplotlib", "rich", "scipy", "typer")


def main() -> None:
    """Runs the command line.

    Raises:
        SystemExit: When the command ends; with a message if a package of the extra ``cli`` is missing, or LOCAL_RANK is
            not a number, as torchmetrics reads it when it is imported.
    """
    make_streams_tolerant()
    try:
        local_rank()
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    try:
        from captum_scorecam.command_line.app import commands
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES_OF_EXTRA:
            raise
        raise SystemExit(f'captum-scorecam needs {package}: pip install "captum-scorecam[cli]".') from error
    commands()
