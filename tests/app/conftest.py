"""The command as it runs for a person, and a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from tests.support.browser import headless_browser

ROOT = Path(__file__).parents[2]
TINY = "tests.support.tiny_classifier:tiny"


class Serving(NamedTuple):
    """The command, while it runs: the page's address, its process, and where it may put temporary files."""

    address: str
    process: subprocess.Popen[str]
    folder: Path

    def uploads(self) -> list[Path]:
        return [path for path in self.folder.glob("captum-scorecam-*/**/*") if path.is_file()]


@contextmanager
def running_command(folder: Path) -> Iterator[Serving]:
    """Runs ``captum-scorecam app`` with a classifier of four classes, and ends it as Ctrl-C does."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "captum_scorecam", "app", "--model", TINY, "--port", str(port)]
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # the command would inherit that a background job ignores it
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert lines[0] == f"Loading {TINY} …\n"
        assert lines[1] == f"The page is open at http://127.0.0.1:{port}/ (Ctrl-C closes it)\n"
        try:
            yield Serving(f"http://127.0.0.1:{port}/", process, folder)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                process.kill()  # without effect on one that has ended


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with running_command(tmp_path_factory.mktemp("serving")) as serving:
        yield serving


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_browser() as browser:
        yield browser
