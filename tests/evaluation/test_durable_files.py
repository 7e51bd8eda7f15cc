"""Atomic file writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from captum_scorecam.evaluation.durable_files import write_durably
from tests.support.systems import needs_posix


@pytest.mark.parametrize("folder", ["nowhere", "file"])
def test_an_error_names_the_file_and_not_the_temporary_one(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / folder / "out.png"
    with pytest.raises(OSError, match=r"No such file|Not a directory") as raised:
        write_durably(path, b"content")
    assert raised.value.filename == str(path)
    assert ".unfinished" not in str(raised.value)
    assert os.listdir(tmp_path) == ["file"]


@needs_posix
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    link, target = tmp_path / "report.html", tmp_path / "served" / "r.html"
    link.symlink_to(target)
    for content in (b"new", b"newer"):
        write_durably(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
