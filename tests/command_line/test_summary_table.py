"""The tables of a summary on the terminal."""

from __future__ import annotations

import pytest

from captum_scorecam.command_line.summary_table import print_summary
from captum_scorecam.evaluation import summarize
from tests.support.run_records import SETTINGS, failure, record


def test_the_terminal_shows_means_differences_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    insertions = [(0.2, 0.5), (0.21, 0.52), (0.19, 0.48), (0.2, 0.51)]
    records = [
        record(index, method, {"insertion": value, "average_drop": 1.0})
        for index, pair in enumerate(insertions)
        for method, value in zip(SETTINGS.methods, pair, strict=True)
    ]
    print_summary(summarize([*records, failure(9)], SETTINGS))
    printed = capsys.readouterr().out
    means, differences = printed.split("Differences from Score-CAM")
    assert "Means over 4 images" in means
    assert "Insertion, AUC ↑" in means
    assert "0.200" in means
    assert "0.502" in means
    assert "−0.302*" in differences
    assert "Failed: 1." in printed
