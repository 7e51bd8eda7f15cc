"""The progress of an evaluation."""

from __future__ import annotations

import pytest

from captum_scorecam.command_line import progress


def test_a_log_has_one_line_per_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 30.0, 61.0, 90.0, 125.0])
    monkeypatch.setattr("captum_scorecam.command_line.progress.time.monotonic", lambda: next(now))
    with progress.shown_progress(True) as on_image:
        assert on_image is not None
        for finished in (5, 10, 15, 25):
            on_image(finished, 100)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 100 images, 0.164 images/s, 0:09:09 left",
        "25 of 100 images, 0.2 images/s, 0:06:15 left",
    ]


def test_nothing_to_do_is_said_once_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown_progress(True):
        pass
    with progress.shown_progress(False):
        pass
    with pytest.raises(ValueError, match=r"^stopped$"), progress.shown_progress(True):
        raise ValueError("stopped")
    assert capsys.readouterr().err == "All images are already evaluated.\n"
