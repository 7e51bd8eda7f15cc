"""A report without its charts, which take most of its time."""

from __future__ import annotations

from typing import Any

import pytest

from captum_scorecam.evaluation.report import page


@pytest.fixture
def no_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the charts out of reports."""

    def no_charts(*_: Any) -> list[Any]:
        return []

    monkeypatch.setattr(page, "make_charts", no_charts)
