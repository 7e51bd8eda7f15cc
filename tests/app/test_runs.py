"""A run: the maps of the library, a first one before the exact one, progress, and an end that can come early."""

from __future__ import annotations

import threading
import time
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from captum.attr import LayerAttribution
from torch import Tensor, nn

from captum_scorecam import ScoreCAM
from captum_scorecam.app import runs
from captum_scorecam.app.loaded_models import Prepared
from captum_scorecam.app.runs import OPTIONS, Choices, Column, Run
from captum_scorecam.evaluation import ExplanationRequest, MethodRun, run_method
from captum_scorecam.evaluation.presentation import error_text
from captum_scorecam.evaluation.shared_scores import score_cam_of
from captum_scorecam.models import Classifier, find_layer
from tests.support.tiny_classifier import TinyClassifier, picture, preprocess

CLASSIFIER = Classifier("tiny", TinyClassifier().eval(), preprocess)
INPUTS = CLASSIFIER.inputs(picture(0)[0])
LAYER = find_layer(CLASSIFIER.model, INPUTS, "features")
CHOICES = Choices((2, 0), ("features",), ("score_cam", "grad_cam", "rise"), max_forwards=3)


def run_of(choices: Choices = CHOICES, classifier: Classifier = CLASSIFIER, lock: Any = None) -> Run:
    prediction = classifier.predict(INPUTS)
    layer = LAYER.of_copy(classifier.model)
    return Run(classifier, Prepared([layer]), INPUTS, prediction, choices, lock or threading.Lock())


def ended(run: Run) -> tuple[Column, ...]:
    for _ in run.updates():
        pass
    assert run.failure == ""
    return run.columns


def assert_same(maps: Tensor | None, expected: Tensor) -> None:
    assert maps is not None
    torch.testing.assert_close(maps, expected)


def test_the_maps_are_those_of_the_library() -> None:
    columns = ended(run_of())
    assert [(column.method, column.layer) for column in columns] == [
        ("score_cam", "features"),
        ("grad_cam", "features"),
        ("rise", ""),
    ]
    for column in columns:
        request = ExplanationRequest(CLASSIFIER.model, LAYER, INPUTS, [2, 0], "probability", OPTIONS)
        assert_same(column.maps, run_method(column.method, request)[0])
    assert columns[0].captions == (columns[0].captions[0],) * 2
    assert columns[0].captions[0].startswith("exact · 4 of 4 masks · ")
    assert columns[1].captions[0].startswith("1 forward · ")
    assert columns[2].captions[0].startswith("1000 forwards · ")
    assert [column.scores is None for column in columns] == [False, True, True]


def test_a_first_map_with_its_error_comes_before_the_exact_one() -> None:
    run = run_of(Choices((2, 0), ("features",), ("score_cam",), max_forwards=3))
    seen: list[Column] = []
    release = threading.Event()
    complete = run._complete
    run._complete = lambda number: (release.wait(10), complete(number))[1]  # type: ignore[method-assign]
    for _ in run.updates():
        if run.columns[0].maps is not None and not seen:
            seen.append(run.columns[0])
            release.set()
    (first,), exact = seen, run.columns[0]
    score_cam = ScoreCAM(CLASSIFIER.model, LAYER.module, max_forwards=3)
    maps = score_cam.attribute_targets(INPUTS, [2, 0])
    assert isinstance(maps, Tensor)
    assert_same(first.maps, LayerAttribution.interpolate(maps, INPUTS.shape[2:], "bilinear")[0])
    assert score_cam.last_run is not None
    for caption, error in zip(first.captions, score_cam.last_run.errors, strict=True):
        assert caption.startswith(f"{error_text(error)} · 3 of 4 masks · ")
    assert exact.captions[0].startswith("exact · 4 of 4 masks")


def test_without_the_exact_map_the_first_one_stays() -> None:
    columns = ended(run_of(Choices((2,), ("features",), ("score_cam",), max_forwards=3, exact=False)))
    assert " · 3 of 4 masks · " in columns[0].captions[0]


