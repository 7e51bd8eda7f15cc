"""A run in this process: its numbers, its resumption, and what fails in it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from captum_scorecam.datasets import Mosaics, Sample
from captum_scorecam.evaluation import (
    MEASURES,
    METHODS,
    Measure,
    Measured,
    Method,
    MethodOptions,
    evaluate,
    read_records,
    register_measure,
    register_method,
    runner,
)
from captum_scorecam.evaluation.methods import run_method
from captum_scorecam.evaluation.metrics.metric import Case
from captum_scorecam.evaluation.records import rank_file
from captum_scorecam.evaluation.request import Question
from captum_scorecam.evaluation.summary import Summary
from captum_scorecam.models import Classifier, find_layer, load_classifier, seen_region
from tests.support import tiny_classifier
from tests.support.tiny_classifier import NAMES, Pictures

OPTIONS = MethodOptions(n_masks=20, seed=3, mask_iterations=3)
FIVE = ("average_drop", "average_increase", "insertion", "deletion", "mosaic_pointing_game")
QUICK: dict[str, Any] = {"methods": ["grad_cam", "score_cam"], "measures": ["average_drop"], "options": OPTIONS}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier("tests.support.tiny_classifier:tiny")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "LOCK_SECONDS", 0)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Takes what a test registers out again."""
    methods, measures = dict(METHODS), dict(MEASURES)
    yield
    for registry, before in ((METHODS, methods), (MEASURES, measures)):
        registry.clear()
        registry.update(before)


def contents(folder: Path, without: Sequence[str] = ("times",)) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    named = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return {name: content for name, content in named.items() if name.split("/")[0] not in without}


def test_the_numbers_are_those_of_methods_and_measures_called_directly(classifier: Classifier, tmp_path: Path) -> None:
    data, methods = Pictures(5), list(METHODS)
    measures = (*FIVE, "energy_pointing_game")
    evaluate(classifier, data, tmp_path, methods=methods, measures=measures, target="label", options=OPTIONS)
    records = read_records(tmp_path)
    assert [(r["index"], r["method"]) for r in records] == [(i, m) for i in range(5) for m in methods]
    for record in records:
        index = record["index"]
        sample = data[index]
        inputs = classifier.inputs(sample.image)
        probabilities = classifier.predict(inputs).probabilities
        expected = {"image": f"picture {index}", "target": index % 4, "target_name": NAMES[index % 4], "error": None}
        expected |= {"label": index % 4, "predicted": int(probabilities.argmax())}
        expected |= {"correct": index % 4 == int(probabilities.argmax())}
        assert {key: record[key] for key in expected} == expected
        assert record["probability"] == float(probabilities[index % 4])
        case = case_of(classifier, record["method"], sample, index % 4)
        mosaic = case_of(classifier, record["method"], Mosaics(data, OPTIONS.seed)[index], index % 4)
        for name in measures:
            measured = MEASURES[name].measure(mosaic if name == "mosaic_pointing_game" else case)
            assert record["values"][name] == measured.value
            assert (record["curves"].get(name) is None) == (measured.curve is None)
            if measured.curve is not None:
                assert record["curves"][name] == {"x": measured.curve.x, "y": measured.curve.y}
        assert (record["values"]["energy_pointing_game"] is None) == (index == 2)  # the picture without a box


def case_of(classifier: Classifier, method: str, sample: Sample, target: int) -> Case:
    inputs = classifier.inputs(sample.image)
    options = replace(OPTIONS, perturbations_per_eval=4)
    question = Question(classifier.model, find_layer(classifier.model, inputs), inputs, [target], options=options)
    region = None if sample.region is None else seen_region(sample.region, classifier.preprocess)
    return Case(method, question, run_method(method, question)[0].unsqueeze(1), region)


def test_a_second_run_is_the_same_to_the_byte(classifier: Classifier, tmp_path: Path) -> None:
    torch.manual_seed(1)
    for folder in ("first", "second"):
        evaluate(classifier, Pictures(4), tmp_path / folder, **QUICK)
        torch.rand(1)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_images_are_drawn_by_the_seed_and_keep_their_place_in_the_data(classifier: Classifier, tmp_path: Path) -> None:
    drawn = []
    for seed in (0, 1, 0):
        folder = tmp_path / f"{len(drawn)}"
        evaluate(classifier, Pictures(40), folder, methods=["grad_cam"], measures=["average_drop"], images=3,
                 options=MethodOptions(seed=seed))  # fmt: skip
        drawn.append([(record["index"], record["image"]) for record in read_records(folder)])
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(name == f"picture {index}" for index, name in drawn[0])
    assert drawn[0] == sorted(drawn[0])


