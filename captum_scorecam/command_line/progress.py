"""Shows the progress of an evaluation: a bar on a terminal, otherwise one line per minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SECONDS_BETWEEN_LINES = 60.0


class _Speed(ProgressColumn):
    """Images per second of this process."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else _images_per_second(task.speed))


@contextmanager
def shown_progress(shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Shows the number of finished images, the speed and the time left, or that there was nothing to do.

    Args:
        shown (bool): Whether this process shows progress.

    Yields:
        callable: Takes the number of finished images and the number of all images; None if nothing is shown.
    """
    if not shown:
        yield None
        return
    was_called = False
    with _bar() if sys.stderr.isatty() else nullcontext(_Lines()) as show:

        def on_image(finished: int, total: int) -> None:
            nonlocal was_called
            was_called = True
            show(finished, total)

        yield on_image
    if not was_called:
        typer.echo("All images are already evaluated.", err=True)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("Images"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as progress:
        task = progress.add_task("")
        yield lambda finished, total: progress.update(task, completed=finished, total=total)


class _Lines:
    """One line per minute, for logs."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, finished: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        per_second = finished / (now - self._start)
        left = timedelta(seconds=round((total - finished) / per_second))
        typer.echo(f"{finished} of {total} images, {_images_per_second(per_second)}, {left} left", err=True)


def _images_per_second(speed: float) -> str:
    return f"{speed:.3g} images/s"
