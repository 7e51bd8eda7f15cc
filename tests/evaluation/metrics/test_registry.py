"""The registry of metrics."""

from __future__ import annotations

import re
from typing import Any

import pytest

from captum_scorecam.evaluation import METRICS, Metric, MetricInput, MetricResult, metric_choice, register_metric
from captum_scorecam.evaluation.metric_choice import chosen_metrics


def test_names_of_metrics_are_checked_and_kept_once() -> None:
    assert tuple(chosen_metrics(["deletion", "insertion", "deletion"])) == ("deletion", "insertion")
    message = (
        r"Expected each of `metrics` to be one of average_drop, .*, sanity_check, quantus:CLASS, but got 'accuracy'\."
    )
    with pytest.raises(ValueError, match=message):
        chosen_metrics(["accuracy"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Quantus:Focus", "quantus:CLASS, but got 'Quantus'. Closest matches: quantus:Focus."),
        ("quantum:X", "but got 'quantum'. Closest matches: quantus:CLASS."),
        ("IROF:x", "but got 'IROF'. Closest matches: quantus:IROF."),
        ("sparsness", "but got 'sparsness'. Closest matches: sparseness, quantus:Sparseness."),
        ("quantus:Focuss:x", "to name a metric of Quantus, but got 'Focuss'. Closest matches: Focus."),
        ("quantus:AUC:abs=true,abs=false", "option of quantus:AUC once, but got abs twice in 'abs=true,abs=false'."),
        ("map=quantus:Sparseness", "for a metric that records do not use for the map itself, but got 'map'."),
        ("my-focus=quantus:Focus", "name of a metric to be letters, digits and underscores, but got 'my-focus'."),
    ],
)
def test_a_text_that_names_no_metric_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}$"):
        chosen_metrics([text])


def test_without_quantus_near_misses_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(metric_choice, "quantus_classes", missing)
    with pytest.raises(ValueError, match=r"but got 'sparsness'\. Closest matches: sparseness\.$"):
        chosen_metrics(["sparsness"])


def nothing(_: MetricInput) -> MetricResult:
    return MetricResult(0)


UNKNOWN: Any = "video"
UNKNOWN_NEED: Any = frozenset({"sound"})
ONE_LABEL: Any = ("x",)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric("a b", "", True, nothing), "name of a metric to be letters, digits and underscores, but got 'a b'"),
        (Metric("map", "", True, nothing), "for a metric that records do not use for the map itself, but got 'map'"),
        (Metric("insertion", "", True, nothing), "Expected a new name for a metric, but 'insertion' is taken"),
        (
            Metric("x", "", True, nothing, axes=ONE_LABEL),
            r"Expected `axes` to be two labels, of x and y, but got \('x',\)",
        ),
        (Metric("x", "", True, nothing, on=UNKNOWN), "Expected `on` to be 'image' or 'mosaic', but got 'video'"),
        (
            Metric("x", "", True, nothing, needs=UNKNOWN_NEED),
            r"'boxes', 'classes', but got \['sound'\]",
        ),
    ],
)
def test_a_metric_that_does_not_fit_is_not_registered(metric: Metric, message: str) -> None:
    before = dict(METRICS)
    with pytest.raises(ValueError, match=message):
        register_metric(metric)
    assert before == METRICS


def test_registering_a_metric_twice_changes_nothing() -> None:
    metric = Metric("answer", "The answer", True, lambda _: MetricResult(42))
    register_metric(metric)
    register_metric(metric)
    assert tuple(chosen_metrics(["answer"])) == ("answer",)
    assert METRICS["answer"] is metric


@pytest.mark.parametrize("text", ["average_drop:keep=1", "d=average_drop", "average_drop:"])
def test_own_metrics_take_no_options_and_no_other_name(text: str) -> None:
    message = (
        f"Expected average_drop without options or a name of its own, as metrics of Quantus take, but got '{text}'."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        chosen_metrics([text])
