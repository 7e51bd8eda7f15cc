"""Which methods are found better or worse, and which lead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from captum_scorecam.evaluation.statistics import Difference
from captum_scorecam.evaluation.summary import summarize
from captum_scorecam.evaluation.verdicts import verdict
from tests.support.run_records import SETTINGS, record


def leading(values: Mapping[str, Iterable[float]]) -> set[str]:
    records = [
        record(index, method, {"average_drop": value})
        for method, of_method in values.items()
        for index, value in enumerate(of_method)
    ]
    settings = replace(SETTINGS, methods=tuple(values), metrics=("average_drop",))
    return summarize(records, settings).leading["average_drop"]


def difference(mean: float, p: float | None) -> Difference:
    return Difference(mean, mean - 0.5, mean + 0.5, 12, 0.8, p, p)


def test_a_difference_is_better_or_worse_by_the_direction_of_its_metric() -> None:
    up, down = difference(1.0, 0.05), difference(-1.0, 0.05)
    assert [verdict(each, "insertion") for each in (up, down)] == ["better", "worse"]
    assert [verdict(each, "deletion") for each in (up, down)] == ["worse", "better"]
    assert verdict(up, "metric_of_a_plugin") is None


def test_without_a_corrected_test_that_finds_it_no_difference_is_better() -> None:
    uncorrected = replace(difference(1.0, 0.01), corrected_p_value=0.06)  # its interval excludes 0
    assert [verdict(each, "insertion") for each in (uncorrected, difference(1.0, None))] == [None, None]


def test_the_leading_methods_are_those_that_no_test_finds_worse() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (3, 40))
    noise -= noise.mean(1, keepdims=True)
    values = {"a": 50 + noise[0], "b": 50.1 + noise[1], "c": 60 + noise[2]}  # lower is better
    assert leading(values) == leading({name: values[name] for name in "cba"}) == {"a", "b"}
    assert leading({"a": values["a"]}) == set()
    assert leading({"a": values["a"], "b": values["b"]}) == set()
    assert leading({name: of_method[:9] for name, of_method in values.items()}) == set()
