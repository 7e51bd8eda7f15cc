"""The command ``evaluate``: what it prints, writes, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from captum_scorecam.command_line import commands, progress
from captum_scorecam.evaluation import MEASURES, METHODS, read_records, runner
from tests.support.tiny_classifier import write_folder

TINY = ("--model", "tests.support.tiny_classifier:tiny", "--n-masks", "20")
QUICK = (*TINY, "--method", "grad_cam", "--metric", "average_drop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own with eight images of four classes in `data`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "LOCK_SECONDS", 0)
    return write_folder(tmp_path / "data", 8).parent


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(commands.commands, ["evaluate", *arguments])


def test_a_run_prints_the_summary_and_leaves_all_files(folder: Path) -> None:
    result = invoke("data", "--output", "run", *TINY, "--metric", "average_drop", "--metric", "mosaic_pointing_game")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"Average drop, % ↓ +Energy in the tile ↑", result.stdout)
    assert re.search(r"(?m)^Grad-CAM ", result.stdout)
    assert result.stdout.endswith("Run: run\n")
    assert [(r["index"], r["method"]) for r in read_records(folder / "run")] == [
        (index, method) for index in range(8) for method in ("grad_cam", "score_cam")
    ]
    written = {path.name for path in (folder / "run").iterdir()}
    assert written == {"configuration.json", "records", "times", "gallery", "summary.json", "summary.csv"}
    asked = json.loads((folder / "run" / "configuration.json").read_text())["asked"]
    assert (asked["data"], asked["weights"], asked["model"]) == (
        str(folder / "data"),
        "DEFAULT",
        "tests.support.tiny_classifier:tiny",
    )


def test_the_times_are_of_the_records(folder: Path) -> None:
    assert invoke("data", "--output", "run", *QUICK).exit_code == 0
    times = [json.loads(line) for line in (folder / "run" / "times" / "rank-000.jsonl").read_text().splitlines()]
    assert [(time["index"], time["method"]) for time in times] == [(index, "grad_cam") for index in range(8)]
    assert all(time["attribution"] > 0 and time["measures"]["average_drop"] > 0 for time in times)


def test_a_dry_run_counts_the_forwards_and_writes_nothing(folder: Path) -> None:
    options = (*TINY, "--method", "score_cam", "--method", "rise", "--metric", "insertion", "--metric", "average_drop")
    result = invoke("data", "--output", "run", *options, "--dry-run", "--images", "3")
    assert result.exit_code == 0, result.output
    assert "Data: 3 of 8 images, labels\n" in result.stdout
    assert "Model: tests.support.tiny_classifier:tiny, 4 classes, layer features, on cpu\n" in result.stdout
    assert "Done in run: nothing, a new run\n" in result.stdout
    rows = {cells[0]: cells[1:] for cells in map(str.split, result.stdout.splitlines()) if cells}
    assert (rows["map"], rows["insertion"], rows["average_drop"]) == (["6", "21"], ["102"] * 2, ["3"] * 2)
    assert (rows["all"], rows["images"]) == (["of", "an", "image", "111", "126"], ["left", "3", "3"])
    assert "Forwards left, at most: 714 " in result.stdout  # 3 · (1 + 111 + 126)
    assert not (folder / "run").exists()


def test_a_dry_run_tells_what_is_done(folder: Path) -> None:
    assert invoke("data", "--output", "run", *QUICK).exit_code == 0
    lines = (folder / "run" / "records" / "rank-000.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run" / "records" / "rank-000.jsonl").write_bytes(b"".join(lines[:5]))
    result = invoke("data", "--output", "run", *QUICK, "--dry-run")
    assert "Done in run: 5 of 8 records\n" in result.stdout
    assert "Forwards left, at most: 15 " in result.stdout  # 3 · (1 + 1 + 3)


def test_unreadable_images_end_with_status_1_and_the_rest_is_done(folder: Path) -> None:
    whole = (folder / "data" / "red" / "000.png").read_bytes()
    (folder / "data" / "red" / "000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "data" / "green" / "001.png").write_text("no image")
    Image.new("CMYK", (30, 20), (0, 200, 200, 0)).save(folder / "data" / "red" / "cmyk.jpg")
    Image.new("I;16", (30, 20), 40000).save(folder / "data" / "white" / "deep.png")
    result = invoke("data", "--output", "run", *QUICK)
    assert result.exit_code == 1
    assert re.search(r"Failed: \s*2", result.output)
    records = {record["image"]: record for record in read_records(folder / "run")}
    failed = {name: record["error"]["stage"] for name, record in records.items() if record["error"]}
    assert failed == {"red/000.png": "image", "green/001.png": "image"}
    assert len(records) == 10
    assert invoke("data", "--output", "run", *QUICK).exit_code == 1  # they are still there
    write_folder(folder / "data", 2)
    assert invoke("data", "--output", "run", *QUICK, "--retry-errors").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["empty"], "empty"),
        (["data", "--method", "magic"], "Expected `--method` to be one of grad_cam"),
        (["data", "--metric", "magic"], "Expected `--metric` to be one of average_drop"),
        (["data", "--model", "resnet81"], "but got 'resnet81'. Nearest: resnet18"),
        (["data", "--target", "red"], "Expected `--target` to be predicted or label, but got 'red'"),
        (["data", "--metric", "pointing_game"], "Expected data with boxes for pointing_game"),
        (["data", "--plugin", "nowhere"], "Expected `--plugin` nowhere to be a module"),
        (["data", "--classes", "nowhere.csv"], "nowhere.csv"),
        (["data", "--output", "data"], "to be a new or empty folder, or that of a run, but 'data' holds 'blue'"),
        (["data", "--output", "data/red/000.png/run"], "Not a directory"),
        (["data", "--device", "cuda"], "PyTorch finds no CUDA device"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (folder / "empty").mkdir()
    before = sorted(folder.rglob("*"))
    result = invoke("--output", "run", *QUICK, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert re.fullmatch(r"Error: [^\n]+\n", result.output)
    assert sorted(folder.rglob("*")) == before


def test_an_output_is_needed() -> None:
    assert invoke("data").exit_code == 2


def test_an_interrupted_run_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(runner, "write_pictures", interrupt)
        result = invoke("data", "--output", "run", *QUICK)
    assert (result.exit_code, result.stderr) == (
        130,
        "Interrupted. What is finished is kept; the same command goes on.\n",
    )
    assert invoke("data", "--output", "run", *QUICK).exit_code == 0
    assert len(read_records(folder / "run")) == 8


PLUGIN = """
from captum_scorecam.evaluation import METHODS, Measure, Measured, Method, register_measure, register_method

