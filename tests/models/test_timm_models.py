"""timm's models; timm takes seconds to import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from captum_scorecam.models import check_model_name, imagenet_class_names, load_classifier, seen_pixels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def timm() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
        yield pytest.importorskip("timm")


@pytest.fixture
def image() -> Image.Image:
    return Image.linear_gradient("L").resize((300, 260)).convert("RGB")


def test_a_model_has_timms_preprocessing_and_class_names(timm: Any, image: Image.Image) -> None:
    classifier = load_classifier("timm/test_resnet.r160_in1k", "none")
    config = timm.data.resolve_model_data_config(timm.create_model("test_resnet"))
    inputs = classifier.inputs(image)
    assert torch.equal(inputs, timm.data.create_transform(**config, is_training=False)(image)[None])
    assert inputs.shape == (1, 3, 160, 160)
    assert classifier.class_names == imagenet_class_names()
    assert not classifier.model.training
    assert len(classifier.predict(inputs).scores) == 1000
    assert seen_pixels(inputs, classifier.preprocess)[80, 80].tolist() == pytest.approx([0.5] * 3, abs=0.02)


def test_larger_sets_of_imagenet_have_names_and_other_numbers_none(timm: Any, tmp_path: Path) -> None:
    names = load_classifier("timm/mobilenetv3_small_050", "none").class_names
    assert names is not None
    assert names[285] == "Egyptian cat"
    larger = timm.create_model("mobilenetv3_small_050", num_classes=11821)
    torch.save(larger.state_dict(), tmp_path / "weights.pt")
    names = load_classifier("timm/mobilenetv3_small_050", tmp_path / "weights.pt").class_names
    assert names == timm.data.ImageNetInfo("imagenet-12k").label_descriptions()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_byobnet"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_and_the_number_of_classes_come_from_a_file(name: str, suffix: str, timm: Any, tmp_path: Path) -> None:
    trained = timm.create_model(name, num_classes=5).eval()
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        state = {f"model.{key}": value for key, value in trained.state_dict().items()}
        torch.save({"state_dict": state, "optimizer_states": [], "epoch": 1}, path)
    else:
        save_file(trained.state_dict(), path)
    classifier = load_classifier(f"timm/{name}", path)
    inputs = torch.linspace(-1, 1, 3 * 160 * 160).view(1, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(classifier.model(inputs), trained(inputs))
    assert classifier.class_names is None


def test_a_model_of_features_is_no_classifier_but_may_become_one(timm: Any, tmp_path: Path) -> None:
    name = "vit_small_patch14_dinov2"
    with pytest.raises(ValueError, match=f"Expected a classifier, but timm/{name} has no classes"):
        load_classifier(f"timm/{name}", "none")
    torch.save(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "weights.pt")
    assert load_classifier(f"timm/{name}", tmp_path / "weights.pt").model.num_classes == 3


@pytest.mark.parametrize(
    ("name", "closest"),
    [("resnet81", "resnet18"), ("resnet18.a1_in2k", "resnet18.a1_in1k"), ("VIT_tiny_patch16_224", "vit_ti")],
)
def test_an_unknown_name_raises_with_the_closest_ones(name: str, closest: str, timm: Any) -> None:
    assert timm.is_model("resnet18")
    with pytest.raises(
        ValueError, match=rf"one of the names in timm\.list_models\(\), but got 'timm/{name}'.* {closest}"
    ):
        check_model_name(f"timm/{name}")


def test_a_model_without_pretrained_weights_raises(timm: Any) -> None:
    name = next(name for name in timm.list_models() if not timm.is_model_pretrained(name))
    with pytest.raises(ValueError, match=f"Expected `weights` to be none or a file for timm/{name}, since timm has no"):
        load_classifier(f"timm/{name}")


def test_weights_that_cannot_be_downloaded_raise_with_alternatives(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        OSError, match=r"download the weights of timm/resnet18 \(no network\)\. Set `weights` to a file"
    ):
        load_classifier("timm/resnet18")
