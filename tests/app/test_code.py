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
from captum_scorecam.app.loaded_models import LoadedModel, Prepared
from captum_scorecam.app.pictures import Picture, taken_from
from captum_scorecam.app.runs import Choices, Column, Run
from captum_scorecam.models import class_name, load_classifier, seen_pixels
from tests.app.conftest import ROOT, TINY
from tests.support.tiny_classifier import picture

Runner: TypeAlias = Callable[[str, Path], str]

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
    code = python_code(given, {"name": model_name}, prepared, run.columns, names)
    printed = run_code(code, folder)
    pixels = seen_pixels(inputs, classifier.preprocess)
    for column in run.columns:
        assert column.maps is not None
        first, second = (each / each.abs().max() for each in column.maps)
        a, b = choices.classes
        expected = {str(index): (names[index], of_class) for index, of_class in zip((a, b), column.maps, strict=True)}
        expected[f"{a}-minus-{b}"] = (f"{names[a]} − {names[b]}", first - second)
        for place, (title, of_class) in expected.items():
            stem = "-".join(filter(None, [column.method, column.layer.replace(":", "_"), place]))
            assert f"{stem}: {title}" in printed
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
    assert ("('score_cam', 'features', 3)" in code) != exact
    assert "Run it in the folder of your picture." in code
    assert re.search(r"^# |seed=", code) is None


def test_code_names_the_maps_that_are_known_and_what_they_ran() -> None:
    maps = torch.rand(1, 4, 4)
    columns = [
        Column("score_cam", "a", maps=maps, max_forwards=8),
        Column("score_cam", "b", maps=maps),
        Column("rise", ""),
    ]
    code = python_code(Picture("Cat"), {"name": "hf/C:\\Users"}, Prepared([]), columns, {2: "blue"})
    compile(code, "maps.py", "exec")
    assert "in [('score_cam', 'a', 8), ('score_cam', 'b', None)]:" in code
    assert "minus" not in code
    assert "torch" not in code
    random = python_code(Picture("Cat"), {"name": TINY, "weights": "none"}, Prepared([]), columns, {2: "blue"})
    compile(random, "maps.py", "exec")
    assert "import torch\n" in random
    assert "torch.manual_seed(0)  # as in the app, for random weights\nclassifier = load_classifier(" in random
    assert python_code(Picture("Cat"), {"name": TINY}, Prepared([]), columns[2:], {2: "blue"}) == ""


def test_the_code_of_a_sample_and_the_demo_model(tmp_path: Path) -> None:
    choices = Choices((282, 285), ("_avg_pooling:input", "_blocks.10"), ("score_cam", "grad_cam_plus_plus"))
    check_code(Picture("Cat"), "efficientnet_lite0", choices, tmp_path, run_as_a_program)
