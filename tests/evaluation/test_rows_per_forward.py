"""Masked inputs per forward pass, tuned once per run with a fake clock, kept on resuming and on every rank."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captum_scorecam.datasets import Sample
from captum_scorecam.evaluation import plan_evaluation, read_records, read_settings, run, run_evaluation
from captum_scorecam.evaluation.rows_per_forward import tuned_rows
from captum_scorecam.models import Classifier
from captum_scorecam.scoring import chunk_size
from captum_scorecam.scoring.tuner import TIMED_CHUNKS
from tests.support.tiny_classifier import Pictures, preprocess
from tests.support.tiny_evaluation import OPTIONS, QUICK, evaluate

TUNED = QUICK | {"options": replace(OPTIONS, perturbations_per_eval=None)}
RATES = {2: 40.0, 4: 50.0, 8: 60.0, 16: 50.0}  # rows per second


@pytest.fixture
def clocked(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Returns a context in which forward passes take the given seconds by a fake clock; it yields their shapes."""
    now = [0.0]
    monkeypatch.setattr(chunk_size, "perf_counter", lambda: now[0])

    @contextmanager
    def context(seconds: Callable[[int, int], float]) -> Iterator[list[tuple[int, ...]]]:
        shapes: list[tuple[int, ...]] = []

        def forward(_: nn.Module, inputs: tuple[Tensor]) -> None:
            shapes.append(tuple(inputs[0].shape))
            now[0] += seconds(len(inputs[0]), len(shapes))

        handle = classifier.model.register_forward_pre_hook(forward)
        yield shapes
        handle.remove()

    return context


def by_rates(rows: int, _: int) -> float:
    return rows / RATES.get(rows, 50.0)


def test_the_fastest_number_is_found(classifier: Classifier, clocked: Callable[..., Any]) -> None:
    plan = plan_evaluation(classifier, Pictures(3), **TUNED)
    with clocked(by_rates):
        assert tuned_rows(plan) == 8


@pytest.mark.parametrize("first", range(0, 60, 6))
def test_a_machine_that_is_busy_for_a_while_changes_nothing(
    first: int, classifier: Classifier, clocked: Callable[..., Any]
) -> None:
    def seconds(rows: int, number: int) -> float:
        busy = first < number <= first + 3 * (1 + TIMED_CHUNKS)
        return by_rates(rows, number) * (4 if busy else 1)

    plan = plan_evaluation(classifier, Pictures(3), **TUNED)
    with clocked(seconds):
        assert tuned_rows(plan) == 8


def test_the_fastest_of_several_chunks_counts(classifier: Classifier, clocked: Callable[..., Any]) -> None:
    plan = plan_evaluation(classifier, Pictures(3), **TUNED)
    with clocked(lambda rows, n: by_rates(rows, n) * (1 + n % TIMED_CHUNKS)):
        assert tuned_rows(plan) == 8


@pytest.mark.parametrize(
    ("methods", "metrics", "rows"),
    [
        (["grad_cam", "mask"], ["average_drop", "pointing_game", "infidelity"], 4),
        (["grad_cam"], ["insertion"], 8),
        (["rise"], ["average_drop"], 8),
    ],
)
def test_a_run_of_few_masks_is_not_tuned(
    methods: list[str], metrics: list[str], rows: int, classifier: Classifier, clocked: Callable[..., Any]
) -> None:
    options = {"methods": methods, "metrics": metrics, "target": "label", "layer": "auto"}
    plan = plan_evaluation(classifier, Pictures(3), **(TUNED | options))
    with clocked(by_rates) as shapes:
        assert tuned_rows(plan) == rows
    assert (shapes == []) == (rows == 4)


