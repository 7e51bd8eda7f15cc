"""The command line's page, written by Typer from the commands themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

TYPER = ("typer", "captum_scorecam.command_line.app", "utils", "docs")


def write_page(app: Sphinx) -> None:
    """Writes the page before Sphinx reads its sources."""
    docs = Path(app.srcdir)
    page = docs / "api" / "generated" / "command_line.md"
    options = ("--name", "captum-scorecam", "--title", "Command line", "--output", str(page))
    page.parent.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-m", *TYPER, *options], check=True, capture_output=True, cwd=docs.parent)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Registers the extension."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
