"""Standard output and standard error, tolerant of closed pipes and of characters that they can't encode."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


class TolerantStream(io.TextIOWrapper):
    """Discards text once the reader of the pipe is gone, as in ``captum-scorecam explain … | head -1``."""

    def write(self, text: str, /) -> int:
        """Writes text, or discards it."""
        try:
            return super().write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered, or discards it."""
        try:
            super().flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self.fileno())


def make_streams_tolerant() -> None:
    """Replaces the streams of this process, unless they were redirected within it.

    Characters outside the encoding, as in undecodable file names, are written as escape sequences.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _tolerant(sys.stderr)


def _tolerant(stream: TextIO | None) -> TextIO:
    if stream is None:  # closed by the shell, as in ``>&-``
        return open(os.devnull, "w", encoding="utf-8")
    return TolerantStream(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=bool(stream.line_buffering)
    )
