"""Classifiers from functions in the user's modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from captum_scorecam.models import load_classifier
from tests.support import colour_classifier

RED_AND_GREEN = [0.93624, 0.04661, 0.01715]  # softmax of 4, 1, 0


@pytest.mark.parametrize(("factory", "names"), [("with_preprocess", None), ("with_names", colour_classifier.NAMES)])
def test_a_factory_returns_preprocessing_and_names_too(factory: str, names: list[str] | None) -> None:
    classifier = load_classifier(f"tests.support.colour_classifier:{factory}")
    prediction = classifier.predict(classifier.inputs(colour_classifier.red_and_green()))
    torch.testing.assert_close(prediction.probabilities, torch.tensor(RED_AND_GREEN), atol=1e-5, rtol=0)
    assert classifier.class_names == names


def test_imagenets_preprocessing_is_the_default() -> None:
    inputs = load_classifier("tests.support.colour_classifier:bare").inputs(Image.new("RGB", (300, 200), "white"))
    assert inputs.shape == (1, 3, 224, 224)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(inputs[0, :, 100, 100], expected)


def test_a_factory_is_found_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_of_mine.py").write_text("from tests.support.colour_classifier import with_names\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert isinstance(load_classifier("models_of_mine:with_names").model, colour_classifier.ColourClassifier)
    assert sys.path == before


def test_a_factorys_module_may_change_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_with_a_path.py").write_text(
        "import sys\nsys.path.append('vendored')\nfrom tests.support.colour_classifier import with_names\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    monkeypatch.setattr(sys, "path", list(before))
    load_classifier("models_with_a_path:with_names")
    assert sys.path == [*before, "vendored"]


def test_a_factorys_model_takes_weights_from_a_file(tmp_path: Path) -> None:
    torch.save({"score.weight": torch.full((3, 3), 2.0)}, tmp_path / "weights.pt")
    model = load_classifier("tests.support.colour_classifier:bare", str(tmp_path / "weights.pt")).model
    assert model.state_dict()["score.weight"].unique().tolist() == [2.0]


def test_class_names_may_be_a_dict_by_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models_with_a_dict.py").write_text(
        "from tests.support.colour_classifier import *\n"
        "def with_dict(): return ColourClassifier(), preprocess, {2: 'blue', 1: 'green', 0: 'red'}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_classifier("models_with_a_dict:with_dict").class_names == colour_classifier.NAMES


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:factory", "there is no module named 'nowhere_at_all', neither installed nor in the current"),
        ("tests.nowhere.at_all:factory", r"there is no module named 'tests\.nowhere', neither"),
        ("os.path.join:factory", r"there is no module named 'os\.path\.join', neither"),
        (
            "tests.support.colour_classifier:with_name",
            "colour_classifier has no 'with_name'. Closest matches: with_names",
        ),
        (
            "tests.support.colour_classifier:nothing",
            r"to be package.module:factory, but .*colour_classifier has no 'no",
        ),
        (
            "tests.support.colour_classifier:NAMES",
            r"factory\(\) returns a model, but .*:NAMES is an object of class list",
        ),
        (
            "tests.support.colour_classifier:failing",
            "factory .*:failing to create a model, but it raised RuntimeError: no s",
        ),
        ("tests.support.colour_classifier:no_model", "to return a model, .* but got str"),
        (
            "./my_models.py:make",
            r"Expected `name` to be package\.module:factory, without slashes and \.py.*got '\./my_m",
        ),
        (":make", r"Expected `name` to be package\.module:factory"),
        ("my_models:", r"Expected `name` to be package\.module:factory"),
        ("C:\\models", r"Expected `name` to be package\.module:factory"),
    ],
)
def test_a_factory_without_a_model_raises(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_classifier(name)


def test_a_file_is_not_imported_as_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_file.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"package\.module:factory, without slashes and \.py.* got 'my_file\.py:make'"):
        load_classifier("my_file.py:make")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import nowhere_at_all", r"ModuleNotFoundError: No module named 'nowhere_at_all'\."),
        ("import os.nothing", r"ModuleNotFoundError: No module named 'os\.nothing'; 'os' is not a package\."),
        ("from os import nothing", "ImportError: cannot import name 'nothing' from 'os'"),
        ("def make(:", "SyntaxError: "),
        ("1 / 0", r"ZeroDivisionError: division by zero\."),
        ("import sys; sys.exit('usage: train.py')", r"SystemExit: usage: train\.py\."),
    ],
    ids=["missing", "submodule", "name", "syntax", "error", "exit"],
)
def test_a_module_that_fails_is_told_from_one_that_is_missing(
    source: str, cause: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"broken_{request.node.callspec.id}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"Expected the module {module} to be importable, but it raised {cause}"):
        load_classifier(f"{module}:make")
