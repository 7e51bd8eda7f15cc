"""A run in this process: resuming, errors, and side effects."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from captum_scorecam.evaluation import (
    METHODS,
    METRICS,
    ExplanationRequest,
    Method,
    MethodOptions,
    Plan,
    Provenance,
    Summary,
    image_evaluation,
    pictures,
    plan_evaluation,
    read_records,
    register_method,
    run,
    run_evaluation,
)
from captum_scorecam.evaluation.record_files import rank_file
from captum_scorecam.evaluation.run import _versions, check_folder
from captum_scorecam.models import Classifier, load_classifier
from tests.support import tiny_classifier
from tests.support.systems import needs_posix
from tests.support.tiny_classifier import Pictures
from tests.support.tiny_evaluation import OPTIONS, QUICK, contents, evaluate


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "LOCK_SECONDS", 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Gives the folder of a finished run of that many pictures, which tests only read."""

    @cache
    def of(number: int) -> Path:
        folder = tmp_path_factory.mktemp("undisturbed") / "run"
        evaluate(load_classifier("tests.support.tiny_classifier:tiny"), Pictures(number), folder, **QUICK)
        return folder

    return of


def test_a_second_run_is_the_same_to_the_byte(classifier: Classifier, tmp_path: Path) -> None:
    torch.manual_seed(1)
    for folder in ("first", "second"):
        evaluate(classifier, Pictures(4), tmp_path / folder, **QUICK)
        torch.rand(1)
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


