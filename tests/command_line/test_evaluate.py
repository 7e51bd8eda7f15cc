"""The command ``evaluate``: what it prints and writes, and its exit status."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

import captum_scorecam.evaluation.run
from captum_scorecam.evaluation import METHODS, METRICS, read_records, read_settings
from captum_scorecam.evaluation.image_evaluation import Outcome
from tests.support.command_line import help_of, invoke
from tests.support.small_net import NARROW
from tests.support.systems import needs_posix
from tests.support.tiny_classifier import write_folder

TINY = ("--model", "tests.support.tiny_classifier:tiny")
QUICK = (*TINY, "--method", "grad_cam", "--metric", "average_drop")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with eight images of four classes in `data`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(captum_scorecam.evaluation.run, "LOCK_SECONDS", 0)
    return write_folder(tmp_path / "data", 8).parent


def evaluate(*arguments: str) -> Result:
    return invoke("evaluate", *arguments)


def test_a_run_prints_the_summary_and_leaves_all_files(folder: Path) -> None:
    result = evaluate("data", "--output", "run", *TINY, "--metric", "average_drop", "--metric", "mosaic_pointing_game")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Warning: {NARROW}")
    assert result.stderr.count("\n") == 1  # once for all images
    assert re.search(r"Average drop, % ↓ +Energy in the tile ↑", result.stdout)
    assert re.search(r"(?m)^Grad-CAM ", result.stdout)
    assert result.stdout.endswith("Run: run\n")
    assert [(record.index, record.method) for record in read_records(folder / "run")] == [
        (index, method) for index in range(8) for method in ("grad_cam", "score_cam")
    ]
    written = {path.name for path in (folder / "run").iterdir()}
    assert written == {"configuration.json", "records", "times", "gallery", "summary.json", "summary.csv"}
    settings = read_settings(folder / "run")
    assert (settings.data, settings.data_format, settings.weights) == (str(folder / "data"), "auto", "DEFAULT")
    assert (settings.model, settings.n_masks) == ("tests.support.tiny_classifier:tiny", 2000)


def test_a_number_that_no_method_uses_is_warned_of(folder: Path) -> None:
    result = evaluate("data", "--output", "run", *QUICK, "--n-masks", "20", "--mask-iterations", "300")
    assert (result.exit_code, result.stderr) == (
        0,
        "Warning: `--n-masks` has no effect: only rise without n_masks of its own uses it, and `--method` includes "
        "none.\n",
    )
    assert read_settings(folder / "run").n_masks == 20


def test_a_budget_is_printed_recorded_and_cannot_change(folder: Path) -> None:
    command = ("data", "--output", "run", *TINY, "--method", "score_cam", "--metric", "average_drop")
    result = evaluate(*command, "--max-forwards", "2")
    assert result.exit_code == 0, result.output
    records = read_records(folder / "run")
    assert [record.forwards for record in records] == [2] * 8
    errors = [record.map_error for record in records if record.map_error]
    assert len(errors) == 8
    sentence = "Score-CAM ran 2.0 masks per image on average, at most 2. The largest standard error of a map is "
    assert sentence in result.stdout
    assert f"at most {max(errors):.0%}.\n" in result.stdout
    assert invoke("report", "run").exit_code == 0
    assert sentence in (folder / "run" / "report.html").read_text(encoding="utf-8")
    for budget, difference in (
        ([], "`--max-forwards`: 2 -> null"),
        (["--max-forwards", "2", "--error", "0.5"], "`--error`: null -> 0.5"),
    ):
        changed = evaluate(*command, *budget)
        assert (changed.exit_code, difference in changed.stderr) == (2, True)


def test_the_times_are_of_the_records(folder: Path) -> None:
    assert evaluate("data", "--output", "run", *QUICK).exit_code == 0
    lines = (folder / "run" / "times" / "rank-000.jsonl").read_text(encoding="utf-8").splitlines()
    times = [json.loads(line) for line in lines]
    assert [(time["index"], time["method"]) for time in times] == [(index, "grad_cam") for index in range(8)]
    assert all(time["attribution"] > 0 and time["metrics"]["average_drop"] > 0 for time in times)


def test_unreadable_images_end_with_status_1_and_the_rest_is_done(folder: Path) -> None:
    whole = (folder / "data" / "red" / "000.png").read_bytes()
    (folder / "data" / "red" / "000.png").write_bytes(whole[: len(whole) // 2])
    (folder / "data" / "green" / "001.png").write_text("no image")
    Image.new("CMYK", (30, 20), (0, 200, 200, 0)).save(folder / "data" / "red" / "cmyk.jpg")
    Image.new("I;16", (30, 20), 40000).save(folder / "data" / "white" / "deep.png")
    result = evaluate("data", "--output", "run", *QUICK)
    assert result.exit_code == 1
    assert re.search(r"\nFailed: 2\n  green/001\.png: Expected .*\n  red/000\.png: Expected ", result.output)
    records = {record.image: record for record in read_records(folder / "run")}
    failed = {name: record.error.stage for name, record in records.items() if record.error}
    assert failed == {"red/000.png": "image", "green/001.png": "image"}
    assert len(records) == 10
    assert evaluate("data", "--output", "run", *QUICK).exit_code == 1  # they are still there
    write_folder(folder / "data", 2)
    assert evaluate("data", "--output", "run", *QUICK, "--retry-errors").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "Expected `DATA` to be a folder or file, but 'nowhere' does not exist"),
        (["empty"], "in 'empty', but found none"),
        (["data", "--method", "magic"], "Expected each of `--method` to be one of grad_cam"),
        (["data", "--metric", "magic"], "Expected each of `--metric` to be one of average_drop"),
        (["data", "--model", "resnet81"], "but got 'resnet81'. Closest matches: resnet18"),
        (["data", "--metric", "pointing_game"], "Expected a data set with boxes for pointing_game, but it has none"),
        (["data", "--plugin", "nowhere"], "Expected `--plugin` to be a module, but there is none named 'nowhere'"),
        (["data", "--classes", "nowhere.csv"], "Expected a CSV file in UTF-8, but 'nowhere.csv' can't be read as one"),
        (
            ["data", "--output", "data"],
            "`--output` to be new, empty or the folder of a run, but 'data' contains 'blue'",
        ),
        (
            ["data", "--output", "data/run"],
            "Expected `--output` to be outside of the folder of images, but 'data/",
        ),
        (["data", "--output", "data/red/000.png/run"], "Expected `--output` to be a folder, but "),
        (["data", "--output", "data/red/000.png"], "data/red/000.png' is a file"),
        (["data", "--method", "scorecam"], "but got 'scorecam'. Closest matches: score_cam."),
        (["data", "--metric", "average-drop"], "but got 'average-drop'. Closest matches: average_drop"),
        (
            ["data", "--method", "mask", "--error", "0.1"],
            "Expected `--method` to include score_cam, the only method with `--error`, but got grad_cam, mask.",
        ),
        (["data", "--device", "cuda"], "Expected `--device` to be cpu or auto, since PyTorch finds no CUDA device"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (folder / "empty").mkdir()
    before = sorted(folder.rglob("*"))
    result = evaluate("--output", "run", *QUICK, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert re.fullmatch(r"Error: [^\n]+\n", result.output)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--method", "magic", "Expected each of `--method` to be one of "),
        ("--metric", "magic", "Expected each of `--metric` to be one of "),
        ("--output", "file", "Expected `--output` to be a folder"),
        ("--output", "data", "Expected `--output` to be new, empty or the folder of a run"),
        ("--classes", "nowhere.csv", "Expected a CSV file"),
    ],
)
def test_a_wrong_option_is_reported_before_the_model_is_loaded(
    option: str, value: str, message: str, folder: Path
) -> None:
    (folder / "file").touch()
    failing = ("--model", "tests.support.colour_classifier:failing")
    result = evaluate("data", "--output", "run", *failing, option, value)
    assert result.output.startswith(f"Error: {message}")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK to be a number in 0..1, but got 'x'"),
        ({"RANK": "2"}, "RANK to be a number in 0..1, but got '2'"),
        ({"RANK": "-1"}, "RANK to be a number in 0..1, but got '-1'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE to be a number at least 1, but got '0'"),
        ({"WORLD_SIZE": "9" * 23}, "WORLD_SIZE to be a number at least 1, but got '99"),
        ({"LOCAL_RANK": "gpu"}, "LOCAL_RANK to be a number at least 0, but got 'gpu'"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT to be a number in 1..65535, but got 'http'"),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR to name a host, but it is empty"),
    ],
    ids=str,
)
def test_malformed_variables_of_torchrun_are_reported_before_the_model_is_loaded(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for name, value in (valid | variables).items():
        monkeypatch.setenv(name, value)
    result = evaluate("data", "--output", "run", "--model", "tests.support.colour_classifier:failing")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"Error: Expected the environment variable {message}")


def test_one_variable_of_torchrun_alone_does_not_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "x")
    assert evaluate("data", "--output", "run", *QUICK, "--images", "1").exit_code == 0
    assert len(read_records(folder / "run")) == 1


def test_an_interrupted_run_says_how_to_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(captum_scorecam.evaluation.run, "write_pictures", interrupt)
        result = evaluate("data", "--output", "run", *QUICK)
    assert (result.exit_code, result.stderr) == (
        130,
        "Interrupted. Finished images are kept; run the same command again to resume.\n",
    )
    assert evaluate("data", "--output", "run", *QUICK).exit_code == 0
    assert len(read_records(folder / "run")) == 8


def test_an_interrupted_plan_leaves_nothing_to_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("captum_scorecam.command_line.evaluate.print_plan", interrupt)
    result = evaluate("data", "--output", "run", *QUICK, "--dry-run")
    assert (result.exit_code, result.stderr) == (130, "Interrupted. Nothing was written.\n")
    assert not (folder / "run").exists()


PLUGIN = """
from captum_scorecam.evaluation import METHODS, Method, Metric, MetricResult, register_method, register_metric