def test_a_model_that_fails_is_not_tuned_and_its_images_become_records(classifier: Classifier, tmp_path: Path) -> None:
    def one_row(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if len(inputs[0]) > 1:
            raise ValueError("one row, please")

    plan = plan_evaluation(classifier, Pictures(2), **TUNED)
    with classifier.model.register_forward_pre_hook(one_row):
        run_evaluation(plan, tmp_path)
    assert read_settings(tmp_path).perturbations_per_eval == 4
    failed = [record.method for record in read_records(tmp_path) if record.error is not None]
    assert failed == ["score_cam"] * 2


def test_a_number_that_does_not_fit_into_memory_is_not_chosen(
    classifier: Classifier, clocked: Callable[..., Any]
) -> None:
    def run_out(rows: int, _: int) -> float:
        if rows > 4:
            raise torch.OutOfMemoryError("out of memory")
        return by_rates(rows, 0)

    with clocked(run_out):
        assert tuned_rows(plan_evaluation(classifier, Pictures(3), **TUNED)) == 4


class Growing(Pictures):
    """Pictures of growing sizes, of which the first can't be read."""

    def __getitem__(self, index: int) -> Sample:
        if index == 0:
            raise OSError("broken")
        return replace(super().__getitem__(index), image=Image.new("RGB", (10 * index, 40)), region=None)


def test_the_largest_of_a_few_images_is_tuned_on(classifier: Classifier, clocked: Callable[..., Any]) -> None:
    def at_its_size(image: Image.Image) -> Tensor:
        return torch.rand(3, image.height, image.width)

    plan = plan_evaluation(replace(classifier, preprocess=at_its_size), Growing(8), **TUNED)
    with clocked(by_rates) as shapes:
        tuned_rows(plan)
    assert {shape[1:] for shape in shapes} == {(3, 40, 60)}  # images 0, 2, 4 and 6


def test_without_an_image_that_can_be_read_an_example_is_tuned_on(
    classifier: Classifier, clocked: Callable[..., Any]
) -> None:
    plan = plan_evaluation(replace(classifier, preprocess=preprocess), Growing(1), **TUNED)
    with clocked(by_rates) as shapes:
        assert tuned_rows(plan) == 8
    assert {shape[1:] for shape in shapes} == {(3, 21, 21)}


# --- Runs ------------------------------------------------------------------------------------------------------------


def rows_of_records(folder: Path) -> set[int]:
    records = read_records(folder)
    assert all(record.error is None for record in records)
    return {max(record.chunk_rows["insertion"]) for record in records}


INSERTION = TUNED | {"metrics": ["insertion"]}


def test_a_run_is_resumed_with_the_number_that_it_was_tuned_to(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "tuned_rows", lambda _: 5)
    evaluate(classifier, Pictures(3), tmp_path, **INSERTION)
    whole = (tmp_path / "records" / "rank-000.jsonl").read_bytes()
    (tmp_path / "records" / "rank-000.jsonl").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(run, "tuned_rows", lambda _: pytest.fail("tuned again"))
    evaluate(classifier, Pictures(3), tmp_path, **INSERTION)
    assert (tmp_path / "records" / "rank-000.jsonl").read_bytes() == whole
    assert (read_settings(tmp_path).perturbations_per_eval, rows_of_records(tmp_path)) == (5, {5})


def test_a_number_that_is_given_wins(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "tuned_rows", lambda _: pytest.fail("tuned"))
    given = INSERTION | {"options": replace(OPTIONS, perturbations_per_eval=7)}
    evaluate(classifier, Pictures(2), tmp_path, **given)
    assert (read_settings(tmp_path).perturbations_per_eval, rows_of_records(tmp_path)) == (7, {7})
    other = given | {"options": replace(OPTIONS, perturbations_per_eval=6)}
    with pytest.raises(ValueError, match="different settings: `perturbations_per_eval`: 7 -> 6"):
        evaluate(classifier, Pictures(2), tmp_path, **other)


class SecondRank:
    """Rank 1 of two, and what rank 0 returned to it."""

    rank, size = 1, 2

    def __init__(self, *results: Any) -> None:
        self.results = iter(results)

    def from_first(self, _: Callable[[], Any]) -> Any:
        return next(self.results)

    def share(self, items: list[int]) -> list[int]:
        return items[1::2]

    def wait_for_all(self) -> None:
        pass


@pytest.mark.parametrize("given", [None, 5, 6])
def test_every_rank_uses_the_number_of_the_first(
    given: int | None, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "tuned_rows", lambda _: 5)
    evaluate(classifier, Pictures(4), tmp_path, **INSERTION)
    records = read_records(tmp_path)
    (tmp_path / "records" / "rank-000.jsonl").unlink()
    monkeypatch.setattr(run, "tuned_rows", lambda _: pytest.fail("tuned by another rank"))
    todo = dict.fromkeys(range(4), ("grad_cam", "score_cam"))
    versions = run._versions(plan_evaluation(classifier, Pictures(4), **INSERTION)) | {"torch": "1.0"}
    ranks = SecondRank(None, 5, (read_settings(tmp_path), todo, versions))
    monkeypatch.setattr(run, "joined_ranks", lambda: nullcontext(ranks))
    options = {"options": replace(OPTIONS, perturbations_per_eval=given)}
    if given == 6:
        with pytest.raises(ValueError, match="different settings: `perturbations_per_eval`: 5 -> 6"):
            evaluate(classifier, Pictures(4), tmp_path, **(INSERTION | options))
    else:
        with pytest.warns(UserWarning, match=r'The first rank has other versions, .*: torch: "1\.0" -> "2'):
            assert evaluate(classifier, Pictures(4), tmp_path, **(INSERTION | options)) is None
        assert read_records(tmp_path) == [record for record in records if record.index in (1, 3)]