def interrupted_after(records: int) -> Any:
    """An evaluate_image that is interrupted, as by Ctrl-C, when that many records are made."""
    made = iter(range(records))
    original = runner.evaluate_image

    def evaluate_image(*arguments: Any) -> Iterator[Any]:
        for outcome in original(*arguments):
            if next(made, None) is None:
                raise KeyboardInterrupt
            yield outcome

    return evaluate_image


@pytest.mark.parametrize("records", range(0, 6))
def test_an_interrupted_run_goes_on_where_it_stopped(
    records: int, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(classifier, Pictures(3), tmp_path / "undisturbed", **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(runner, "evaluate_image", interrupted_after(records))
        with pytest.raises(KeyboardInterrupt):
            evaluate(classifier, Pictures(3), tmp_path / "run", **QUICK)
    assert len(read_records(tmp_path / "run")) == records
    evaluate(classifier, Pictures(3), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


def test_nothing_is_done_twice(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    before = contents(tmp_path)
    monkeypatch.setattr(runner, "evaluate_image", lambda *_: pytest.fail("it was done"))
    seen: list[tuple[int, int]] = []
    summary = evaluate(classifier, Pictures(3), tmp_path, **QUICK, on_image=lambda *numbers: seen.append(numbers))
    assert isinstance(summary, Summary)
    assert (contents(tmp_path), seen) == (before, [])


@pytest.mark.parametrize("cut", [0, 1, -1, -2, 0.3, 0.6])
def test_a_torn_record_is_done_again(cut: float, classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    before = contents(tmp_path)
    path = rank_file(tmp_path, "records", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"methods": ["score_cam"]}, r'methods: \["grad_cam", "score_cam"\] -> \["score_cam"\]'),
        ({"measures": ["insertion"]}, r'measures: \["average_drop"\] -> \["insertion"\]'),
        ({"target": "label"}, 'target: "predicted" -> "label"'),
        ({"options": replace(OPTIONS, seed=4)}, "seed: 3 -> 4"),
        ({"options": replace(OPTIONS, perturbations_per_eval=8)}, "perturbations_per_eval: 4 -> 8"),
        ({"images": 2}, r"images: 3 -> 2; images_digest: \"\w+\" -> "),
        ({"gallery": 1}, "gallery: 100 -> 1"),
        ({"layer": "features.0"}, 'layer: "features" -> "features.0"'),
        ({"threads": 2}, "threads: 1 -> 2"),
        ({"provenance": {"data": "elsewhere"}}, 'data: null -> "elsewhere"'),
    ],
)
def test_another_configuration_is_refused_and_told(
    changed: dict[str, Any], told: str, classifier: Classifier, tmp_path: Path
) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK, images=None)
    before = contents(tmp_path, without=())
    with pytest.raises(ValueError, match=f"these differ: {told}"):
        evaluate(classifier, Pictures(3), tmp_path, **(QUICK | changed))
    assert contents(tmp_path, without=()) == before


def test_another_model_or_other_labels_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    changed = tiny_classifier.TinyClassifier().eval()
    changed.score.bias.data[0] += 1e-6
    with pytest.raises(ValueError, match="differ: weights_digest: "):
        evaluate(replace(classifier, model=changed), Pictures(3), tmp_path, **QUICK)
    with pytest.raises(ValueError, match="differ: images_digest: "):
        evaluate(classifier, Pictures(3, ["red", "red", "red"]), tmp_path, **QUICK)


def test_other_versions_are_warned_of(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    configuration = json.loads((tmp_path / "configuration.json").read_text())
    configuration["versions"]["torch"] = "1.0"
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    with pytest.warns(UserWarning, match=r'begun with others, .*: torch: "1\.0" -> "2'):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(classifier, Pictures(2), tmp_path, **QUICK, threads=2)
    used: list[int] = []
    monkeypatch.setattr(runner, "left_to_do", lambda *_: used.append(torch.get_num_threads()) or {})
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    assert (used, torch.get_num_threads()) == ([2], 1)


def test_a_folder_with_something_else_is_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match=r"holds 'thesis\.tex' and no configuration\.json"):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    assert contents(tmp_path) == {"thesis.tex": b"dear"}


def test_a_run_in_use_is_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    before = contents(tmp_path)
    with FileLock(tmp_path / "records" / "rank-000.lock"), pytest.raises(ValueError, match="is in use"):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    assert contents(tmp_path) == before


def test_an_output_below_a_file_is_told(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        evaluate(classifier, Pictures(1), tmp_path / "file" / "run", **QUICK)


class Broken(Pictures):
    """One picture can't be read, one has a label that is no class, one breaks the preprocessing."""

    def __getitem__(self, index: int) -> Sample:
        if index == 1:
            raise OSError("truncated")
        sample = super().__getitem__(index)
        return replace(sample, image=sample.image.convert("L")) if index == 3 else sample


def test_a_failed_image_is_a_record_and_the_rest_is_done(classifier: Classifier, tmp_path: Path) -> None:
    data = Broken(5, ["red", "green", "violet", "white", "red"])
    with pytest.warns(UserWarning, match="1 of 5 images have no label that is a class .* picture 2: .*'violet'"):
        summary = evaluate(classifier, data, tmp_path, **(QUICK | {"target": "label"}))
    assert summary is not None
    failed = {record["index"]: record for record in read_records(tmp_path) if record["error"]}
    assert failed.keys() == {1, 2, 3}
    assert failed[1] == {
        "image": "picture 1",
        "index": 1,
        "method": None,
        "error": {"type": "OSError", "message": "truncated", "stage": "image"},
    }
    assert (failed[2]["error"]["stage"], failed[2]["method"]) == ("label", None)
    assert (failed[3]["error"]["type"], failed[3]["error"]["stage"]) == ("RuntimeError", "image")
    assert len(summary.errors) == 3
    assert [record["index"] for record in read_records(tmp_path) if not record["error"]] == [0, 0, 4, 4]


def test_a_label_that_is_no_class_is_not_needed_for_the_predicted_class(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no label that is a class"):
        evaluate(classifier, Pictures(2, ["violet", None]), tmp_path, **QUICK)
    assert [(r["label"], r["correct"], r["error"]) for r in read_records(tmp_path)] == [(None, None, None)] * 4


def test_failures_are_done_again_if_asked(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(4), tmp_path / "undisturbed", **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluate(classifier, Broken(4), tmp_path / "run", **QUICK)
    before = contents(tmp_path / "run")
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == before
    summary = evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK, retry_errors=True)
    assert summary is not None
    assert summary.errors == ()
    assert read_records(tmp_path / "run") == read_records(tmp_path / "undisturbed")


def test_a_method_or_measure_that_raises_is_a_record(classifier: Classifier, tmp_path: Path) -> None:
    def raising(*_: Any) -> Any:
        raise RuntimeError(f"no map of {object()}")

    register_method("raising", Method(raising))
    register_method("infinite", Method(lambda q: (q.inputs[:, :1] / 0, run_method("grad_cam", q)[1])))
    register_measure(Measure("unmeasured", "Unmeasured", True, lambda _: Measured(float("nan"))))
    evaluate(classifier, Pictures(2), tmp_path / "a", **(QUICK | {"methods": ["raising", "infinite", "grad_cam"]}))
    found = [(r["method"], r["error"]) for r in read_records(tmp_path / "a")]
    raised = {"type": "RuntimeError", "message": "no map of <object object>", "stage": "method"}
    infinite = {"type": "ValueError", "message": "Expected a finite map, but got NaN or Inf.", "stage": "method"}
    assert found == [("raising", raised), ("infinite", infinite), ("grad_cam", None)] * 2
    evaluate(classifier, Pictures(2), tmp_path / "b", **(QUICK | {"measures": ["unmeasured", "average_drop"]}))
    message = "Expected finite numbers of unmeasured, but got NaN or Inf."
    unmeasured = {"type": "ValueError", "message": message, "stage": "measure"}
    assert [r["error"] for r in read_records(tmp_path / "b")] == [unmeasured] * 4


def test_a_gpu_that_is_lost_stops_the_run_after_the_record(classifier: Classifier, tmp_path: Path) -> None:
    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    register_method("lost", Method(lost))
    with pytest.raises(RuntimeError, match="The GPU failed on 'picture 0', which is recorded"):
        evaluate(classifier, Pictures(3), tmp_path, **(QUICK | {"methods": ["lost"]}))
    assert [record["index"] for record in read_records(tmp_path)] == [0]


def test_pictures_are_what_the_model_saw_and_the_map(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK, gallery=2)
    assert sorted(os.listdir(tmp_path / "gallery")) == [
        "000000-grad_cam.png", "000000-score_cam.png", "000000.png",
        "000001-grad_cam.png", "000001-score_cam.png", "000001.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "gallery" / "000001-score_cam.png") as picture:
        assert (picture.mode, picture.size, picture.getextrema()) == ("L", (21, 21), (0, 255))
        found = torch.from_numpy(np.array(picture))
    record = read_records(tmp_path)[3]
    maps = case_of(classifier, "score_cam", Pictures(3)[1], record["target"]).maps[0, 0]
    expected = (maps - maps.min()) / (maps.max() - maps.min()) * 255
    torch.testing.assert_close(found.float(), expected, atol=0.5001, rtol=0)


def test_a_disk_that_is_full_stops_the_run_and_loses_nothing(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(classifier, Pictures(4), tmp_path / "undisturbed", **QUICK)
    written = iter(range(3))
    original = runner.write_pictures

    def until_full(*arguments: Any) -> None:
        if next(written, None) is None:
            raise OSError(28, "No space left on device")
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(runner, "write_pictures", until_full)
        with pytest.raises(OSError, match=r"No space left on device\. What is finished in '.*' is kept"):
            evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert len(read_records(tmp_path / "run")) == 3
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == contents(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": ["magic"]}, "Expected `--method` to be one of"),
        ({"methods": []}, "at least one method"),
        ({"measures": ["magic"]}, "Expected `--metric` to be one of"),
        ({"measures": []}, "at least one method and one measure"),
        ({"target": "runner-up"}, "Expected `--target` to be predicted or label, but got 'runner-up'"),
        ({"images": 0}, "Expected `--images` to be at least 1, but got 0"),
        ({"layer": "nowhere"}, "Expected `--layer` to name a module"),
        ({"labels": {"violet": 9}, "target": "label"}, "but none is. The first: picture 0: .*'violet'"),
    ],
)
def test_what_does_not_fit_is_told_before_work(
    changed: dict[str, Any], message: str, classifier: Classifier, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Pictures(2, ["violet", "violet"]), tmp_path / "run", **(QUICK | changed))
    assert not (tmp_path / "run").exists()


class Unlabelled(Pictures):
    has_labels = has_boxes = False


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"target": "label"}, "Expected data with labels"),
        ({"measures": ["mosaic_pointing_game"]}, "Expected data with labels"),
        ({"measures": ["pointing_game"]}, "Expected data with boxes for pointing_game"),
    ],
)
def test_data_without_what_a_measure_needs_are_refused(
    changed: dict[str, Any], message: str, classifier: Classifier, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Unlabelled(2, [None, None]), tmp_path, **(QUICK | changed))


def test_data_without_images_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        evaluate(classifier, Pictures(0, []), tmp_path, **QUICK)


def test_workers_change_nothing(classifier: Classifier, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        for workers in (0, 2):
            evaluate(classifier, Broken(6), tmp_path / f"{workers}", **(QUICK | {"measures": FIVE}), workers=workers)
    assert contents(tmp_path / "0") == contents(tmp_path / "2")


def test_the_users_model_and_random_state_are_as_they_were(classifier: Classifier, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    state = torch.get_rng_state()
    methods, measures = list(METHODS), ["infidelity", "mosaic_pointing_game", "sanity_check"]
    evaluate(classifier, Pictures(4), tmp_path, methods=methods, measures=measures, options=OPTIONS, images=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert not any(module._forward_hooks for module in classifier.model.modules())
