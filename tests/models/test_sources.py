"""Downloads."""

from __future__ import annotations

import logging

import pytest
from torch import nn

from captum_scorecam.models.sources import downloaded


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
