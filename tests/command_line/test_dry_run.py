"""``evaluate --dry-run``: the plan and the number of forward passes."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from captum_scorecam.command_line import evaluate
from captum_scorecam.scoring import chunk_size
from tests.support.command_line import invoke
from tests.support.tiny_classifier import write_folder

TINY = ("--model", "tests.support.tiny_classifier:tiny")
QUICK = (*TINY, "--method", "grad_cam", "--metric", "average_drop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with eight images of four classes in `data`."""
    monkeypatch.chdir(tmp_path)
    return write_folder(tmp_path / "data", 8).parent


def test_forwards_are_counted_and_nothing_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_size, "perf_counter", itertools.count().__next__)  # all chunks take equally long
    methods = ("--method", "score_cam", "--method", "rise", "--n-masks", "20")
    options = (*TINY, *methods, "--metric", "insertion", "--metric", "average_drop")
    result = invoke("evaluate", "data", "--output", "run", *options, "--dry-run", "--images", "3")
    assert result.exit_code == 0, result.output
    assert "Data: 3 of 8 images, labels\n" in result.stdout
    assert "Model: tests.support.tiny_classifier:tiny, 4 classes, layer features, on cpu\n" in result.stdout
    assert "Masked images per forward: tuned when the run starts\n" in result.stdout
    assert "Done in run: 0 of 6 records\n" in result.stdout
    rows = {cells[0]: cells[1:] for cells in map(str.split, result.stdout.splitlines()) if cells}
    assert "Forwards per image, measured on the first one  Score-CAM  RISE " in result.stdout
    # Score-CAM's map: the image, and four channels, since one of the five is constant. RISE: the image and 20 masks.
    # Insertion: the image and 101 steps, in chunks of 2, 4, 2, 8 and 4.
    assert (rows["map"], rows["insertion"], rows["average_drop"]) == (["5", "21"], ["102"] * 2, ["3"] * 2)
    assert (rows["total"], rows["images"]) == (["110", "126"], ["left", "3", "3"])
    assert "Forwards left: about 711, " in result.stdout  # 3 · (1 + 110 + 126)
    assert not (folder / "run").exists()


@pytest.mark.usefixtures("folder")
def test_of_several_processes_the_first_prints_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "is_first_rank", lambda: False)
    result = invoke("evaluate", "data", "--output", "run", *QUICK, "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "")


@pytest.mark.usefixtures("folder")
def test_a_budget_is_part_of_the_count() -> None:
    options = (*TINY, "--method", "score_cam", "--metric", "average_drop", "--max-forwards", "2")
    result = invoke("evaluate", "data", "--output", "run", *options, "--dry-run")
    rows = {cells[0]: cells[1:] for cells in map(str.split, result.stdout.splitlines()) if cells}
    assert rows["map"] == ["3"]  # the image and two of four masks


def test_finished_records_are_counted(folder: Path) -> None:
    assert invoke("evaluate", "data", "--output", "run", *QUICK, "--perturbations-per-eval", "5").exit_code == 0
    lines = (folder / "run" / "records" / "rank-000.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run" / "records" / "rank-000.jsonl").write_bytes(b"".join(lines[:5]))
    result = invoke("evaluate", "data", "--output", "run", *QUICK, "--dry-run")
    assert "Done in run: 5 of 8 records\n" in result.stdout
    assert "Masked images per forward: 5\n" in result.stdout  # as in the run
    assert "Forwards left: about 15, " in result.stdout  # 3 · (1 + 1 + 3)


def test_a_run_with_other_settings_is_not_resumed(folder: Path) -> None:
    assert invoke("evaluate", "data", "--output", "run", *QUICK).exit_code == 0
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    result = invoke("evaluate", "data", "--output", "run", *QUICK, "--target", "label", "--dry-run")
    assert result.exit_code == 2
    assert 'started with different settings: `--target`: "predicted" -> "label"' in result.output
    assert {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()} == before


def test_failures_to_retry_are_left_to_do(folder: Path) -> None:
    damaged = next((folder / "data").rglob("*.png"))
    intact = damaged.read_bytes()
    damaged.write_bytes(b"no image")
    assert invoke("evaluate", "data", "--output", "run", *QUICK).exit_code == 1
    damaged.write_bytes(intact)
    for option, done in ((), 8), (("--retry-errors",), 7):
        result = invoke("evaluate", "data", "--output", "run", *QUICK, "--dry-run", *option)
        assert f"Done in run: {done} of 8 records\n" in result.stdout
