"""The tables of a summary on the terminal."""

from __future__ import annotations

import re

import pytest

from captum_scorecam.command_line.summary_table import print_summary
from captum_scorecam.evaluation import Failure, summarize
from tests.support.run_records import SETTINGS, failure, record


def test_the_terminal_shows_means_differences_and_failures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    insertions = [(0.2, 0.5), (0.21, 0.52), (0.19, 0.48), (0.2, 0.51)] * 3
    records = [
        record(index, method, {"insertion": value, "average_drop": 1.0})
        for index, pair in enumerate(insertions)
        for method, value in zip(SETTINGS.methods, pair, strict=True)
    ]
    summary = summarize([*records, failure(12)], SETTINGS)
    print_summary(summary)
    printed = capsys.readouterr().out
    means, differences = printed.split("Differences from Score-CAM")
    assert "Means over 12 images" in means
    assert "bold" not in means  # which a file has not
    assert "Insertion, AUC ↑" in means
    assert "0.200" in means
    assert "0.502" in means
    assert differences.startswith(" on the same images; d in standard deviations, p of a paired test, Holm-corrected")
    assert "for 2 comparisons; * p ≤ 0.05" in differences
    assert "−0.302*" in differences
    assert "p < 0.001" in differences
    assert printed.endswith("Failed: 1\n  12.png: text\nTo try again, run the same command with --retry-errors.\n")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_summary(summary)
    means, differences = capsys.readouterr().out.split("Differences from Score-CAM")
    assert "; in bold the best, and those that no test finds worse\n" in means
    assert summary.leading == {"insertion": {"score_cam"}, "average_drop": set()}
    assert re.findall(r"\x1b\[1m([\d.]+)\x1b", means) == ["0.502"]
    assert re.findall(r"\x1b\[1m([\d.]+)\x1b", differences) == []


def test_fewer_than_ten_images_are_compared_without_a_test(capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        record(index, method, {"insertion": value + index / 100, "average_drop": 1.0})
        for index in range(9)
        for method, value in zip(SETTINGS.methods, (0.2, 0.5), strict=True)
    ]
    print_summary(summarize(records, SETTINGS))
    means, differences = capsys.readouterr().out.split("Differences from Score-CAM")
    assert "bold" not in means
    assert differences.startswith(" on the same images; not tested, which takes 10 images\n")
    assert "−0.300" in differences
    assert "*" not in differences
    assert "p " not in differences.split("\n", 1)[1]


def test_a_few_failures_are_named_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [failure(index, "grad_cam" if index == 5 else None, f"reason {index}\x1b[2J") for index in range(4, 12)]
    print_summary(summarize([record(0, "grad_cam", {"insertion": 0.5, "average_drop": 1.0}), *failures], SETTINGS))
    assert capsys.readouterr().out.splitlines()[-8:] == [
        "Failed: 8",
        "  4.png: reason 4?[2J",
        "  5.png, Grad-CAM: reason 5?[2J",
        *(f"  {index}.png: reason {index}?[2J" for index in (6, 7, 8)),
        "  and 3 more; `captum-scorecam report --format csv` lists all",
        "To try again, run the same command with --retry-errors.",
    ]


def test_a_failed_metric_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {"insertion": "reason", "average_drop": ""}
    failed = {metric: Failure("ValueError", reason, "metric") for metric, reason in reasons.items()}
    one = record(0, "grad_cam", dict.fromkeys(reasons), failed_metrics=failed)
    print_summary(summarize([one], SETTINGS))
    assert capsys.readouterr().out.splitlines()[-4:-1] == [
        "Failed: 2",
        "  0.png, Grad-CAM, Insertion: reason",
        "  0.png, Grad-CAM, Average drop: ValueError",
    ]


def test_if_everything_failed_the_first_reason_is_printed_and_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary(summarize([failure(index, message=f"reason {index}") for index in range(3)], SETTINGS))
    assert capsys.readouterr().out == (
        "All images failed. The first: 0.png: reason 0\nTo try again, run the same command with --retry-errors.\n"
    )
