"""The summary: means, intervals, paired differences, classes and errors."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captum_scorecam.evaluation import Cost, Record, RunSettings, summarize
from captum_scorecam.evaluation.presentation import budget_texts
from captum_scorecam.evaluation.statistics import Difference, Estimate
from captum_scorecam.evaluation.summary import class_names, write_summary
from tests.support.evaluation_run import CLASSES, METHODS, METRICS, make_records
from tests.support.run_records import SETTINGS, failure, record


def result(index: int, method: str, insertion: float | None, drop: float | None = 1.0, **more: Any) -> Record:
    return record(index, method, {"insertion": insertion, "average_drop": drop}, **more)


def pairs(*values: tuple[float | None, float | None]) -> list[Record]:
    """One image for each pair of insertions, of grad_cam and of score_cam."""
    return [
        result(index, method, value)
        for index, pair in enumerate(values)
        for method, value in zip(SETTINGS.methods, pair, strict=True)
    ]


def settings(methods: list[str], metrics: list[str]) -> RunSettings:
    return replace(SETTINGS, methods=tuple(methods), metrics=tuple(metrics))


def test_means_and_paired_differences_are_those_computed_by_hand() -> None:
    summary = summarize(pairs((0.25, 0.5), (0.5, 1.0), (0.75, 0.75)), SETTINGS)
    means, differences = summary.overall.means, summary.overall.differences
    assert means["grad_cam"]["insertion"].mean == 0.5
    assert means["score_cam"]["insertion"].mean == 0.75
    assert differences["grad_cam"]["insertion"].mean == -0.25
    assert differences["grad_cam"]["average_drop"] == Difference(0.0, None, None, 3)
    assert summary.reference == "score_cam"
    assert list(differences) == ["grad_cam"]


def test_a_null_leaves_its_image_out_of_n_and_of_the_pairs() -> None:
    summary = summarize(pairs((0.1, None), (0.2, 0.5), (None, 0.7), (0.6, 0.7)), SETTINGS)
    means = summary.overall.means
    assert (means["grad_cam"]["insertion"].mean, means["grad_cam"]["insertion"].n) == (0.3, 3)
    assert means["score_cam"]["insertion"].mean == pytest.approx(1.9 / 3)
    difference = summary.overall.differences["grad_cam"]["insertion"]
    assert difference.mean == pytest.approx(-0.2)
    assert difference.n == 2
    assert means["grad_cam"]["average_drop"].n == 4


def test_a_metric_without_a_value_has_no_mean_and_one_value_no_interval() -> None:
    means = summarize(pairs((None, 0.5)), SETTINGS).overall.means
    assert means["grad_cam"]["insertion"] == Estimate(None, None, None, 0)
    assert means["score_cam"]["insertion"] == Estimate(0.5, None, None, 1)


def test_the_reference_can_be_chosen_and_is_checked() -> None:
    summary = summarize(pairs((0.25, 0.5)), SETTINGS, "grad_cam")
    assert summary.overall.differences["score_cam"]["insertion"].mean == 0.25
    with pytest.raises(ValueError, match="Expected `reference` to be one of grad_cam, score_cam, but got 'rise'"):
        summarize(pairs((0.25, 0.5)), SETTINGS, "rise")


def test_without_score_cam_the_first_method_is_the_reference() -> None:
    found = summarize([result(0, "rise", 0.5), result(0, "mask", 0.5)], settings(["rise", "mask"], ["insertion"]))
    assert found.reference == "rise"


def test_errors_are_counted_and_left_out_of_the_means() -> None:
    failures = [failure(1, "grad_cam"), failure(2)]
    summary = summarize([*pairs((0.25, 0.5)), failures[0], result(1, "score_cam", 0.7), failures[1]], SETTINGS)
    assert summary.errors == tuple(failures)
    assert summary.overall.images == 2
    assert summary.overall.means["grad_cam"]["insertion"].n == 1
    assert summary.overall.means["score_cam"]["insertion"].n == 2
    assert summary.overall.differences["grad_cam"]["insertion"].n == 1


def test_a_run_of_errors_only_has_no_means() -> None:
    summary = summarize([failure(0)], SETTINGS)
    assert summary.overall.images == 0
    assert summary.overall.means["grad_cam"]["insertion"].n == 0
    assert (summary.classes, len(summary.errors)) == ((), 1)


def test_classes_are_the_labels_by_index_and_named_where_a_name_is_known() -> None:
    records = [
        result(0, "grad_cam", 0.1, label=7, target=2, target_name="ray"),
        result(1, "grad_cam", 0.3, label=2, target=2, target_name="ray"),
        result(2, "grad_cam", 0.5, label=2, target=0),
        result(3, "grad_cam", 0.9),
    ]
    summary = summarize(records, settings(["grad_cam"], ["insertion"]))
    assert summary.grouped_by == "label"
    found = {group.name: (group.images, group.means["grad_cam"]["insertion"].mean) for group in summary.classes}
    assert found == {"ray (2)": (2, 0.4), "class 7": (1, 0.1)}
    assert list(found) == ["ray (2)", "class 7"]
    assert summary.overall.images == 4


def test_without_labels_the_classes_are_the_targets() -> None:
    summary = summarize(pairs((0.25, 0.5)), SETTINGS)
    assert summary.grouped_by == "target"
    assert [group.name for group in summary.classes] == ["tench (0)"]


def test_the_files_hold_the_same_numbers_and_no_times(tmp_path: Path) -> None:
    summary = summarize(make_records(), settings(METHODS, METRICS))
    write_summary(summary, tmp_path)
    plain = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    with (tmp_path / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert plain["errors"] == 2
    assert len(rows) == (1 + len(CLASSES)) * len(METHODS) * len(METRICS)
    row = next(row for row in rows if (row["class"], row["method"], row["metric"]) == ("all", "rise", "insertion"))
    mean = plain["all"]["means"]["rise"]["insertion"]
    assert [float(row[key]) for key in ("mean", "low", "high", "n")] == [mean[k] for k in ("mean", "low", "high", "n")]
    difference = plain["all"]["differences"]["rise"]["insertion"]
    assert (row["reference"], float(row["difference"]), int(row["pairs"])) == ("score_cam", difference["mean"], 11)
    names = ("effect_size", "p_value", "corrected_p_value")
    assert [float(row[key]) for key in names] == [difference[key] for key in names]
    assert plain["test"] == {
        "fewest_pairs": 10,
        "most_exact_pairs": 30,
        "most_flipped_pairs": 1000,
        "flips_per_comparison": 1000,
        "seed": 0,
        "correction": "holm",
        "comparisons": 8,  # of 2 methods and 6 metrics; two of these have fewer than 10 pairs
    }
    for name in ("summary.json", "summary.csv"):
        assert "second" not in (tmp_path / name).read_text(encoding="utf-8")


def test_intervals_of_means_end_at_the_bounds_of_their_metric_and_those_of_differences_do_not() -> None:
    summary = summarize(pairs(*[(0.0, 0.5)] * 8, (1.0, 0.5)), SETTINGS)
    mean = summary.overall.means["grad_cam"]["insertion"]
    difference = summary.overall.differences["grad_cam"]["insertion"]
    assert mean.low == 0
    assert difference.low is not None
    assert difference.low < -0.5


def test_intervals_of_outputs_have_no_bounds() -> None:
    summary = summarize(pairs((9.0, 9.5), (10.0, 9.5), (11.0, 9.5)), replace(SETTINGS, score="output"))
    mean = summary.overall.means["grad_cam"]["insertion"]
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < 10 < mean.high


def test_only_differences_over_all_images_are_tested() -> None:
    summary = summarize(pairs(*[(0.1 * number, 0.5) for number in range(12)]), SETTINGS)
    assert summary.overall.differences["grad_cam"]["insertion"].p_value is not None
    assert summary.classes[0].differences["grad_cam"]["insertion"].p_value is None
    assert summary.classes[0].differences["grad_cam"]["insertion"].effect_size is not None
    assert summary.tests == 2


def test_costs_are_means_and_largest_values_of_what_the_records_say(tmp_path: Path) -> None:
    of_score_cam = [(40, 0.25), (57, 0.5), (50, None)]
    records = [
        result(index, "score_cam", 0.5, forwards=forwards, map_error=error)
        for index, (forwards, error) in enumerate(of_score_cam)
    ]
    summary = summarize([*records, result(0, "grad_cam", 0.5)], replace(SETTINGS, max_forwards=57))
    assert summary.costs == {"grad_cam": Cost(1.0, 1, None, None), "score_cam": Cost(49.0, 57, 0.375, 0.5, 1)}
    assert budget_texts(summary) == [
        "Score-CAM ran 49.0 masks per image on average, at most 57. The largest standard error of a map is 38% of its "
        "maximum on average, at most 50%. It is unknown for 1 other map, which is zero."
    ]
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["costs"]["score_cam"] == {
        "forwards": 49.0,
        "most_forwards": 57,
        "map_error": 0.375,
        "largest_map_error": 0.5,
        "unknown_map_errors": 1,
    }


def test_a_rerun_writes_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        write_summary(summarize(make_records(), settings(METHODS, METRICS)), tmp_path)
        written.append([(tmp_path / name).read_bytes() for name in ("summary.json", "summary.csv")])
    assert written[0] == written[1]


@pytest.mark.parametrize("beginning", [*"=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", "  =", "\r\n="])
def test_a_class_that_a_spreadsheet_would_run_becomes_text(beginning: str, tmp_path: Path) -> None:
    names = {0: f"{beginning}cmd|' /C calc'!A0", 1: "a = b\r-1", 2: "\udcff"}
    records = [
        result(index, method, value, target=index, predicted=index, target_name=name)
        for index, name in names.items()
        for method, value in (("grad_cam", 0.25), ("score_cam", 0.5))
    ]
    write_summary(summarize(records, SETTINGS), tmp_path)
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cell = f"'{names[0]} (0)".replace("\r", " ").replace("\n", " ")
    assert [*dict.fromkeys(row["class"] for row in rows)] == ["all", cell, "a = b -1 (1)", "? (2)"]
    assert rows[0]["difference"] == "-0.25"  # numbers stay numbers
    classes = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["classes"]
    assert [*classes] == [f"{names[0]} (0)", "a = b\r-1 (1)", "\udcff (2)"]


def test_a_method_that_is_better_on_the_images_of_both_is_not_found_worse() -> None:
    """Grad-CAM has the better mean only because it failed on the images that are hard."""
    easy = [(0.6 + 0.01 * number, 0.7 + 0.011 * number) for number in range(20)]
    hard = [result(index, "score_cam", 0.1) for index in range(20, 60)]
    records = [*pairs(*easy), *hard]
    assert summarize(records, SETTINGS).overall.differences["grad_cam"]["insertion"].mean == pytest.approx(-0.1095)
    means = summarize(records, SETTINGS).overall.means
    assert means["grad_cam"]["insertion"].mean == pytest.approx(0.695)
    assert means["score_cam"]["insertion"].mean == pytest.approx((20 * 0.8045 + 40 * 0.1) / 60)
    assert summarize(records, SETTINGS).leading["insertion"] == set()
    assert summarize(pairs(*easy), SETTINGS).leading["insertion"] == {"score_cam"}


def test_a_label_that_is_never_predicted_keeps_its_name() -> None:
    records = [record(0, "grad_cam", {}, label=3, label_name="goldfish"), record(1, "grad_cam", {}, label=0)]
    assert class_names(records) == {0: "tench", 3: "goldfish"}
