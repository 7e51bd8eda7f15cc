"""Standard streams whose reader is gone, and what they can't encode."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

import pytest

from captum_scorecam.command_line.streams import TolerantStream, make_streams_tolerant


@pytest.mark.parametrize("text", ["one line\n", "x" * 1_000_000], ids=["buffered", "longer than the buffers"])
def test_text_for_a_closed_pipe_is_discarded(text: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with TolerantStream(os.fdopen(writing, "wb")) as stream:
        for _ in range(2):
            assert stream.write(text) == len(text)
            stream.flush()


def test_text_for_a_reader_arrives() -> None:
    reading, writing = os.pipe()
    with TolerantStream(os.fdopen(writing, "wb"), encoding="utf-8") as stream:
        stream.write("↑ 1\n")
    with open(reading, encoding="utf-8") as received:
        assert received.read() == "↑ 1\n"


def test_a_full_disk_is_still_an_error() -> None:
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as full:
        TolerantStream(full).write("x" * 1_000_000)


def test_characters_outside_the_encoding_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    latin = io.TextIOWrapper(raw, encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", latin)
    monkeypatch.setattr(sys, "__stdout__", latin)
    make_streams_tolerant()
    print("Grad-CAM ↑ \udcff.png", flush=True)
    assert raw.getvalue() == b"Grad-CAM \\u2191 \\udcff.png\n"


def test_a_closed_stream_is_replaced_and_a_redirected_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    redirected = io.StringIO()
    closed: TextIO | None = None
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "__stdout__", closed)
    monkeypatch.setattr(sys, "stderr", redirected)
    make_streams_tolerant()
    with sys.stdout:
        print("nobody reads this")
    assert sys.stderr is redirected
