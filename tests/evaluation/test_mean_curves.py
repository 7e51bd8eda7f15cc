"""Metrics whose value is the best point of the mean curve: in summaries, in records read without curves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from captum_scorecam.evaluation import Curve, Metric, MetricResult, Record, read_records, register_metric, summarize
from captum_scorecam.evaluation.mean_curves import at_best_points, best_of_curves, best_points
from captum_scorecam.evaluation.record_files import rank_file
from captum_scorecam.evaluation.settings import write_configuration
from captum_scorecam.evaluation.typed_json import to_json
from tests.support.run_records import SETTINGS, failure, record

NAME = "max_box_acc"
OF_BOXES = replace(SETTINGS, metrics=(NAME,), images=4)
X = [0.0, 0.25, 0.5]


def accuracy(index: int, method: str, *hits: float) -> Record:
    return record(index, method, {NAME: None}, curves={NAME: Curve(X, hits)} if hits else {})


# grad_cam is best at 0.25, with 2 of 3 images; score_cam at 0, the first of equal ones, with 1 of 3.
RECORDS = [
    accuracy(0, "grad_cam", 1, 1, 0),
    accuracy(0, "score_cam", 0, 0, 1),
    accuracy(1, "grad_cam", 0, 1, 0),
    accuracy(1, "score_cam", 1, 0, 0),
    accuracy(2, "grad_cam", 0, 0, 1),
    accuracy(2, "score_cam", 0, 0, 0),
    accuracy(3, "grad_cam"),  # without a box
    failure(3, "score_cam"),
]
AT_BEST = {"grad_cam": [1, 1, 0, None], "score_cam": [0, 1, 0]}


def test_the_mean_is_that_of_the_threshold_best_for_the_method() -> None:
    summary = summarize(RECORDS, OF_BOXES)
    means = {method: summary.overall.means[method][NAME] for method in OF_BOXES.methods}
    assert means["grad_cam"].mean == pytest.approx(2 / 3)
    assert means["score_cam"].mean == pytest.approx(1 / 3)
    assert (means["grad_cam"].n, means["score_cam"].n) == (3, 3)
    difference = summary.overall.differences["grad_cam"][NAME]
    assert difference.mean == pytest.approx(1 / 3)  # of 1, 0, 0
    assert difference.n == 3


def test_leading_methods_are_compared_at_their_thresholds() -> None:
    many = [
        accuracy(index, method, float(method == "score_cam"), 0, float(index % 2))
        for index in range(12)
        for method in OF_BOXES.methods
    ]
    assert summarize(many, OF_BOXES).leading == {NAME: {"score_cam"}}


def write(run: Path, records: list[Record]) -> Path:
    (run / "records").mkdir()
    write_configuration(run, OF_BOXES, {})
    rank_file(run, "records", 0).write_text("".join(f"{to_json(one)}\n" for one in records))
    return run


def test_records_without_curves_have_the_values_at_the_threshold(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    for curves, expected in ((False, AT_BEST), (True, {"grad_cam": [None] * 4, "score_cam": [None] * 3})):
        found = read_records(tmp_path, curves=curves)
        assert {
            method: [r.values[NAME] for r in found if r.method == method and r.error is None] for method in AT_BEST
        } == expected
        assert any(r.curves for r in found) == curves
        assert summarize(found, OF_BOXES).overall == summarize(RECORDS, OF_BOXES).overall


def test_a_lower_metric_has_the_lowest_point_and_others_keep_their_values() -> None:
    register_metric(Metric("lowest", "Lowest", False, lambda _: MetricResult(None), best_of_curve=True))
    assert best_of_curves(["lowest", NAME, "insertion", "of a plugin"]) == {"lowest", NAME}
    one = record(0, "rise", {"lowest": None, "insertion": 0.5})
    curves = {"lowest": Curve(["a", "b"], [3.0, 2.0]), "insertion": Curve([0.0, 1.0], [0.0, 1.0])}
    one = replace(one, curves=curves)
    points = best_points([one], {"lowest"})
    assert points == {"lowest": {"rise": "b"}}
    assert at_best_points(one, points).values == {"lowest": 2.0, "insertion": 0.5}
    shorter = replace(one, curves={"lowest": Curve(["a"], [9.0])})
    assert at_best_points(shorter, points).values == one.values
