"""``explain --save-maps``: the arrays, their manifest, and folders that are left alone."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from captum_scorecam import __version__
from captum_scorecam.command_line import explain, saved_maps
from captum_scorecam.command_line.explanation import ImageExplanation, explain_image
from captum_scorecam.evaluation.durable_files import write_durably
from captum_scorecam.evaluation.settings import digest_of_weights
from captum_scorecam.models import load_classifier
from tests.support import colour_classifier
from tests.support.command_line import COLOURS, invoke, options_of

RED, GREEN = 0, 1


@pytest.fixture
def explanations(monkeypatch: pytest.MonkeyPatch) -> list[ImageExplanation]:
    """What ``explain`` computed during the test."""
    made: list[ImageExplanation] = []

    def record(*arguments: Any, **options: Any) -> ImageExplanation:
        made.append(explain_image(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(explain, "explain_image", record)
    return made


def saved(folder: Path, *arguments: str, images: tuple[str, ...] = ("colours.png",)) -> dict[str, Any]:
    """Runs ``explain --save-maps maps``, and returns the manifest."""
    result = invoke("explain", *images, *COLOURS, "--save-maps", "maps", *arguments)
    assert result.exit_code == 0, result.output
    assert "Maps: maps" in result.output
    manifest: dict[str, Any] = json.loads((folder / "maps" / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def test_every_map_is_saved_and_listed(folder: Path, explanations: list[ImageExplanation]) -> None:
    colour_classifier.red_and_green().save(folder / "a b.png")
    manifest = saved(folder, *options_of("score_cam", "rise"), "--n-masks", "20", images=("colours.png", "a b.png"))
    entries = manifest.pop("maps")
    assert manifest == {
        "written_by": "captum-scorecam explain",
        "version": __version__,
        "model": COLOURS[1],
        "weights": "DEFAULT",
        "weights_digest": digest_of_weights(load_classifier(COLOURS[1]).model),
        "engine": "eager",
        "options": {
            "n_masks": 20,
            "mask_iterations": 300,
            "perturbations_per_eval": None,
            "max_forwards": None,
            "error": None,
            "seed": 0,
        },
    }
    assert {entry["score"] for entry in entries} == {"probability"}
    assert [(e["image"], e["class_index"], e["class_name"], e["role"], e["method"], e["layer"]) for e in entries] == [
        (image, *shown, method, layer)
        for image in ("colours.png", "a b.png")
        for shown in ((RED, "red", "predicted"), (GREEN, "green", "runner-up"))
        for method, layer in (("score_cam", "features"), ("rise", None))
    ]
    assert sorted(os.listdir("maps")) == sorted([*(entry["file"] for entry in entries), "manifest.json"])
    assert entries[-1]["file"] == "001_a_b_rise_1.npy"
    computed = [values for of in explanations for shown in of.classes for values in shown.maps.values()]
    for entry, values in zip(entries, computed, strict=True):
        array = np.load(folder / "maps" / entry["file"], allow_pickle=False)
        np.testing.assert_array_equal(array, values.numpy())
        assert (list(array.shape), array.dtype) == (entry["shape"], np.float32)
        assert "error" not in entry


def test_methods_are_saved_with_their_names_and_options(folder: Path) -> None:
    entries = saved(folder, *options_of("score_cam", "released=score_cam:score=probability"), "--no-compare")["maps"]
    assert [(entry["file"], entry["method_options"]) for entry in entries] == [
        ("000_colours_score_cam_0.npy", "score_cam"),
        ("000_colours_released_0.npy", "score_cam:score='probability'"),
    ]


def test_the_engine_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "twin_by_name", lambda *_: None)
    monkeypatch.setattr(explain, "check_engine", lambda _: None)
    assert saved(folder, "--engine", "onnxruntime")["engine"] == "onnxruntime"


def test_errors_of_a_budget_are_saved(folder: Path, explanations: list[ImageExplanation]) -> None:
    manifest = saved(folder, "--no-compare", "--max-forwards", "1")
    assert manifest["options"]["max_forwards"] == 1
    grad_cam, score_cam = manifest["maps"]
    assert "error" not in grad_cam
    error = explanations[0].classes[0].errors["score_cam"]
    assert error.values is not None
    assert score_cam["error"] == error.largest > 0
    np.testing.assert_array_equal(np.load(folder / "maps" / score_cam["error_file"]), error.values.numpy())
    exact = saved(folder, "--no-compare", "--max-forwards", "1000")["maps"][1]
    assert exact["error"] == 0
    assert "error_file" not in exact


def test_maps_saved_before_are_replaced(folder: Path) -> None:
    before = {entry["file"] for entry in saved(folder, *options_of("rise"), "--n-masks", "20")["maps"]}
    after = {entry["file"] for entry in saved(folder, *options_of("grad_cam"))["maps"]}
    assert before.isdisjoint(after)
    assert set(os.listdir("maps")) == {*after, "manifest.json"}


FOREIGN_MANIFESTS = ["", "[]", "{}", '{"written_by": "me", "maps": [{"file": "notes.npy"}]}']


@pytest.mark.parametrize("manifest", [None, *FOREIGN_MANIFESTS])
def test_files_of_others_are_never_replaced(manifest: str | None, folder: Path, figures: list[Figure]) -> None:
    (folder / "maps").mkdir()
    np.save("maps/notes.npy", np.zeros(1))
    if manifest is not None:
        Path("maps/manifest.json").write_text(manifest)
    before = {path: path.read_bytes() for path in (folder / "maps").iterdir()}
    result = invoke("explain", "colours.png", *COLOURS, "--save-maps", "maps")
    assert result.exit_code == 2
    first = "notes.npy" if manifest is None else "manifest.json"
    assert "Expected `--save-maps` to be a new or empty folder, or one with nothing but saved maps" in result.output
    assert f"contains '{first}'." in result.output
    assert {path: path.read_bytes() for path in (folder / "maps").iterdir()} == before
    assert figures == []


def test_a_file_beside_saved_maps_is_left_alone(folder: Path) -> None:
    saved(folder)
    (folder / "maps" / "notes.txt").write_text("mine")
    result = invoke("explain", "colours.png", *COLOURS, "--save-maps", "maps")
    assert result.exit_code == 2
    assert "contains 'notes.txt'." in result.output


def test_a_manifest_reaches_no_file_outside_its_folder(folder: Path) -> None:
    (folder / "maps").mkdir()
    entry = {"file": "../colours.png"}
    (folder / "maps" / "manifest.json").write_text(
        json.dumps({"written_by": "captum-scorecam explain", "maps": [entry]})
    )
    saved(folder)
    assert (folder / "colours.png").is_file()


@pytest.mark.parametrize(
    ("folder_name", "message"),
    [
        ("colours.png", "Expected `--save-maps` to be a folder, but"),
        ("nowhere/maps", "Expected `--save-maps` to be in a folder that exists, but there is no"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_a_folder_that_cannot_be_is_an_error(folder_name: str, message: str) -> None:
    result = invoke("explain", "colours.png", *COLOURS, "--save-maps", folder_name)
    assert result.exit_code == 2
    assert message in result.output


def test_an_interrupted_call_can_be_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {entry["file"] for entry in saved(folder, *options_of("rise"), "--n-masks", "20")["maps"]}
    written: list[str] = []

    def write_two(path: Path, content: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        write_durably(path, content)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(saved_maps, "write_durably", write_two)
        assert (
            invoke("explain", "colours.png", *COLOURS, "--save-maps", "maps", *options_of("grad_cam")).exit_code == 130
        )
    assert before < {*os.listdir("maps")}
    after = {entry["file"] for entry in saved(folder, *options_of("grad_cam"))["maps"]}
    assert set(os.listdir("maps")) == {*after, "manifest.json"}
    assert "replaced" not in json.loads((folder / "maps" / "manifest.json").read_text(encoding="utf-8"))