def test_a_first_map_that_is_exact_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    score_cam = Mock(wraps=score_cam_of)
    monkeypatch.setattr(runs, "score_cam_of", score_cam)
    columns = ended(run_of(Choices((2,), ("features",), ("score_cam",), max_forwards=8)))
    assert columns[0].captions[0].startswith("exact · 4 of 4 masks")
    score_cam.assert_called_once()


def test_progress_counts_forwards() -> None:
    run = run_of(Choices((2,), (), ("rise",)))
    reports = [progress for progress in run.updates(seconds=0) if progress.total]
    assert {progress.text for progress in reports} == {"RISE: 1000 forwards"}
    assert {progress.total for progress in reports} == {1000}
    assert [progress.done for progress in reports] == sorted(progress.done for progress in reports)
    assert reports[-1].done > 0


class Slow(TinyClassifier):
    """Takes a while, and counts its forward passes."""

    n_forwards = 0

    def forward(self, inputs: Tensor) -> Tensor:
        time.sleep(0.01)
        self.n_forwards += 1
        return super().forward(inputs)


def test_a_run_that_is_closed_stops_and_leaves_the_model_as_it_was() -> None:
    model = Slow().eval()
    lock = threading.Lock()
    run = run_of(Choices((2,), (), ("mask",)), Classifier("slow", model, preprocess), lock)
    updates = run.updates()
    while next(updates).done < 2:
        pass
    updates.close()
    with lock:  # which the run holds until it has ended
        n_forwards = model.n_forwards
    assert n_forwards < OPTIONS.mask_iterations
    time.sleep(0.05)
    assert model.n_forwards == n_forwards
    assert run.failure == "Cancelled."
    assert not model._forward_pre_hooks
    assert not model._forward_hooks
    torch.testing.assert_close(model(INPUTS), CLASSIFIER.model(INPUTS))


def test_a_run_waits_for_another_one() -> None:
    lock = threading.Lock()
    run = run_of(lock=lock)
    with lock:
        updates = run.updates(seconds=0)
        assert next(updates).text == "Waiting for another run to end"
    for _ in updates:
        pass
    assert run.columns[0].maps is not None


class Broken(TinyClassifier):
    """Fails with more than one row."""

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > 1:
            raise RuntimeError("one row only")
        return super().forward(inputs)


def test_each_method_that_fails_says_why() -> None:
    run = run_of(CHOICES, Classifier("broken", Broken().eval(), preprocess))
    columns = ended(run)
    assert ["one row only" in column.failure for column in columns] == [True] * 3
    assert [column.maps for column in columns] == [None] * 3


def test_a_map_that_can_not_be_drawn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.full((1, 21, 21), torch.nan)
    monkeypatch.setattr(runs, "run_method", lambda *_: (maps, MethodRun(1)))
    (column,) = ended(run_of(Choices((2,), ("features",), ("grad_cam",))))
    assert (column.maps, column.failure) == (None, "The map has values that are NaN or infinite.")


def test_warnings_of_the_library_are_noted() -> None:
    flat = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(5 * 19 * 19, 4)).eval()
    nn.init.zeros_(flat[0].weight)  # type: ignore[arg-type]
    classifier = Classifier("flat", flat, preprocess)
    layer = Prepared([type(LAYER)("0", flat[0])])
    choices = Choices((0,), ("0",), ("score_cam",))
    run = Run(classifier, layer, INPUTS, classifier.predict(INPUTS), choices, threading.Lock())
    ended(run)
    assert any("All channels of the layer are constant" in note for note in run.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "Choose 1 to 5 classes: 0 are chosen"),
        ({"classes": tuple(range(6))}, "Choose 1 to 5 classes: 6 are chosen"),
        ({"methods": ()}, r"Choose a method\."),
        ({"layers": ()}, r"Choose a layer\."),
        ({"layers": tuple("abcdefg")}, "Choose fewer methods or layers: 15 maps, at most 12"),
    ],
)
def test_choices_that_make_no_run(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choices(**({"classes": (0,), "layers": ("a",), "methods": CHOICES.methods} | changes)).check()


def test_methods_without_a_layer_need_none() -> None:
    Choices((0,), (), ("rise", "mask")).check()
