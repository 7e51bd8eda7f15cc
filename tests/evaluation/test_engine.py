"""Masked inputs of methods and metrics run through the engine; the settings name it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_scorecam.evaluation import (
    MethodOptions,
    measure_forwards,
    plan,
    plan_evaluation,
    read_records,
    read_settings,
)
from captum_scorecam.evaluation.rows_per_forward import tuned_rows
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import OPTIONS, evaluate

ALL: dict[str, Any] = {"methods": ["score_cam", "rise", "grad_cam"], "metrics": ["average_drop", "insertion"]}


class Twin(nn.Module):
    """A copy of a model that counts the rows it runs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.copied, self.rows = copy.deepcopy(model), 0
        self.copied._forward_pre_hooks.clear()
        self.training = False

    def forward(self, x: Tensor) -> Any:
        self.rows += len(x)
        return self.copied(x)


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> list[Twin]:
    """The twins that evaluations make in place of exported models."""
    made: list[Twin] = []

    def twin_by_name(engine: str, model: nn.Module, _inputs: Tensor) -> nn.Module | None:
        if engine == "eager":
            return None
        made.append(Twin(model))
        return made[-1]

    monkeypatch.setattr(plan, "twin_by_name", twin_by_name)
    return made


def test_records_are_those_of_the_model(classifier: Classifier, tmp_path: Path, twins: list[Twin]) -> None:
    classifier.model.double()  # rounding in float32 reorders pixels whose values in the map are nearly equal
    rows_of_model = []
    classifier.model.register_forward_pre_hook(lambda _, taken: rows_of_model.append(len(taken[0])))
    runs = {}
    for engine in ("eager", "onnxruntime"):
        rows_of_model.clear()
        evaluate(classifier, Pictures(2), tmp_path / engine, **ALL, options=OPTIONS, engine=engine)
        runs[engine] = read_records(tmp_path / engine), sum(rows_of_model)
    assert read_settings(tmp_path / "onnxruntime").engine == "onnxruntime"
    assert read_settings(tmp_path / "eager").engine == "eager"
    for eager, other in zip(runs["eager"][0], runs["onnxruntime"][0], strict=True):
        assert other.values == pytest.approx(eager.values, rel=1e-6)
        assert other.chunk_rows["insertion"] == eager.chunk_rows["insertion"]
        assert replace(other, values={}, curves={}, chunk_rows={}) == replace(
            eager, values={}, curves={}, chunk_rows={}
        )
    (twin,) = twins
    assert twin.rows > 2 * 3 * 100  # RISE's masks, and the steps of three insertions for two images
    assert runs["onnxruntime"][1] < runs["eager"][1] - 0.9 * twin.rows  # of the model: the unmasked images, and noise


@pytest.mark.usefixtures("twins")
@pytest.mark.parametrize(
    "metric",
    [
        *("sanity_check", "adcc", "random_logit", "sensitivity_max", "mosaic_pointing_game"),
        pytest.param("quantus:MPRT:return_average_correlation=True", marks=pytest.mark.slow),
    ],
)
def test_metrics_that_explain_again_have_the_values_of_the_model(
    classifier: Classifier, tmp_path: Path, metric: str
) -> None:
    values = {}
    for engine in ("eager", "onnxruntime"):
        chosen: dict[str, Any] = {"methods": ["score_cam", "rise"], "metrics": [metric], "target": "label"}
        evaluate(classifier, Pictures(4), tmp_path / engine, **chosen, options=OPTIONS, engine=engine)
        records = read_records(tmp_path / engine)
        assert [record.error for record in records] == [None] * 8
        values[engine] = [list(record.values.values()) for record in records]
    assert values["onnxruntime"] == [pytest.approx(each, rel=1e-4) for each in values["eager"]]


def test_a_run_is_resumed_with_its_engine(classifier: Classifier, tmp_path: Path, twins: list[Twin]) -> None:
    quick: dict[str, Any] = {"methods": ["score_cam"], "metrics": ["average_drop"], "options": OPTIONS}
    evaluate(classifier, Pictures(1), tmp_path / "run", **quick, engine="openvino")
    with pytest.raises(ValueError, match='different settings: `engine`: "openvino" -> "eager"'):
        evaluate(classifier, Pictures(1), tmp_path / "run", **quick)
    evaluate(classifier, Pictures(1), tmp_path / "run", **quick, engine="openvino")
    assert len(twins) == 2


def test_rows_are_tuned_for_the_engine(classifier: Classifier, twins: list[Twin]) -> None:
    planned = plan_evaluation(classifier, Pictures(2), **ALL, options=MethodOptions(n_masks=20), engine="openvino")
    assert tuned_rows(planned.with_twin()) >= 1
    assert twins[0].rows > 8


def test_twins_use_the_number_of_threads_of_the_run(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def twin_by_name(_engine: str, model: nn.Module, _inputs: Tensor) -> nn.Module:
        threads.append(torch.get_num_threads())
        return Twin(model)

    monkeypatch.setattr(plan, "twin_by_name", twin_by_name)
    quick: dict[str, Any] = {"methods": ["grad_cam"], "metrics": ["average_drop"], "options": OPTIONS}
    evaluate(classifier, Pictures(1), tmp_path / "run", **quick, engine="openvino", threads=2)
    assert threads == [2]


def test_a_dry_run_needs_no_export(classifier: Classifier, twins: list[Twin]) -> None:
    planned = plan_evaluation(classifier, Pictures(1), **ALL, options=OPTIONS, engine="openvino")
    assert measure_forwards(planned)["rise"]["map"] >= 20
    assert twins == []


def test_an_unknown_engine_is_refused(classifier: Classifier) -> None:
    with pytest.raises(
        ValueError, match="Expected `engine` to be 'eager', 'compile', 'onnxruntime' or 'openvino', but"
    ):
        plan_evaluation(classifier, Pictures(1), engine="onnx")  # type: ignore[arg-type]