register_method("from_plugin", Method(METHODS["grad_cam"].explain))
register_measure(Measure("mean", "Mean", True, lambda case: Measured(float(case.maps.mean()))))
"""


def test_a_plugin_adds_methods_and_measures(folder: Path) -> None:
    (folder / "plugin_of_test.py").write_text(PLUGIN)
    options = ("--plugin", "plugin_of_test", "--method", "from_plugin", "--method", "grad_cam", "--metric", "mean")
    try:
        result = invoke("data", "--output", "run", *TINY, *options)
    finally:
        METHODS.pop("from_plugin", None)
        MEASURES.pop("mean", None)
    assert result.exit_code == 0, result.output
    records = read_records(folder / "run")
    assert [record["method"] for record in records[:2]] == ["from_plugin", "grad_cam"]
    assert records[0]["values"] == records[1]["values"]


def test_labels_can_be_given_in_a_table(folder: Path) -> None:
    (folder / "data" / "red").rename(folder / "data" / "n01")
    (folder / "classes.csv").write_text("label,class_index\nn01,0\n")
    result = invoke("data", "--output", "run", *QUICK, "--target", "label", "--classes", "classes.csv")
    assert result.exit_code == 0, result.output
    records = read_records(folder / "run")
    assert {record["target_name"] for record in records if record["image"].startswith("n01")} == {"red"}


def test_random_weights_are_the_same_each_time(folder: Path) -> None:
    options = ("--model", "squeezenet1_1", "--weights", "none", "--method", "grad_cam", "--metric", "average_drop")
    for images in ("1", "1"):
        result = invoke("data", "--output", str(folder / "run"), *options, "--images", images)
        assert result.exit_code == 0, result.output


def test_the_progress_in_a_log_is_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 30.0, 61.0, 90.0, 125.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.shown_progress(True) as on_image:
        for finished in (5, 10, 15, 25):
            on_image(finished, 100)
    assert capsys.readouterr().err.splitlines() == [
        "10 of 100 images, 0.164 images/s, 0:09:09 left",
        "25 of 100 images, 0.2 images/s, 0:06:15 left",
    ]


def test_help_names_every_option() -> None:
    result = CliRunner().invoke(commands.commands, ["evaluate", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    options = (
        "output data-format classes images model weights layer target method metric plugin n-masks mask-iterations "
        "seed perturbations-per-eval gallery workers threads device retry-errors dry-run"
    )
    assert [option for option in options.split() if f"--{option}" not in result.output] == []