register_method("from_plugin", Method(METHODS["grad_cam"].explain))
register_metric(Metric("mean", "Mean", True, lambda given: MetricResult(float(given.maps.mean()))))
"""


def test_a_plugin_adds_methods_and_metrics(folder: Path) -> None:
    (folder / "plugin_of_test.py").write_text(PLUGIN)
    options = ("--plugin", "plugin_of_test", "--method", "from_plugin", "--method", "grad_cam", "--metric", "mean")
    try:
        result = evaluate("data", "--output", "run", *TINY, *options)
    finally:
        METHODS.pop("from_plugin", None)
        METRICS.pop("mean", None)
    assert result.exit_code == 0, result.output
    records = read_records(folder / "run")
    assert [record.method for record in records[:2]] == ["from_plugin", "grad_cam"]
    assert records[0].values == records[1].values


def run_plugin(*options: str) -> Result:
    sys.modules.pop("plugin_of_test", None)
    METHODS.pop("from_plugin", None)
    METRICS.pop("mean", None)
    try:
        return evaluate("data", "--output", "run", *TINY, "--method", "grad_cam", *options)
    finally:
        METHODS.pop("from_plugin", None)
        METRICS.pop("mean", None)
        sys.modules.pop("plugin_of_test", None)


@pytest.mark.parametrize(
    ("code", "raised"), [("import sys; sys.exit(3)", "SystemExit: 3"), ("1 / 0", "ZeroDivisionError: division by zero")]
)
def test_a_plugin_that_can_not_be_imported_is_one_line_and_status_2(code: str, raised: str, folder: Path) -> None:
    (folder / "plugin_of_test.py").write_text(code)
    result = run_plugin("--plugin", "plugin_of_test")
    message = f"Expected `--plugin` plugin_of_test to be a module, but importing it raised {raised}."
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {message}\n")


def test_a_run_is_not_resumed_after_its_plugin_was_edited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    plugin = folder / "plugin_of_test.py"
    plugin.write_text(PLUGIN)
    options = ("--plugin", "plugin_of_test", "--metric", "mean")
    assert run_plugin(*options).exit_code == 0
    assert run_plugin(*options).exit_code == 0
    plugin.write_text(PLUGIN.replace("maps.mean()", "maps.amax()"))
    result = run_plugin(*options)
    assert result.exit_code == 2
    assert re.fullmatch(
        r"Error: The run in this folder was started with different settings: "
        r'source of plugin_of_test: "\w+" -> "\w+"\. '
        r"Choose another `--output` or use the settings of that run\.\n",
        result.stderr,
    )


def test_the_configuration_has_the_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["data", "--output", "run of today", *QUICK]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/captum-scorecam", "evaluate", *arguments])
    assert evaluate(*arguments).exit_code == 0
    command = read_settings(folder / "run of today").command
    assert command == f"captum-scorecam evaluate data --output 'run of today' {' '.join(QUICK)}"
    monkeypatch.setattr(sys, "argv", ["captum-scorecam", "evaluate", *arguments, "--workers", "0"])
    assert evaluate(*arguments).exit_code == 0  # the command is not compared
    assert read_settings(folder / "run of today").command == command


@needs_posix
def test_records_that_are_removed_stop_the_run_and_do_not_end_with_status_0(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_pictures(run: Path, outcome: Outcome) -> None:
        if outcome.record.index == 3:
            shutil.rmtree(run / "records")

    with monkeypatch.context() as patched:
        patched.setattr(captum_scorecam.evaluation.run, "write_pictures", write_pictures)
        result = evaluate("data", "--output", "run", *QUICK)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: Expected that nothing else changes the run's files while it runs, but "
        r"'run/records/rank-000\.jsonl' was removed or moved\. "
        r"Run the evaluation again: it keeps the records that are left and repeats the others\.\n",
        result.stderr,
    )
    assert evaluate("data", "--output", "run", *QUICK).exit_code == 0
    assert len(read_records(folder / "run")) == 8


@pytest.mark.usefixtures("folder")
def test_a_finished_run_says_that_nothing_is_left_to_do() -> None:
    assert evaluate("data", "--output", "run", *QUICK).stderr == ""
    result = evaluate("data", "--output", "run", *QUICK)
    assert (result.exit_code, result.stderr) == (0, "All images are already evaluated.\n")
    assert result.stdout.endswith("Run: run\n")


def test_if_all_images_fail_the_first_reason_is_printed(folder: Path) -> None:
    for path in (folder / "data").glob("*/*.png"):
        path.write_text("no image")
    result = evaluate("data", "--output", "run", *QUICK)
    assert result.exit_code == 1
    assert re.match(r"All images failed\. The first: blue/002\.png: Expected .*blue/002\.png", result.stdout)


@pytest.mark.usefixtures("folder")
def test_a_metric_that_is_undefined_for_one_output_is_refused_in_terms_of_the_options(folder: Path) -> None:
    factory = "from tests.support.colour_classifier import one_logit\n\n\ndef negative():\n"
    factory += "    model, preprocess, names = one_logit()\n    model[1].weight[0, 2] = -100\n"
    (folder / "factory_of_test.py").write_text(f"{factory}    return model, preprocess, names\n")
    one = ("--model", "factory_of_test:negative", "--method", "rise", "--n-masks", "20")
    try:
        result = evaluate("data", "--output", "run", *one, "--score", "output", "--images", "3")
    finally:
        sys.modules.pop("factory_of_test", None)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: Expected a score at least 0 for average_drop, but the output of the explained class is -\d+\.?\d*\. "
        r"If the outputs are logits, set `--score` to 'sigmoid'; otherwise choose other `--metric`\.",
        result.stderr.splitlines()[-1],
    )
    assert not (folder / "run").exists()


def test_labels_can_be_given_in_a_table(folder: Path) -> None:
    (folder / "data" / "red").rename(folder / "data" / "n01")
    (folder / "classes.csv").write_text("label,class_index\nn01,0\n")
    result = evaluate("data", "--output", "run", *QUICK, "--target", "label", "--classes", "classes.csv")
    assert result.exit_code == 0, result.output
    records = read_records(folder / "run")
    assert {record.target_name for record in records if record.image.startswith("n01")} == {"red"}


def test_random_weights_are_the_same_each_time(folder: Path) -> None:
    options = ("--model", "squeezenet1_1", "--weights", "none", "--method", "grad_cam", "--metric", "average_drop")
    for images in ("1", "1"):
        result = evaluate("data", "--output", str(folder / "run"), *options, "--images", images)
        assert result.exit_code == 0, result.output


def test_help_names_every_option() -> None:
    text = help_of("evaluate", columns=200)
    options = (
        "output data-format classes images model weights layer target method metric plugin n-masks mask-iterations "
        "seed perturbations-per-eval max-forwards error gallery workers threads device retry-errors dry-run"
    )
    assert [option for option in options.split() if f"--{option}" not in text] == []


def test_a_run_may_be_beside_listed_images(folder: Path) -> None:
    (folder / "data" / "labels.csv").write_text("file,label\nred/000.png,red\n")
    assert evaluate("data", "--output", "data/run", *QUICK).exit_code == 0
    assert evaluate("data", "--output", "data/run", *QUICK).exit_code == 0


def test_class_folders_of_other_names_are_not_taken_by_their_order(folder: Path) -> None:
    for before, after in zip(["red", "green", "blue", "white"], ["Rot", "Gruen", "Blau", "Weiss"], strict=True):
        (folder / "data" / before).rename(folder / "data" / after)
    refused = evaluate("data", "--output", "run", *QUICK, "--target", "label")
    assert refused.exit_code == 2
    assert "Expected labels that name classes of the model, but none does. The first: Blau/" in refused.output
    result = evaluate("data", "--output", "run", *QUICK)
    assert "8 of 8 images have no label that is a class of the model" in result.output
    assert {record.label for record in read_records(folder / "run")} == {None}


def test_boxes_that_change_are_refused_and_images_that_change_are_warned_of(folder: Path) -> None:
    def write_boxes(right: int) -> None:
        rows = [f"{name}/00{index}.png,{name},0,0,{right},10" for index, name in enumerate(["red", "green"])]
        (folder / "boxes.csv").write_text("\n".join(["file,label,xmin,ymin,xmax,ymax", *rows]))
        for path in (folder / "data").rglob("*.png"):
            shutil.copy(path, folder / path.relative_to(folder / "data").parent.name / path.name)

    for name in ("red", "green", "blue", "white"):
        (folder / name).mkdir()
    run = ("boxes.csv", "--output", "run", *TINY, "--method", "grad_cam", "--metric", "relevance_mass")
    write_boxes(10)
    assert evaluate(*run).exit_code == 0
    write_boxes(20)
    result = evaluate(*run)
    assert result.exit_code == 2
    assert "different settings: `images_digest`: " in result.output
    write_boxes(10)
    Image.new("RGB", (40, 30), "navy").save(folder / "red" / "000.png")
    result = evaluate(*run)
    assert result.exit_code == 0
    assert "Image files have changed since the run in this folder was started." not in result.stderr  # nothing is left
    (record, *others) = (folder / "run" / "records" / "rank-000.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run" / "records" / "rank-000.jsonl").write_bytes(record)
    result = evaluate(*run)
    assert result.exit_code == 0
    assert "Image files have changed since the run in this folder was started." in result.stderr
    assert len(others) == 1


def test_a_run_of_an_earlier_version_is_resumed_without_a_warning(folder: Path) -> None:
    run = ("data", "--output", "run", *TINY, "--method", "grad_cam", "--metric", "average_drop")
    assert evaluate(*run).exit_code == 0
    records = folder / "run" / "records" / "rank-000.jsonl"
    expected = records.read_bytes()
    configuration = folder / "run" / "configuration.json"
    content = json.loads(configuration.read_text(encoding="utf-8"))
    for key in ("cpu", "cpu_cores", "image_files_digest"):
        del content["versions"][key]
    content["versions"]["image_file_sizes"] = "0123456789abcdef"
    configuration.write_text(json.dumps(content))
    records.write_bytes(expected[: expected.index(b"\n") + 1])
    result = evaluate(*run)
    assert result.exit_code == 0
    assert "since" not in result.stderr
    assert "other versions" not in result.stderr
    assert records.read_bytes() == expected
