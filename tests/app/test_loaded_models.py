"""Which models visitors may choose, and how many are kept."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
import torch

from captum_scorecam.app import Models, loaded_models, served, server
from captum_scorecam.app.loaded_models import LoadedModel
from captum_scorecam.models import Classifier
from tests.support.tiny_classifier import TinyClassifier, preprocess


@pytest.fixture
def load() -> Mock:
    return Mock(side_effect=lambda name, **_: Classifier(name, TinyClassifier().eval(), preprocess))


def test_models_are_loaded_once_with_their_arguments_and_of_others_the_last_two_are_kept(load: Mock) -> None:
    models = Models(load, {"a": {"weights": "w.pt"}, "b": {}, "c": {}}, any_name=True)
    for name in ("a", "b", " a ", "c", "d", "e", "d", "f", "d", "a", "b", "c", "e"):
        assert models.get(name).classifier.name == name.strip()
    assert load.call_args_list == [call("a", weights="w.pt"), *(call(name) for name in ("b", "c", "d", "e", "f", "e"))]


@pytest.mark.parametrize(("name", "any_name"), [("resnet18", False), ("os:getcwd", True), ("", False)])
def test_other_models_are_refused(load: Mock, name: str, any_name: bool) -> None:
    models = Models(load, {"a": {}, "mine:model": {}}, any_name)
    others = ", a torchvision classifier, timm/NAME or hf/NAME" if any_name else ""
    with pytest.raises(ValueError, match=rf"Expected one of the models a, mine:model{others}, but got '{name}'\."):
        models.get(name)
    load.assert_not_called()


def test_on_this_machine_any_model_can_be_named_and_an_offered_factory(load: Mock) -> None:
    models = Models(load, {"mine:model": {}}, any_name=True)
    assert models.get("timm/resnet18").classifier.name == "timm/resnet18"
    assert models.get("hf/C:\\models\\mine").classifier.name == "hf/C:\\models\\mine"
    assert models.get("mine:model").classifier.name == "mine:model"


def test_visitors_from_elsewhere_see_no_path_of_the_weights(load: Mock) -> None:
    offered = {"a": {"weights": "/home/alice/w.pt", "score": "sigmoid"}, "b": {}}
    assert Models(load, offered).shown_arguments("a") == {"weights": "w.pt", "score": "sigmoid"}
    assert Models(load, offered, any_name=True).shown_arguments("a") == offered["a"]
    assert Models(load, offered).shown_arguments("b") == Models(load, offered).shown_arguments("timm/c") == {}


def test_the_fastest_engine_that_takes_the_model_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def twin(engine: str, *_: Any) -> Any:
        tried.append(engine)
        if engine == "onnxruntime":
            raise ValueError("it does not take the model")
        return torch.nn.Identity()

    monkeypatch.setattr(loaded_models, "check_engine", lambda _: None)
    monkeypatch.setattr(loaded_models, "twin_by_name", twin)
    model = LoadedModel(Classifier("tiny", TinyClassifier().eval(), preprocess))
    prepared = model.prepared(torch.rand(1, 3, 21, 21))
    assert (tried, prepared.engine) == (["onnxruntime", "openvino"], "openvino")
    assert model.prepared(torch.rand(1, 3, 21, 21)) is prepared


def test_without_engines_the_model_runs_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError

    monkeypatch.setattr(loaded_models, "check_engine", missing)
    prepared = LoadedModel(Classifier("tiny", TinyClassifier().eval(), preprocess)).prepared(torch.rand(1, 3, 21, 21))
    assert (prepared.engine, prepared.twin) == ("eager", None)


def test_models_can_be_served_again(load: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Mock(launch=Mock(return_value=(SimpleNamespace(iterators={}), "address", None)))
    monkeypatch.setattr(server, "build_page", lambda _models: page)
    models = Models(load, {"a": {}})
    for _ in range(2):
        with served(models) as address:
            assert address == "address"
            assert not models.closing.is_set()
        assert models.closing.is_set()
