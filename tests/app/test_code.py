"""The code that a visitor takes home gives the maps of the page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from captum_scorecam import overlay
from captum_scorecam.app.code import python_code
from captum_scorecam.app.loaded_models import LoadedModel
from captum_scorecam.app.pictures import Picture, taken_from
from captum_scorecam.app.runs import Choices, Run
from captum_scorecam.models import class_name, load_classifier, seen_pixels
from tests.support.tiny_classifier import picture

Runner: TypeAlias = Callable[[str, Path], str]

ROOT = Path(__file__).parents[2]
TINY = "tests.support.tiny_classifier:tiny"

pytestmark = pytest.mark.slow


def run_here(code: str, folder: Path) -> str:
    """Runs the code in this process, and returns what it prints."""
    printed = io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "maps.py", "exec"), {})
    finally:
        os.chdir(before)
    return printed.getvalue()


def run_as_a_program(code: str, folder: Path) -> str:
    """Runs the code as a person does, who saved it."""
    (folder / "maps.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "maps.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def check_code(given: Picture, model_name: str, choices: Choices, folder: Path, run_code: Runner) -> str:
    model = LoadedModel(load_classifier(model_name))
    classifier = model.classifier
    inputs = classifier.inputs(given.image())
    prepared = model.prepared(inputs)
    run = Run(classifier, prepared, inputs, classifier.predict(inputs), choices, threading.Lock())
    for _ in run.updates():
        pass
    names = {index: class_name(index, classifier.class_names) for index in choices.classes}
    code = python_code(given, {"name": model_name}, prepared, choices, names)
    printed = run_code(code, folder)
    pixels = seen_pixels(inputs, classifier.preprocess)
    for column in run.columns:
        assert column.maps is not None
        for index, of_class in zip(choices.classes, column.maps, strict=True):
            stem = "-".join(filter(None, [column.method, column.layer.replace(":", "_"), str(index)]))
            assert f"{stem}: {names[index]}" in printed
            values = np.load(folder / f"{stem}.npy")
            torch.testing.assert_close(torch.from_numpy(values), of_class, rtol=1e-4, atol=float(of_class.max()) * 1e-4)
            with Image.open(folder / f"{stem}.png") as drawn:
                difference = np.asarray(drawn).astype(int) - np.asarray(overlay(pixels, of_class))
            assert np.abs(difference).max() <= 2
    return code


@pytest.mark.parametrize("exact", [True, False])
def test_the_code_of_an_upload_and_an_own_model(tmp_path: Path, exact: bool) -> None:
    (tmp_path / "upload").mkdir()
    for folder in (tmp_path, tmp_path / "upload"):
        picture(0)[0].save(folder / "it's.png")
    choices = Choices((2, 0), ("features",), ("score_cam", "grad_cam", "rise"), max_forwards=3, exact=exact)
    code = check_code(taken_from(tmp_path / "upload" / "it's.png"), TINY, choices, tmp_path, run_here)
    assert ("max_forwards=3" in code) != exact
    assert re.search(r"^# |seed=", code) is None


def test_the_code_of_a_sample_and_the_demo_model(tmp_path: Path) -> None:
    choices = Choices((282, 285), ("_avg_pooling:input", "_blocks.10"), ("score_cam", "grad_cam_plus_plus"))
    check_code(Picture("Cat"), "efficientnet_lite0", choices, tmp_path, run_as_a_program)
