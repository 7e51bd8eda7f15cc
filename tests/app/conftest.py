"""The command as it runs for a person, and a browser."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, sync_playwright

REQUIRED = "CAPTUM_SCORECAM_REQUIRE_BROWSER"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
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
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        reason = f"no Chromium on the PATH; {REQUIRED}=1 makes this an error"
        pytest.fail(reason) if os.environ.get(REQUIRED) == "1" else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
