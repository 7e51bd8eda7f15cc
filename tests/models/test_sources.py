"""Optional packages and downloads."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from torch import nn

from captum_scorecam.models.sources import downloaded, import_extra


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(
        ModuleNotFoundError, match=r'The file needs safetensors: pip install "captum-scorecam\[models\]"'
    ):
        import_extra("safetensors.torch", "models", "The file")


def test_what_a_package_lacks_is_not_blamed_on_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_another.py").write_text("import nowhere_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'nowhere_at_all'$"):
        import_extra("needs_another", "models", "The file")


def test_the_text_of_a_failed_download_is_one_line() -> None:
    def load() -> nn.Module:
        raise OSError("no network\nat all")

    with pytest.raises(OSError, match=r"Could not download the weights of it \(no network at all\)\. Set `weights`"):
        downloaded("it", load)


def test_attempts_to_connect_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    hub = logging.getLogger("huggingface_hub")
    of_requests = hub.getChild("utils._http")

    def load() -> nn.Module:
        of_requests.warning("Retrying in 1s [Retry 1/5].")
        of_requests.error("The disk is full.")
        return nn.Identity()

    hub.addHandler(caplog.handler)  # huggingface_hub lets nothing through to other handlers
    level = hub.level
    try:
        assert isinstance(downloaded("it", load), nn.Identity)
        of_requests.warning("afterwards")
    finally:
        hub.removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"The disk is full.", "afterwards"}
    assert hub.level == level