def test_a_folder_can_be_a_path_or_a_text(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluate(classifier, Pictures(1), "new/run", **QUICK)
    assert len(read_records(tmp_path / "new" / "run")) == 2


def test_images_are_drawn_by_the_seed_and_keep_their_position(classifier: Classifier, tmp_path: Path) -> None:
    drawn: list[list[tuple[int, str]]] = []
    for seed in (0, 1, 0):
        folder = tmp_path / f"{len(drawn)}"
        evaluate(classifier, Pictures(40), folder, methods=["grad_cam"], metrics=["average_drop"], images=3,
                 options=MethodOptions(seed=seed))  # fmt: skip
        drawn.append([(record.index, record.image) for record in read_records(folder)])
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(name == f"picture {index}" for index, name in drawn[0])
    assert drawn[0] == sorted(drawn[0])


def interrupted_after(records: int) -> Any:
    """Returns an evaluate_image that is interrupted, as by Ctrl-C, after that many records."""
    made = iter(range(records))
    original = image_evaluation.evaluate_image

    def evaluate_image(*arguments: Any) -> Iterator[Any]:
        for outcome in original(*arguments):
            if next(made, None) is None:
                raise KeyboardInterrupt
            yield outcome

    return evaluate_image


@pytest.mark.parametrize("records", range(0, 6))
def test_an_interrupted_run_continues_where_it_stopped(
    records: int,
    classifier: Classifier,
    tmp_path: Path,
    undisturbed: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(run, "evaluate_image", interrupted_after(records))
        with pytest.raises(KeyboardInterrupt):
            evaluate(classifier, Pictures(3), tmp_path / "run", **QUICK)
    assert len(read_records(tmp_path / "run")) == records
    evaluate(classifier, Pictures(3), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == contents(undisturbed(3))


def test_nothing_is_done_twice(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    before = contents(tmp_path)
    monkeypatch.setattr(run, "evaluate_image", lambda *_: pytest.fail("it was done"))
    seen: list[tuple[int, int]] = []
    summary = evaluate(classifier, Pictures(3), tmp_path, **QUICK, on_image=lambda *numbers: seen.append(numbers))
    assert isinstance(summary, Summary)
    assert (contents(tmp_path), seen) == (before, [])


def test_progress_counts_the_images_of_this_call(classifier: Classifier, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(classifier, Pictures(3), tmp_path, **QUICK, on_image=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("cut", [0, 1, -1, -2, 0.3, 0.6])
def test_an_incomplete_record_is_done_again(cut: float, classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    before = contents(tmp_path)
    path = rank_file(tmp_path, "records", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"methods": ["score_cam"]}, r'methods`: \["grad_cam", "score_cam"\] -> \["score_cam"\]'),
        ({"metrics": ["insertion"]}, r'metrics`: \["average_drop"\] -> \["insertion"\]'),
        ({"target": "label"}, 'target`: "predicted" -> "label"'),
        ({"options": replace(OPTIONS, seed=4)}, "seed`: 3 -> 4"),
        ({"options": replace(OPTIONS, perturbations_per_eval=8)}, "perturbations_per_eval`: 4 -> 8"),
        ({"images": 2}, r"images_digest`: \"\w+\" -> \"\w+\"; `images`: 3 -> 2"),
        ({"gallery": 1}, "gallery`: 100 -> 1"),
        ({"layer": "features.0"}, 'layer`: "features" -> "features.0"'),
        ({"threads": 2}, "threads`: 1 -> 2"),
        ({"provenance": {"data": "elsewhere"}}, 'data`: null -> "elsewhere"'),
    ],
)
def test_different_settings_are_refused_and_listed(
    changed: dict[str, Any], difference: str, classifier: Classifier, undisturbed: Callable[[int], Path]
) -> None:
    before = contents(undisturbed(3), without=())
    message = f"^The run in this folder was started with different settings: `{difference}.* Choose another `folder`"
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Pictures(3), undisturbed(3), **(QUICK | changed))
    assert contents(undisturbed(3), without=()) == before


def test_other_settings_are_refused_before_a_twin_is_made(
    classifier: Classifier, undisturbed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "with_twin", lambda _: pytest.fail("made a twin"))
    with pytest.raises(ValueError, match="different settings: `seed`: 3 -> 4"):
        evaluate(classifier, Pictures(3), undisturbed(3), **(QUICK | {"options": replace(OPTIONS, seed=4)}))


def test_weights_are_compared_by_their_values_and_not_by_their_path(classifier: Classifier, tmp_path: Path) -> None:
    for weights in ("../w.pt", "w.pt"):
        provenance = Provenance(weights=weights)
        assert evaluate(classifier, Pictures(1), tmp_path, **QUICK, provenance=provenance) is not None


def test_another_model_or_other_labels_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    changed = tiny_classifier.TinyClassifier().eval()
    changed.score.bias.data[0] += 1e-6
    with pytest.raises(ValueError, match="different settings: `weights_digest`: "):
        evaluate(replace(classifier, model=changed), Pictures(3), tmp_path, **QUICK)
    with pytest.raises(ValueError, match="different settings: `images_digest`: "):
        evaluate(classifier, Pictures(3, ["red", "red", "red"]), tmp_path, **QUICK)


def test_versions_include_that_of_the_engine(classifier: Classifier) -> None:
    plan = plan_evaluation(classifier, Pictures(1), methods=["grad_cam"], metrics=["average_drop"])
    eager = _versions(plan)
    assert _versions(replace(plan, engine="compile")) == eager
    of_engine = {name: metadata.version(name) for name in ("onnxruntime", "onnx", "onnxscript")}
    assert _versions(replace(plan, engine="onnxruntime")) == {**eager, **of_engine}


def test_versions_include_that_of_what_fits_linear_models(classifier: Classifier) -> None:
    plan = plan_evaluation(
        classifier, Pictures(1), methods=["fast=captum:Lime:patches=2,n_samples=5"], metrics=["average_drop"]
    )
    assert _versions(plan)["scikit-learn"] == metadata.version("scikit-learn")


def test_other_versions_are_warned_of_at_the_callers_line(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    configuration = json.loads((tmp_path / "configuration.json").read_text(encoding="utf-8"))
    configuration["versions"]["torch"] = "1.0"
    (tmp_path / "configuration.json").write_text(json.dumps(configuration))
    with pytest.warns(UserWarning, match=r'started with other versions, .*: torch: "1\.0" -> "2') as found:
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    assert [Path(warning.filename).name for warning in found] == ["tiny_evaluation.py"]


def test_a_run_is_resumed_with_the_threads_that_it_started_with(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(classifier, Pictures(2), tmp_path, **QUICK, threads=2)
    used: list[int] = []

    def left_to_do(*_: Any) -> dict[int, tuple[str, ...]]:
        used.append(torch.get_num_threads())
        return {}

    monkeypatch.setattr(run, "left_to_do", left_to_do)
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    assert (used, torch.get_num_threads()) == ([2], 1)


@pytest.mark.parametrize(
    ("threads", "message"),
    [(0, "at least 1, but got 0"), (10**6, "at most 4096, but got 10000")],
)
def test_a_number_of_threads_that_no_machine_has_is_refused(
    threads: int, message: str, classifier: Classifier, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"Expected `threads` to be {message}"):
        evaluate(classifier, Pictures(1), tmp_path / "run", **QUICK, threads=threads)
    assert not (tmp_path / "run").exists()


def test_a_negative_number_of_workers_is_refused_before_work(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Expected `workers` to be at least 0, but got -1"):
        evaluate(classifier, Pictures(1), tmp_path / "run", **QUICK, workers=-1)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_something_else_is_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    message = r"Expected `folder` to be new, .*, but '.*' contains 'thesis\.tex' and no configuration\.json"
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    assert contents(tmp_path) == {"thesis.tex": b"dear"}


def test_a_run_in_use_is_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    before = contents(tmp_path)
    message = "Expected a `folder` that no other process uses, but '.*' is in use"
    with FileLock(tmp_path / "records" / "rank-000.lock"), pytest.raises(ValueError, match=message):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK)
    assert contents(tmp_path) == before


def test_a_folder_below_a_file_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Expected `folder` to be a folder, but '.*file' is a file"):
        evaluate(classifier, Pictures(1), tmp_path / "file" / "run", **QUICK)


def test_a_gpu_that_is_lost_stops_the_run_after_the_record(classifier: Classifier, tmp_path: Path) -> None:
    def lost(*_: Any) -> Any:
        raise RuntimeError("CUDA error: device-side assert triggered")

    register_method("lost", Method(lost))
    with pytest.raises(RuntimeError, match=r"The GPU failed on 'picture 0' \(the failure is recorded\)"):
        evaluate(classifier, Pictures(3), tmp_path, **(QUICK | {"methods": ["lost"]}))
    assert [record.index for record in read_records(tmp_path)] == [0]


@pytest.mark.parametrize("text", ["out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"])
def test_a_gpu_without_memory_for_an_image_goes_on_with_the_next(
    text: str, classifier: Classifier, tmp_path: Path
) -> None:
    def full(*_: Any) -> Any:
        raise RuntimeError(f"CUDA error: {text}")

    register_method(name := f"full_{len(text)}", Method(full))
    evaluate(classifier, Pictures(3), tmp_path, **(QUICK | {"methods": [name]}))
    assert [record.index for record in read_records(tmp_path)] == [0, 1, 2]


def test_a_disk_that_is_full_stops_the_run_and_loses_nothing(
    classifier: Classifier, tmp_path: Path, undisturbed: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = iter(range(3))
    original = pictures.write_pictures

    def until_full(*arguments: Any) -> None:
        if next(written, None) is None:
            raise OSError(28, "No space left on device")
        original(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_pictures", until_full)
        with pytest.raises(OSError, match=r"No space left on device\. Finished records are kept; run the eval"):
            evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert len(read_records(tmp_path / "run")) == 3
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == contents(undisturbed(4))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replace_with_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def second_run(path: Path) -> None:
    """Another process that evaluates the images again, since it finds no records."""
    shutil.rmtree(path)
    classifier = load_classifier("tests.support.tiny_classifier:tiny")
    evaluate(classifier, Pictures(4), path.parent, **QUICK)


def rename(path: Path) -> None:
    path.rename(path.with_name("renamed"))


def replace_with_a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.touch()


def disturbed(interfere: Callable[[], object], classifier: Classifier, folder: Path) -> tuple[str, list[int]]:
    """Interferes after the second of four images; returns the error, and the images that were finished."""
    finished: list[int] = []

    def on_image(number: int, _: int) -> None:
        finished.append(number)
        if number == 2:
            interfere()

    with pytest.raises(OSError, match="nothing else changes the run's files while it runs") as raised:
        evaluate(classifier, Pictures(4), folder, **QUICK, on_image=on_image)
    return str(raised.value), finished


@needs_posix
@pytest.mark.parametrize(
    ("interfere", "name", "message"),
    [
        (remove, "records", "records/rank-000.jsonl' was removed or moved"),
        (remove, "records/rank-000.jsonl", "records/rank-000.jsonl' was removed or moved"),
        (replace_with_a_copy, "records/rank-000.jsonl", "records/rank-000.jsonl' was replaced or changed"),
        (lambda path: os.truncate(path, 0), "records/rank-000.jsonl", "rank-000.jsonl' was replaced or changed"),
        (second_run, "records", "records/rank-000.jsonl' was replaced or changed"),
        (remove, "times", "times/rank-000.jsonl' was removed or moved"),
        (replace_with_a_copy, "times/rank-000.jsonl", "times/rank-000.jsonl' was replaced or changed"),
        (remove, "gallery", "gallery' was removed or moved"),
        (remove, "", "run' was removed or moved"),
        (rename, "", "run' was removed or moved"),
    ],
)
def test_a_run_whose_files_something_else_changes_stops_and_can_be_resumed(
    interfere: Callable[[Path], None],
    name: str,
    message: str,
    classifier: Classifier,
    tmp_path: Path,
    undisturbed: Callable[[int], Path],
) -> None:
    error, finished = disturbed(lambda: interfere(tmp_path / "run" / name), classifier, tmp_path / "run")
    left = "Run the evaluation again: it keeps the records that are left and repeats the others."
    assert error.endswith(f"{message}. {left}")
    assert finished == [1, 2]
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert read_records(tmp_path / "run") == read_records(undisturbed(4))


@needs_posix
def test_a_gallery_that_becomes_a_file_stops_the_run_and_is_named(classifier: Classifier, tmp_path: Path) -> None:
    gallery = tmp_path / "run" / "gallery"
    error, finished = disturbed(lambda: replace_with_a_file(gallery), classifier, tmp_path / "run")
    assert f"but {str(gallery)!r} was replaced. Run the evaluation again" in error
    assert finished == [1, 2]


def test_a_configuration_that_is_removed_stops_the_run_at_once_and_can_be_put_back(
    classifier: Classifier, tmp_path: Path, undisturbed: Callable[[int], Path]
) -> None:
    path = tmp_path / "run" / "configuration.json"
    error, finished = disturbed(lambda: path.rename(tmp_path / "kept"), classifier, tmp_path / "run")
    assert "configuration.json' was removed or moved. Put it back, and run the evaluation again to resume" in error
    assert finished == [1, 2]
    (tmp_path / "kept").rename(path)
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert contents(tmp_path / "run") == contents(undisturbed(4))


@pytest.mark.parametrize(("old", "new"), [(b"picture 1", b"picture 9"), (b'"label":1', b'"label":2')])
@pytest.mark.parametrize("number", [2, 4])
def test_records_that_are_edited_at_equal_length_do_not_end_a_run_well(
    number: int, old: bytes, new: bytes, classifier: Classifier, tmp_path: Path, undisturbed: Callable[[int], Path]
) -> None:
    path = rank_file(tmp_path / "run", "records", 0)

    def on_image(finished: int, _: int) -> None:
        if finished == number:
            whole = path.read_bytes()
            path.write_bytes(whole.replace(old, new))
            assert path.read_bytes() != whole

    message = r"rank-000.jsonl' was edited\. Restore it, or remove it and run the evaluation again to repeat its"
    with pytest.raises(OSError, match=message):
        evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK, on_image=on_image)
    assert not (tmp_path / "run" / "summary.json").exists()
    path.unlink()
    evaluate(classifier, Pictures(4), tmp_path / "run", **QUICK)
    assert read_records(tmp_path / "run") == read_records(undisturbed(4))


def test_records_of_images_with_another_name_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    path = rank_file(tmp_path, "records", 0)
    path.write_bytes(path.read_bytes().replace(b"picture 1", b"picture 9"))
    before = contents(tmp_path, without=())
    message = "Expected records of planned images only, but `folder` has one of image 1 named 'picture 9', which is '"
    with pytest.raises(ValueError, match=message):
        evaluate(classifier, Pictures(3), tmp_path, **QUICK)
    assert contents(tmp_path, without=()) == before


def test_a_configuration_that_is_edited_meanwhile_does_not_end_a_run_well(
    classifier: Classifier, tmp_path: Path
) -> None:
    path = tmp_path / "configuration.json"

    def edit(*_: int) -> None:
        path.write_text(path.read_text(encoding="utf-8").replace('"seed": 3', '"seed": 4'))

    with pytest.raises(ValueError, match="different settings: `seed`: 4 -> 3"):
        evaluate(classifier, Pictures(1), tmp_path, **QUICK, on_image=edit)
    assert not (tmp_path / "summary.json").exists()


@needs_posix
def test_a_gallery_that_is_removed_stops_a_run_that_saves_no_more_pictures(
    classifier: Classifier, tmp_path: Path
) -> None:
    def on_image(number: int, _: int) -> None:
        if number == 2:
            remove(tmp_path / "gallery")

    with pytest.raises(OSError, match=r"'.*gallery' was removed or moved\. Run the evaluation again: it keeps"):
        evaluate(classifier, Pictures(4), tmp_path, **QUICK, gallery=1, on_image=on_image)


@pytest.mark.parametrize("number", [4, 2])
def test_records_that_vanish_after_the_last_append_are_an_error(
    number: int, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = run._run_images

    def run_images(*arguments: Any) -> None:
        original(*arguments)
        path = rank_file(tmp_path, "records", 0)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 8 - 2 * number]))

    monkeypatch.setattr(run, "_run_images", run_images)
    message = f"Expected records of all 4 images in '.*', but those of {number} images were removed while"
    with pytest.raises(OSError, match=message):
        evaluate(classifier, Pictures(4), tmp_path, **QUICK)
    assert not (tmp_path / "summary.json").exists()


def test_records_without_their_configuration_are_left_alone(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(2), tmp_path, **QUICK)
    (tmp_path / "configuration.json").unlink()
    (tmp_path / "summary.json").unlink()
    (tmp_path / "summary.csv").unlink()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"contains 'records/rank-000\.jsonl' and no configuration\.json"):
        evaluate(classifier, Pictures(2), tmp_path, **(QUICK | {"options": replace(OPTIONS, seed=9)}))
    assert contents(tmp_path) == before


def test_records_of_images_that_are_not_planned_are_refused(classifier: Classifier, tmp_path: Path) -> None:
    evaluate(classifier, Pictures(40), tmp_path, **QUICK, images=3)
    path = rank_file(tmp_path, "records", 0)
    drawn = {record.index for record in read_records(tmp_path)}
    other = next(index for index in range(40) if index not in drawn)
    first, *others = path.read_bytes().splitlines()
    lines = [json.dumps(json.loads(first) | {"index": other}), *(line.decode() for line in others[2:])]
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(ValueError, match=f"planned images only, but `folder` has one of image {other}"):
        evaluate(classifier, Pictures(40), tmp_path, **QUICK, images=3)


def test_only_what_failed_is_run_again_and_only_on_request(classifier: Classifier, tmp_path: Path) -> None:
    calls: list[int] = []

    def failing_once(request: ExplanationRequest) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:
            raise RuntimeError("no map")
        return METHODS["grad_cam"].explain(request)

    register_method("unsteady", Method(failing_once))
    arguments = QUICK | {"methods": ["grad_cam", "unsteady"]}
    evaluate(classifier, Pictures(3), tmp_path, **arguments)
    evaluate(classifier, Pictures(3), tmp_path, **arguments, retry_errors=False)
    assert (len(calls), [r.error is None for r in read_records(tmp_path)].count(False)) == (3, 1)
    seen: list[tuple[int, int]] = []
    evaluate(
        classifier,
        Pictures(3),
        tmp_path,
        **arguments,
        retry_errors=True,
        on_image=lambda *numbers: seen.append(numbers),
    )
    assert (len(calls), seen) == (4, [(1, 1)])
    assert [(r.index, r.method, r.error) for r in read_records(tmp_path)] == [
        (index, method, None) for index in range(3) for method in arguments["methods"]
    ]


def test_the_users_model_and_random_state_are_unchanged(classifier: Classifier, tmp_path: Path) -> None:
    weights = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    state = torch.get_rng_state()
    methods, metrics = list(METHODS), ["infidelity", "mosaic_pointing_game", "sanity_check"]
    options = replace(OPTIONS, perturbations_per_eval=None)
    evaluate(classifier, Pictures(4), tmp_path, methods=methods, metrics=metrics, options=options, images=1)
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert not any(module._forward_hooks for module in classifier.model.modules())


def test_every_warning_about_a_model_in_training_mode_points_at_the_callers_line(
    classifier: Classifier, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Dropout(0.1), classifier.model).train()  # of the inputs, so that no map is constant
    training = replace(classifier, model=model, layer="1.features")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        plan = plan_evaluation(training, Pictures(4), methods=list(METHODS), metrics=list(METRICS), target="label",
                               options=OPTIONS, images=1)  # fmt: skip
        planned = len(found)
        run_evaluation(plan, tmp_path)
    assert len(found) > planned
    assert {warning.filename for warning in found} == {__file__}
    assert [record.error for record in read_records(tmp_path)] == [None] * len(METHODS)


@pytest.mark.parametrize("name", ["", "run", "runs/of/today"])
def test_the_folder_may_be_empty_or_new_with_its_parents(name: str, tmp_path: Path) -> None:
    check_folder(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run", "file/runs/today"])
def test_the_folder_is_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Expected `folder` to be a folder, but '.*file' is a file"):
        check_folder(tmp_path / name)


def test_the_folder_is_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"Expected `folder` to be writable, but '.*' is not"):
        check_folder(tmp_path / "runs" / "today")
