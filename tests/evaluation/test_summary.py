"""The summary: means, intervals, paired differences, classes and errors."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from captum_scorecam.command_line.summary_table import print_summary
from captum_scorecam.evaluation.presentation import decimals, number_text, verdict
from captum_scorecam.evaluation.statistics import Estimate, estimates
from captum_scorecam.evaluation.summary import summarize, write_summary
from tests.support.evaluation_run import CLASSES, MEASURES, METHODS, make_records

ASKED = {"methods": ["grad_cam", "score_cam"], "measures": ["insertion", "average_drop"]}


def record(index: int, method: str, insertion: float | None, drop: float | None = 1.0, **more: Any) -> dict[str, Any]:
    described = {"target": 0, "target_name": "tench", "label": None, "correct": None, "error": None}
    values = {"insertion": insertion, "average_drop": drop}
    return {"image": f"{index}.png", "index": index, "method": method, "values": values, **described, **more}


def pairs(*values: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    """One image for each pair of insertions, of grad_cam and of score_cam."""
    return [
        record(index, method, value)
        for index, pair in enumerate(values)
        for method, value in zip(ASKED["methods"], pair, strict=True)
    ]


def test_means_and_paired_differences_are_those_computed_by_hand() -> None:
    summary = summarize(pairs((0.25, 0.5), (0.5, 1.0), (0.75, 0.75)), ASKED)
    means, differences = summary.overall.means, summary.overall.differences
    assert means["grad_cam"]["insertion"].mean == 0.5
    assert means["score_cam"]["insertion"].mean == 0.75
    assert differences["grad_cam"]["insertion"].mean == -0.25
    assert differences["grad_cam"]["average_drop"] == Estimate(0.0, 0.0, 0.0, 3)
    assert summary.reference == "score_cam"
    assert list(differences) == ["grad_cam"]


def test_a_null_leaves_its_image_out_of_n_and_of_the_pairs() -> None:
    summary = summarize(pairs((0.1, None), (0.2, 0.5), (None, 0.7), (0.6, 0.7)), ASKED)
    means = summary.overall.means
    assert (means["grad_cam"]["insertion"].mean, means["grad_cam"]["insertion"].n) == (0.3, 3)
    assert means["score_cam"]["insertion"].mean == pytest.approx(1.9 / 3)
    difference = summary.overall.differences["grad_cam"]["insertion"]
    assert (difference.mean, difference.n) == (pytest.approx(-0.2), 2)
    assert means["grad_cam"]["average_drop"].n == 4


def test_a_measure_without_a_value_has_no_mean_and_one_value_no_interval() -> None:
    means = summarize(pairs((None, 0.5)), ASKED).overall.means
    assert means["grad_cam"]["insertion"] == Estimate(None, None, None, 0)
    assert means["score_cam"]["insertion"] == Estimate(0.5, None, None, 1)


def test_the_reference_can_be_chosen_and_is_checked() -> None:
    summary = summarize(pairs((0.25, 0.5)), ASKED, "grad_cam")
    assert summary.overall.differences["score_cam"]["insertion"].mean == 0.25
    with pytest.raises(ValueError, match="`--reference` to be one of grad_cam, score_cam, but got 'rise'"):
        summarize(pairs((0.25, 0.5)), ASKED, "rise")


def test_without_score_cam_the_first_method_is_the_reference() -> None:
    asked = {"methods": ["rise", "mask"], "measures": ["insertion"]}
    assert summarize([record(0, "rise", 0.5), record(0, "mask", 0.5)], asked).reference == "rise"


def test_errors_are_counted_and_left_out_of_the_means() -> None:
    failure = {"type": "ValueError", "message": "text", "stage": "image"}
    failed = {"image": "bad.png", "index": 2, "method": None, "error": failure}
    of_method = {"image": "1.png", "index": 1, "method": "grad_cam", "error": {**failure, "stage": "method"}}
    summary = summarize([*pairs((0.25, 0.5)), of_method, record(1, "score_cam", 0.7), failed], ASKED)
    assert [error["image"] for error in summary.errors] == ["1.png", "bad.png"]
    assert summary.overall.images == 2
    assert summary.overall.means["grad_cam"]["insertion"].n == 1
    assert summary.overall.means["score_cam"]["insertion"].n == 2
    assert summary.overall.differences["grad_cam"]["insertion"].n == 1


def test_a_run_of_errors_only_has_no_means() -> None:
    failure = {"type": "ValueError", "message": "text", "stage": "image"}
    summary = summarize([{"image": "bad.png", "index": 0, "method": None, "error": failure}], ASKED)
    assert summary.overall.images == 0
    assert summary.overall.means["grad_cam"]["insertion"].n == 0
    assert (summary.classes, len(summary.errors)) == ((), 1)


def test_classes_are_the_labels_by_index_and_named_where_a_name_is_known() -> None:
    records = [
        record(0, "grad_cam", 0.1, label=7, target=2, target_name="ray"),
        record(1, "grad_cam", 0.3, label=2, target=2, target_name="ray"),
        record(2, "grad_cam", 0.5, label=2, target=0),
        record(3, "grad_cam", 0.9),
    ]
    summary = summarize(records, {"methods": ["grad_cam"], "measures": ["insertion"]})
    assert summary.grouped_by == "label"
    found = {group.name: (group.images, group.means["grad_cam"]["insertion"].mean) for group in summary.classes}
    assert found == {"ray (2)": (2, 0.4), "class 7": (1, 0.1)}
    assert summary.overall.images == 4


def test_without_labels_the_classes_are_the_targets() -> None:
    summary = summarize(pairs((0.25, 0.5)), ASKED)
    assert summary.grouped_by == "target"
    assert [group.name for group in summary.classes] == ["tench (0)"]


def test_intervals_are_the_same_each_time_and_do_not_touch_numpys_random_state() -> None:
    values = np.random.default_rng(1).normal(size=(40, 3))
    before = np.random.get_state()[1].tolist()
    assert estimates(values) == estimates(values.copy())
    assert np.random.get_state()[1].tolist() == before


def test_an_interval_is_scipys_percentile_bootstrap_to_its_own_noise() -> None:
    values = np.random.default_rng(2).gamma(2.0, size=60)
    reference = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3))
    (found,) = estimates(values[:, None])
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.05 * width)


def test_the_interval_of_many_normal_values_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(4).normal(5.0, 2.0, size=5000)  # needs more than one draw at once
    (found,) = estimates(values[:, None])
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * values.std() / math.sqrt(5000), rel=0.06)


def test_columns_with_gaps_have_the_estimates_of_what_they_hold() -> None:
    values = np.random.default_rng(5).normal(size=(30, 3))
    values[::4, 1] = np.nan
    without_gaps = values[~np.isnan(values[:, 1]), 1]
    assert estimates(values)[1] == estimates(without_gaps[:, None])[0]
    assert estimates(values)[2] == estimates(values[:, 2:])[0]


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert estimates(np.full((9, 1), 0.5)) == [Estimate(0.5, 0.5, 0.5, 9)]


def test_the_files_hold_the_same_numbers_and_no_times(tmp_path: Path) -> None:
    summary = summarize(make_records(), {"methods": METHODS, "measures": MEASURES})
    write_summary(summary, tmp_path)
    plain = json.loads((tmp_path / "summary.json").read_text())
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert plain["errors"] == 2
    assert len(rows) == (1 + len(CLASSES)) * len(METHODS) * len(MEASURES)
    row = next(row for row in rows if (row["class"], row["method"], row["measure"]) == ("all", "rise", "insertion"))
    mean = plain["all"]["means"]["rise"]["insertion"]
    assert [float(row[key]) for key in ("mean", "low", "high", "n")] == [mean[k] for k in ("mean", "low", "high", "n")]
    difference = plain["all"]["differences"]["rise"]["insertion"]
    assert (row["reference"], float(row["difference"]), int(row["pairs"])) == ("score_cam", difference["mean"], 11)
    assert "second" not in (tmp_path / "summary.json").read_text() + (tmp_path / "summary.csv").read_text()


def test_a_rerun_writes_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        write_summary(summarize(make_records(), {"methods": METHODS, "measures": MEASURES}), tmp_path)
        written.append([(tmp_path / name).read_bytes() for name in ("summary.json", "summary.csv")])
    assert written[0] == written[1]


def test_a_difference_is_better_or_worse_by_the_direction_of_its_measure() -> None:
    up, down, unclear = Estimate(1.0, 0.5, 1.5, 9), Estimate(-1.0, -1.5, -0.5, 9), Estimate(1.0, -0.1, 2.0, 9)
    assert [verdict(estimate, "insertion") for estimate in (up, down, unclear)] == ["better", "worse", None]
    assert [verdict(estimate, "deletion") for estimate in (up, down, unclear)] == ["worse", "better", None]
    assert verdict(up, "measure_of_a_plugin") is None
    assert verdict(Estimate(1.0, None, None, 1), "insertion") is None


@pytest.mark.parametrize(("largest", "places"), [(100.0, 1), (13.4, 1), (9.9, 2), (0.612, 3), (0.0123, 4), (0.0, 1)])
def test_numbers_are_shown_with_three_digits_of_the_largest(largest: float, places: int) -> None:
    assert decimals([0.0, None, -largest]) == places


def test_numbers_have_a_true_minus_and_a_dash_where_there_is_none() -> None:
    assert [number_text(value, 1) for value in (-1.26, 0.0, None)] == ["−1.3", "0.0", "–"]
    assert number_text(1.26, 1, signed=True) == "+1.3"


def test_the_terminal_shows_means_differences_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    values = [(0.2, 0.5), (0.21, 0.52), (0.19, 0.48), (0.2, 0.51)]
    failure = {"image": "bad.png", "index": 9, "method": None, "error": {"type": "E", "message": "m", "stage": "image"}}
    print_summary(summarize([*pairs(*values), failure], ASKED))
    printed = capsys.readouterr().out
    means, differences = printed.split("Differences to Score-CAM")
    assert "images: 4" in means
    assert "Insertion, AUC ↑" in means
    assert "0.200" in means
    assert "0.502" in means
    assert "−0.302*" in differences
    assert "Failed: 1." in printed
